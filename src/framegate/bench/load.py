"""Arrival patterns: when which stream asks for an answer. Pure and seeded; nothing here knows a session or a clock.

server   `poisson`: requests at a rate, from many streams, independent of each other and of the answers
camera   `cameras`: streams at a fixed rate, each with its own phase, every frame with its own jitter

The others need no pattern: in single_stream the next frame is asked for when the last one is answered
(`latency.Lane`), offline everything is there from the start (`scenario.time_offline`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.contract import ConfigError

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests in the order in which they come: ns after the start, which stream, which of its frames. [n] each."""

    at_ns: Integers
    stream: Integers
    number: Integers

    def __len__(self) -> int:
        return len(self.at_ns)


def poisson(rate_per_s: float, count: int, streams: int, rng: np.random.Generator) -> Arrivals:
    """`count` requests with exponential gaps, each from a stream drawn at random."""
    _check(rate_per_s=rate_per_s, count=count, streams=streams)
    at_ns = np.cumsum(rng.exponential(1e9 / rate_per_s, count)).astype(np.int64)
    stream = rng.integers(0, streams, count)
    return Arrivals(at_ns, stream, _running_number(stream))


def cameras(streams: int, fps: float, frames: int, jitter_ns: int, rng: np.random.Generator) -> Arrivals:
    """`frames` frames of each stream at `fps`; phases within one period, delays up to `jitter_ns`, drawn at random."""
    _check(streams=streams, fps=fps, frames=frames)
    period_ns = round(1e9 / fps)
    if not 0 <= jitter_ns < period_ns:
        raise ConfigError(f"a jitter of {jitter_ns} ns at {fps:g} fps; expected 0 or more, and less than a period")
    phases = rng.integers(0, period_ns, streams)
    return from_phases(phases, rng.integers(0, jitter_ns + 1, (streams, frames)), period_ns)


def from_phases(phase_ns: Integers, jitter_ns: Integers, period_ns: int) -> Arrivals:
    """Frame k of stream s comes at phase_ns[s] + k * period_ns + jitter_ns[s, k]."""
    frames = jitter_ns.shape[1]
    at_ns = (phase_ns[:, None] + np.arange(frames) * period_ns + jitter_ns).ravel()  # stream after stream
    order = np.argsort(at_ns, kind="stable")
    return Arrivals(at_ns[order], order // frames, order % frames)


def _running_number(stream: Integers) -> Integers:
    """How many requests of the same stream came before each."""
    order = np.argsort(stream, kind="stable")
    ordered = stream[order]
    number = np.empty_like(order)
    number[order] = np.arange(len(stream)) - np.searchsorted(ordered, ordered)
    return number


def _check(**values: float) -> None:
    """ConfigError naming every value that is not a positive number."""
    wrong = [f"{name} is {value:g}" for name, value in values.items() if not 0 < value < float("inf")]
    if wrong:
        raise ConfigError(f"arrivals: {', '.join(wrong)}; expected more than zero")
