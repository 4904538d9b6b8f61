"""One rule, one candidate: the evidence and what it proves.

PASS: the bound proves it. FAIL: the opposite bound proves harm. Else INCONCLUSIVE. Unknown never passes,
and neither does a number that is not finite. All rules together are an intersection-union test: no
correction across rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from framegate.bench import stats
from framegate.bench.stats import Estimate, Paired
from framegate.contract import RuleOutcome, Status
from framegate.gate.evidence import Evidence, pair_with, pair_with_majority, pair_with_perfect
from framegate.gate.rules import SHARES, Rule

MIN_GROUPS = 10  # below, the variance between groups is a guess
SAID: dict[Status, str] = {"PASS": " holds", "FAIL": " fails", "INCONCLUSIVE": " is not proven"}


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate with all its outcomes, before anything is chosen."""

    evidence: Evidence
    outcomes: tuple[RuleOutcome, ...]
    status: Status
    reason: str

    @property
    def name(self) -> str:
        """The candidate's."""
        return str(self.evidence.name)

    @property
    def p50_ms(self) -> float | None:
        """Of its step."""
        latency = self.evidence.measurement.latency
        return latency.p50_ms if latency else None


def judge(rule: Rule, one: Evidence, reference: Evidence) -> RuleOutcome:
    """The outcome of a rule that applies to a candidate that was measured."""
    match rule.kind:
        case "drop_max":
            return judge_drop(rule, pair_with(one, reference, "test"))
        case "min":
            return judge_accuracy(rule, pair_with_perfect(one, "test"))
        case "ratio_max":
            return _below(str(rule), rule.metric, rule.bound, _ratio(one), "x")
    if rule.metric in SHARES:
        assert one.samples
        found = stats.process_percentile(one.samples.candidate_ns, SHARES[rule.metric])
        return _below(str(rule), rule.metric, rule.bound, found, "ms")
    size = getattr(one.measurement, rule.metric)
    exact = None if size is None else float(size)
    return _below(str(rule), rule.metric, rule.bound, Estimate(exact, exact, exact, 1), "")


def judge_effect(one: Evidence) -> RuleOutcome:
    """Whether a candidate is faster than its own dense model at all; what is not has no reason to exist."""
    name, found = "faster than its parent", _ratio(one)
    outcome = _below(name, "latency_p50_ms", 1.0, found, "x")
    if outcome.status == "PASS" and found.high == 1.0:  # faster, not as fast
        outcome = outcome.model_copy(update={"status": "INCONCLUSIVE"})
    if outcome.status == "PASS":
        return outcome
    reason = f"not faster than its parent: {_text(found, 'x')}"
    return outcome.model_copy(update={"reason": reason})


def judge_chance(reference: Evidence) -> RuleOutcome:
    """Whether the reference beats the answer "always the most frequent label": lower bound above 0 points."""
    pairs = pair_with_majority(reference, "test")
    found = _points(stats.drop_interval(pairs), sign=-1) if pairs else Estimate(None, None, None, 0)
    status: Status = "PASS" if found.low is not None and found.low > 0 else "INCONCLUSIVE"
    words = f"{_text(found, 'points')} above the most frequent label"
    reason = words if status == "PASS" else f"reference not above chance: {words}"
    return RuleOutcome(
        rule="above the most frequent label",
        metric="accuracy",
        status=status,
        value=found.value,
        bound=0.0,
        low=found.low,
        high=found.high,
        n=found.n,
        unit="points",
        reason=reason,
    )


def judge_drop(rule: Rule, pairs: Paired | None) -> RuleOutcome:
    """Paired non-inferiority by group, in points; undecidable below MIN_GROUPS groups and `min_clips`."""
    if pairs is None:
        return _unknown(rule, "points", "measured on other clips than the reference")
    found = _points(stats.drop_interval(pairs))
    outcome = _below(str(rule), rule.metric, rule.bound, found, "points")
    return _decidable(outcome, pairs, rule.bound / 100)


