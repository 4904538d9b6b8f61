"""What a model says over time: logits of one tick after the other become probabilities, and those become spans.

The same for `predict`, the server and cameras. State and resampling are the caller's: here comes only what a step gave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.runtime.session import Floats

Shares = NDArray[np.float64]  # [K], sums to 1


def softmax(logits: Floats) -> Shares:
    """f64 [..., K] from logits [..., K], stable for large ones."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: Shares = shifted / shifted.sum(axis=-1, keepdims=True)
    return shares


@dataclass(frozen=True, slots=True)
class Span:
    """A maximal run of ticks with one top label; `shares` [K] is the mean of their softmax."""

    start_s: float
    end_s: float
    top: int
    shares: Shares


class Spans:
    """Collects ticks into spans; `tick_s` = how long a tick lasts."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._top: int | None = None
        self._start_s = self._end_s = 0.0
        self._sum: Shares = np.zeros(0)
        self._count = 0

    def add(self, time_s: float, shares: Shares) -> Span | None:
        """One more tick; the span that it ends, if it does."""
        top, ended = int(shares.argmax()), None
        if top != self._top:
            ended = self.end()
            self._top, self._start_s, self._sum, self._count = top, time_s, np.zeros(len(shares)), 0
        self._sum = self._sum + shares
        self._count, self._end_s = self._count + 1, time_s + self._tick_s
        return ended

    def end(self) -> Span | None:
        """The span that is open, closed; None when there is none."""
        if self._top is None:
            return None
        span = Span(round(self._start_s, 3), round(self._end_s, 3), self._top, self._sum / self._count)
        self._top = None
        return span
