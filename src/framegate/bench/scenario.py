"""A session under load: offline (throughput) and server (Poisson), and the loop that camera shares with the server.

The loop is a server's: whatever waits, up to `max_batch` streams, is answered together, without a timer. Latency
counts from the scheduled arrival, so a stall shows in every request that it delayed (Tene's "coordinated omission").
It drives and takes time; what the arrays mean is `scenario_facts`' business.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from framegate.bench.clock import Clock, ForwardClock
from framegate.bench.load import Arrivals, Integers, poisson
from framegate.contract import Record
from framegate.runtime.session import Frames, Session

Count = Annotated[int, Field(ge=1)]
PHASES = ("queue", "decode", "resize", "infer")


class OfflineSettings(Record):
    """Throughput: `batch_sizes` are tried in one process with `search_calls`, the best is measured in `processes`."""

    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 4, 16, 64)
    search_calls: Count = 50
    calls: Count = 200
    processes: Count = 3
    seed: int = 0


class ServerSettings(Record):
    """Poisson arrivals: `queries` in each of `processes`, from `streams` streams, at `rate_per_s` together."""

    rate_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 200.0
    queries: Count = 2000
    streams: Count = 32
    max_batch: Count = 16
    processes: Count = 10
    seed: int = 0


# --- frames -----------------------------------------------------------------------------------


class Source(Protocol):
    """Where frames come from; `spent_ns`: what producing them took so far, by phase."""

    spent_ns: dict[str, int]

    def take(self, streams: Sequence[int], numbers: Sequence[int]) -> Frames:
        """u8 [N,H,W,3]: frame `numbers[i]` of stream `streams[i]`; of one stream, the numbers only grow."""
        ...


class FrameSource:
    """Frames held in memory: every stream walks round through clips u8 [V,T,H,W,3], each from another clip on."""

    def __init__(self, clips: Frames) -> None:
        self._frames_per_clip = clips.shape[1]
        self._pool = np.ascontiguousarray(clips).reshape(-1, *clips.shape[2:])  # [V*T,H,W,3]
        self.spent_ns: dict[str, int] = {}

    def take(self, streams: Sequence[int], numbers: Sequence[int]) -> Frames:
        start = np.asarray(streams, np.int64) * self._frames_per_clip
        found: Frames = self._pool[(start + np.asarray(numbers, np.int64)) % len(self._pool)]
        return found


class Lanes:
    """Many streams over one session: the state of each, and one step for a few of them together."""

    def __init__(self, session: Session, source: Source, streams: int) -> None:
        self.session, self.source = session, source
        self.state = session.init_state(streams)  # f32 [streams,S]
        self.logits = np.full((streams, len(session.labels)), np.nan, np.float32)  # the last answer of each

    def answer(self, streams: Sequence[int], numbers: Sequence[int], clock: Clock) -> int:
        """Feed one frame to each of these streams; ns of the session's step."""
        rows = np.asarray(streams)
        frames, state = self.source.take(streams, numbers), self.state[rows]
        start = clock.now()
        self.logits[rows], self.state[rows] = self.session.step(frames, state)
        return clock.now() - start


def warm_up(session: Session, source: Source, max_batch: int) -> None:
    """Some steps at every batch size that may come: the first one of a shape compiles or allocates."""
    for n in range(1, max_batch + 1):
        frames, state = source.take(range(n), [0] * n), session.init_state(n)
        for _ in range(3):
            session.step(frames, state)


# --- the loop ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """What became of every request, in the order of arrival; phases are sums over the answered ones."""

    latency_ns: Integers  # [n], from the scheduled arrival; -1: never answered
    phase_ns: dict[str, int]  # of PHASES: waiting, and a frame's share of what its batch took