def judge_accuracy(rule: Rule, pairs: Paired | None) -> RuleOutcome:
    """Accuracy itself against a floor, in per cent: the error rate must not exceed what the floor leaves."""
    if pairs is None:
        return _unknown(rule, "%", "no test clips")
    errors = _points(stats.drop_interval(pairs))
    below = _below(str(rule), rule.metric, 100 - rule.bound, errors, "%")
    outcome = below.model_copy(
        update={
            "bound": rule.bound,
            "value": _hundred_minus(errors.value),
            "low": _hundred_minus(errors.high),
            "high": _hundred_minus(errors.low),
        }
    )
    accuracy = Estimate(outcome.value, outcome.low, outcome.high, outcome.n)
    said = outcome.model_copy(update={"reason": _say(str(rule), outcome.status, accuracy, "%")})
    return _decidable(said, pairs, 1 - rule.bound / 100)


def _decidable(outcome: RuleOutcome, pairs: Paired, margin: float) -> RuleOutcome:
    """A PASS on too few clips or groups is none; the reason gives the numbers that would do."""
    clips = stats.min_clips(margin)
    lacks = []
    if clips is None or pairs.n < clips:
        lacks.append(f"{pairs.n} test clips, {clips or 'no number'} would do")
    if pairs.groups < MIN_GROUPS:
        lacks.append(f"{pairs.groups} groups, {MIN_GROUPS} would do")
    if outcome.status == "FAIL" or not lacks:
        return outcome
    found = Estimate(outcome.value, outcome.low, outcome.high, outcome.n)
    reason = f"{_say(outcome.rule, 'INCONCLUSIVE', found, outcome.unit)}; undecidable: {'; '.join(lacks)}"
    return outcome.model_copy(update={"status": "INCONCLUSIVE", "reason": reason})


def _below(rule: str, metric: str, bound: float, found: Estimate, unit: str) -> RuleOutcome:
    """Proven at or below the bound, proven above it, or neither."""
    status: Status = "INCONCLUSIVE"
    if _is_known(found) and found.high is not None and found.low is not None:
        if found.high <= bound:
            status = "PASS"
        elif found.low > bound:
            status = "FAIL"
    return RuleOutcome(
        rule=rule,
        metric=metric,
        status=status,
        value=found.value,
        bound=bound,
        low=found.low,
        high=found.high,
        n=found.n,
        unit=unit,
        reason=_say(rule, status, found, unit),
    )


def _unknown(rule: Rule, unit: str, reason: str) -> RuleOutcome:
    outcome = _below(str(rule), rule.metric, rule.bound, Estimate(None, None, None, 0), unit)
    return outcome.model_copy(update={"reason": f"{rule} is not proven: {reason}"})


def _ratio(one: Evidence) -> Estimate:
    assert one.samples
    return stats.ratio_p50(one.samples.candidate_ns, one.samples.parent_ns)


def _points(share: Estimate, sign: int = 1) -> Estimate:
    """Shares to percentage points; sign -1 turns a drop into a gain."""
    ends = [None if v is None else 100 * sign * v for v in (share.low, share.high)]
    low, high = ends if sign > 0 else reversed(ends)
    return Estimate(None if share.value is None else 100 * sign * share.value, low, high, share.n)


def _hundred_minus(value: float | None) -> float | None:
    return None if value is None else 100 - value


def _is_known(found: Estimate) -> bool:
    ends = (found.value, found.low, found.high)
    return all(value is not None and math.isfinite(value) for value in ends)


def _say(rule: str, status: Status, found: Estimate, unit: str) -> str:
    """A sentence that stands alone."""
    return f"{rule}{SAID[status]}: {_text(found, unit)}"


def _text(found: Estimate, unit: str) -> str:
    """`0.43 points [0.12, 0.81], n = 2650`."""
    if found.value is None:
        return f"unknown: too few samples (n = {found.n})"
    ends = "bounds unknown" if found.low is None or found.high is None else f"[{found.low:.4g}, {found.high:.4g}]"
    return f"{found.value:.4g} {unit} {ends}, n = {found.n}".replace("  ", " ")
