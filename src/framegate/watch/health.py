"""How a camera fares: a picture that stands still, a black one, too few frames. Changes only, by its own time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import cv2

from framegate.video import Pixels

Problem = Literal["frozen", "black", "slow"]
SLACK = 0.9  # a camera of 10 fps gives 9.99
# What an encoder makes of one picture differs by a hair from frame to frame, most at its key frames. Sensor noise is
# more on average, and what moves, however small it is, more at one place.
STILL_MEAN, STILL_MOST = 0.3, 8  # grey levels 0..255


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a camera has a problem; seconds of 0 switch a check off."""

    frozen_s: float = 10.0  # the same picture for so long
    black_s: float = 5.0
    black_mean: float = 16.0  # grey levels 0..255, at most
    black_deviation: float = 8.0  # at most
    slow_s: float = 10.0  # frames per second are counted over so long
    slow_fps: float = 0.0  # fewer are a problem


@dataclass(frozen=True, slots=True)
class Look:
    """What a frame u8 [H,W,3] looks like; `time_s` by the camera's time."""

    time_s: float
    pixels: Pixels
    mean: float
    deviation: float


def look_at(pixels: Pixels, time_s: float) -> Look:
    """The brightness of u8 [H,W,3], cheap on a picture of the model's size."""
    return Look(time_s, pixels, float(pixels.mean()), float(pixels.std()))


def is_still(before: Pixels, now: Pixels) -> bool:
    """Whether two pictures are one, but for what an encoder does to it."""
    if before.shape != now.shape:  # another version of the model
        return False
    difference = cv2.absdiff(before, now)
    return bool(difference.mean() <= STILL_MEAN and difference.max() <= STILL_MOST)


@dataclass(frozen=True, slots=True)
class Change:
    """A problem that began (`present`) or is over."""

    problem: Problem
    present: bool


class Health:
    """One camera's; `problems` = those it has now."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.problems: set[Problem] = set()
        self.fps: float | None = None  # over the last `slow_s`
        self._same: Look | None = None  # the first of the looks that are all the same
        self._black_since: float | None = None
        self._counts: deque[tuple[float, int]] = deque()

    def see(self, look: Look) -> list[Change]:
        """A frame that the model gets."""
        moved = self._same is not None and not is_still(self._same.pixels, look.pixels)
        if self._same is None or moved:
            self._same = look
        frozen = look.time_s - self._same.time_s
        dark = look.mean <= self.bounds.black_mean and look.deviation <= self.bounds.black_deviation
        if not dark:
            self._black_since = None
        elif self._black_since is None:
            self._black_since = look.time_s
        black = 0.0 if self._black_since is None else look.time_s - self._black_since
        found = self._tell("frozen", 0 < self.bounds.frozen_s <= frozen, over=moved)
        return found + self._tell("black", dark and 0 < self.bounds.black_s <= black, over=not dark)

    def count(self, time_s: float, received: int) -> list[Change]:
        """Frames that came so far, the model's or not."""
        counts = self._counts
        counts.append((time_s, received))
        while len(counts) > 2 and time_s - counts[1][0] >= self.bounds.slow_s:
            counts.popleft()
        seconds = time_s - counts[0][0]
        if self.bounds.slow_s <= 0 or seconds < self.bounds.slow_s:
            return []
        self.fps = (received - counts[0][1]) / seconds
        slow = self.fps < SLACK * self.bounds.slow_fps
        return self._tell("slow", slow, over=not slow)

    def restart(self) -> None:
        """After a silence: what comes is not compared with what was. A problem lasts until it is seen to be over."""
        self._same = self._black_since = None
        self._counts.clear()

    def _tell(self, problem: Problem, present: bool, over: bool) -> list[Change]:
        if present == (problem in self.problems) or not (present or over):
            return []
        (self.problems.add if present else self.problems.discard)(problem)
        return [Change(problem, present)]
