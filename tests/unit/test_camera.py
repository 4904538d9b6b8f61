"""Cameras on a virtual clock: what is missed and dropped is known beforehand."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from framegate.bench.camera import (
    ANSWERED,
    DROPPED,
    MISSED,
    CameraFound,
    CameraRun,
    CameraSettings,
    answer_kept,
    check_fps,
    drive,
    drop_pattern,
    find_frame_streams,
    find_streams,
    judge,
    largest,
    min_clean_frames,
)
from framegate.bench.clock import VirtualClock
from framegate.bench.load import cameras, from_phases
from framegate.bench.scenario import (
    PHASES,
    FrameSource,
    Lanes,
    ServerSettings,
)
from framegate.bench.scenario_facts import camera_facts
from framegate.contract import ConfigError
from framegate.runtime.session import run_clips, run_steps
from tests.paced import CLIPS, MS, fake, fed, paced

FAST = CameraSettings(jitter_ms=0, confirm_seconds=25, confirm_runs=3, search_seconds=2, resolution=0)


def film(phases_ms: list[float], frames: int, cost: Callable[[int], int], **changes: float) -> CameraRun:
    """A camera run of 10 fps streams with the given phases and no jitter."""
    session, clock = paced(cost)
    phases = np.array([round(ms * MS) for ms in phases_ms])
    arrivals = from_phases(phases, np.zeros((len(phases), frames), np.int64), 100 * MS)
    lanes = Lanes(session, FrameSource(CLIPS), len(phases))
    return drive(lanes, arrivals, FAST.model_copy(update=changes), clock)


# --- by hand ---------------------------------------------------------------------------------------


def test_one_stream_is_answered_after_each_step() -> None:
    run = film([7], 5, lambda n: 30 * MS)
    assert run.outcome.tolist() == [[ANSWERED] * 5] and run.latency_ns.tolist() == [[30 * MS] * 5]
    assert run.phase_ns == {"queue": 0, "decode": 0, "resize": 0, "infer": 150 * MS}


def test_streams_that_wait_together_are_answered_together() -> None:
    run = film([0, 10, 20], 1, lambda n: (20 + 10 * n) * MS)
    # 0: alone, 0..30; 10 and 20 wait, together 30..70
    assert run.latency_ns.ravel().tolist() == [30 * MS, 60 * MS, 50 * MS]
    assert run.phase_ns["queue"] == (20 + 10) * MS and run.phase_ns["infer"] == (30 + 40) * MS


def test_a_batch_holds_no_more_than_its_maximum() -> None:
    run = film([0, 10, 11, 12], 1, lambda n: 40 * MS, max_batch=2)
    # 0..40 alone, 40..80 two, 80..120 the last
    assert run.latency_ns.ravel().tolist() == [40 * MS, 70 * MS, 69 * MS, 108 * MS]
    assert run.outcome.ravel().tolist() == [ANSWERED, ANSWERED, ANSWERED, MISSED]


def test_the_newest_frame_replaces_the_one_that_waits() -> None:
    run = film([0], 10, lambda n: 250 * MS, deadline_ms=300)
    # 0 until 250; 2 (1 replaced) until 500; 5, which has just come, until 750; 7 until 1000; 9 until 1250
    assert run.outcome[0].tolist() == [0, 2, 0, 2, 2, 0, 2, 0, 2, 1]
    assert run.latency_ns[0, [0, 2, 5, 7, 9]].tolist() == [250 * MS, 300 * MS, 250 * MS, 300 * MS, 350 * MS]
    assert (run.latency_ns[run.outcome == DROPPED] == -1).all()


def test_an_answer_at_the_deadline_is_in_time_and_one_after_it_is_not() -> None:
    assert film([0], 1, lambda n: 100 * MS).outcome.item() == ANSWERED
    assert film([0], 1, lambda n: 100 * MS + 1).outcome.item() == MISSED


def test_a_stream_keeps_its_place_in_line_when_its_frame_is_replaced() -> None:
    run = film([0, 1, 2], 4, lambda n: 60 * MS, max_batch=1, deadline_ms=1000)
    # the line is 0 1 2 0 1 2: each stream has its turn, every 180 ms
    starts = np.sort(
        (run.latency_ns - 60 * MS + np.array([[0], [1], [2]]) * MS + np.arange(4) * 100 * MS)[run.latency_ns >= 0]
    )
    assert np.array_equal(np.diff(starts), np.full(len(starts) - 1, 60 * MS))
    assert (run.latency_ns >= 0).sum(axis=1).min() >= 2


# --- laws ------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), seed=st.integers(0, 999), cost_ms=st.floats(5, 60))
def test_permuting_streams_permutes_outcomes(order: list[int], seed: int, cost_ms: float) -> None:
    rng = np.random.default_rng(seed)
    phases, jitter = rng.permutation(100)[:6] * MS, rng.integers(0, 20 * MS, (6, 12))

    def run(chosen: list[int]) -> CameraRun:
        session, clock = paced(lambda n: round(cost_ms * MS) + n * 1000)
        arrivals = from_phases(phases[chosen], jitter[chosen], 100 * MS)
        return drive(Lanes(session, FrameSource(CLIPS), 6), arrivals, FAST.model_copy(update={"max_batch": 2}), clock)

    straight, other = run(list(range(6))), run(order)
    assert np.array_equal(straight.outcome[order], other.outcome)
    assert np.array_equal(straight.latency_ns[order], other.latency_ns)


@given(seed=st.integers(0, 9999), share=st.floats(0, 1))
def test_dropping_never_lowers_misses_and_drops(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    outcome = rng.integers(0, 3, (4, 50)).astype(np.uint8)
    dropped = np.where(rng.random(outcome.shape) < share, DROPPED, outcome).astype(np.uint8)
    before, after = (CameraRun(each, np.zeros(each.shape, np.int64), {}).failed_share for each in (outcome, dropped))
    assert after >= before


def test_a_session_that_drops_its_way_to_punctuality_does_not_pass() -> None:
    run = film([0, 50], 100, lambda n: 150 * MS, deadline_ms=300)
    kept = run.outcome[run.outcome != DROPPED]
    assert (kept == ANSWERED).all() and run.failed_share > 0.25


@settings(max_examples=20, deadline=None)
@given(streams=st.integers(1, 8), seed=st.integers(0, 99), max_batch=st.integers(1, 5))
def test_streams_answer_as_they_would_alone_when_nothing_is_dropped(streams: int, seed: int, max_batch: int) -> None:
    session, clock = paced(lambda n: MS // 2)
    lanes = Lanes(session, FrameSource(CLIPS), streams)
    arrivals = cameras(streams, 10, 15, 10 * MS, np.random.default_rng(seed))
    run = drive(lanes, arrivals, FAST.model_copy(update={"max_batch": max_batch}), clock)
    assert run.failed_share == 0
    assert np.allclose(lanes.logits, run_steps(fake(), fed(streams, 15))[:, -1], atol=1e-5)


def test_the_state_sees_exactly_what_was_not_dropped() -> None:
    session, clock = paced(lambda n: 130 * MS)
    lanes = Lanes(session, FrameSource(CLIPS), 2)
    run = drive(lanes, cameras(2, 10, 20, 0, np.random.default_rng(3)), FAST, clock)
    assert 0 < (run.outcome == DROPPED).sum() < 40
    for stream, frames in enumerate(fed(2, 20)):
        seen = frames[run.outcome[stream] != DROPPED]
        assert np.allclose(lanes.logits[stream], run_clips(fake(), seen[None])[0], atol=1e-5)


# --- the search ------------------------------------------------------------------------------------


@given(limit=st.integers(0, 300), start=st.integers(1, 400), most=st.integers(1, 300))
def test_the_search_finds_the_largest_number_from_anywhere(limit: int, start: int, most: int) -> None:
    tried: list[int] = []

    def passes(n: int) -> bool:
        tried.append(n)
        return n <= limit

    assert largest(passes, start, most, 0) == min(limit, most)
    assert len(tried) == len(set(tried)) <= 20


def test_the_search_finds_what_the_session_can_do() -> None:
    # 40 ms a step of up to 4: 100 frames/s, so no more than 10 streams of 10 fps
    session, clock = paced(lambda n: 40 * MS)
    found = find_frame_streams(session, CLIPS, FAST.model_copy(update={"max_batch": 4}), clock)
    assert found.streams is not None and 7 <= found.streams <= 10 and found.reason == ""
    arrays = found.arrays()
    assert arrays["camera_outcome"].shape == (3, found.streams * 250) and arrays["camera_phase_ns"].shape == (3, 4)
    facts = camera_facts(arrays, FAST)
    assert facts.streams == found.streams and facts.scheduled == 3 * found.streams * 250
    assert facts.missed is not None and facts.dropped is not None and facts.missed + facts.dropped < 0.001 * facts.n
    assert facts.p50_ms and 40 <= facts.p50_ms <= facts.p99_ms <= 100 and facts.settings["phases_ms"]["infer"] >= 10


def test_the_whole_search_is_a_function_of_the_seed() -> None:
    def search(seed: int) -> dict[str, NDArray]:
        session, clock = paced(lambda n: (30 + n) * MS)
        return find_frame_streams(
            session, CLIPS, FAST.model_copy(update={"seed": seed, "jitter_ms": 5, "max_batch": 4}), clock
        ).arrays()

    one, same, other = search(1), search(1), search(2)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["camera_ns"], other["camera_ns"])


def test_no_stream_at_all_is_a_result() -> None:
    session, clock = paced(lambda n: 150 * MS)
    found = find_frame_streams(session, CLIPS, FAST, clock)
    assert found.streams == 0 and "not even one" in found.reason
    assert camera_facts(found.arrays(), FAST).streams == 0


def test_too_few_frames_are_unknown_not_passed() -> None:
    session, clock = paced(lambda n: 40 * MS)
    found = find_frame_streams(session, CLIPS, FAST.model_copy(update={"confirm_seconds": 5, "max_batch": 1}), clock)
    assert found.streams is None and "too few frames" in found.reason
    assert camera_facts(found.arrays(), FAST).streams is None


def test_a_number_that_holds_for_seconds_only_is_stepped_down() -> None:
    session, clock = paced(lambda n: (40 if clock.ns < 40e9 else 60) * MS)  # slower once it is warm
    held = FAST.model_copy(update={"max_batch": 4, "confirm_seconds": 35, "deadline_ms": 200})
    found = find_frame_streams(session, CLIPS, held, clock)
    assert found.streams is not None and 4 <= found.streams <= 6  # 100 frames/s at first, then 67
    assert all(run.failed_share < held.limit for run in found.runs)


def test_a_timeout_bounds_the_search() -> None:
    session, clock = paced(lambda n: 10 * MS)
    found = find_frame_streams(session, CLIPS, FAST.model_copy(update={"timeout_s": 20}), clock)
    assert found.streams is None and "20 s" in found.reason and clock.ns < 60e9
    facts = camera_facts(found.arrays(), FAST)
    assert facts.streams is None and facts.n == 0 and facts.p50_ms is None


def test_a_limit_takes_as_many_clean_frames_as_loadgen_asks_for() -> None:
    assert min_clean_frames(0.001) == 4603
    clean = np.zeros((1, 4603), np.uint8)
    assert judge([clean], 0.001) == "confirmed" and judge([clean[:, 1:]], 0.001) == "too few frames"


def test_one_bad_run_is_not_hidden_by_good_ones() -> None:
    clean, bad = np.zeros(50_000, np.uint8), np.zeros(50_000, np.uint8)
    bad[:60] = MISSED  # 0.12 % of this one, 0.04 % of all
    assert judge([clean, clean, bad], 0.001) == "too many failed"
    clean[:35] = DROPPED
    assert judge([clean] * 3, 0.001) == "confirmed"
    clean[:45] = DROPPED  # below the limit, but not provably: binomial, 1 %
    assert judge([clean], 0.001) == "too many failed"


def test_a_dropped_frame_counts_as_never_answered() -> None:
    latency = np.full((3, 1000), 5 * MS)
    latency[:, :20] = -1  # 2 %: beyond p99, not beyond p90
    outcome = np.where(latency < 0, DROPPED, ANSWERED).astype(np.uint8)
    runs = tuple(CameraRun(*each, dict.fromkeys(PHASES, 0)) for each in zip(outcome, latency, strict=True))
    facts = camera_facts(CameraFound(None, "", 10, runs).arrays(), FAST)
    assert facts.p90_ms == 5 and facts.p99_ms == float("inf") and facts.dropped == 60 and facts.streams is None


def test_frames_at_another_rate_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"camera.fps is 25, the bundle's clips have 10 fps"):
        check_fps(fake(), 25)
    with pytest.raises(ConfigError):
        find_streams(lambda n: Lanes(fake(), FrameSource(CLIPS), n), CameraSettings(fps=25), VirtualClock())


def test_nonsense_settings_are_reported_all_at_once() -> None:
    with pytest.raises(ValidationError) as error:
        CameraSettings(fps=0, deadline_ms=-1, streams_max=0, limit=2, confirm_runs=0, confirm_seconds=float("inf"))
    assert error.value.error_count() == 6
    with pytest.raises(ValidationError, match="less than a period, 40 ms"):
        CameraSettings(fps=25, jitter_ms=40)
    with pytest.raises(ValidationError) as error:
        ServerSettings(rate_per_s=0, queries=0, max_batch=-1)
    assert error.value.error_count() == 3


# --- accuracy under drops --------------------------------------------------------------------------


def test_drop_patterns_are_stretches_of_what_happened() -> None:
    outcome = np.tile(np.array([ANSWERED, DROPPED, MISSED, ANSWERED], np.uint8), 20)[None].repeat(2, axis=0)
    keep = drop_pattern(outcome, streams=4, clips=300, frames=8, seed=0)
    assert keep.shape == (300, 8) and (keep.sum(axis=1) == 6).all()  # a missed frame was seen, a dropped one was not
    assert len({tuple(row) for row in keep.tolist()}) == 4
    assert np.array_equal(keep, drop_pattern(outcome, 4, 300, 8, seed=0))
    assert not np.array_equal(keep, drop_pattern(outcome, 4, 300, 8, seed=1))


def test_drop_patterns_come_from_every_stream_of_every_run() -> None:
    outcome = np.array([[ANSWERED] * 20 + [DROPPED] * 20, [ANSWERED] * 40], np.uint8)  # a quarter saw nothing
    keep = drop_pattern(outcome, streams=2, clips=400, frames=8, seed=0)
    assert 70 < (keep.sum(axis=1) == 0).sum() < 130


def test_a_pattern_takes_streams_as_long_as_a_clip() -> None:
    with pytest.raises(ValueError, match="streams of 5 frames hold no clip of 8"):
        drop_pattern(np.zeros((1, 20), np.uint8), streams=4, clips=1, frames=8, seed=0)


def test_clips_are_answered_from_the_frames_that_were_kept() -> None:
    keep = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
    logits = answer_kept(fake(), CLIPS, keep)
    for i in (0, 1, 2, 4):
        assert np.allclose(logits[i], run_clips(fake(), CLIPS[i : i + 1, keep[i]])[0], atol=1e-5)
    assert np.isnan(logits[3]).all()
