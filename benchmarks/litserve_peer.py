"""The same step graph behind LitServe: run by a Python that has it, see `benchmarks.serving`.

Raw bytes of one frame in, a JSON object with its logits out: what LitServe carries with the least work.
"""

import argparse
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Body

FRAME = Annotated[bytes, Body(media_type="application/octet-stream")]


class StepApi(litserve.LitAPI):
    """Rows of a batch step together, each from a fresh state."""

    def __init__(self, graph: str, threads: int, batch: int, timeout_s: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=timeout_s)
        self._graph, self._threads = graph, threads

    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(self._graph, options, providers=["CPUExecutionProvider"])
        frame, state = self._session.get_inputs()
        self._row, self._state_size = frame.shape[1:], state.shape[1]
        for n in range(1, self.max_batch_size + 1):
            self.predict(np.zeros((n, *self._row), np.uint8))

    def decode_request(self, request: FRAME) -> Any:
        return np.frombuffer(request, np.uint8).reshape(self._row)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, frames: Any) -> Any:
        frames = frames if frames.ndim == 4 else frames[None]
        state = np.zeros((len(frames), self._state_size), np.float32)
        return self._session.run(["logits"], {"frame": frames, "state": state})[0]

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        return {"logits": output.reshape(-1).tolist()}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--timeout-s", type=float, default=0.0)
    parser.add_argument("--fast-queue", action="store_true")
    given = parser.parse_args()
    api = StepApi(given.graph, given.threads, given.batch, given.timeout_s)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=given.fast_queue)
    server.run(
        host="127.0.0.1",
        port=given.port,
        num_api_servers=1,
        log_level="error",
        generate_client_file=False,
        pretty_logs=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
