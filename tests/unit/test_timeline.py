"""Ticks become spans; a live grid decides as a file's does."""

import numpy as np
import pytest

from framegate.resampling import Grid, resample
from framegate.timeline import Spans, softmax


def test_spans_are_maximal_runs_with_mean_probabilities() -> None:
    spans = Spans(0.1)
    ticks = [(0.0, [0.7, 0.3]), (0.1, [0.9, 0.1]), (0.2, [0.2, 0.8])]
    ended = [spans.add(time_s, np.array(shares)) for time_s, shares in ticks]
    assert ended[:2] == [None, None]
    first, last = ended[2], spans.end()
    assert first is not None and last is not None
    assert (first.start_s, first.end_s, first.top) == (0.0, 0.2, 0)
    assert first.shares == pytest.approx([0.8, 0.2])
    assert (last.start_s, last.end_s, last.top) == (0.2, 0.3, 1)
    assert spans.end() is None


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([1000.0, 0.0, -1000.0], np.float32)) == pytest.approx([1, 0, 0])


def test_a_frame_at_its_tick_is_not_waited_for() -> None:
    grid = Grid(10)
    assert grid.push(5.0) == (range(0), range(0, 1))
    assert grid.push(5.1004) == (range(1, 1), range(1, 2))
    assert grid.push(5.16) == (range(2, 2), range(2, 2))
    assert grid.push(5.45) == (range(2, 5), range(5, 5)), "the frame at 5.16 lasts for ticks 2, 3 and 4"
    assert list(grid.finish()) == [5]


def test_time_does_not_go_back() -> None:
    grid = Grid(10)
    grid.push(1.0)
    with pytest.raises(ValueError, match=r"0\.5 s after one at 1\.0 s"):
        grid.push(0.5)
    with pytest.raises(ValueError, match="nan"):
        grid.push(float("nan"))


def test_a_huge_gap_costs_nothing_until_it_is_walked() -> None:
    grid = Grid(10)
    grid.push(0.0)
    before, _ = grid.push(1e12)
    assert len(before) > 1e12


class At:
    def __init__(self, time_s: float) -> None:
        self.time_s = time_s


def test_thirty_frames_per_second_give_every_third_one_at_ten() -> None:
    frames = [At(k / 30) for k in range(30)]
    assert [round(frame.time_s * 30) for _, frame, _ in resample(frames, 10)] == list(range(0, 30, 3))


@pytest.mark.parametrize(
    ("fps", "silence_s", "cut"), [(10, 2.0, False), (10, 2.1, True), (0.5, 5.0, False), (0.5, 7.0, True)]
)
def test_a_silence_in_a_file_is_a_cut(fps: float, silence_s: float, cut: bool) -> None:
    tick = 1 / fps
    times = [5.0, 5 + tick, 5 + tick + silence_s, 5 + 2 * tick + silence_s]
    picked = list(resample([At(time_s) for time_s in times], fps))
    assert [frame.time_s for _, frame, new in picked if new] == ([times[2]] if cut else [])
    if cut:
        assert [time_s for time_s, _, _ in picked] == pytest.approx([one - 5 for one in times])
    else:
        assert len(picked) > len(times)
