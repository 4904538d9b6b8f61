"""Servers and throughput on a virtual clock: every delay is known beforehand."""

import os

import numpy as np
import pytest
from numpy.typing import NDArray

from framegate.bench.clock import ForwardClock, WallClock
from framegate.bench.load import Arrivals, from_phases, poisson
from framegate.bench.scenario import (
    FrameSource,
    Lanes,
    OfflineSettings,
    ServerSettings,
    best_batch,
    overloaded,
    pin_to_one_core,
    search_offline,
    serve,
    time_offline,
    time_server,
)
from framegate.bench.scenario_facts import offline_facts, server_facts
from framegate.contract import FramegateError
from framegate.runtime.session import run_clips
from tests.paced import CLIPS, MS, fake, fed, paced

# --- server ----------------------------------------------------------------------------------------


def test_a_stall_shows_in_every_request_that_it_delayed() -> None:
    stall = iter([MS] * 500 + [1000 * MS] + [MS] * 10_000)
    taken: list[int] = []

    def cost(n: int) -> int:
        taken.append(next(stall))
        return taken[-1]

    session, clock = paced(cost)
    arrivals = poisson(100, 2000, 16, np.random.default_rng(0))
    served = serve(Lanes(session, FrameSource(CLIPS), 16), arrivals, 16, clock)
    delayed = (served.latency_ns > 100 * MS).sum()
    assert 75 <= delayed <= 110  # about a second's worth of requests, not one
    assert np.quantile(served.latency_ns, 0.99) > 750 * MS
    assert np.quantile(taken, 0.99) == MS  # what a closed loop would have said


def test_requests_of_one_stream_are_answered_in_order_one_at_a_time() -> None:
    session, clock = paced(lambda n: 10 * MS)
    arrivals = Arrivals(np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0]))
    lanes = Lanes(session, FrameSource(CLIPS), 2)
    served = serve(lanes, arrivals, 8, clock)
    # 0..10 the first; 10..20 the second with the other stream; 20..30 the third
    assert served.latency_ns.tolist() == [10 * MS, 20 * MS - 1, 30 * MS - 2, 20 * MS - 3]
    assert np.allclose(lanes.logits[0], run_clips(fake(), fed(1, 3))[0], atol=1e-5)


def test_overload_is_told_from_a_busy_server() -> None:
    def arrays(rate: float) -> dict[str, NDArray]:
        session, clock = paced(lambda n: 10 * MS)  # 4 at a time: 400 a second
        settings = ServerSettings(rate_per_s=rate, queries=2000, max_batch=4)
        return time_server(session, CLIPS, settings, 0, clock)

    busy, over = arrays(340), arrays(480)
    assert not overloaded(busy["server_at_ns"], busy["server_ns"], 4)
    assert overloaded(over["server_at_ns"], over["server_ns"], 4)
    settings = ServerSettings(max_batch=4, queries=2000)
    facts = server_facts({name: array[None] for name, array in busy.items()}, settings)
    assert facts.n == 2000 and facts.p99_ms and facts.p99_ms >= 10 and facts.settings["overloaded_processes"] == 0
    facts = server_facts({name: array[None] for name, array in over.items()}, settings)
    assert facts.p99_ms is None and facts.settings["overloaded_processes"] == 1


def test_a_trace_below_the_minimum_has_no_percentile() -> None:
    session, clock = paced(lambda n: MS)
    arrays = time_server(session, CLIPS, ServerSettings(queries=661), 0, clock)
    facts = server_facts({name: array[None] for name, array in arrays.items()}, ServerSettings(queries=661))
    assert facts.p99_ms is None and facts.p90_ms is not None


# --- offline ---------------------------------------------------------------------------------------


def test_offline_reports_the_best_batch_size() -> None:
    session, clock = paced(lambda n: (8 + n + n * n // 16) * MS)  # per frame the least at 11 or so
    chosen = OfflineSettings(batch_sizes=(1, 4, 12, 64), search_calls=5)
    arrays = search_offline(session, CLIPS, chosen, clock)
    assert best_batch(arrays["offline_sizes"], arrays["offline_search_ns"]) == 12
    ns = np.stack([time_offline(session, CLIPS, 12, 30, clock) for _ in range(2)])
    facts = offline_facts(arrays | {"offline_ns": ns}, chosen)
    assert facts.settings["batch"] == 12 and facts.n == 60 and facts.processes == 2
    assert facts.throughput_fps == pytest.approx(12 / 0.029)


# --- clocks ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin a process")
def test_a_process_is_pinned_to_one_of_its_cores() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        core = pin_to_one_core()
        assert core in allowed and os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, allowed)


class Unsteady:
    """A clock that says what it is told to."""

    def __init__(self, *readings: int) -> None:
        self.readings = list(readings)

    def now(self) -> int:
        return self.readings.pop(0)

    def wait_until(self, ns: int) -> None:
        return None


def test_a_clock_that_goes_backwards_is_named() -> None:
    clock = ForwardClock(Unsteady(5, 9, 7))
    assert clock.now() == 9
    with pytest.raises(FramegateError, match="Unsteady went back by 2 ns, from 9 to 7"):
        clock.now()


def test_a_clock_that_does_not_wait_is_named() -> None:
    with pytest.raises(FramegateError, match="100 ns before the moment asked for"):
        ForwardClock(Unsteady(0, 400)).wait_until(500)


def test_a_run_on_a_clock_that_goes_backwards_fails() -> None:
    arrivals = from_phases(np.array([0]), np.zeros((1, 1), np.int64), 100)
    lanes = Lanes(fake(), FrameSource(CLIPS), 1)
    with pytest.raises(FramegateError, match="went back"):
        serve(lanes, arrivals, 1, Unsteady(10, 10, 10, 30, 20))


def test_the_wall_clock_waits_as_long_as_asked() -> None:
    clock = WallClock()
    end = clock.now() + 3 * MS
    clock.wait_until(end)
    assert end <= clock.now() < end + 50 * MS
