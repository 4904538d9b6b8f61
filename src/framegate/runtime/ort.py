"""ONNX Runtime: cpu, cuda and tensorrt providers. The provider that was asked for runs, or nothing does."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.contract import Bundle, BundleError, RuntimeUnavailable, Skipped
from framegate.runtime.raw import Declared, ModelError
from framegate.runtime.session import (
    GOLDEN_MAX_ABS,
    INT8_CLIP_STEP,
    Floats,
    Frames,
    SessionInfo,
    check_inputs,
    compare,
    run_clips,
)

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


class OrtRaw:
    """Any graph in ONNX Runtime; see `raw.RawSession`."""

    def __init__(self, inner: Any, info: SessionInfo, note: str) -> None:
        self.info, self.note = info, note
        self.inputs = tuple(_declared(value) for value in inner.get_inputs())
        self.outputs = tuple(_declared(value) for value in inner.get_outputs())
        self._run, self._names = inner.run, [output.name for output in self.outputs]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        return list(self._run(self._names, feeds))


def _declared(value: Any) -> Declared:
    """`tensor(float)` is float32; a word that numpy has no dtype for stays as it is."""
    word = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(word, word)
    return Declared(name=value.name, dtype=dtype, shape=tuple(value.shape))


def open_bundle(bundle: Bundle, runtime: str, threads: int) -> OrtSession:
    """A session on the provider of `runtime`; RuntimeUnavailable when another one would run."""
    try:
        inner = open_graph(bundle.path / "step.onnx", runtime, threads)
    except ModelError as error:
        raise BundleError(str(error)) from error
    return OrtSession(bundle, inner, _info(inner, runtime))


def open_raw(path: Path, runtime: str, threads: int, shapes: Mapping[str, tuple[int, ...]]) -> OrtRaw:
    """See `raw.open_raw`. Graphs stay as dynamic as they are: `shapes` change nothing here."""
    if runtime == "ort-cpu":
        inner = open_graph(path, runtime, threads)
        return OrtRaw(inner, _info(inner, runtime), "")
    try:  # with every node on the provider asked for
        inner, note = open_graph(path, runtime, threads, {"session.disable_cpu_ep_fallback": "1"}), ""
    except RuntimeUnavailable as error:
        if "fallback to CPU EP" not in str(error):
            raise
        inner, note = open_graph(path, runtime, threads), f"some nodes run on the CPU: {PROVIDERS[runtime]} has none"
    return OrtRaw(inner, _info(inner, runtime), note)


def open_graph(path: Path, runtime: str, threads: int, entries: Mapping[str, str] | None = None) -> Any:
    """An InferenceSession whose first provider is that of `runtime`; `entries`: more of its session config.

    Raises ModelError (the file, on the CPU) or RuntimeUnavailable (another provider would run, or it cannot open).
    """
    import onnxruntime as ort

    provider = PROVIDERS[runtime]
    found = probe(runtime)
    if isinstance(found, Skipped):
        raise RuntimeUnavailable(f"runtime {runtime!r}: {found.reason}; or use --runtime ort-cpu")
    options = _options(threads)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    try:
        inner = ort.InferenceSession(str(path), options, providers=_chain(runtime))
    except Exception as error:  # classes of onnxruntime's binding: they share no base but this
        kind = ModelError if runtime == "ort-cpu" else RuntimeUnavailable
        raise kind(f"runtime {runtime!r} cannot open {path}: {error}") from error
    inner.disable_fallback()
    if inner.get_providers()[0] != provider:
        raise RuntimeUnavailable(
            f"runtime {runtime!r}: asked for {provider}, ONNX Runtime would run {inner.get_providers()[0]}; "
            "check the driver and that CUDA and cuDNN match this onnxruntime, or use --runtime ort-cpu"
        )
    return inner


def _info(inner: Any, runtime: str) -> SessionInfo:
    """What an InferenceSession says of itself."""
    import onnxruntime as ort

    threads = inner.get_session_options().intra_op_num_threads
    provider = inner.get_providers()[0]
    device = "cpu" if provider == PROVIDERS["ort-cpu"] else "gpu"
    return SessionInfo(runtime, provider, device, threads, ort.__version__)


def check_clip_graph(bundle: Bundle) -> None:
    """BundleError unless clip.onnx answers the golden clips as step.onnx does, frame by frame: is the state carried?

    Both run here, so that int8 too is compared by its logits: those in golden.npz are of the CPU that exported.
    """
    import onnxruntime as ort

    with np.load(bundle.path / "golden.npz", allow_pickle=False) as golden:
        frames = golden["frames"]
    expected = run_clips(open_bundle(bundle, "ort-cpu", 1), frames)
    try:
        whole = ort.InferenceSession(str(bundle.path / "clip.onnx"), _options(1), providers=["CPUExecutionProvider"])
        (logits,) = whole.run(["logits"], {whole.get_inputs()[0].name: frames})
    except Exception as error:  # classes of onnxruntime's binding: they share no base but this
        raise BundleError(f"{bundle.path / 'clip.onnx'}: cannot be run: {error}") from error
    where = f"{bundle.path}: clip.onnx against step.onnx with its state carried from frame to frame"
    tolerance = GOLDEN_MAX_ABS if bundle.info.precision == "fp32" else INT8_CLIP_STEP
    compare(logits[:, None], expected[:, None], tolerance, where)


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
