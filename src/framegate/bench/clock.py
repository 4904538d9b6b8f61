"""Time as an argument: the wall's clock, a virtual one for tests, and the check that time goes forward."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from framegate.contract import FramegateError
from framegate.runtime.session import Floats, Frames, Session

SPIN_NS = 200_000  # a sleep may end this late: the last stretch is waited awake


class Clock(Protocol):
    """Nanoseconds since some moment, and a way to let them pass."""

    def now(self) -> int: ...
    def wait_until(self, ns: int) -> None:
        """Return at `ns` or as little later as possible; at once when it has passed."""
        ...


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> int:
        return time.perf_counter_ns()

    def wait_until(self, ns: int) -> None:
        while (left := ns - time.perf_counter_ns()) > 0:
            if left > SPIN_NS:
                time.sleep((left - SPIN_NS) / 1e9)


class VirtualClock:
    """Time that passes only when it is told to, for tests."""

    def __init__(self, ns: int = 0) -> None:
        self.ns = ns

    def now(self) -> int:
        return self.ns

    def wait_until(self, ns: int) -> None:
        self.ns = max(self.ns, ns)

    def advance(self, ns: int) -> None:
        """Let `ns` pass."""
        self.ns += ns


class ForwardClock:
    """Another clock, whose time must go forward; FramegateError names how it does not."""

    def __init__(self, inner: Clock) -> None:
        self._inner, self._last = inner, inner.now()

    def now(self) -> int:
        now = self._inner.now()
        if now < self._last:
            raise FramegateError(
                f"{type(self._inner).__name__} went back by {self._last - now} ns, from {self._last} to {now}: no time "
                "measured with it holds; measure again on a host with a monotonic clock"
            )
        self._last = now
        return now

    def wait_until(self, ns: int) -> None:
        self._inner.wait_until(ns)
        if (now := self.now()) < ns:
            raise FramegateError(
                f"{type(self._inner).__name__} waited until {now} ns, {ns - now} ns before the moment asked for: "
                "requests would come before their time"
            )


class PacedSession:
    """Another session, whose step of n frames takes `cost(n)` ns of a virtual clock, for tests."""

    def __init__(self, inner: Session, clock: VirtualClock, cost: Callable[[int], int]) -> None:
        self._inner, self._clock, self._cost = inner, clock, cost
        self.info, self.labels, self.clip, self.state_size = inner.info, inner.labels, inner.clip, inner.state_size
        self.init_state, self.close = inner.init_state, inner.close

    def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
        self._clock.advance(self._cost(len(frames)))
        return self._inner.step(frames, state)
