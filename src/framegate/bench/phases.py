"""What a frame costs before a net sees it: decoding, and conversion to RGB with resizing, per step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from framegate.contract import ClipSpec, MediaError
from framegate.media import MediaLimits, TimedFrame, read_frames, resample, resize

Clock = Callable[[], int]  # nanoseconds
STEPS = 100  # of each file


def video_phases(
    videos: Sequence[Path],
    spec: ClipSpec,
    limits: MediaLimits | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, float]:
    """Milliseconds per step (tick of spec.fps) of `decode` and `resize`; empty without files.

    Where there are more, the first file only warms caches up. Of each file the first STEPS count; one that cannot
    be read any more is left out: this is information, no rule rests on it.
    """
    limits = limits or MediaLimits()
    each = [found for path in videos if (found := _one(path, spec, limits, clock))]
    counted = each[1:] or each
    steps = sum(steps for steps, _, _ in counted)
    if steps == 0:
        return {}
    return {
        "decode": sum(decode for _, decode, _ in counted) / steps / 1e6,
        "resize": sum(convert for _, _, convert in counted) / steps / 1e6,
    }


def _one(path: Path, spec: ClipSpec, limits: MediaLimits, clock: Clock) -> tuple[int, int, int] | None:
    """Steps of one file, nanoseconds of decoding, nanoseconds of conversion and resizing; None: cannot be read."""
    steps, convert, decode = 0, 0, [0]
    picked: TimedFrame | None = None
    try:
        for _, frame, _ in islice(resample(_timed(read_frames(path, limits), decode, clock), spec.fps), STEPS):
            steps += 1
            if frame is not picked:
                picked, start = frame, clock()
                resize(frame.rgb(), spec)
                convert += clock() - start
    except MediaError:
        return None
    return steps, decode[0], convert


def _timed(frames: Iterator[TimedFrame], total: list[int], clock: Clock) -> Iterator[TimedFrame]:
    """The same frames; total[0] grows by the time that producing them takes."""
    while True:
        start = clock()
        frame = next(frames, None)
        total[0] += clock() - start
        if frame is None:
            return
        yield frame
