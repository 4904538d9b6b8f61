"""Camera: how many streams at a fixed frame rate one session keeps up with, and what dropping frames costs.

Every stream has one live slot: the newest frame wins, the one it replaces is dropped. A frame that is answered later
than `deadline_ms` after its scheduled time is missed. The headline is the largest number of streams with
(missed + dropped) / scheduled below `limit`, found by short runs and confirmed by long ones with other seeds. Early
MLPerf LoadGen had the like of it (MultiStream, dropped in v2.0), without live slots, phases or jitter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from framegate.bench.clock import Clock
from framegate.bench.load import Arrivals, Integers, cameras
from framegate.bench.scenario import PHASES, Count, FrameSource, Lanes, serve, time_lockstep, warm_up
from framegate.contract import ConfigError, Record
from framegate.runtime.session import Floats, Frames, Session

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Outcomes = NDArray[np.uint8]

ANSWERED, MISSED, DROPPED = 0, 1, 2
CONFIDENCE = 0.99  # of "below the limit"
LATENCIES_KEPT = 4096  # of each run, evenly spaced: enough for p99, and small; outcomes are kept whole


class CameraSettings(Record):
    """The operating point, and how the number of streams is searched and confirmed."""

    fps: Positive = 10.0  # must be the clip spec's: at another rate the net sees another speed of time
    deadline_ms: Positive = 100.0
    jitter_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    max_batch: Count = 16
    limit: Annotated[float, Field(gt=0, lt=1)] = 0.001  # of (missed + dropped) / scheduled
    streams_max: Count = 8192
    search_seconds: Positive = 2.0
    resolution: Annotated[float, Field(ge=0, lt=1)] = 0.03  # the search stops when the bracket is this narrow
    confirm_seconds: Positive = 60.0
    confirm_runs: Count = 3
    step_down: Annotated[float, Field(gt=0, lt=1)] = 0.05  # of the streams, when they are not confirmed
    timeout_s: Positive = 900.0  # of search and confirmation together
    seed: int = 0

    @model_validator(mode="after")
    def _jitter_keeps_order(self) -> CameraSettings:
        if self.jitter_ms >= 1000 / self.fps:
            raise ValueError(f"jitter_ms {self.jitter_ms:g} must be less than a period, {1000 / self.fps:g} ms")
        return self

    def frames(self, seconds: float) -> int:
        """Frames of one stream in a run."""
        return max(1, math.ceil(seconds * self.fps))


# --- one run ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CameraRun:
    """What became of every scheduled frame, stream after stream: outcome and latency (-1: dropped) [stream, frame]."""

    outcome: Outcomes
    latency_ns: Integers
    phase_ns: dict[str, int]  # sums over the answered frames

    @property
    def failed_share(self) -> float:
        """(missed + dropped) / scheduled: a frame that was not answered in time, whatever the excuse."""
        return float((self.outcome != ANSWERED).mean())


def drive(lanes: Lanes, arrivals: Arrivals, settings: CameraSettings, clock: Clock) -> CameraRun:
    """One run; every stream of the lanes has equally many frames in `arrivals`."""
    served = serve(lanes, arrivals, settings.max_batch, clock, slots=1)
    late = served.latency_ns > settings.deadline_ms * 1e6
    outcome = np.where(served.latency_ns < 0, DROPPED, np.where(late, MISSED, ANSWERED)).astype(np.uint8)
    back = np.lexsort((arrivals.number, arrivals.stream))  # order of arrival -> stream after stream
    shape = (len(lanes.state), -1)
    return CameraRun(outcome[back].reshape(shape), served.latency_ns[back].reshape(shape), served.phase_ns)


# --- the search -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CameraFound:
    """`streams`: what was confirmed (None: unknown, and why); `runs`: the last attempt to, with `tried` streams."""

    streams: int | None
    reason: str
    tried: int
    runs: tuple[CameraRun, ...]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """camera_streams [1]: tried; camera_outcome u8 [run, frame]; camera_ns, camera_phase_ns.

        A run's frames stand stream after stream; camera_ns holds some of them, camera_phase_ns sums [run, phase].
        """
        scheduled = self.runs[0].outcome.size if self.runs else 0
        outcome = np.array([run.outcome.ravel() for run in self.runs], np.uint8).reshape(len(self.runs), scheduled)
        kept = np.linspace(0, scheduled - 1, min(LATENCIES_KEPT, scheduled)).astype(np.int64)
        return {
            "camera_streams": np.array([self.tried], np.int64),
            "camera_outcome": outcome,
            "camera_ns": np.array([run.latency_ns.ravel()[kept] for run in self.runs], np.int64),
            "camera_phase_ns": np.array(
                [[run.phase_ns[name] for name in PHASES] for run in self.runs], np.int64
            ).reshape(-1, len(PHASES)),
        }


def find_streams(
    open_lanes: Callable[[int], Lanes], settings: CameraSettings, clock: Clock, start: int = 16
) -> CameraFound:
    """Search from `start` streams, then confirm, stepping down until it holds; `timeout_s` bounds all of it.

    `open_lanes(streams)` gives fresh states and a fresh source over a session that is warm. ConfigError when the frame
    rate is not the session's.
    """
    search = _Search(open_lanes, settings, clock)
    try:
        streams = largest(search.passes, start, settings.streams_max, settings.resolution)
        for attempt in range(1, settings.streams_max + 1):
            found = search.confirm(streams, attempt)
            if found is not None:
                return found
            streams = min(streams - 1, math.floor(streams * (1 - settings.step_down)))
    except _OutOfTimeError:
        pass
    reason = f"{settings.timeout_s:g} s were over before a number of streams was confirmed; raise camera.timeout_s"
    return CameraFound(None, reason, search.tried, search.runs)


def find_frame_streams(session: Session, clips: Frames, settings: CameraSettings, clock: Clock) -> CameraFound:
    """`find_streams` from frames in memory, u8 [V,T,H,W,3]; warms up and starts from what a full batch takes."""
    source = FrameSource(clips)
    warm_up(session, source, settings.max_batch)
    start = capacity(Lanes(session, source, settings.max_batch), settings, clock)
    return find_streams(lambda streams: Lanes(session, source, streams), settings, clock, start)


def capacity(lanes: Lanes, settings: CameraSettings, clock: Clock) -> int:
    """A first guess of the number of streams: three quarters of what full batches in a row would allow."""
    ns = time_lockstep(lanes, settings.max_batch, calls=20, clock=clock)
    return max(1, int(0.75 * settings.max_batch * 1e9 / max(float(np.median(ns)), 1) / settings.fps))


def largest(passes: Callable[[int], bool], start: int, most: int, resolution: float) -> int:
    """The largest number in 1..most that passes, to within `resolution`: doubling, then halving; 0 when none does."""
    low, high, guess = 0, most + 1, min(max(start, 1), most)
    while high - low > max(1, resolution * low):
        low, high = (guess, high) if passes(guess) else (low, guess)
        guess = min(2 * low, most) if high > most else (low + high) // 2
    return low


class _OutOfTimeError(Exception):
    """No time is left for another run."""


class _Search:
    """Runs at some number of streams, within the time that is given to all of them."""

    def __init__(self, open_lanes: Callable[[int], Lanes], settings: CameraSettings, clock: Clock) -> None:
        self._open_lanes, self._settings, self._clock = open_lanes, settings, clock
        self._end = clock.now() + settings.timeout_s * 1e9
        self.tried, self.runs = 0, tuple[CameraRun, ...]()  # the last attempt to confirm
        self._last: CameraRun

    def passes(self, streams: int) -> bool:
        """Whether one of two short runs stays below the limit: the host may have stumbled in the other."""
        for number in range(2):
            self._last = self._run(streams, self._settings.search_seconds, 0, number)
            if self._last.failed_share < self._settings.limit:
                return True
        return False

    def confirm(self, streams: int, attempt: int) -> CameraFound | None:
        """The result if it is settled: confirmed, hopeless, or never to be known; None: try fewer streams."""
        settings = self._settings
        if streams < 1:
            return CameraFound(0, "not even one stream stays below the limit", 1, self.runs or (self._last,))
        runs: list[CameraRun] = []
        for number in range(settings.confirm_runs):
            runs.append(self._run(streams, settings.confirm_seconds, attempt, number))
            self.tried, self.runs = streams, tuple(runs)
            if runs[-1].failed_share >= settings.limit:
                return None
        judged = judge([run.outcome for run in runs], settings.limit)
        if judged == "too many failed":
            return None
        reason = "" if judged == "confirmed" else f"too few frames in time to prove less than {settings.limit:g} failed"
        return CameraFound(streams if judged == "confirmed" else None, reason, streams, tuple(runs))

    def _run(self, streams: int, seconds: float, *seed: int) -> CameraRun:
        settings, lanes = self._settings, self._open_lanes(streams)
        check_fps(lanes.session, settings.fps)
        if self._clock.now() + seconds * 1e9 > self._end:
            raise _OutOfTimeError
        rng = np.random.default_rng((settings.seed, streams, *seed))
        frames = settings.frames(seconds)
        arrivals = cameras(streams, settings.fps, frames, round(settings.jitter_ms * 1e6), rng)
        return drive(lanes, arrivals, settings, self._clock)


def check_fps(session: Session, fps: float) -> None:
    """ConfigError when frames would come at another rate than the session was trained for."""
    if fps != session.clip.fps:
        raise ConfigError(
            f"camera.fps is {fps:g}, the bundle's clips have {session.clip.fps:g} fps: it would see another speed of "
            "time; set both alike"
        )


Judged = Literal["confirmed", "too many failed", "too few frames"]


def judge(outcomes: list[Outcomes], limit: float) -> Judged:
    """Whether runs prove, each by itself and together, that less than `limit` of the frames fail.

    Together: BinomialCDF(failed; scheduled, limit) <= 1 %, MLPerf LoadGen's test at its confidence; with no failure
    that takes 4,603 frames for a limit of 0.1 %, and fewer frames in time are too few to know.
    """
    failed = [int((outcome != ANSWERED).sum()) for outcome in outcomes]
    n = sum(outcome.size for outcome in outcomes)
    if any(bad >= limit * outcome.size for bad, outcome in zip(failed, outcomes, strict=True)):
        return "too many failed"
    if n - sum(failed) < min_clean_frames(limit):
        return "too few frames"
    from scipy import special

    return "confirmed" if special.bdtr(sum(failed), n, limit) <= 1 - CONFIDENCE else "too many failed"


def min_clean_frames(limit: float) -> int:
    """Frames without any failure that a limit takes: the zero-failure bound, (1 - limit)^n <= 1 %."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-limit))


