"""One rule as a line: where its value and its interval lie, seen from the bound. Left of the bound is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from framegate.contract import RuleOutcome

BOUND_AT = 66.7  # per cent of the line, the same for every rule, so that a column reads at a glance


@dataclass(frozen=True, slots=True)
class Gauge:
    """Places in per cent of the line; `over`: something lies beyond its right end."""

    value: float
    left: float
    width: float
    over: bool


def gauge(outcome: RuleOutcome) -> Gauge | None:
    """None when value or interval are unknown, and for a guardrail, whose bound nothing has to be proven to keep.

    The distance to the bound in units of the bound (twice it for a drop, so that gains show too). A rule with a
    lower bound is mirrored: what is allowed lies on the left of all of them.
    """
    ends = (outcome.value, outcome.low, outcome.high)
    if outcome.kind == "guardrail" or any(end is None or not math.isfinite(end) for end in ends):
        return None
    value, low, high = (_place(outcome, float(end or 0.0)) for end in ends)
    left, right = min(low, high), max(low, high)
    inside = min(max(left, 0.0), 100.0), min(max(right, 0.0), 100.0)
    return Gauge(min(max(value, 0.0), 100.0), inside[0], max(inside[1] - inside[0], 0.6), right > 100)


def _place(outcome: RuleOutcome, value: float) -> float:
    above = outcome.kind in ("min", "chance")
    beyond = (outcome.bound - value) if above else (value - outcome.bound)
    if above and outcome.unit == "%":
        unit = 100 - outcome.bound
    else:
        unit = abs(outcome.bound) * (2 if outcome.kind == "drop_max" else 1)
    reach = unit or max(abs(end or 0.0) for end in (outcome.value, outcome.low, outcome.high)) or 1.0
    return BOUND_AT * (1 + beyond / reach)
