"""One protocol for every runtime: a Session steps frames through a Bundle and knows nothing of clips, files or time.

Here: the protocol, the table of runtimes, opening with golden replay, the fake that ships for tests.
Not here: backends (one file each, imported only when opened). A session belongs to one thread at a time.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from framegate.contract import Bundle, BundleError, ClipSpec, RuntimeUnavailable, Skipped, nearest

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

GOLDEN_MAX_ABS = 1e-3  # fp32 on ort-cpu: the artifact and the runtime that the golden logits come from
GOLDEN_MARGIN = 0.1  # elsewhere: the top label must agree where the golden one leads by more than this
INT8_CLIP_STEP = 0.01  # both int8 graphs on one machine: where batches round apart, a value becomes the next of 256


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What really runs: runtime name of ours, provider and device of the backend, threads, its version."""

    runtime: str
    provider: str
    device: str
    threads: int
    version: str


class Session(Protocol):
    """One frame through a net; the state is an argument, so one session serves many streams."""

    @property
    def info(self) -> SessionInfo: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def clip(self) -> ClipSpec: ...
    @property
    def state_size(self) -> int: ...

    def init_state(self, n: int) -> Floats:
        """The start of n streams: f32 [N,S]."""
        ...

    def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
        """frames u8 [N,H,W,3] RGB, state f32 [N,S] -> logits f32 [N,K], next_state f32 [N,S].

        The arrays returned are the caller's to keep: no later call changes them.
        """
        ...

    def close(self) -> None:
        """Free the backend; a second close does nothing."""
        ...


class Backend(Protocol):
    """What a backend file offers as module functions."""

    def open_bundle(self, bundle: Bundle, runtime: str, threads: int) -> Session: ...
    def probe(self, runtime: str) -> str | Skipped: ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """One line of the table: the file of the backend, and what `pip install` brings it."""

    module: str
    install: str

    def backend(self) -> Backend | Skipped:
        """The backend's module, or why there is none."""
        if importlib.util.find_spec(self.module) is None:
            return Skipped("this version of framegate has no session for it yet")
        return cast(Backend, importlib.import_module(self.module))


RUNTIMES: dict[str, Runtime] = {
    "ort-cpu": Runtime("framegate.runtime.ort", "framegate"),
    "ort-cuda": Runtime("framegate.runtime.ort", "framegate[cuda]"),
    "ort-tensorrt": Runtime("framegate.runtime.ort", "framegate[cuda] tensorrt-cu12"),
    "openvino": Runtime("framegate.runtime.openvino", "framegate[openvino]"),
    "openvino-bf16": Runtime("framegate.runtime.openvino", "framegate[openvino]"),
    "tensorrt": Runtime("framegate.runtime.tensorrt", "framegate[tensorrt]"),
}


def available_runtimes() -> dict[str, str | Skipped]:
    """Every runtime of the table: what is here (text), or Skipped with the reason and what to install."""
    return {name: _probe(name, runtime) for name, runtime in RUNTIMES.items()}


def _probe(name: str, runtime: Runtime) -> str | Skipped:
    backend = runtime.backend()
    return backend if isinstance(backend, Skipped) else backend.probe(name)


def open_session(
    bundle: Path | Bundle, runtime: str = "ort-cpu", threads: int = 1, replay_golden: bool = True
) -> Session:
    """A session over a bundle on exactly the runtime asked for, after replaying its golden clips.

    Raises BundleError (hashes or golden logits disagree) or RuntimeUnavailable (unknown, not installed, or
    the provider asked for is not the one that would run). Never falls back.
    """
    if runtime not in RUNTIMES:
        raise RuntimeUnavailable(
            f"runtime {runtime!r} is unknown{nearest(runtime, RUNTIMES)} known: {', '.join(RUNTIMES)}"
        )
    if threads < 1:
        raise ValueError(f"threads is {threads}; expected 1 or more")
    loaded = Bundle.load(bundle) if isinstance(bundle, Path) else bundle
    backend = RUNTIMES[runtime].backend()
    if isinstance(backend, Skipped):
        raise RuntimeUnavailable(f"runtime {runtime!r}: {backend.reason}; use --runtime ort-cpu")
    session = backend.open_bundle(loaded, runtime, threads)
    if replay_golden:
        try:
            replay(session, loaded)
        except BaseException:
            session.close()
            raise
    return session


def replay(session: Session, bundle: Bundle) -> None:
    """Run the golden clips; BundleError where the session does not give the logits that the bundle promises.

    fp32 on ort-cpu: within GOLDEN_MAX_ABS at every step. Else (int8 kernels differ between CPUs, other
    runtimes and bf16 round elsewhere): the same top label after the last frame wherever the golden one leads
    by more than GOLDEN_MARGIN.

    N = 1, the served unit, comes first: ONNX Runtime plans its memory for the first shapes that it sees, and a step
    at N = 1 after one at N = 4 stays 4-6 microseconds slower (python -m benchmarks.session_overhead).
    """
    with np.load(bundle.path / "golden.npz", allow_pickle=False) as golden:
        frames, expected = golden["frames"], golden["step_logits"]
    alone = run_steps(session, frames[:1], batch=1)  # may be another compiled graph than that for any N
    got = run_steps(session, frames)
    got, expected = np.concatenate([got, alone]), np.concatenate([expected, expected[:1]])
    exact = session.info.runtime == "ort-cpu" and bundle.info.precision == "fp32"
    tolerance = GOLDEN_MAX_ABS if exact else None
    compare(got, expected, tolerance, f"{bundle.path}: golden clips on {session.info.runtime}")


