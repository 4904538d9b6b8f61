"""One rule, one candidate: the evidence and what it proves.

PASS: the bound proves it. FAIL: the opposite bound proves harm. Else INCONCLUSIVE. Unknown never passes,
and neither does a number that is not finite. All rules together are an intersection-union test: no
correction across rules.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from framegate.bench import stats
from framegate.bench.stats import Estimate
from framegate.contract import RuleOutcome, Status
from framegate.gate.context import Context
from framegate.gate.evidence import Agreed, Evidence, pair_with_majority
from framegate.gate.metrics import UNKNOWN, Found, Question, percent, ratio_of, why_undecidable
from framegate.gate.rules import RECALL, Rule

SAID: dict[Status, str] = {"PASS": " holds", "FAIL": " fails", "INCONCLUSIVE": " is not proven"}
EFFECT = "faster than its parent"


def judge(rule: Rule, one: Evidence, context: Context) -> list[RuleOutcome]:
    """The outcomes of a rule for a candidate that can be compared: one for each whom it is compared with."""
    if not rule.covers(one.name):
        return []
    return [_against(rule, one, name, other, context) for name, other in context.opponents(rule, one)]


def _against(rule: Rule, one: Evidence, name: str, other: Evidence | None, context: Context) -> RuleOutcome:
    found = rule.about.takes[rule.kind, rule.where](Question(one, other, rule.where, rule.bound))
    text = f"{rule} against the champion" if name == "champion" and not rule.against else str(rule)
    status = _status(found.estimate, rule.bound, floor=rule.kind == "min")
    if found.undecidable and status == "PASS":
        status = "INCONCLUSIVE"
    reason = _say(text, status, found.estimate, rule.unit)
    if status == "INCONCLUSIVE":
        reason += f"; {found.unknown}" if found.unknown else ""
        reason += f"; undecidable: {found.undecidable}" if found.undecidable else ""
    reason += f"; {found.note}" if found.note else ""
    outcome = _outcome(str(rule), rule.metric, status, rule.bound, found.estimate, rule.unit, reason)
    outcome = outcome.model_copy(update={"kind": rule.kind, "against": name, "scenario": rule.where or ""})
    if rule.about.timed:
        return _believed(outcome, text, context.restless)
    return _by_agreement(rule, outcome, found, one, context)


def _believed(outcome: RuleOutcome, text: str, restless: str) -> RuleOutcome:
    """On a restless machine a time proves nothing, neither that a candidate is fast nor that it is slow."""
    if not restless:
        return outcome
    found = Estimate(outcome.value, outcome.low, outcome.high, outcome.n)
    reason = f"{_say(text, 'INCONCLUSIVE', found, outcome.unit)}; {restless}"
    return outcome.model_copy(update={"status": "INCONCLUSIVE", "reason": reason})


# --- unlabelled clips -------------------------------------------------------------------------


def _by_agreement(rule: Rule, outcome: RuleOutcome, found: Found, one: Evidence, context: Context) -> RuleOutcome:
    """What labelled clips leave open, agreement with the reference on unlabelled ones may prove.

    An answer that is the reference's loses nothing: drop <= share of disagreement, whatever the labels are. Proven
    harm stays proven. Where the labelled clips could have decided, there are two ways to a PASS, each wrong in at
    most 5 %: but the second only if every single disagreement is a loss.
    """
    if (rule.kind, rule.where) != ("drop_max", "single_stream") or outcome.status != "INCONCLUSIVE":
        return outcome
    if outcome.against != "reference":
        way = "; `against: reference` in the rule leaves the champion out" if found.undecidable else ""
        return outcome.model_copy(update={"reason": outcome.reason + way})
    agreed = context.agreements.get(str(one.name))
    if agreed is None:
        way = "; framegate agree FOLDER compares both on unlabelled clips" if found.undecidable else ""
        return outcome.model_copy(update={"reason": outcome.reason + way})
    if why := agreed.why_not(one, context.reference):
        return outcome.model_copy(update={"reason": f"{outcome.reason}; the agreement says nothing: {why}"})
    share = disagreement(agreed)
    few = why_undecidable(agreed.record.n, agreed.record.groups, rule.bound / 100)
    told = f"{agreed.record.disagreements} of {agreed.record.n} unlabelled clips answered otherwise"
    told += f": {_text(share, 'points')}"
    if few or _status(share, rule.bound, floor=False) != "PASS":
        reason = f"{outcome.reason}; nor by agreement: {told}" + (f" ({few})" if few else "")
        return outcome.model_copy(update={"reason": reason})
    proven = _outcome(outcome.rule, rule.metric, "PASS", rule.bound, share, rule.unit, "")
    reason = f"{rule} holds by agreement with the reference: {told}; on labelled clips {_found(outcome)}"
    kept = {key: getattr(outcome, key) for key in ("kind", "against", "scenario")}
    return proven.model_copy(update={**kept, "reason": reason})


def disagreement(agreed: Agreed) -> Estimate:
    """Share of unlabelled clips that both answer otherwise, in percentage points, bounded by group."""
    return percent(stats.agreement(agreed.disagrees, agreed.groups))


# --- what no configuration has to ask for -------------------------------------------------------


def judge_effect(one: Evidence, context: Context) -> RuleOutcome:
    """Whether a candidate is faster than its own dense model at all; what is not has no reason to exist."""
    found = ratio_of(one, "p50")
    status = _status(found, 1.0, floor=False)
    if status == "PASS" and found.high == 1.0:  # faster, not as fast
        status = "INCONCLUSIVE"
    reason = _say(EFFECT, status, found, "x") if status == "PASS" else f"not {EFFECT}: {_text(found, 'x')}"
    outcome = _outcome(EFFECT, "latency_p50_ms", status, 1.0, found, "x", reason)
    return _believed(outcome.model_copy(update={"kind": "effect", "against": "parent"}), EFFECT, context.restless)


def judge_chance(reference: Evidence) -> RuleOutcome:
    """Whether the reference beats the answer "always the most frequent label": lower bound above 0 points."""
    pairs = pair_with_majority(reference, "test")
    found = _gain(percent(stats.drop_interval(pairs))) if pairs else UNKNOWN
    status: Status = "PASS" if found.low is not None and found.low > 0 else "INCONCLUSIVE"
    words = f"{_text(found, 'points')} above the most frequent label"
    reason = words if status == "PASS" else f"reference not above chance: {words}"
    outcome = _outcome("above the most frequent label", "accuracy", status, 0.0, found, "points", reason)
    return outcome.model_copy(update={"kind": "chance"})


def judge_guardrail(one: Evidence, context: Context) -> RuleOutcome | None:
    """Whether any class is proven to lose more than `guardrail_points` of its recall (Holm over the classes).

    A guardrail fails on evidence of harm and is silent otherwise: with 125 clips a class could never prove the
    absence of harm, so it never makes anything INCONCLUSIVE.
    """
    points, reference = context.rules.guardrail_points, context.reference
    mine, theirs = one.answers.get("test"), reference.answers.get("test")
    if points is None or one is reference or mine is None or theirs is None or not mine.same_clips(theirs):
        return None
    names = _classes(one, mine.labels)
    found = stats.recall_guardrails(theirs.right, mine.right, mine.labels, mine.group, names, points / 100)
    worst = min(found, key=lambda a: (1.0 if a.p is None else a.p, -(a.pairs.drop if a.pairs else -1.0)))
    lost = percent(stats.drop_interval(worst.pairs)) if worst.pairs else UNKNOWN
    harmed = [a.label for a in found if a.harmed]
    told = f"{worst.label!r} lost {_text(lost, 'points')}"
    if harmed:
        reason = f"{RECALL} fails: proven to lose more than {points:g} points: {', '.join(harmed)}; {told}"
    else:
        reason = f"no class is proven to lose more than {points:g} points of its recall; nearest to it, {told}"
    outcome = _outcome(RECALL, "recall", "FAIL" if harmed else "PASS", points, lost, "points", reason)
    return outcome.model_copy(update={"kind": "guardrail", "against": "reference"})


def _classes(one: Evidence, labels: NDArray[np.int64]) -> list[str]:
    """A name for every class number: the measurement names those that have test clips, in their order."""
    names = [f"class {k}" for k in range(int(labels.max()) + 1)]
    facts = one.measurement.accuracy["test"]
    for k, name in zip(np.unique(labels), facts.recall_per_class, strict=True):
        names[k] = name
    return names


# --- numbers and words ------------------------------------------------------------------------


def _status(found: Estimate, bound: float, floor: bool) -> Status:
    """Proven on the right side of the bound (inclusive), proven on the wrong one, or neither."""
    value, low, high = found.value, found.low, found.high
    if value is None or low is None or high is None or not all(map(math.isfinite, (value, low, high))):
        return "INCONCLUSIVE"
    if (low >= bound) if floor else (high <= bound):
        return "PASS"
    return "FAIL" if ((high < bound) if floor else (low > bound)) else "INCONCLUSIVE"


def _outcome(
    rule: str, metric: str, status: Status, bound: float, found: Estimate, unit: str, reason: str
) -> RuleOutcome:
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
        reason=reason,
    )


def _gain(drop: Estimate) -> Estimate:
    """A drop turned round."""
    value, low, high = (None if v is None else -v for v in (drop.value, drop.high, drop.low))
    return Estimate(value, low, high, drop.n)


def _say(rule: str, status: Status, found: Estimate, unit: str) -> str:
    """A sentence that stands alone."""
    return f"{rule}{SAID[status]}: {_text(found, unit)}"


def _found(outcome: RuleOutcome) -> str:
    return _text(Estimate(outcome.value, outcome.low, outcome.high, outcome.n), outcome.unit)


def _text(found: Estimate, unit: str) -> str:
    """`0.43 points [0.12, 0.81], n = 2650`."""
    if found.value is None:
        return f"unknown: too few samples (n = {found.n})" if found.n else "unknown"
    ends = "bounds unknown" if found.low is None or found.high is None else f"[{found.low:.4g}, {found.high:.4g}]"
    return f"{found.value:.4g} {unit} {ends}, n = {found.n}".replace("  ", " ")
