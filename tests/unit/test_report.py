"""The page: it stands alone, escapes what it is told, stays small, and can be made of very little."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from framegate.contract import StreamFacts, Verdict, Waiver
from framegate.gate import Case, Evidence, decide
from framegate.report import Thumbnail, WorstClip, render
from framegate.report.clips import strip
from framegate.report.figures import count, fixed, interval, number, rounded, size
from tests.evidence import REFERENCE, RULES, absent, case_of, make

SHIPPED = "cnn_gru-pruned-int8--openvino"
NAMELESS = "cnn_gru-pruned-fp32--ort-cuda"
VOID = frozenset({"meta", "line", "rect", "path", "circle", "br", "img"})


def case() -> Case:
    return case_of(
        [
            make(),
            make(SHIPPED, 0.061, lost=6),
            make("cnn_gru-pruned70-fp32--ort-cpu", 0.09, lost=60, val_lost=14),
            make("cnn-dense-fp32--ort-cpu", 0.4, 0.4, lost=1400, val_lost=300),
            absent(NAMELESS, "skipped", "no <b>driver</b> & no GPU"),
        ]
    )


def page_of(case: Case, **more: object) -> str:
    return render(decide(case, RULES), case.evidence, case.confirmation, **more)  # type: ignore[arg-type]


def picture(n: int = 0) -> Thumbnail:
    frames = np.random.default_rng(n).integers(0, 255, (3, 240, 320, 3), dtype=np.uint8)  # noise: hardly compressed
    return Thumbnail(WorstClip(f"up/{n:04}.mkv", 0, 1, 0.93, n % 2 == 0), "<up>", "down", strip(frames))


class Tags(HTMLParser):
    """Checks that tags close in order, that nothing is loaded from elsewhere, and that places pointed at exist."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        known = dict(attrs)
        self.ids += [known["id"] or ""] if "id" in known else []
        self.links += [known["href"] or ""] if "href" in known else []
        self.sources += [known["src"] or ""] if "src" in known else []

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_says_the_verdict_and_every_candidate_with_its_reason() -> None:
    found = case()
    verdict, page = decide(found, RULES), page_of(found)
    assert verdict.shipped == SHIPPED
    assert f"<h1>{verdict.sentence}</h1>" in page
    for one in verdict.candidates:
        assert one.candidate in page
    assert "accuracy drop ≤ 1 points fails: 2.308 points" in page


def test_the_page_stands_alone_and_closes_its_tags() -> None:
    others = [decide(case(), RULES).model_copy(update={"host_class": "a1" * 32})]
    page = page_of(case(), thumbnails=[picture()], hosts=others)
    tags = Tags(page)
    assert tags.open == [] and len(set(tags.ids)) == len(tags.ids)
    assert {link[1:] for link in tags.links if link.startswith("#")} <= set(tags.ids)
    assert [link for link in tags.links if not link.startswith("#")] == ["hosts/a1a1a1a1a1a1/report.html"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp", re.sub(r"base64,[^\"]*", "", page))


def test_it_is_made_for_dark_screens_phones_paper_and_readers_without_scripts() -> None:
    page = page_of(case())
    for wanted in ("screen and (prefers-color-scheme: dark)", "max-width: 660px", "@media print", "width=device-width"):
        assert wanted in page
    without_script = page[: page.index("<script>")]
    assert without_script.count("<title>") == 1 + 3 * 4  # hovering a point says what it is, at each of three widths
    assert "SHIPS: every rule is proven" in without_script


def test_text_from_outside_is_escaped() -> None:
    page = page_of(case(), thumbnails=[picture()])
    assert "no &lt;b&gt;driver&lt;/b&gt; &amp; no GPU" in page and "<b>driver" not in page
    assert "&lt;up&gt;" in page and "<up>" not in page


def test_colour_is_never_the_only_sign_of_a_status() -> None:
    page = page_of(case())
    rows = re.findall(r'<tr class="(\w+)" id="c\d+">.*?<b>(\S+)</b>(.*?)</tr>', page, re.S)
    told = {name: (kind, re.findall(r'<span class="chip \w+">(.*?)</span>', rest)) for kind, name, rest in rows}
    assert told == {
        SHIPPED: ("shipped", ["★ SHIPS", "✓ PASS"]),
        REFERENCE: ("pass", ["✓ PASS", "reference"]),
        "cnn_gru-pruned70-fp32--ort-cpu": ("fail", ["✕ FAIL"]),
        "cnn-dense-fp32--ort-cpu": ("fail", ["✕ FAIL"]),
        NAMELESS: ("inconclusive", ["? INCONCLUSIVE"]),
    }


