"""ONNX Runtime: cpu, cuda and tensorrt providers. The provider that was asked for runs, or nothing does."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from framegate.contract import Bundle, BundleError, RuntimeUnavailable, Skipped
from framegate.runtime.session import Floats, Frames, SessionInfo, check_inputs

PROVIDERS = {
    "ort-cpu": "CPUExecutionProvider",
    "ort-cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
OUTPUTS = ["logits", "next_state"]


class OrtSession:
    """A step graph in ONNX Runtime; see `session.Session`."""

    def __init__(self, bundle: Bundle, inner: Any, info: SessionInfo) -> None:
        self.info = info
        self.labels, self.clip, self.state_size = (
            bundle.info.labels,
            bundle.info.clip,
            bundle.info.state_size,
        )
        self._inner = inner

    def init_state(self, n: int) -> Floats:
        return np.zeros((n, self.state_size), np.float32)

    def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
        check_inputs(frames, state, self.clip, self.state_size)
        if self._inner is None:
            raise ValueError("this session is closed; open another one")
        logits, after = self._inner.run(OUTPUTS, {"frame": frames, "state": state})
        return logits, after

    def close(self) -> None:
        self._inner = None


def open_bundle(bundle: Bundle, runtime: str, threads: int) -> OrtSession:
    """A session on the provider of `runtime`; RuntimeUnavailable when another one would run."""
    import onnxruntime as ort

    provider = PROVIDERS[runtime]
    found = probe(runtime)
    if isinstance(found, Skipped):
        raise RuntimeUnavailable(f"runtime {runtime!r}: {found.reason}; or use --runtime ort-cpu")
    try:
        inner = ort.InferenceSession(str(bundle.path / "step.onnx"), _options(threads), providers=_chain(runtime))
    except Exception as error:  # classes of onnxruntime's binding: they share no base but this
        kind = BundleError if runtime == "ort-cpu" else RuntimeUnavailable
        raise kind(f"runtime {runtime!r} cannot open {bundle.path}: {error}") from error
    inner.disable_fallback()
    if inner.get_providers()[0] != provider:
        raise RuntimeUnavailable(
            f"runtime {runtime!r}: asked for {provider}, ONNX Runtime would run {inner.get_providers()[0]}; "
            "check the driver and that CUDA and cuDNN match this onnxruntime, or use --runtime ort-cpu"
        )
    device = "cpu" if runtime == "ort-cpu" else "gpu"
    return OrtSession(bundle, inner, SessionInfo(runtime, provider, device, threads, ort.__version__))


def probe(runtime: str) -> str | Skipped:
    """What is here for this runtime, or why it cannot run; opens no session."""
    import onnxruntime as ort

    provider = PROVIDERS[runtime]
    if provider not in ort.get_available_providers():
        return Skipped(f"onnxruntime {ort.__version__} has no {provider}; pip install 'framegate[cuda]'")
    if runtime == "ort-cpu":
        return f"onnxruntime {ort.__version__}, {provider}"
    if not loads("libcuda.so.1", "nvcuda.dll"):
        return Skipped("no NVIDIA driver here (libcuda does not load)")
    ort.preload_dlls()
    if runtime == "ort-tensorrt" and not loads("libnvinfer.so.10", "nvinfer_10.dll"):
        return Skipped("TensorRT 10 is not installed (libnvinfer.so.10 does not load); pip install tensorrt-cu12")
    return f"onnxruntime {ort.__version__}, {provider}"


def _chain(runtime: str) -> list[str]:
    """TensorRT and CUDA hand what they cannot run to the next provider of the chain."""
    order = ["ort-tensorrt", "ort-cuda", "ort-cpu"]
    return [PROVIDERS[name] for name in order[order.index(runtime) :]]


def _options(threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared
    options.log_severity_level = 3
    return options


def loads(*names: str) -> bool:
    """Whether one of these shared libraries is here."""
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
