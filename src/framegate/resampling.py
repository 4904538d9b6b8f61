"""The grid of time: which frame each tick of a model's frame rate sees. One rule for files, live streams and training.

Tick k of a source lies k / fps seconds after its first frame and sees the latest frame at or before it. Nothing here
knows what a frame is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

TICK_TOLERANCE_S = 0.001  # Matroska rounds presentation times to whole milliseconds
MAX_GAP_S, MAX_GAP_TICKS = 2.0, 3


def cut_after_s(fps: float) -> float:
    """A longer silence is a cut: the frames before it say nothing about those after, and the state starts anew."""
    return max(MAX_GAP_S, MAX_GAP_TICKS / fps)


class Timed(Protocol):
    """Anything with a presentation time in seconds."""

    @property
    def time_s(self) -> float: ...


F = TypeVar("F", bound=Timed)


class Grid:
    """The ticks of one source, frame by frame as they come.

    A frame within `tolerance_s` of a tick is at it. Where times jitter, as those of arrival do, half a tick is right:
    else a frame that comes a little late would leave its tick to the one before, and be answered one frame later.
    """

    def __init__(self, fps: float, tolerance_s: float = TICK_TOLERANCE_S) -> None:
        self.fps, self._tolerance_s = fps, tolerance_s
        self._start_s = self._last_s = 0.0
        self._tick = self._count = 0

    def push(self, time_s: float) -> tuple[range, range]:
        """A frame at `time_s`: the ticks that the frame before it takes, and those that it takes itself at once.

        ValueError when time goes back.
        """
        if not self._count:
            self._start_s = self._last_s = time_s
        if not time_s >= self._last_s:
            raise ValueError(f"a frame at {time_s} s after one at {self._last_s} s; times must not decrease")
        self._last_s, self._count = time_s, self._count + 1
        since_s = time_s - self._start_s
        before = self._take(math.ceil((since_s - self._tolerance_s) * self.fps))
        return before, self._take(math.floor((since_s + self._tolerance_s) * self.fps) + 1)

    def finish(self) -> range:
        """The ticks that are left to the last frame, which lasts as long as the average one."""
        length_s = self._last_s - self._start_s
        end_s = length_s + length_s / max(self._count - 1, 1)
        return self._take(math.ceil((end_s - TICK_TOLERANCE_S) * self.fps))

    def _take(self, end: int) -> range:
        """All ticks before `end` that are not taken yet."""
        start, self._tick = self._tick, max(self._tick, end)
        return range(start, self._tick)


def resample(frames: Iterable[F], fps: float) -> Iterator[tuple[float, F, bool]]:
    """(seconds since the first frame, the frame that this tick sees, whether it is the first after a cut). Lazy.

    16 frames at 10 fps give 16 ticks at 10 fps. After a cut the ticks start with the frame that ends the silence.
    """
    start_s: float | None = None
    grid, base_s, last = Grid(fps), 0.0, None
    for frame in frames:
        start_s = frame.time_s if start_s is None else start_s
        cut = last is not None and frame.time_s - last.time_s > cut_after_s(fps)
        if cut:
            grid, base_s = Grid(fps), frame.time_s - start_s
        before, now = grid.push(frame.time_s)
        if last is not None:
            yield from ((base_s + tick / fps, last, False) for tick in before)
        yield from ((base_s + tick / fps, frame, cut and tick == 0) for tick in now)
        last = frame
    if last is not None:
        yield from ((base_s + tick / fps, last, False) for tick in grid.finish())
