"""A verdict as Markdown for a pull request: the sentence, the candidates, and what each rule says that did not pass."""

from __future__ import annotations

import re
from collections.abc import Sequence

from framegate.contract import RuleOutcome, Verdict
from framegate.gate.evidence import Evidence
from framegate.report.figures import DASH, fixed, interval, number, size
from framegate.report.row import Row, rows

HEAD = (
    "| candidate | verdict | accuracy, % | drop, points | p99, ms | time / parent | size |\n"
    "|---|---|---:|---:|---:|---:|---:|\n"
)
SHOWN = 20  # rules that do not pass, of all candidates; the rest is in the report
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def summary(verdict: Verdict, evidence: Sequence[Evidence], confirmation: Evidence | None = None) -> str:
    """The text; everything from outside is escaped. Status is a word, no colour and no sign."""
    table = rows(verdict, evidence, confirmation)
    parts = [
        f"**{verdict.status}**: {plain(verdict.sentence)}",
        HEAD + "".join(_line(row, verdict) for row in table).rstrip("\n"),
        *(f"Waived: {plain(one.rule)} ({plain(one.reason)})." for one in verdict.waived),
        *(f"Warning: {plain(text)}" for text in verdict.warnings),
        _open(table),
        _footer(verdict),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Text in one line that means nothing to Markdown or HTML."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _line(row: Row, verdict: Verdict) -> str:
    said: list[str] = [row.verdict.status]
    said += ["**ships**"] if row.kind == "shipped" else []
    said += ["reference"] if row.name == verdict.reference else []
    latency, size_bytes = row.latency, row.measurement.size_bytes if row.measurement else None
    ratio = _with(number(latency.ratio_p50), latency.ratio_p50_low, latency.ratio_p50_high) if latency else DASH
    drop = _drop(row.drop) if row.drop else DASH
    cells = (plain(row.name), ", ".join(said), fixed(row.accuracy), drop, _with(number(row.p99_ms), *row.p99_bounds))
    return f"| {' | '.join((*cells, ratio, size(size_bytes)))} |\n"


def _drop(outcome: RuleOutcome) -> str:
    """`0.07 (−0.68 … 0.83)`, all with two decimals."""
    value, low, high = (fixed(one) for one in (outcome.value, outcome.low, outcome.high))
    return value if DASH in (low, high) else f"{value} ({low} … {high})"


def _with(value: str, low: float | None, high: float | None) -> str:
    """`0.12 (0.10 … 0.15)`."""
    ends = interval(low, high)
    return f"{value} ({ends})" if ends and value != DASH else value


def _open(table: Sequence[Row]) -> str:
    """Every rule that does not pass, with its numbers; the reason of those that no rule could judge."""
    found = [line for row in table if row.verdict.status != "PASS" for line in _why(row)]
    if not found:
        return ""
    more = [f"- and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "Rules that do not pass:\n\n" + "\n".join([*found[:SHOWN], *more])


def _why(row: Row) -> list[str]:
    failing = [outcome for outcome in row.verdict.outcomes if outcome.status != "PASS"]
    if not failing:
        return [f"- {plain(row.name)}: {row.verdict.status}, {plain(row.verdict.reason)}"]
    return [f"- {plain(row.name)}: {plain(outcome.rule)}: {_numbers(outcome)}" for outcome in failing]


def _numbers(outcome: RuleOutcome) -> str:
    if outcome.value is None or outcome.low is None or outcome.high is None:
        return f"{outcome.status}, {plain(outcome.reason)}"
    value = f"{number(outcome.value)} {outcome.unit}".strip()
    ends = interval(outcome.low, outcome.high)
    return f"{outcome.status}, {value} ({ends}), bound {number(outcome.bound)}, n = {outcome.n:,}"


def _footer(verdict: Verdict) -> str:
    opened = f"test split opened {verdict.openings} time{'s' if verdict.openings != 1 else ''}"
    named = (("data set", verdict.dataset), ("rules", verdict.rules), ("host class", verdict.host_class))
    return ", ".join([opened, *(f"{key} `{digest[:12]}`" for key, digest in named if digest)]) + "."
