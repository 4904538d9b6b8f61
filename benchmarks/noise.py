"""Machines and cameras that never were: noise with known truth, for `benchmarks.statistics` and its fast tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Nanoseconds = NDArray[np.int64]
MEDIAN_NS = 460_000


@dataclass(frozen=True, slots=True)
class Machine:
    """How the calls of one session vary. Shares and spreads are relative."""

    process_spread: float = 0.01  # of speed between fresh processes, standard deviation
    slow: float = 0.0  # share of calls in bursts, 2 to 4 times as slow
    burst: tuple[int, int] = (10, 50)  # calls
    tail: float = 0.004  # share of single slow calls, Pareto 2.5
    drift: float = 0.02  # of the speed that both sides share, a block; five times as much between pairs

    def calls(self, rng: np.random.Generator, processes: int, calls: int) -> Nanoseconds:
        """ns [process, call] of fresh processes alone."""
        return (MEDIAN_NS * self._relative(rng, processes, calls)).astype(np.int64)

    def pairs(
        self, rng: np.random.Generator, shape: tuple[int, int, int], factor: float = 1.0
    ) -> tuple[Nanoseconds, Nanoseconds]:
        """ns [process, block, call] of a candidate `factor` times as slow as its parent, beside it."""
        processes, blocks, calls = shape
        steps = rng.normal(0, self.drift, (processes, blocks, 1)).cumsum(axis=1)
        drift = MEDIAN_NS * np.exp(steps + rng.normal(0, 5 * self.drift, (processes, 1, 1)))
        mine, theirs = (self._relative(rng, processes, blocks * calls).reshape(shape) for _ in range(2))
        return (factor * drift * mine).astype(np.int64), (drift * theirs).astype(np.int64)

    def _relative(self, rng: np.random.Generator, processes: int, calls: int) -> NDArray[np.float64]:
        time = rng.normal(1, self.process_spread, (processes, 1)) * (1 + rng.gamma(2, 0.02, (processes, calls)))
        single = rng.random((processes, calls)) < self.tail
        time[single] *= 1 + rng.pareto(2.5, int(single.sum()))
        shortest, longest = self.burst
        for _ in range(rng.poisson(self.slow * processes * calls * 2 / (shortest + longest))):
            length = int(rng.integers(shortest, longest + 1))
            start = int(rng.integers(1 - length, calls))
            time[rng.integers(processes), max(start, 0) : start + length] *= rng.uniform(2, 4)
        return time


QUIET = Machine(process_spread=0.003)
RESTLESS = Machine()
BURSTS = Machine(slow=0.015)


@dataclass(frozen=True, slots=True)
class Cameras:
    """Clips of groups that err together.

    `spread`: relative deviation of a group's loss (gamma); `uneven`: of the logarithm of its size (log-normal).
    """

    clips: int
    groups: int
    spread: float = 0.0
    uneven: float = 0.0

    def which(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The group of each clip [n]; every group has one."""
        if not self.uneven:
            return np.arange(self.clips) % self.groups
        weights = np.exp(rng.normal(0, self.uneven, self.groups))
        rest = rng.choice(self.groups, self.clips - self.groups, p=weights / weights.sum())
        return np.concatenate([np.arange(self.groups), rest])

    def hits(self, rng: np.random.Generator, which: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
        """Which clips are hit: a share of all on average, unlike between groups."""
        factor = rng.gamma(1 / self.spread**2, self.spread**2, self.groups) if self.spread else np.ones(self.groups)
        hit: NDArray[np.bool_] = rng.random(self.clips) < np.minimum(share * factor, 1.0)[which]
        return hit

    def answers(
        self, rng: np.random.Generator, drop: float, disagreement: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """Reference right, candidate right, groups [n]; the true drop and disagreement are shares."""
        which = self.which(rng)
        lost = self.hits(rng, which, (disagreement + drop) / 2)
        won = ~lost & (rng.random(self.clips) < (disagreement - drop) / 2 / (1 - (disagreement + drop) / 2))
        return ~won, ~lost, which
