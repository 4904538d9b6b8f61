"""Alerts as they go off: the alarms of the bench, one frame at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.alerts import Alert, AlertEnd, Alerts, Rules
from framegate.bench.streams import PADDING, StreamSettings, count_alarms, runs

LABELS = (".", "a", "b")
FPS = 10.0
RULES = Rules(hold_s=0.3, threshold=0.5, background=".")


def told(tops: str, confidences: list[float] | None = None, rules: Rules = RULES, fps: float = FPS) -> list:
    """Events of a text, a character a frame."""
    alerts, found = Alerts(LABELS, fps, rules), []
    for k, top in enumerate(tops):
        found += alerts.push(k / fps, LABELS.index(top), 0.9 if confidences is None else confidences[k])
    return found + alerts.end()


def goes_off(events: list, fps: float = FPS) -> list[tuple[int, str]]:
    return [(round(e.time_s * fps), e.label) for e in events if isinstance(e, Alert)]


def test_an_alert_goes_off_once_in_the_frame_in_which_it_was_held_and_ends_with_its_run() -> None:
    first, end = told("..aaaaa..")
    assert first == Alert("a", 0.9, start_s=0.2, time_s=0.4)
    assert isinstance(end, AlertEnd)
    assert (end.label, end.start_s, end.end_s) == ("a", 0.2, pytest.approx(0.7))


def test_what_is_not_held_long_enough_raises_nothing() -> None:
    assert told("..aa..bb.aa.") == []


def test_the_background_never_raises_an_alert_and_without_one_every_label_does() -> None:
    assert told("......") == []
    assert goes_off(told("......", rules=Rules(hold_s=0.3))) == [(2, ".")]


def test_one_unsure_frame_ends_a_run() -> None:
    assert told("aaaa", [0.9, 0.9, 0.4, 0.9]) == []
    assert goes_off(told("aaaaaa", [0.9, 0.9, 0.4, 0.9, 0.9, 0.9])) == [(5, "a")]


def test_every_label_has_its_own_threshold() -> None:
    rules = Rules(hold_s=0.3, threshold=0.5, thresholds={"b": 0.95}, background=".")
    assert goes_off(told("aaa.bbb", rules=rules)) == [(2, "a")]
    assert goes_off(told("aaa.bbb", [0.5] * 4 + [0.95] * 3, rules)) == [(2, "a"), (6, "b")]


def test_an_answer_that_is_not_a_number_ends_a_run() -> None:
    assert told("aaaa", [0.9, 0.9, float("nan"), 0.9], Rules(hold_s=0.3, threshold=0.0, background=".")) == []


def test_a_frame_that_was_dropped_does_not_delay_an_alert() -> None:
    alerts = Alerts(LABELS, FPS, RULES)
    assert alerts.push(0.0, 1, 0.9) == []
    assert [type(e) for e in alerts.push(0.2, 1, 0.9)] == [Alert]  # 0.1 was dropped


@pytest.mark.parametrize(("hold_s", "bridged"), [(0.1, 3), (0.3, 3), (0.5, 5)])
def test_a_run_ends_where_another_could_have_gone_off_unseen(hold_s: float, bridged: int) -> None:
    rules = Rules(hold_s=hold_s, background=".")

    def starts(gap: int) -> list[float]:
        alerts = Alerts(LABELS, FPS, rules)
        times = [0.0, gap / FPS, *((gap + k) / FPS for k in range(1, 10))]
        return [e.start_s for t in times for e in alerts.push(t, 1, 0.9) if isinstance(e, Alert)]

    assert starts(bridged) == [0.0]
    assert starts(bridged + 1)[-1] == (bridged + 1) / FPS


def test_two_answers_far_apart_raise_no_alert_and_an_alert_ends_with_the_last_frame_seen() -> None:
    alerts = Alerts(LABELS, FPS, Rules(hold_s=0.5, background="."))
    assert alerts.push(0.0, 1, 0.9) + alerts.push(1.9, 1, 0.9) == []
    events = [e for k in range(20, 25) for e in alerts.push(k / FPS, 1, 0.9)]
    assert [type(e) for e in events] == [Alert]
    assert alerts.push(4.2, 1, 0.9) == [AlertEnd("a", 1.9, pytest.approx(2.5))]


def test_the_end_of_a_stream_without_an_alert_says_nothing() -> None:
    alerts = Alerts(LABELS, FPS, RULES)
    alerts.push(0.0, 1, 0.9)
    assert alerts.end() == [] and alerts.end() == []


def test_frames_are_counted_rightly_after_months() -> None:
    alerts, start = Alerts(LABELS, 30.0, Rules(hold_s=0.5, background=".")), 1e7
    events = [(k, e) for k in range(20) for e in alerts.push(start + k / 30, 1, 0.9)]
    assert [k for k, _ in events] == [14]


@given(
    tops=st.text(".ab", min_size=1, max_size=80),
    fps=st.sampled_from([1.0, 7.5, 10.0, 12.0, 29.97, 30.0]),
    hold_s=st.sampled_from([0.05, 0.1, 0.25, 0.3, 0.5, 1.0, 2.0]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    data=st.data(),
)
def test_they_go_off_where_the_bench_says_that_alarms_do(
    tops: str, fps: float, hold_s: float, threshold: float, data: st.DataObject
) -> None:
    sure = st.one_of(st.floats(0, 1, width=32), st.just(threshold))
    confidences = data.draw(st.lists(sure, min_size=len(tops), max_size=len(tops)))
    row = np.array([LABELS.index(top) for top in tops], np.int16)
    kept = np.array(confidences, np.float32)
    hold = max(1, int(np.ceil(hold_s * fps - 1e-9)))
    expected = [
        (run.start + hold - 1, LABELS[run.label])
        for run in runs(np.where(kept >= threshold, row, PADDING), 0)
        if run.end - run.start >= hold
    ]
    events = told(tops, confidences, Rules(hold_s, threshold, background="."), fps)
    assert goes_off(events, fps) == expected
    assert len([e for e in events if isinstance(e, AlertEnd)]) == len(expected)
    settings_ = StreamSettings(background=".", hold_s=hold_s, threshold=threshold, tolerance_s=0)
    quiet = np.zeros((1, len(tops)), np.int16)
    assert count_alarms(row[None], kept[None], quiet, 0, fps, settings_).false.tolist() == [len(expected)]