def compare(got: Floats, expected: Floats, tolerance: float | None, where: str) -> None:
    """BundleError where logits [n,T,K] differ by more than `tolerance`; None: where top labels do, see `replay`."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise BundleError(
            f"{where}: logits of shape {got.shape} (finite: {bool(np.isfinite(got).all())}), "
            f"expected {expected.shape}; export the bundle again"
        )
    worst = float(np.abs(got - expected).max())
    if tolerance is not None and worst > tolerance:
        raise BundleError(
            f"{where}: logits differ by {worst:.2g}, at most {tolerance:g} is allowed; "
            "the graph is not the one that was exported: export the bundle again"
        )
    wrong = _top_label_changes(got[:, -1], expected[:, -1])
    if wrong and tolerance is None:
        raise BundleError(
            f"{where}: another top label in {len(wrong)} of {len(got)} clips "
            f"(numbers {wrong}); this runtime does not compute what was exported"
        )


def _top_label_changes(got: Floats, expected: Floats) -> list[int]:
    """Rows where the top label differs although the expected one leads by more than GOLDEN_MARGIN."""
    ordered = np.sort(expected, axis=1)
    sure = np.full(len(expected), True) if expected.shape[1] < 2 else ordered[:, -1] - ordered[:, -2] > GOLDEN_MARGIN
    return [int(i) for i in np.flatnonzero(sure & (got.argmax(1) != expected.argmax(1)))]


def iterate_steps(session: Session, frames: Frames) -> Iterator[Floats]:
    """Logits f32 [N,K] after each of the T frames of frames u8 [N,T,H,W,3], from a fresh state."""
    state = session.init_state(len(frames))
    for t in range(frames.shape[1]):
        logits, state = session.step(np.ascontiguousarray(frames[:, t]), state)
        yield logits


def run_clips(session: Session, frames: Frames, batch: int = 32) -> Floats:
    """Clip logits f32 [n,K] of frames u8 [n,T,H,W,3]: those after the last frame, `batch` clips at a time."""
    return run_steps(session, frames, batch)[:, -1]


def run_steps(session: Session, frames: Frames, batch: int = 32) -> Floats:
    """Logits after every frame, f32 [n,T,K], of frames u8 [n,T,H,W,3], `batch` clips at a time."""
    n, t = frames.shape[:2]
    logits = np.empty((n, t, len(session.labels)), np.float32)
    for start in range(0, n, batch):
        chunk = frames[start : start + batch]
        for i, step in enumerate(iterate_steps(session, chunk)):
            logits[start : start + len(chunk), i] = step
    return logits


def check_inputs(frames: Frames, state: Floats, clip: ClipSpec, state_size: int) -> None:
    """ValueError that names what differs from u8 [N,H,W,3] and f32 [N,S]; silent casts hide skew."""
    n = frames.shape[0] if frames.ndim else 0
    if frames.dtype != np.uint8 or frames.shape != (n, clip.height, clip.width, 3) or n < 1:
        raise ValueError(
            f"frames: got {frames.dtype} {list(frames.shape)}, expected uint8 [N,{clip.height},{clip.width},3] "
            "of RGB with N >= 1; use framegate.media to resize"
        )
    if state.dtype != np.float32 or state.shape != (n, state_size):
        raise ValueError(
            f"state: got {state.dtype} {list(state.shape)}, expected float32 [{n},{state_size}]; "
            "start from init_state(N) and feed back next_state"
        )


class FakeSession:
    """A deterministic session without a model, for tests: logits = running mean colour @ weights [3,K].

    State: [sum of R, G, B means in 0..1, count]. Rows never touch each other.
    """

    def __init__(self, labels: tuple[str, ...], clip: ClipSpec, weights: Floats | None = None) -> None:
        self.info = SessionInfo("fake", "numpy", "cpu", 1, np.__version__)
        self.labels, self.clip, self.state_size = labels, clip, 4
        self.closed = False
        default = np.cos(np.arange(3 * len(labels), dtype=np.float32)).reshape(3, -1)
        self._weights = default if weights is None else weights

    def init_state(self, n: int) -> Floats:
        return np.zeros((n, self.state_size), np.float32)

    def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
        check_inputs(frames, state, self.clip, self.state_size)
        if self.closed:
            raise ValueError("this session is closed; open another one")
        color = frames.mean(axis=(1, 2), dtype=np.float64).astype(np.float32) / 255  # [N,3]
        after = state + np.concatenate([color, np.ones((len(frames), 1), np.float32)], axis=1)
        mean = after[:, :3] / after[:, 3:]
        return (mean[:, :, None] * self._weights).sum(axis=1), after  # [N,K], [N,S]

    def close(self) -> None:
        self.closed = True