# --- accuracy under drops ---------------------------------------------------------------------


def drop_pattern(outcome: Outcomes, streams: int, clips: int, frames: int, seed: int) -> NDArray[np.bool_]:
    """keep bool [clip, frame]: for each clip a stretch of a stream drawn from camera_outcome [run, streams * frame].

    A missed frame was seen, only late; a dropped one was not. ValueError when no stream is as long as a clip.
    """
    each = outcome.reshape(-1, outcome.shape[-1] // streams)  # [run * stream, frame]
    if each.shape[1] < frames:
        raise ValueError(f"streams of {each.shape[1]} frames hold no clip of {frames}")
    rng = np.random.default_rng(seed)
    row = rng.integers(0, len(each), clips)
    start = rng.integers(0, each.shape[1] - frames + 1, clips)
    keep: NDArray[np.bool_] = each[row[:, None], start[:, None] + np.arange(frames)] != DROPPED
    return keep


def answer_kept(session: Session, clips: Frames, keep: NDArray[np.bool_]) -> Floats:
    """Clip logits f32 [n,K] of clips u8 [n,T,H,W,3] when only the frames in keep [n,T] were seen.

    The state knows nothing of a frame that was dropped. A clip of which nothing was seen has no answer: NaN.
    """
    state = session.init_state(len(clips))
    logits = np.full((len(clips), len(session.labels)), np.nan, np.float32)
    for t in range(clips.shape[1]):
        rows = np.flatnonzero(keep[:, t])
        if len(rows):
            logits[rows], state[rows] = session.step(np.ascontiguousarray(clips[rows, t]), state[rows])
    return logits
