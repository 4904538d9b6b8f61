"""Untrimmed streams: test clips of one camera in a row, the state carried through, and what raises an alarm.

A clip that stands alone says how often the answer is right; a stream says how often a quiet scene is called
something (false alarms), and how long it takes until an event is noticed (time to detect).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from framegate.contract import Record, Skipped
from framegate.runtime.session import Floats, Frames, Session

if TYPE_CHECKING:  # it decodes: the process that answers the streams does without
    from framegate.index import Index, ShardReader

Tops = NDArray[np.int16]  # [stream, frame], -1 behind a stream's end
PADDING = -1
Plan = tuple[tuple[int, ...], ...]  # positions of clips, stream by stream


class StreamSettings(Record):
    """How streams are made, and what counts as an alarm."""

    background: str = "nothing"  # the label of a scene in which nothing happens
    stream_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0  # at least
    hold_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5  # how long a label must last to be an alarm
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5  # confidence of every frame of it
    tolerance_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0  # after an event: an answer lags behind
    seed: int = 0


# --- making streams ---------------------------------------------------------------------------


def plan_streams(index: Index, settings: StreamSettings) -> Plan | Skipped:
    """Test clips of one group in a row, in an order drawn by the seed, each stream at least as long as asked for.

    Longest first. A group is cut into as many streams as it has time for; one that has not enough makes none.
    """
    if settings.background not in index.labels:
        return Skipped(f"streams need a label for background; {settings.background!r} is not one of {index.labels}")
    rng = np.random.default_rng(settings.seed)
    groups: dict[str, list[int]] = {}
    for position in index.split("test"):
        groups.setdefault(index.clips[position].group, []).append(position)
    wanted = math.ceil(settings.stream_seconds * index.spec.fps)
    plan = [s for group in sorted(groups) for s in _cut(rng.permutation(groups[group]).tolist(), index, wanted)]
    if not plan:
        return Skipped(f"no group of the test split lasts {settings.stream_seconds:g} s; lower streams.stream_seconds")
    return tuple(sorted(plan, key=lambda stream: -_frames(stream, index)))


def _cut(positions: Sequence[int], index: Index, wanted: int) -> Iterator[tuple[int, ...]]:
    """Streams of at least `wanted` frames; what is left at the end lengthens the last one."""
    streams: list[list[int]] = [[]]
    for position in positions:
        if _frames(streams[-1], index) >= wanted:
            streams.append([])
        streams[-1].append(position)
    if len(streams) > 1 and _frames(streams[-1], index) < wanted:
        short = streams.pop()
        streams[-1] += short
    return (tuple(stream) for stream in streams if _frames(stream, index) >= wanted)


def _frames(stream: Sequence[int], index: Index) -> int:
    return sum(index.clips[position].frames for position in stream)


def stream_lengths(index: Index, plan: Plan) -> list[int]:
    """Frames of each stream, falling."""
    return [_frames(stream, index) for stream in plan]


def stream_truth(index: Index, plan: Plan) -> Tops:
    """The label of every frame, i16 [stream, frame]."""
    truth = np.full((len(plan), stream_lengths(index, plan)[0]), PADDING, np.int16)
    for row, stream in zip(truth, plan, strict=True):
        labels = [index.labels.index(index.clips[p].label) for p in stream]
        whole = np.repeat(labels, [index.clips[p].frames for p in stream])
        row[: len(whole)] = whole
    return truth


def stream_ticks(reader: ShardReader, plan: Plan) -> Iterator[Frames]:
    """u8 [n,H,W,3] tick by tick: the next frame of the n streams that have not ended, in the order of the plan."""
    walks = [_walk(reader, stream) for stream in plan]
    while frames := [frame for walk in walks if (frame := next(walk, None)) is not None]:
        yield np.stack(frames)


def _walk(reader: ShardReader, stream: Sequence[int]) -> Iterator[Frames]:
    for position in stream:
        yield from reader.clip(position)


# --- answering --------------------------------------------------------------------------------


def run_streams(session: Session, ticks: Iterable[Frames], lengths: Sequence[int]) -> dict[str, NDArray[np.generic]]:
    """stream_top i16 and stream_confidence f32 [stream, frame] (softmax of the top label; 0 behind the end).

    All streams at once, the state never reset. `lengths` fall; `ticks` are those of `stream_ticks`. An answer that is
    not finite is no label: -2.
    """
    top = np.full((len(lengths), lengths[0]), PADDING, np.int16)
    confidence = np.zeros(top.shape, np.float32)
    state = session.init_state(len(lengths))
    for t, frames in enumerate(ticks):
        n = len(frames)
        logits, state = session.step(frames, state[:n])
        top[:n, t], confidence[:n, t] = _top(logits)
    return {"stream_top": top, "stream_confidence": confidence}


def _top(logits: Floats) -> tuple[NDArray[np.int64], Floats]:
    finite = np.logical_and.reduce(np.isfinite(logits), axis=1)
    safe = np.where(finite[:, None], logits, 0)
    share = np.exp(safe - safe.max(axis=1, keepdims=True))
    confidence = share.max(axis=1) / share.sum(axis=1)
    return np.where(finite, safe.argmax(axis=1), PADDING - 1), np.where(finite, confidence, 0).astype(np.float32)


# --- alarms and events ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Frames start..end-1 of one stream with one label."""

    label: int
    start: int
    end: int


