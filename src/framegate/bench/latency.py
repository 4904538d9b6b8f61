"""Timed steps in one process, on real frames: two sessions in AB/BA blocks, or one alone and sustained.

The unit of evidence is a fresh process: `worker` runs one, `measure` starts several. What the samples prove
is `stats`' business. The clock is an argument.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from framegate.runtime.session import Floats, Frames, Session

Clock = Callable[[], int]  # nanoseconds

WARM_BLOCKS = 3  # whose medians must agree
WARM_BLOCKS_MAX = 20
WARM_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class PairSamples:
    """Timed calls of one process: ns [block, call] of either side, and who went first in each pair of blocks."""

    candidate_ns: NDArray[np.int64]
    parent_ns: NDArray[np.int64]
    candidate_first: NDArray[np.bool_]
    warmup_calls: int
    stable: bool


class Timed(Protocol):
    """What can be called again and again."""

    def block(self, calls: int) -> NDArray[np.int64]:
        """Nanoseconds of each of `calls` calls."""
        ...


class Lane:
    """One session walking through clips u8 [V,T,H,W,3], one frame per call, its state fed back.

    Every clip that is walked to its end leaves its logits in `answers`: what was timed can be compared with what was
    judged (the hole that MLPerf's audit TEST01 closes).
    """

    def __init__(self, session: Session, clips: Frames, clock: Clock) -> None:
        self._session, self._clips, self._clock = session, clips, clock
        self._frames_per_clip = clips.shape[1]
        self._position = 0
        self._state = session.init_state(1)
        self.answers: list[tuple[int, Floats]] = []  # clip number, logits [K]

    def block(self, calls: int) -> NDArray[np.int64]:
        """Nanoseconds of each of `calls` steps."""
        ns = np.empty(calls, np.int64)
        for i in range(calls):
            clip, t = divmod(self._position, self._frames_per_clip)
            if t == 0:
                self._state = self._session.init_state(1)
            frame = self._clips[clip, t : t + 1]
            start = self._clock()
            logits, self._state = self._session.step(frame, self._state)
            ns[i] = self._clock() - start
            if t == self._frames_per_clip - 1:
                self.answers.append((clip, logits[0].copy()))
            self._position = (self._position + 1) % (len(self._clips) * self._frames_per_clip)
        return ns


class Slowed:
    """A session whose every step takes `share` more time than it would: a known slowdown, to see whether it is seen."""

    def __init__(self, inner: Session, share: float, clock: Clock = time.perf_counter_ns) -> None:
        self._inner, self._share, self._clock = inner, share, clock
        self.info, self.labels, self.clip, self.state_size = inner.info, inner.labels, inner.clip, inner.state_size
        self.init_state, self.close = inner.init_state, inner.close

    def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
        start = self._clock()
        found = self._inner.step(frames, state)
        more = round((self._clock() - start) * self._share)
        end = self._clock() + more
        while self._clock() < end:
            pass
        return found


def time_pair(candidate: Timed, parent: Timed, blocks: int, calls: int, seed: int) -> PairSamples:
    """Warm both up, then `blocks` pairs of blocks of `calls` steps, in random order within each pair."""
    first = np.random.default_rng(seed).random(blocks) < 0.5
    ns = np.empty((2, blocks, calls), np.int64)
    with _no_garbage_collection():
        warmup = [warm_up(candidate, calls), warm_up(parent, calls)]
        for b in range(blocks):
            for side in (0, 1) if first[b] else (1, 0):
                ns[side, b] = (candidate, parent)[side].block(calls)
    return PairSamples(ns[0], ns[1], first, sum(count for count, _ in warmup), all(stable for _, stable in warmup))


def time_solo(lane: Timed, calls: int, warmup_block: int) -> tuple[NDArray[np.int64], int, bool]:
    """Warm up, then `calls` steps in a row: ns [call], calls of the warm-up, whether it settled."""
    with _no_garbage_collection():
        warmup, stable = warm_up(lane, warmup_block)
        return lane.block(calls), warmup, stable


def warm_up(lane: Timed, calls: int) -> tuple[int, bool]:
    """Blocks until the medians of the last three lie within 10 %: calls made, whether they did."""
    medians: list[float] = []
    while len(medians) < WARM_BLOCKS_MAX:
        medians.append(float(np.median(lane.block(calls))))
        last = medians[-WARM_BLOCKS:]
        if len(last) == WARM_BLOCKS and max(last) <= min(last) * (1 + WARM_TOLERANCE):
            return len(medians) * calls, True
    return len(medians) * calls, False


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
