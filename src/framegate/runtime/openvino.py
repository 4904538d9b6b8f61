"""OpenVINO on the CPU in f32 (int8 graphs run in int8) or bf16, with preallocated input and output tensors.

N = 1, the served unit, has a model compiled for that shape; all other N share one with a dynamic batch.
`infer()` on preset tensors costs 20-30 % less per call than `start_async(); wait()` on small nets with one
thread (no hand-over to another thread), and `infer({...})` more than either.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.contract import Bundle, BundleError, RuntimeUnavailable, Skipped
from framegate.runtime.raw import Declared, ModelError
from framegate.runtime.session import Floats, Frames, SessionInfo, check_inputs

HINTS = {"openvino": "f32", "openvino-bf16": "bf16"}
MAX_SLOTS = 32
_STARTING = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Slot:
    """A request with its tensors, for one N; the arrays are views of the tensors."""

    request: Any
    frame: Frames
    state: Floats
    logits: Floats
    next_state: Floats


class OpenvinoSession:
    """A step graph in OpenVINO; see `session.Session`."""

    def __init__(self, bundle: Bundle, core: Any, config: dict[str, Any], info: SessionInfo) -> None:
        self.info = info
        self.labels, self.clip, self.state_size = (
            bundle.info.labels,
            bundle.info.clip,
            bundle.info.state_size,
        )
        self._core, self._config, self._path = core, config, str(bundle.path / "step.onnx")
        self._models: dict[bool, Any] = {}  # is N = 1 -> compiled model
        self._slots: dict[int, _Slot] = {}

    def init_state(self, n: int) -> Floats:
        return np.zeros((n, self.state_size), np.float32)

    def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
        check_inputs(frames, state, self.clip, self.state_size)
        slot = self._slots.get(len(frames)) or self._new_slot(len(frames))
        np.copyto(slot.frame, frames)
        np.copyto(slot.state, state)
        slot.request.infer()
        return slot.logits.copy(), slot.next_state.copy()

    def close(self) -> None:
        self._core = None
        self._slots.clear()
        self._models.clear()

    def compiled(self, single: bool) -> Any:
        """The model for N = 1, or the one for any N; compiled once."""
        if self._core is None:
            raise ValueError("this session is closed; open another one")
        if single not in self._models:
            model = self._core.read_model(self._path)
            if single:
                model.reshape({"frame": [1, *self._frame_shape], "state": [1, self.state_size]})
            self._models[single] = self._core.compile_model(model, "CPU", self._config)
        return self._models[single]

    @property
    def _frame_shape(self) -> tuple[int, int, int]:
        return self.clip.height, self.clip.width, 3

    def _new_slot(self, n: int) -> _Slot:
        import openvino as ov

        if len(self._slots) >= MAX_SLOTS:
            self._slots.clear()
        request = self.compiled(n == 1).create_infer_request()
        arrays = {}
        for name, dtype, shape in (
            ("frame", ov.Type.u8, [n, *self._frame_shape]),
            ("state", ov.Type.f32, [n, self.state_size]),
            ("logits", ov.Type.f32, [n, len(self.labels)]),
            ("next_state", ov.Type.f32, [n, self.state_size]),
        ):
            tensor = ov.Tensor(dtype, shape)
            request.set_tensor(name, tensor)
            arrays[name] = tensor.data
        return self._slots.setdefault(n, _Slot(request, **arrays))


class OpenvinoRaw:
    """Any graph in OpenVINO; see `raw.RawSession`. Arrays are copied into tensors that the request keeps."""

    note = ""

    def __init__(self, compiled: Any, info: SessionInfo) -> None:
        self.info = info
        self.inputs = tuple(_declared(port) for port in compiled.inputs)
        self.outputs = tuple(_declared(port) for port in compiled.outputs)
        self._request = compiled.create_infer_request()
        self._slots = {declared.name: self._request.get_input_tensor(i) for i, declared in enumerate(self.inputs)}
        self._count = len(self.outputs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        for name, array in feeds.items():
            np.copyto(self._slots[name].data, array)
        self._request.infer()
        return [self._request.get_output_tensor(number).data.copy() for number in range(self._count)]


def _declared(port: Any) -> Declared:
    shape = tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())
    return Declared(name=port.any_name, dtype=np.dtype(port.element_type.to_dtype()).name, shape=shape)


def open_bundle(bundle: Bundle, runtime: str, threads: int) -> OpenvinoSession:
    """A session in the precision of `runtime`; RuntimeUnavailable when this CPU would run another one."""
    core, config, info = _core(runtime, threads)
    session = OpenvinoSession(bundle, core, config, info)
    try:
        compiled = session.compiled(single=True)
    except RuntimeError as error:
        raise BundleError(f"{bundle.path}: OpenVINO {info.version} cannot compile step.onnx: {error}") from error
    _check_precision(compiled, runtime)
    return session


def open_raw(path: Path, runtime: str, threads: int, shapes: Mapping[str, tuple[int, ...]]) -> OpenvinoRaw:
    """See `raw.open_raw`; compiled for exactly these shapes, as a bundle's step is."""
    core, config, info = _core(runtime, threads)
    try:
        model = core.read_model(str(path))
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        compiled = core.compile_model(model, info.provider, config)
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO {info.version} cannot compile it: {error}") from error
    _check_precision(compiled, runtime)
    return OpenvinoRaw(compiled, replace(info, threads=compiled.get_property("INFERENCE_NUM_THREADS")))


def _core(runtime: str, threads: int) -> tuple[Any, dict[str, Any], SessionInfo]:
    """OpenVINO, its settings for `runtime`, what a session says of itself; RuntimeUnavailable when it is not here."""
    found = probe(runtime)
    if isinstance(found, Skipped):
        raise RuntimeUnavailable(f"runtime {runtime!r}: {found.reason}; or use --runtime ort-cpu")
    import openvino as ov

    version = ov.get_version().split("-")[0]
    return the_core(), compile_settings(runtime, threads), SessionInfo(runtime, "CPU", "cpu", threads, version)


def the_core() -> Any:
    """The one ov.Core of this process; it is never given up.

    The CPU plugin replaces the signal stack of the thread that it starts in, and unmaps the new one when it ends, in
    whichever thread that is. With a second Core, or one that ends elsewhere, the next SIGTERM would kill the process.
    """
    with _STARTING:
        return _start_core()


@functools.cache
def _start_core() -> Any:
    import openvino as ov

    return ov.Core()


def compile_settings(runtime: str, threads: int) -> dict[str, Any]:
    """What a model is compiled with, the same for bundles and foreign models."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[runtime],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # cores are shared: the kernel knows better which one is free
    }


def probe(runtime: str) -> str | Skipped:
    """What is here for this runtime, or why it cannot run; compiles nothing."""
    if importlib.util.find_spec("openvino") is None:
        return Skipped("openvino is not installed; pip install 'framegate[openvino]'")
    import openvino as ov

    core, version = the_core(), ov.get_version().split("-")[0]
    if "CPU" not in core.available_devices:
        return Skipped(f"openvino {version} finds no CPU plugin")
    if runtime == "openvino-bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return Skipped("this CPU has no bf16 instructions (AVX512_BF16 or AMX); use openvino")
    return f"openvino {version}, CPU, {HINTS[runtime]}"


def _check_precision(compiled: Any, runtime: str) -> None:
    got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if got != HINTS[runtime]:
        raise RuntimeUnavailable(
            f"runtime {runtime!r}: asked for {HINTS[runtime]}, OpenVINO would run {got}; use openvino or ort-cpu"
        )
