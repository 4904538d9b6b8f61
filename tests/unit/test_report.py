"""The report: one page that stands alone, escapes what it is told, and can be read."""

import re
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract import Measurement, Verdict
from framegate.gate import decide
from framegate.report import render
from framegate.report.chart import HEIGHT, WIDTH, Dot, chart
from framegate.report.page import interval, number, size
from tests.evidence import REFERENCE, RULES, absent, make

SHIPPED = "cnn_gru-pruned-int8--openvino"


def run() -> tuple[Verdict, list[Measurement]]:
    evidence = [
        make(),
        make(SHIPPED, 0.061, lost=6),
        make("cnn_gru-pruned70-fp32--ort-cpu", 0.09, lost=60, val_lost=14),
        make("cnn-dense-fp32--ort-cpu", 0.4, 0.4, lost=1400, val_lost=300),
        absent("cnn_gru-pruned-fp32--ort-cuda", "skipped", "no <b>driver</b> & no GPU"),
    ]
    return decide(evidence, RULES), [one.measurement for one in evidence]


class Tags(HTMLParser):
    """Checks that tags close in order."""

    VOID = frozenset({"meta", "line", "rect", "path", "circle", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass


def test_the_page_says_the_verdict_and_every_candidate_with_its_reason() -> None:
    verdict, measurements = run()
    page = render(verdict, measurements)
    assert verdict.sentence in page and "the accuracy floor" not in page
    for one in verdict.candidates:
        assert one.candidate in page
    assert "accuracy drop ≤ 1 points fails: 2.308 points" in page


def test_the_page_stands_alone_and_closes_its_tags() -> None:
    page = render(*run())
    assert "http" not in page and "<script" not in page and len(page) < 200_000
    assert "prefers-color-scheme: dark" in page and "max-width: 760px" in page
    tags = Tags()
    tags.feed(page)
    assert tags.open == []


def test_text_from_outside_is_escaped() -> None:
    page = render(*run())
    assert "no &lt;b&gt;driver&lt;/b&gt; &amp; no GPU" in page and "<b>driver" not in page


def test_losers_are_red_and_the_winner_is_a_star() -> None:
    page = render(*run())
    rows = re.findall(r'<tr class="(\w+)">\s*<td class="name">.*?</span> (\S+)', page)
    assert {name: kind for kind, name in rows} == {
        SHIPPED: "shipped",
        REFERENCE: "pass",
        "cnn_gru-pruned70-fp32--ort-cpu": "fail",
        "cnn-dense-fp32--ort-cpu": "fail",
        "cnn_gru-pruned-fp32--ort-cuda": "inconclusive",
    }
    assert page.count('<g class="shipped">') == 1 and page.count('<g class="fail">') == 2


@pytest.mark.parametrize("evidence", [[absent(REFERENCE)], [make(shape=(1, 2, 3))], [make(n=40, groups=1)]])
def test_a_page_can_be_made_of_very_little(evidence: list) -> None:
    verdict = decide(evidence, RULES)
    page = render(verdict, [one.measurement for one in evidence])
    assert "Nothing ships" in page


DOTS = st.lists(
    st.builds(
        Dot,
        label=st.sampled_from(["pruned int8 · openvino", "dense fp32 · ort-cpu", "x"]),
        title=st.just(""),
        p50_ms=st.floats(0.01, 100),
        accuracy=st.floats(0, 100),
        low=st.none(),
        high=st.none(),
        kind=st.sampled_from(["pass", "fail", "shipped"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(dots=DOTS, floor=st.none() | st.floats(0, 100))
def test_everything_drawn_is_on_the_canvas(dots: list[Dot], floor: float | None) -> None:
    drawn = chart(dots, floor, [(0.05, "a"), (33.0, "b")])
    assert drawn and len(drawn.points) == len(dots)
    for point in drawn.points:
        assert 0 <= point.x <= WIDTH and 0 <= point.y <= HEIGHT
        assert point.box.x0 >= 0 and point.box.x1 <= WIDTH and point.box.y0 >= 0 and point.box.y1 <= HEIGHT


def test_labels_of_fifteen_crowded_points_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    times, accuracies = 10 ** rng.uniform(-1.3, -0.3, 15), rng.uniform(95.2, 96.4, 15)
    dots = [
        Dot("pruned70 int8 · openvino", "", float(ms), float(a), float(a - 0.3), float(a + 0.3), "pass")
        for ms, a in zip(times, accuracies, strict=True)
    ]
    drawn = chart(dots, 95.0, [(0.23, "0.5 x reference")])
    assert drawn
    assert all(a.box.overlap(b.box) == 0 for a, b in combinations(drawn.points, 2))


def test_a_very_long_name_still_fits() -> None:
    name = f"cnn_gru-{'wide' * 60}-fp32--ort-cpu"
    verdict = decide([make(), make(name, 0.1)], RULES)
    assert name in render(verdict, [make().measurement, make(name, 0.1).measurement])


def test_no_points_make_no_chart() -> None:
    assert chart([], 95.0, []) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.06341, "0.0634"), (95.71, "95.7"), (1234.5, "1234"), (0.0, "0"), (-0.3, "-0.300"), (None, "–"), (np.nan, "–")],
)
def test_numbers_have_three_digits_and_no_exponent(value: float | None, text: str) -> None:
    assert number(value) == text


def test_intervals_and_sizes_read_well() -> None:
    assert interval(0.123, None) == "" and interval(0.1, 0.2, 2) == "0.10 … 0.20"
    assert size(1_234_567) == "1.23 MB" and size(12_345) == "12 kB" and size(None) == "–"