def test_a_page_of_forty_candidates_and_twelve_pictures_is_smaller_than_two_megabytes() -> None:
    many = [make(f"cnn_gru-pruned{n}-fp32--ort-cpu", 0.05 + n / 300, lost=n % 3, n=400) for n in range(39)]
    page = page_of(case_of([make(n=400), *many]), thumbnails=[picture(n) for n in range(20)])
    assert page.count("<img ") == 12
    assert len(page.encode()) < 2_000_000
    assert Tags(page).open == []


def little() -> list[tuple[str, list[Evidence]]]:
    return [
        ("nothing was measured", [absent(REFERENCE)]),
        ("too few calls for a p99", [make(shape=(2, 2, 3), solo=(2, 5))]),
        ("one group", [make(n=40, groups=1)]),
        ("one process", [make(solo=(1, 700)), make(SHIPPED, 0.06)]),
        ("one candidate", [make()]),
    ]


@pytest.mark.parametrize("evidence", [found for _, found in little()], ids=[name for name, _ in little()])
def test_a_page_can_be_made_of_very_little(evidence: list[Evidence]) -> None:
    found = case_of(evidence)
    page = page_of(found)
    assert decide(found, RULES).sentence in page and Tags(page).open == []
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S))


def test_a_verdict_without_its_evidence_still_makes_a_page() -> None:
    verdict = decide(case(), RULES)
    page = render(verdict, [])
    assert verdict.sentence in page and "Nothing to draw" in page and Tags(page).open == []


def test_numbers_that_are_not_finite_are_dashes() -> None:
    one = make()
    assert one.measurement.latency
    latency = one.measurement.latency.model_copy(update={"p99_ms": float("nan"), "ratio_p50": float("inf")})
    streams = StreamFacts(
        background="nothing", hold_s=0.5, streams=1, background_hours=0.0, false_alarms=0, events=0, detected=0,
        false_alarms_per_hour=float("inf"), false_alarms_per_hour_low=0.0, false_alarms_per_hour_high=float("inf"),
        time_to_detect_s=None, time_to_detect_s_low=None, time_to_detect_s_high=None,
    )  # fmt: skip
    broken = one.measurement.model_copy(update={"latency": latency, "streams": streams})
    page = render(decide(case_of([one]), RULES), [Evidence(one.name, broken, one.samples)])
    assert "Alarms on untrimmed streams" in page
    assert not re.search(r">\s*(nan|inf)\b", page)


def test_a_very_long_name_still_fits() -> None:
    name = f"cnn_gru-{'wide' * 60}-fp32--ort-cpu"
    page = page_of(case_of([make(), make(name, 0.1)]))
    assert name in page
    assert all(len(label) < 60 for label in re.findall(r"</tspan>([^<]*)</text>", page))


def test_what_ships_is_shown_as_it_was_measured_again() -> None:
    found = case()
    assert found.confirmation and found.confirmation.measurement.latency
    again = found.confirmation.measurement.latency
    page = page_of(found)
    assert "In a fresh run pruned int8 · openvino took" in page and f"{number(again.p99_ms)}<i>ms</i>" in page
    assert "No confirming run" in render(decide(found, RULES), found.evidence)


def test_a_waiver_and_a_warning_stand_before_everything_else() -> None:
    verdict: Verdict = decide(case(), RULES).model_copy(
        update={"waived": (Waiver(rule="accuracy drop ≤ 1 points", reason="a <demo>"),), "warnings": ("take care",)}
    )
    page = render(verdict, case().evidence)
    assert "accuracy drop ≤ 1 points (a &lt;demo&gt;)" in page and "never the champion" in page
    assert page.index("take care") < page.index('id="trade"')


def test_the_same_verdict_gives_the_same_page_in_any_order_of_evidence() -> None:
    found = case()
    assert page_of(found) == page_of(replace(found, evidence=tuple(reversed(found.evidence))))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.06341, "0.0634"),
        (95.71, "95.7"),
        (23680.6, "23,681"),
        (0.0, "0"),
        (-0.3, "−0.300"),
        (None, "–"),
        (np.nan, "–"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float | None, text: str) -> None:
    assert number(value) == text


def test_figures_read_well() -> None:
    assert interval(0.123, None) == "" and interval(0.0, np.inf) == "" and interval(0.1, 0.2, 2) == "0.10 … 0.20"
    assert size(1_234_567) == "1.23 MB" and size(12_345) == "12 kB" and size(None) == "–"
    assert rounded(96.0) == "96" and rounded(33.51) == "33.5" and rounded(None) == "–"
    assert fixed(-0.004) == "0.00" and fixed(-1.5) == "−1.50" and count(12_345) == "12,345"
