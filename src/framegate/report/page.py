"""Verdict and evidence -> one self-contained HTML page: no network; its little script only adds comfort."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from framegate.contract import CandidateName, Measurement, RuleOutcome, Status, Verdict
from framegate.gate.evidence import Evidence
from framegate.report import figures
from framegate.report.bars import Stack, loads, stacks
from framegate.report.chart import Dot, charts, pareto
from framegate.report.clips import SHOWN, Thumbnail
from framegate.report.distribution import Distribution, Times, distributions
from framegate.report.gauge import BOUND_AT, gauge
from framegate.report.recall import Recall, recall
from framegate.report.row import Row, is_p99, rows, short, solo_ns

GLYPHS: dict[Status, str] = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?"}
CLASS12 = 12  # characters of a host class that name its folder
CHARTED = 80  # characters of a reason in a point's description


def render(
    verdict: Verdict,
    evidence: Sequence[Evidence],
    confirmation: Evidence | None = None,
    thumbnails: Sequence[Thumbnail] = (),
    hosts: Sequence[Verdict] = (),
) -> str:
    """The page. Every text from outside (labels, names, reasons) is escaped.

    `confirmation`: the chosen one's latency measured again. `hosts`: verdicts of other host classes, whose reports lie
    at hosts/<class12>/report.html beside this one. Evidence that is missing leaves its part of the page out.
    """
    table = rows(verdict, evidence, confirmation)
    by_name = {row.name: row for row in table}
    reference = by_name.get(verdict.reference)
    winner = by_name.get(verdict.shipped or "")
    parent = by_name.get(_parent(winner)) if winner else None
    dots, floor, budgets = _dots(table, reference, winner), _floor(table, reference), _budgets(table)
    return _template().render(
        verdict=verdict,
        rows=table,
        by_name=by_name,
        winner=winner,
        reference=reference,
        parent=parent,
        charts=charts(dots, floor, budgets),
        front=pareto(dots),
        undrawn=[row for row in table if row.number not in {dot.number for dot in dots}],
        timing=_timing(winner or reference, parent, budgets),
        stacks=_stacks(winner, parent, reference),
        loads=loads(table),
        recall=_recall(verdict, winner, reference),
        thumbnails=list(thumbnails)[:SHOWN],
        alarms=[(role, row) for role, row in (("winner", winner), ("reference", reference)) if _has_streams(row)],
        lineage=_lineage(verdict, winner or reference),
        host=_host(winner or reference),
        hosts=hosts,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {name: getattr(figures, name) for name in ("number", "rounded", "fixed", "size", "count")}
    environment.filters |= {"plain": _plain}
    environment.globals |= {
        "interval": figures.interval,
        "gauge": gauge,
        "short": short,
        "glyphs": GLYPHS,
        "bound_at": BOUND_AT,
        "asset": lambda name: Markup(_asset(name)),  # our own files, never text from outside
    }
    return environment.get_template("page.html.j2")


def _asset(name: str) -> str:
    return (files("framegate.report") / name).read_text("utf-8")


def _parent(row: Row) -> str:
    return CandidateName.parse(row.name).parent


def _has_streams(row: Row | None) -> bool:
    return bool(row and row.measurement and row.measurement.streams)


# --- accuracy against latency -----------------------------------------------------------------


def _dots(table: Sequence[Row], reference: Row | None, winner: Row | None) -> list[Dot]:
    """Those with a known p99 and accuracy; accuracy bounds are those of the paired drop, seen from the reference."""
    base = reference.accuracy if reference else None
    found = []
    for row in table:
        if row.p99_ms is None or row.p99_ms <= 0 or row.accuracy is None or not math.isfinite(row.accuracy):
            continue
        low, high = (_below(base, end) for end in ((row.drop.high, row.drop.low) if row.drop else (None, None)))
        p99_low, p99_high = row.p99_bounds
        must = row in (winner, reference)
        found.append(
            Dot(
                number=row.number,
                label=row.label,
                title=_title(row, p99_low, p99_high),
                p99_ms=row.p99_ms,
                p99_low=p99_low,
                p99_high=p99_high,
                accuracy=row.accuracy,
                low=low,
                high=high,
                kind=row.kind,
                must=must,
            )
        )
    return found


def _below(base: float | None, drop: float | None) -> float | None:
    return None if base is None or drop is None or not math.isfinite(drop) else base - drop


def _title(row: Row, p99_low: float | None, p99_high: float | None) -> str:
    """What hovering says, one fact a line."""
    lines = [row.name, f"{'SHIPS' if row.kind == 'shipped' else row.verdict.status}: {_cut(row.verdict.reason)}"]
    lines.append(f"accuracy {figures.fixed(row.accuracy)} %")
    if row.drop and row.drop.value is not None:
        lines.append(f"drop {figures.fixed(row.drop.value)} points [{_ends(row.drop.low, row.drop.high)}]")
    lines.append(f"p99 {figures.number(row.p99_ms)} ms [{_ends(p99_low, p99_high)}]")
    lines.append(f"p50 {figures.number(row.p50_ms)} ms")
    return "\n".join(lines)


def _ends(low: float | None, high: float | None) -> str:
    return figures.interval(low, high) or "bounds unknown"


def _cut(text: str) -> str:
    return text if len(text) <= CHARTED else f"{text[: CHARTED - 1]}…"


def _floor(table: Sequence[Row], reference: Row | None) -> float | None:
    """The lowest accuracy that the strictest rule allows, in per cent."""
    outcomes = [outcome for row in table for outcome in row.verdict.outcomes if outcome.metric == "accuracy"]
    floors = [outcome.bound for outcome in outcomes if outcome.kind == "min"]
    margins = [row.drop.bound for row in table if row.drop]
    if reference and reference.accuracy is not None and margins:
        floors.append(reference.accuracy - min(margins))
    return max(floors, default=None)


def _budgets(table: Sequence[Row]) -> list[float]:
    """Absolute p99 limits, in ms."""
    outcomes: list[RuleOutcome] = [outcome for row in table for outcome in row.verdict.outcomes]
    return sorted({outcome.bound for outcome in outcomes if is_p99(outcome)})


# --- the other parts --------------------------------------------------------------------------


def _timing(row: Row | None, parent: Row | None, budgets: Sequence[float]) -> Mapping[str, Distribution]:
    """Both alone and sustained when both were; else both as they took turns in the same processes."""
    evidence = (row.confirmed or row.evidence) if row else None
    if row is None or evidence is None or evidence.samples is None:
        return {}
    alone, itself = solo_ns(evidence), row.name == _parent(row)
    theirs = None if itself or parent is None else solo_ns(parent.evidence)
    if alone is None or (theirs is None and not itself):
        alone, theirs = evidence.samples.candidate_ns, evidence.samples.parent_ns
    role = "winner" if row.kind == "shipped" else "reference"
    both = [Times(row.name, role, _ms(alone))]
    if theirs is not None:
        both.append(Times(_parent(row), "its dense parent", _ms(theirs)))
    return distributions(both, budgets)


def _ms(ns: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    flat = ns.ravel() / 1e6
    return flat[np.isfinite(flat) & (flat > 0)]


def _stacks(winner: Row | None, parent: Row | None, reference: Row | None) -> list[Stack]:
    shown: dict[str, tuple[str, Row]] = {}
    for role, row in (("ships", winner), ("its dense parent", parent), ("reference", reference)):
        if row is not None:
            shown.setdefault(row.name, (role, row))
    return stacks(list(shown.values()))


def _recall(verdict: Verdict, winner: Row | None, reference: Row | None) -> Recall | None:
    """Before and after, where something else than the reference ships."""
    if winner is None or reference is None or winner is reference:
        return None
    if winner.evidence is None or reference.evidence is None:
        return None
    points = verdict.gate.get("guardrail_points")
    return recall(reference.evidence, winner.evidence, points if isinstance(points, int | float) else None)


def _lineage(verdict: Verdict, row: Row | None) -> list[tuple[str, str]]:
    """Digests of all that led here, the data first."""
    inputs = dict(row.measurement.inputs) if row and row.measurement else {}
    found = {"data set": verdict.dataset, "index": inputs.pop("index", "")}
    found |= {key.replace("_", " "): digest for key, digest in inputs.items() if key not in ("dataset", "host_class")}
    found |= {"rules": verdict.rules, "host class": verdict.host_class}
    if row:
        found["measurement"] = verdict.measurements.get(row.name, "")
    found |= dict(verdict.evidence)
    return [(key, digest) for key, digest in found.items() if digest]


def _host(row: Row | None) -> list[tuple[str, Any]]:
    """What it was measured on: the class, the conditions, the session."""
    found: Measurement | None = row.measurement if row else None
    if found is None:
        return []
    facts = [*found.host_class.items(), *found.host_conditions.items(), *found.session.items()]
    return [(key.replace("_", " "), value) for key, value in facts]


def _plain(value: Any) -> str:
    """Any value of a record as words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items()) or figures.DASH
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or figures.DASH
    if isinstance(value, float):
        return f"{value:.6g}"
    return figures.DASH if value is None or value == "" else str(value)
