"""Arrival patterns: seeded, at the rate asked for, in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.bench.load import cameras, from_phases, poisson
from framegate.contract import ConfigError

PERIOD = 100_000_000


def test_poisson_arrivals_keep_the_rate_and_are_memoryless() -> None:
    arrivals = poisson(200, 20_000, 8, np.random.default_rng(0))
    gaps = np.diff(arrivals.at_ns) / 1e9
    assert abs(gaps.mean() * 200 - 1) < 0.03
    assert abs(gaps.std() * 200 - 1) < 0.03  # an exponential's standard deviation is its mean
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03
    assert np.bincount(arrivals.stream, minlength=8).min() > 2300


def test_a_stream_numbers_its_own_requests() -> None:
    arrivals = poisson(10, 500, 7, np.random.default_rng(1))
    for stream in range(7):
        own = arrivals.number[arrivals.stream == stream]
        assert own.tolist() == list(range(len(own)))


@given(streams=st.integers(1, 6), frames=st.integers(1, 20), jitter=st.integers(0, PERIOD - 1), seed=st.integers(0, 99))
def test_every_camera_sends_every_frame_once_and_in_order(streams: int, frames: int, jitter: int, seed: int) -> None:
    arrivals = cameras(streams, 10, frames, jitter, np.random.default_rng(seed))
    assert (np.diff(arrivals.at_ns) >= 0).all() and len(arrivals) == streams * frames
    for stream in range(streams):
        mine = arrivals.stream == stream
        assert arrivals.number[mine].tolist() == list(range(frames))
        late = arrivals.at_ns[mine] - arrivals.number[mine] * PERIOD  # phase and jitter
        assert late.min() >= 0 and late.max() - late.min() <= jitter and late.max() < PERIOD + jitter


def test_cameras_have_phases_of_their_own() -> None:
    arrivals = cameras(200, 10, 1, 0, np.random.default_rng(0))
    assert len(set(arrivals.at_ns.tolist())) > 190 and arrivals.at_ns.max() > 0.9 * PERIOD


def test_arrivals_are_a_function_of_the_seed() -> None:
    for make in (
        lambda seed: poisson(50, 40, 3, np.random.default_rng(seed)),
        lambda seed: cameras(3, 10, 9, 1000, np.random.default_rng(seed)),
    ):
        assert np.array_equal(make(1).at_ns, make(1).at_ns) and not np.array_equal(make(1).at_ns, make(2).at_ns)


def test_arrivals_by_hand() -> None:
    arrivals = from_phases(np.array([30, 0]), np.array([[0, 5], [10, 0]]), 100)
    assert arrivals.at_ns.tolist() == [10, 30, 100, 135]
    assert arrivals.stream.tolist() == [1, 0, 1, 0] and arrivals.number.tolist() == [0, 0, 1, 1]


def test_impossible_patterns_are_all_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"streams is 0, fps is -1, frames is 0"):
        cameras(0, -1, 0, 0, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="rate_per_s is nan"):
        poisson(float("nan"), 1, 1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="less than a period"):
        cameras(1, 10, 1, PERIOD, np.random.default_rng(0))
