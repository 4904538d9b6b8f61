"""Two sessions side by side in one process: warm up, then timed AB/BA blocks on real frames.

The unit of evidence is a fresh process: `worker` runs one, `measure` starts several. What the samples prove
is `stats`' business. The clock is an argument.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.runtime.session import Floats, Frames, Session

Clock = Callable[[], int]  # nanoseconds

WARM_BLOCKS = 3  # whose medians must agree
WARM_BLOCKS_MAX = 20
WARM_TOLERANCE = 0.1
AUDITED_CALLS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """One call during the timed run: what went in and what came out, for comparing later."""

    frame: Frames  # u8 [1,H,W,3]
    state: Floats  # f32 [1,S]
    logits: Floats  # f32 [1,K]


@dataclass(frozen=True, slots=True)
class ProcessSamples:
    """Timed calls of one process: ns [block, call] of either side, and who went first."""

    candidate_ns: NDArray[np.int64]
    parent_ns: NDArray[np.int64]
    candidate_first: NDArray[np.bool_]
    answers: tuple[Answer, ...]
    warmup_calls: int
    stable: bool


class Lane:
    """One session walking through clips u8 [V,T,H,W,3], one frame per call, its state fed back."""

    def __init__(self, session: Session, clips: Frames, clock: Clock) -> None:
        self._session, self._clips, self._clock = session, clips, clock
        self._frames_per_clip = clips.shape[1]
        self._position = 0
        self._state = session.init_state(1)
        self.answers: list[Answer] = []

    def block(self, calls: int, keep: frozenset[int] = frozenset()) -> NDArray[np.int64]:
        """Nanoseconds of each of `calls` steps; the calls numbered in `keep` leave their answers."""
        ns = np.empty(calls, np.int64)
        for i in range(calls):
            frame, state = self._next_frame(), self._state
            start = self._clock()
            logits, self._state = self._session.step(frame, state)
            ns[i] = self._clock() - start
            if i in keep:
                self.answers.append(Answer(frame.copy(), state.copy(), logits.copy()))
        return ns

    def _next_frame(self) -> Frames:
        clip, t = divmod(self._position, self._frames_per_clip)
        if t == 0:
            self._state = self._session.init_state(1)
        self._position = (self._position + 1) % (len(self._clips) * self._frames_per_clip)
        return self._clips[clip, t : t + 1]


def run_process(
    candidate: Session,
    parent: Session,
    clips: Frames,
    blocks: int,
    calls: int,
    seed: int,
    clock: Clock = time.perf_counter_ns,
) -> ProcessSamples:
    """Warm both up, then `blocks` pairs of blocks of `calls` steps, in random order within each pair."""
    rng = np.random.default_rng(seed)
    mine, theirs = Lane(candidate, clips, clock), Lane(parent, clips, clock)
    keep = _audited(rng, blocks, calls)
    first = rng.random(blocks) < 0.5
    ns = np.empty((2, blocks, calls), np.int64)
    with _no_garbage_collection():
        warmup = [warm_up(mine, calls), warm_up(theirs, calls)]
        for b in range(blocks):
            for side in (0, 1) if first[b] else (1, 0):
                lane = (mine, theirs)[side]
                ns[side, b] = lane.block(calls, keep[b] if side == 0 else frozenset())
    return ProcessSamples(
        candidate_ns=ns[0],
        parent_ns=ns[1],
        candidate_first=first,
        answers=tuple(mine.answers),
        warmup_calls=sum(count for count, _ in warmup),
        stable=all(stable for _, stable in warmup),
    )


def warm_up(lane: Lane, calls: int) -> tuple[int, bool]:
    """Blocks until the medians of the last three lie within 10 %: calls made, whether they did."""
    medians: list[float] = []
    while len(medians) < WARM_BLOCKS_MAX:
        medians.append(float(np.median(lane.block(calls))))
        last = medians[-WARM_BLOCKS:]
        if len(last) == WARM_BLOCKS and max(last) <= min(last) * (1 + WARM_TOLERANCE):
            return len(medians) * calls, True
    return len(medians) * calls, False


def _audited(rng: np.random.Generator, blocks: int, calls: int) -> list[frozenset[int]]:
    """Which calls of each block leave their answers."""
    chosen = rng.choice(blocks * calls, min(AUDITED_CALLS, blocks * calls), replace=False)
    return [frozenset(int(c) % calls for c in chosen if c // calls == b) for b in range(blocks)]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