def serve(lanes: Lanes, arrivals: Arrivals, max_batch: int, clock: Clock, slots: int | None = None) -> Served:
    """Answer requests as they come, until the last; `slots`: how many of one stream may wait, the newest ones win.

    A stream stands in line once, at the place of its first waiting request, and takes one turn per batch: its state
    allows no more. FramegateError when the clock does not go forward.
    """
    clock = ForwardClock(clock)
    latency = np.full(len(arrivals), -1, np.int64)
    waiting: dict[int, deque[int]] = {}  # stream -> its requests, streams in the order of their turn
    phases = dict.fromkeys(PHASES, 0)
    before, start, come = dict(lanes.source.spent_ns), clock.now(), 0
    while come < len(arrivals) or waiting:
        now = clock.now() - start
        newest = int(np.searchsorted(arrivals.at_ns, now, side="right"))
        for request, stream in enumerate(arrivals.stream[come:newest].tolist(), come):
            waiting.setdefault(stream, deque(maxlen=slots)).append(request)
        come = max(come, newest)
        if not waiting:
            clock.wait_until(start + int(arrivals.at_ns[come]))
            continue
        streams, requests = _next_batch(waiting, max_batch)
        phases["infer"] += lanes.answer(streams, arrivals.number[requests].tolist(), clock)
        phases["queue"] += int((now - arrivals.at_ns[requests]).sum())
        latency[requests] = clock.now() - start - arrivals.at_ns[requests]
    spent = {name: ns - before.get(name, 0) for name, ns in lanes.source.spent_ns.items()}
    return Served(latency, phases | spent)


def _next_batch(waiting: dict[int, deque[int]], max_batch: int) -> tuple[list[int], list[int]]:
    """The first streams in line and the oldest waiting request of each; who has more goes to the end."""
    streams = list(islice(waiting, max_batch))
    requests = []
    for stream in streams:
        line = waiting.pop(stream)
        requests.append(line.popleft())
        if line:
            waiting[stream] = line
    return streams, requests


# --- offline and server -----------------------------------------------------------------------


def time_offline(session: Session, clips: Frames, batch: int, calls: int, clock: Clock) -> Integers:
    """ns of each of `calls` steps of `batch` streams in lockstep, state carried; clips u8 [V,T,H,W,3]."""
    return time_lockstep(Lanes(session, FrameSource(clips), batch), batch, calls, clock)


def time_lockstep(lanes: Lanes, batch: int, calls: int, clock: Clock) -> Integers:
    """ns of each of `calls` answers to the next frame of the first `batch` streams together."""
    clock = ForwardClock(clock)
    streams = list(range(batch))
    ns = np.empty(calls, np.int64)
    for i in range(-3, calls):  # the first three warm up
        start = clock.now()
        lanes.answer(streams, [i + 3] * batch, clock)
        if i >= 0:
            ns[i] = clock.now() - start
    return ns


def search_offline(
    session: Session, clips: Frames, settings: OfflineSettings, clock: Clock
) -> dict[str, NDArray[np.int64]]:
    """offline_sizes [size] and offline_search_ns [size, call]: a first look at every batch size."""
    each = [time_offline(session, clips, size, settings.search_calls, clock) for size in settings.batch_sizes]
    return {"offline_sizes": np.array(settings.batch_sizes, np.int64), "offline_search_ns": np.stack(each)}


def best_batch(sizes: Integers, search_ns: Integers) -> int:
    """The batch size with the most frames per second, by the median step; of two equal ones the smaller."""
    return min((float(np.median(ns)) / size, int(size)) for size, ns in zip(sizes, search_ns, strict=True))[1]


def time_server(
    session: Session, clips: Frames, settings: ServerSettings, seed: int, clock: Clock
) -> dict[str, NDArray[np.int64]]:
    """server_at_ns and server_ns [query] of one process: the scheduled arrivals and the latencies from there."""
    source = FrameSource(clips)
    warm_up(session, source, settings.max_batch)
    arrivals = poisson(settings.rate_per_s, settings.queries, settings.streams, np.random.default_rng(seed))
    served = serve(Lanes(session, source, settings.streams), arrivals, settings.max_batch, clock)
    return {"server_at_ns": arrivals.at_ns, "server_ns": served.latency_ns}


def overloaded(at_ns: Integers, latency_ns: Integers, max_batch: int) -> bool:
    """Whether requests [n] came faster than they were answered, over the run as a whole.

    A server that keeps up has a few batches waiting when the last request comes, however long it runs; one that
    does not has a share of all requests. The line is drawn at two batches and 2 % of the requests.
    """
    backlog = int((at_ns + latency_ns > at_ns[-1]).sum())
    return backlog > 2 * max_batch + 0.02 * len(at_ns)


def pin_to_one_core() -> int | None:
    """Keep this process, and the threads that it starts from now on, on one core.

    Gives the core's number, or None where the system cannot (macOS, Windows): then streams are those of the machine.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core