def runs(labels: NDArray[np.integer], background: int) -> list[Run]:
    """Maximal runs of one label [frame], without those of the background or of no label (negative)."""
    edges = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1, append=labels[-1:] - 1)).tolist()
    found = [Run(int(labels[a]), a, b) for a, b in pairwise(edges)]
    return [run for run in found if run.label >= 0 and run.label != background]


@dataclass(frozen=True, slots=True)
class Alarms:
    """Of each stream, alarms in a quiet scene and quiet frames; of each event, seconds to detect it (inf: never)."""

    false: NDArray[np.int64]
    background_frames: NDArray[np.int64]
    delays_s: NDArray[np.float64]


def count_alarms(
    top: Tops, confidence: Floats, truth: Tops, background: int, fps: float, settings: StreamSettings
) -> Alarms:
    """Alarms of all streams, [stream, frame] each.

    An alarm goes off in the frame in which a label has lasted `hold_s`, every frame of it at `threshold` or above. It
    is false when it goes off in the background and does not overlap an event of its label, which may have ended
    `tolerance_s` ago. Clips of one label in a row are one event; it is detected by the first alarm of its label that
    has not ended before it begins and goes off before `tolerance_s` after its end.
    """
    hold, tolerance = max(1, math.ceil(settings.hold_s * fps - 1e-9)), round(settings.tolerance_s * fps)
    sure = np.where(confidence >= settings.threshold, top, PADDING)
    false, delays = np.zeros(len(truth), np.int64), list[float]()
    for stream, (labels, real) in enumerate(zip(sure, truth, strict=True)):
        events = runs(real, background)
        alarms = [run for run in runs(labels, background) if run.end - run.start >= hold]
        for alarm in alarms:
            goes_off = alarm.start + hold - 1
            near = any(
                e.label == alarm.label and alarm.start < e.end + tolerance and e.start < alarm.end for e in events
            )
            false[stream] += bool(real[goes_off] == background and not near)
        delays += [_delay(event, alarms, hold, tolerance) / fps for event in events]
    return Alarms(false, (truth == background).sum(axis=1), np.array(delays, np.float64))


def _delay(event: Run, alarms: Sequence[Run], hold: int, tolerance: int) -> float:
    """Frames from an event's first one to the alarm."""
    for alarm in alarms:
        goes_off = alarm.start + hold - 1
        if alarm.label == event.label and alarm.end > event.start and goes_off < event.end + tolerance:
            return max(0, goes_off - event.start)
    return math.inf
