"""Verdict and measurements -> one self-contained HTML page: no network, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2

from framegate.contract import CandidateVerdict, Measurement, RuleOutcome, Verdict
from framegate.report.chart import Chart, Dot, Kind, chart

DASH = "–"
LABEL = 40  # characters of a label in the chart
PHASES = ("decode", "resize", "infer")


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate as the page shows it."""

    verdict: CandidateVerdict
    measurement: Measurement | None
    kind: Kind
    label: str

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.verdict.candidate

    @property
    def accuracy(self) -> float | None:
        """On the test split, in per cent."""
        facts = self.measurement.accuracy.get("test") if self.measurement else None
        return 100 * facts.accuracy if facts else None

    @property
    def drop(self) -> RuleOutcome | None:
        """The accuracy rule against the reference."""
        found = [o for o in self.verdict.outcomes if o.metric == "accuracy" and " drop " in o.rule]
        return found[0] if found else None

    @property
    def p50_ms(self) -> float | None:
        """Of one step."""
        latency = self.measurement.latency if self.measurement else None
        return latency.p50_ms if latency else None


def render(verdict: Verdict, measurements: Sequence[Measurement]) -> str:
    """The page. Every text from outside (labels, names, reasons) is escaped."""
    by_name = {found.candidate: found for found in measurements}
    rows = [_row(one, by_name.get(one.candidate), verdict) for one in verdict.candidates]
    rows.sort(key=_order)
    shipped = next((row for row in rows if row.name == verdict.shipped), None)
    reference = next((row for row in rows if row.name == verdict.reference), None)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            verdict=verdict,
            rows=rows,
            shipped=shipped,
            reference=reference,
            chart=_chart(rows, reference),
            phases=[(row, _stack(row)) for row in (shipped, reference) if row and row.p50_ms],
            host=next((row.measurement for row in (reference, shipped) if row and row.measurement), None),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("framegate.report") / name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "size": size}
    environment.globals["interval"] = interval
    return environment


def _row(one: CandidateVerdict, measurement: Measurement | None, verdict: Verdict) -> Row:
    kinds: dict[str, Kind] = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "inconclusive"}
    kind: Kind = "shipped" if one.candidate == verdict.shipped else kinds[one.status]
    bundle, _, runtime = one.candidate.partition("--")
    model = verdict.reference.partition("-")[0]
    label = f"{bundle.removeprefix(f'{model}-').replace('-', ' ')} · {runtime}"
    return Row(one, measurement, kind, label if len(label) <= LABEL else f"{label[: LABEL - 1]}…")


def _order(row: Row) -> tuple[int, float, str]:
    """Shipped, then PASS, FAIL, INCONCLUSIVE; fast ones first."""
    ranks: list[Kind] = ["shipped", "pass", "fail", "inconclusive"]
    return ranks.index(row.kind), row.p50_ms or math.inf, row.name


def _chart(rows: Sequence[Row], reference: Row | None) -> Chart | None:
    """Accuracy bounds are those of the paired drop, seen from the reference."""
    base = reference.accuracy if reference else None
    dots = []
    for row in rows:
        if row.p50_ms is None or row.accuracy is None:
            continue
        drop = row.drop
        low = base - drop.high if base is not None and drop and drop.high is not None else None
        high = base - drop.low if base is not None and drop and drop.low is not None else None
        title = f"{row.name}: {row.accuracy:.2f} %, p50 {row.p50_ms:.3f} ms, {row.verdict.status}"
        dots.append(Dot(row.label, title, row.p50_ms, row.accuracy, low, high, row.kind))
    margins = [row.drop.bound for row in rows if row.drop]
    return chart(dots, base - min(margins) if base is not None and margins else None, _budgets(rows, reference))


def _budgets(rows: Sequence[Row], reference: Row | None) -> list[tuple[float, str]]:
    """Latency lines on p50: absolute ones, and the ratio times the reference's own time."""
    found: dict[float, str] = {}
    for outcome in (o for row in rows for o in row.verdict.outcomes if o.metric == "latency_p50_ms"):
        if outcome.unit == "ms":
            found[outcome.bound] = f"{outcome.bound:g} ms"
        elif reference and reference.p50_ms and outcome.rule.endswith("x parent"):
            found[outcome.bound * reference.p50_ms] = f"{outcome.bound:g} x reference"
    return sorted(found.items())


def _stack(row: Row) -> list[tuple[str, float, float]]:
    """Phase, ms, share of the whole."""
    assert row.measurement and row.measurement.latency
    phases = row.measurement.latency.phases_ms
    total = sum(phases.values()) or 1.0
    return [(name, phases[name], phases[name] / total) for name in PHASES if name in phases]


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits without an exponent; a dash for unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{places}f}"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`0.12 … 0.81`, or nothing."""
    if low is None or high is None:
        return ""
    return f"{number(low, digits)} … {number(high, digits)}"


def size(value: int | None) -> str:
    """Bytes in the unit that reads best."""
    if value is None:
        return DASH
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"
