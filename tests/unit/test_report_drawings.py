"""What the page draws: points, names, curves, lines of rules, classes and clips, each where it belongs."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from framegate.contract import ClipSpec, DataError, RuleOutcome
from framegate.gate import Evidence, decide
from framegate.index import IndexSettings, ShardReader, build
from framegate.report import thumbnails, worst_clips
from framegate.report.bars import loads, stacks
from framegate.report.chart import CANVASES, Dot, charts, pareto
from framegate.report.clips import strip
from framegate.report.distribution import Times, distributions
from framegate.report.gauge import BOUND_AT, gauge
from framegate.report.recall import recall
from framegate.report.row import rows
from framegate.report.scale import LogScale, round_values
from tests.evidence import REFERENCE, RULES, case_of, make

SHIPPED = "cnn_gru-pruned-int8--openvino"
DOTS = st.lists(
    st.builds(
        Dot,
        number=st.integers(1, 99),
        label=st.sampled_from(["pruned int8 · openvino", "dense fp32 · ort-cpu", "x"]),
        title=st.just(""),
        p99_ms=st.floats(0.001, 1000),
        p99_low=st.none() | st.floats(0.001, 1000),
        p99_high=st.none() | st.floats(0.001, 1000),
        accuracy=st.floats(0, 100),
        low=st.none() | st.floats(-5, 100),
        high=st.none() | st.floats(0, 105),
        kind=st.sampled_from(["pass", "fail", "shipped", "inconclusive"]),
        must=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def dot(number: int, p99_ms: float, accuracy: float) -> Dot:
    return Dot(
        number, "pruned70 int8 · openvino", "", p99_ms, None, None, accuracy, accuracy - 0.3, accuracy + 0.3, "pass"
    )


# --- accuracy against p99 -----------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(dots=DOTS, floor=st.none() | st.floats(0, 100), budgets=st.lists(st.floats(0.01, 100), max_size=3))
def test_everything_drawn_is_on_the_canvas(dots: list[Dot], floor: float | None, budgets: list[float]) -> None:
    for name, drawn in charts(dots, floor, budgets).items():
        canvas = CANVASES[name]
        assert len(drawn.points) == len(dots) and len(drawn.budgets) + len(drawn.beyond) == len(budgets)
        for point in drawn.points:
            xs, ys = (point.x, point.x_low, point.x_high), (point.y, point.y_low, point.y_high)
            assert all(canvas.left <= x <= canvas.right for x in xs)
            assert all(canvas.top <= y <= canvas.bottom for y in ys)
            assert point.label is None or point.label.box.is_in(canvas)


def test_names_of_forty_crowded_points_do_not_overlap_and_the_important_ones_are_there() -> None:
    rng = np.random.default_rng(0)
    times, accuracies = 10 ** rng.uniform(-1.3, -0.3, 40), rng.uniform(95.2, 96.4, 40)
    dots = [dot(n, float(ms), float(a)) for n, (ms, a) in enumerate(zip(times, accuracies, strict=True), start=1)]
    dots[7] = replace(dots[7], must=True)
    for drawn in charts(dots, 95.0, [0.23]).values():
        boxes = [point.label.box for point in drawn.points if point.label]
        assert all(a.overlap(b) == 0 for a, b in combinations(boxes, 2))
        named = next(point.label for point in drawn.points if point.dot.number == 8)
        assert named and named.text == "8 pruned70 int8 · openvino"


def test_what_is_far_below_sits_in_a_lane_of_its_own_and_says_how_far() -> None:
    drawn = charts([dot(1, 0.1, 96.0), dot(2, 0.2, 21.0)], 95.0, [])["wide"]
    low = next(point for point in drawn.points if point.dot.number == 2)
    assert low.below and drawn.base < low.y < drawn.canvas.bottom
    assert low.label and low.label.text.endswith("(21.0 %)")
    assert not charts([dot(1, 0.1, 96.0), dot(2, 0.2, 95.5)], 95.0, [])["wide"].points[0].below


def test_a_far_budget_is_a_word_at_the_edge_and_squeezes_nothing() -> None:
    dots = [dot(1, 0.1, 96.0), dot(2, 0.2, 95.0)]
    assert charts(dots, None, [33.3])["wide"].beyond == ("budget 33.3 ms →",)
    assert charts(dots, None, [0.001])["wide"].beyond == ("← budget 0.001 ms",)
    assert [line.text for line in charts(dots, None, [0.3])["wide"].budgets] == ["≤ 0.3 ms"]


@settings(max_examples=50, deadline=None)
@given(dots=DOTS)
def test_nothing_beats_the_pareto_front_and_the_front_beats_all_else(dots: list[Dot]) -> None:
    front = pareto(dots)
    for one in dots:
        beaten = any(f.p99_ms <= one.p99_ms and f.accuracy >= one.accuracy for f in front)
        assert beaten
    for a, b in combinations(front, 2):
        assert a.p99_ms < b.p99_ms and a.accuracy < b.accuracy


def test_no_points_make_no_chart() -> None:
    assert charts([], 95.0, [1.0]) == {} and charts([dot(1, float("nan"), 90.0)], None, []) == {}


@settings(max_examples=50, deadline=None)
@given(low=st.floats(1e-4, 1e3), factor=st.floats(1.0, 1e4))
def test_a_logarithmic_axis_has_ticks_in_order_and_within(low: float, factor: float) -> None:
    axis = LogScale.over(low, low * factor, 10, 500)
    places = [tick.at for tick in axis.ticks()]
    assert places == sorted(places) and all(10 <= at <= 500 for at in places)
    assert axis.at(0.0) == 10
    assert 1 <= len(round_values(0, 100)) <= 9


# --- latency, load ------------------------------------------------------------------------------


def test_two_distributions_share_an_axis_and_mark_the_estimates_that_rules_use() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = 0.1 * rng.lognormal(0, 0.1, 2000), 0.4 * rng.lognormal(0, 0.1, 2000)
    for drawn in distributions([Times("a", "winner", mine), Times("b", "parent", theirs)], [33.3]).values():
        fast, slow = drawn.curves
        assert fast.spots[0][0] < slow.spots[0][0] and fast.spots[0][0] < fast.spots[1][0]
        assert [words.split()[0] for words in fast.words] == ["p50", "p99"]
        assert drawn.budgets == () and drawn.calls == 4000
        boxes = [label.box for curve in drawn.curves for label in curve.labels]
        assert all(a.overlap(b) == 0 for a, b in combinations(boxes, 2))


@pytest.mark.parametrize("calls", [1, 3, 200])
def test_few_calls_draw_what_they_can(calls: int) -> None:
    drawn = distributions([Times("a", "winner", np.full(calls, 0.2))], [])["narrow"]
    assert len(drawn.curves[0].spots) == (1 if calls == 200 else 0)
    assert distributions([Times("a", "winner", np.empty(0))], []) == {}


def test_phases_have_one_scale_and_loads_only_what_was_measured() -> None:
    case = case_of([make(), make(SHIPPED, 0.061)])
    table = rows(decide(case, RULES), case.evidence, case.confirmation)
    found = stacks([("ships", table[0]), ("reference", table[1])])
    assert [stack.name for stack in found] == [SHIPPED, REFERENCE]
    assert sum(phase.share for phase in found[1].phases) == pytest.approx(100)
    assert [phase.name for phase in found[0].phases] == ["decode", "resize", "infer"]
    assert [one.title for one in loads(table)] == ["Peak memory of one session"]


# --- rules, classes, clips ----------------------------------------------------------------------


def outcome(kind: str, value: float | None, bound: float, low: float, high: float, unit: str = "ms") -> RuleOutcome:
    return RuleOutcome(
        rule="r", metric="m", status="PASS", value=value, bound=bound, low=low, high=high, n=1, unit=unit, reason="",
        kind=kind,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "good", "bad", "bound"),
    [("max", 1.0, 3.0, 2.0), ("min", 99.0, 80.0, 90.0), ("drop_max", -1.0, 4.0, 1.0), ("ratio_max", 0.1, 0.9, 0.5),
     ("chance", 85.0, -2.0, 0.0)],
)  # fmt: skip
def test_whatever_the_rule_what_is_allowed_lies_left_of_its_bound(
    kind: str, good: float, bad: float, bound: float
) -> None:
    left, right = (gauge(outcome(kind, value, bound, value, value)) for value in (good, bad))
    assert left and right and left.value < BOUND_AT < right.value
    assert gauge(outcome(kind, None, bound, 0, 0)) is None and gauge(outcome(kind, float("nan"), bound, 0, 0)) is None
    assert gauge(outcome("guardrail", 1.0, 0.0, -1.0, 3.0)) is None


def test_the_class_that_loses_most_stands_first_with_what_the_guardrail_found() -> None:
    reference, winner = make(), make(SHIPPED, 0.061, lost=60)
    found = recall(reference, winner, points=0.0)
    assert found and found.guarded
    changes = [row.change for row in found.rows]
    assert changes == sorted(changes) and changes[0] < 0
    assert all(row.guardrail and row.guardrail.label == row.label for row in found.rows)
    assert found.rows[0].guardrail and found.rows[0].guardrail.harmed
    unguarded = recall(reference, winner, points=None)
    assert unguarded and not unguarded.guarded


def changed(one: Evidence, logits: np.ndarray) -> Evidence:
    assert one.samples
    test = replace(one.samples.splits["test"], logits=logits.astype(np.float32))
    return Evidence(one.name, one.measurement, replace(one.samples, splits=one.samples.splits | {"test": test}))


def test_worst_clips_are_those_that_only_the_winner_gets_wrong_the_most_confident_first() -> None:
    reference, winner = make(), make(SHIPPED, 0.061, lost=6)
    assert winner.samples and reference.samples
    test = winner.samples.splits["test"]
    sure = np.linspace(1, 9, len(test.ids))[:, None] * test.logits
    sure[np.flatnonzero(~test.right)[0]] = np.nan
    found = worst_clips(changed(winner, sure), reference, 12)
    assert len(found) == 12 and all(clip.truth != clip.given for clip in found)
    harm = [clip.confidence for clip in found if clip.harm]
    assert [clip.harm for clip in found] == [True] * len(harm) + [False] * (12 - len(harm)) and 5 <= len(harm) <= 6
    assert harm == sorted(harm, reverse=True) and all(0 < clip.confidence <= 1 for clip in found)
    assert worst_clips(Evidence(winner.name, winner.measurement, None), reference, 12) == []


def test_pictures_show_the_first_middle_and_last_frame_that_were_looked_at(
    tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    table, shards = tmp_path / "index.json", tmp_path / "shards"
    spec = ClipSpec(frames=8, height=32, width=32, fps=10)
    build(make_dataset(tmp_path / "data"), table, shards, spec, IndexSettings(), workers=0)
    reader = ShardReader(table, shards)
    position = reader.index.split("test")[0]
    worst = replace(worst_clips(make(lost=1), make(), 1)[0], id=reader.index.clips[position].id, truth=0, given=1)
    (found,) = thumbnails([worst], reader)
    assert (found.truth, found.given) == reader.index.labels[:2] and found.jpeg[:2] == b"\xff\xd8"
    assert found.source.startswith("data:image/jpeg;base64,")
    with pytest.raises(DataError, match="has no test clip 'gone'"):
        thumbnails([replace(worst, id="gone")], reader)


def test_a_large_frame_is_scaled_down_and_a_small_one_left_as_it_is() -> None:
    sizes = [Image.open(BytesIO(strip(np.zeros((3, h, w, 3), np.uint8)))).size for h, w in ((64, 64), (480, 640))]
    assert sizes == [(3 * 64 + 4, 64), (3 * 149 + 4, 112)]
