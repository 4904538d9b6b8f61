"""Triton's Python backend over our graphs, in place of its onnxruntime backend, which the wheel does not have.

Copied into the model repository as model.py; runs in the environment of tritonserver. That backend hands no state
back, so what follows the first frame is kept here; the first state is the one that Triton makes from the config.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.sequences = "sequence_batching" in json.loads(args["model_config"])
        self.states = {}

    def execute(self, requests):
        answer = self.step if self.sequences else self.clip
        return [backend.InferenceResponse([backend.Tensor("logits", answer(request))]) for request in requests]

    def clip(self, request):
        return self.session.run(["logits"], {"frames": _array(request, "frames")})[0]

    def step(self, request):
        key, flags = request.correlation_id(), request.flags()
        if flags & backend.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self.states[key] = _array(request, "state")
            assert not np.any(self.states[key]), "a sequence starts from zeros"
        feeds = {"frame": _array(request, "frame"), "state": self.states[key]}
        logits, self.states[key] = self.session.run(["logits", "next_state"], feeds)
        if flags & backend.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            del self.states[key]
        return logits


def _array(request, name):
    return backend.get_input_tensor_by_name(request, name).as_numpy()
