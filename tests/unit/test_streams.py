"""Untrimmed streams: how they are made, what answers them, what counts as an alarm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from framegate.bench.scenario_facts import stream_facts
from framegate.bench.streams import (
    Alarms,
    Run,
    StreamSettings,
    count_alarms,
    plan_streams,
    run_streams,
    runs,
    stream_lengths,
    stream_ticks,
    stream_truth,
)
from framegate.contract import Skipped
from framegate.index import Index
from framegate.runtime.session import FakeSession, run_steps
from tests.bundles import LABELS, SPEC, WEIGHTS, FakeReader, fake_reader

SETTINGS = StreamSettings(background="green", stream_seconds=2.0, hold_s=0.3, tolerance_s=0.5)
BACKGROUND = 0  # in count()


def reader(per_split: int = 240, groups: int = 12) -> FakeReader:
    return fake_reader(per_split, groups)


def plan(index: Index, settings: StreamSettings = SETTINGS) -> tuple[tuple[int, ...], ...]:
    found = plan_streams(index, settings)
    assert not isinstance(found, Skipped)
    return found


# --- making -------------------------------------------------------------------------------------


def test_a_stream_is_of_one_camera_of_the_test_split_and_long_enough() -> None:
    index = reader().index
    streams = plan(index)
    for stream in streams:
        assert len({index.clips[p].group for p in stream}) == 1
        assert all(index.clips[p].split == "test" for p in stream)
    used = [p for stream in streams for p in stream]
    assert sorted(used) == sorted(index.split("test"))  # every clip once
    assert all(length >= 20 for length in stream_lengths(index, streams))
    assert stream_lengths(index, streams) == sorted(stream_lengths(index, streams), reverse=True)


def test_streams_are_a_function_of_the_seed() -> None:
    index = reader().index
    assert plan(index) == plan(index)
    assert plan(index) != plan(index, SETTINGS.model_copy(update={"seed": 1}))


def test_streams_are_skipped_with_a_reason() -> None:
    index = reader().index
    found = plan_streams(index, StreamSettings())
    assert isinstance(found, Skipped) and "'nothing'" in found.reason
    found = plan_streams(index, SETTINGS.model_copy(update={"stream_seconds": 1000}))
    assert isinstance(found, Skipped) and "1000 s" in found.reason


def test_the_state_is_carried_through_with_no_reset() -> None:
    source = reader()
    streams = plan(source.index)
    lengths = stream_lengths(source.index, streams)
    session = FakeSession(LABELS, SPEC, weights=WEIGHTS)
    found = run_streams(session, stream_ticks(source, streams), lengths)
    truth = stream_truth(source.index, streams)
    for row, stream in enumerate(streams):
        frames = np.concatenate([source.clip(p) for p in stream])[None]
        logits = run_steps(session, frames)[0]
        assert found["stream_top"][row, : lengths[row]].tolist() == logits.argmax(axis=1).tolist()
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = share.max(axis=1) / share.sum(axis=1)
        assert np.allclose(found["stream_confidence"][row, : lengths[row]], expected, atol=1e-4)
        assert (found["stream_top"][row, lengths[row] :] == -1).all() and (truth[row, lengths[row] :] == -1).all()
        assert truth[row, 0] == source.index.labels.index(source.index.clips[stream[0]].label)


def test_an_answer_that_is_not_finite_is_no_label() -> None:
    broken = FakeSession(LABELS, SPEC, weights=np.full((3, 3), np.nan, np.float32))
    found = run_streams(broken, [np.zeros((1, 16, 16, 3), np.uint8)], [1])
    assert found["stream_top"].tolist() == [[-2]] and found["stream_confidence"].tolist() == [[0]]


# --- alarms -------------------------------------------------------------------------------------


def count(top: str, truth: str, confidence: float = 0.9, **changes: float) -> Alarms:
    """One stream at 10 fps, a character a frame: `.` is the background, letters are labels."""
    row = [np.array([[".ab".index(c) for c in text]], np.int16) for text in (top, truth)]
    sure = np.full(row[0].shape, confidence, np.float32)
    return count_alarms(row[0], sure, row[1], BACKGROUND, 10, SETTINGS.model_copy(update=changes))


@pytest.mark.parametrize(
    ("top", "truth", "false", "delays"),
    [
        ("....aaa...", "..........", 1, []),
        ("....aa....", "..........", 0, []),  # not held
        ("....aaabbb", "..........", 2, []),
        ("...aaaaa..", "...aaaaa..", 0, [0.2]),  # goes off in the third frame
        (".....aaa..", "...aaaaa..", 0, [0.4]),
        (".....aa...", "...aaaaa..", 0, [np.inf]),
        ("...bbbbb..", "...aaaaa..", 0, [np.inf]),  # the wrong alarm, but not in the background
        ("bbbbbbb...", "..aaaaa...", 0, [np.inf]),  # goes off as the event begins: still no alarm in the background
        ("bbbbbb....", "...aaa....", 1, [np.inf]),
        (".......aaa.....", "...aaa.........", 0, [0.6]),  # late, within the tolerance
        ("..........aaa..", "...aaa.........", 0, [np.inf]),
        ("...........aaa.", "...aaa.........", 1, [np.inf]),
        ("aaaaaaaa..", "...aaaaa..", 0, [0.0]),  # on already
        ("aaa.......", "....aaaa..", 1, [np.inf]),  # over before it began
        ("..aaabbb..", "..aaabbb..", 0, [0.2, 0.2]),
        ("..aaa.aaa.", "..aaa.aaa.", 0, [0.2, 0.2]),
    ],
)
def test_alarms_by_hand(top: str, truth: str, false: int, delays: list[float]) -> None:
    found = count(top, truth)
    assert found.false.tolist() == [false]
    assert found.delays_s.tolist() == pytest.approx(delays)
    assert found.background_frames.tolist() == [truth.count(".")]


def test_an_unsure_answer_raises_no_alarm() -> None:
    assert count("..aaaa..", "........", confidence=0.5).false.sum() == 1
    assert count("..aaaa..", "........", confidence=0.49).false.sum() == 0


@given(text=st.text(".ab", min_size=1, max_size=60), truth=st.text(".ab", min_size=60, max_size=60))
def test_a_longer_hold_never_raises_more_alarms_or_detects_sooner(text: str, truth: str) -> None:
    truth = truth[: len(text)]
    for low, high in ((0.1, 0.2), (0.2, 0.5)):
        short, long = count(text, truth, hold_s=low, tolerance_s=100), count(text, truth, hold_s=high, tolerance_s=100)
        assert (long.delays_s >= short.delays_s).all()
    assert count(text, truth, threshold=0.95).false.sum() == 0


@given(text=st.text(".ab", max_size=60))
def test_runs_tile_what_is_not_background(text: str) -> None:
    labels = np.array([".ab".index(c) for c in text], np.int16)
    again = np.zeros(len(labels), np.int16)
    for run in runs(labels, BACKGROUND):
        assert run.end > run.start and (again[run.start : run.end] == 0).all()
        again[run.start : run.end] = run.label
    assert np.array_equal(again, labels)
    assert runs(np.array([-1, -1, 2, -2]), BACKGROUND) == [Run(2, 2, 3)]


def test_stream_facts_say_what_was_seen() -> None:
    labels = ("nothing", "a")
    truth = np.zeros((2, 36_000), np.int16)
    truth[0, 100:200] = truth[0, 1000:1100] = truth[1, 500:600] = 1
    truth[1, 18_000:] = -1
    top: NDArray[np.int16] = truth.copy()
    top[0, 1000:1100] = 0  # not detected
    top[1, 5000:5010] = top[0, 7000:7010] = 1  # false alarms
    arrays = {"stream_top": top, "stream_truth": truth, "stream_confidence": np.ones(top.shape, np.float32)}
    facts = stream_facts(arrays, labels, 10, StreamSettings())
    assert facts.streams == 2 and facts.events == 3 and facts.detected == 2 and facts.false_alarms == 2
    assert facts.background_hours == pytest.approx((54_000 - 300) / 36_000)
    assert facts.false_alarms_per_hour == pytest.approx(2 / facts.background_hours)
    assert facts.false_alarms_per_hour_low < facts.false_alarms_per_hour < facts.false_alarms_per_hour_high
    assert facts.time_to_detect_s == pytest.approx(0.4) and facts.time_to_detect_s_high is None
    assert type(facts).model_validate_json(facts.to_json()) == facts
