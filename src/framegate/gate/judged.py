"""One candidate, every rule: its outcomes, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from framegate.bench import stats
from framegate.bench.samples import Samples
from framegate.bench.stats import Estimate
from framegate.contract import RuleOutcome, Status
from framegate.gate.context import Context, why_restless
from framegate.gate.evidence import Evidence
from framegate.gate.faults import fault
from framegate.gate.judge import judge, judge_effect, judge_guardrail
from framegate.gate.metrics import METRICS
from framegate.gate.rules import BOUNDS, Rule

SAME_INPUTS = (
    ("bundle", "of another bundle"),
    ("parent", "beside another parent"),
    ("host_class", "on another host class"),
    ("index", "on other data"),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate with all its outcomes, before anything is chosen.

    `timed`: the evidence that its times were judged on: its own, or its latency measured again.
    """

    evidence: Evidence
    outcomes: tuple[RuleOutcome, ...]
    status: Status
    reason: str
    timed: Evidence

    @property
    def name(self) -> str:
        """The candidate's."""
        return str(self.evidence.name)

    @property
    def p50_ms(self) -> float | None:
        """Of its step, in the first run: what the walk goes by."""
        latency = self.evidence.measurement.latency
        return latency.p50_ms if latency else None


def judge_all(
    one: Evidence,
    context: Context,
    chance: RuleOutcome | None,
    waived: Mapping[str, str],
    again: Evidence | None = None,
) -> Judged:
    """Every rule that applies; INCONCLUSIVE with the reason where nothing can be concluded.

    `chance`: whether the reference is better than no model at all; None when it was not measured. `again`: its
    latency measured a second time; times are then judged on that, because the first one was chosen for being fast
    and the fastest of many looks faster than it is. What was found at first stays in the reasons.
    """
    if why := context.why_not_comparable(one):
        return Judged(one, (), "INCONCLUSIVE", why, one)
    timed = again or one
    outcomes = _outcomes(one, one, context)
    if again:
        outcomes = [_both(old, new) for old, new in zip(outcomes, _outcomes(one, again, context), strict=True)]
    if one is context.reference and chance:
        outcomes.insert(0, chance)
    if chance and chance.status != "PASS":
        return Judged(one, tuple(outcomes), "INCONCLUSIVE", chance.reason, timed)
    if lacks := _untouched(outcomes, one is context.reference):
        return Judged(one, tuple(outcomes), "INCONCLUSIVE", f"no {lacks} rule applies to it", timed)
    return Judged(one, tuple(outcomes), *together(outcomes, waived), timed)


def _outcomes(one: Evidence, timed: Evidence, context: Context) -> list[RuleOutcome]:
    found = [out for rule in context.rules.rules for out in judge(rule, _source(rule, one, timed), context)]
    if guardrail := judge_guardrail(one, context):
        found.append(guardrail)
    if str(one.name) != one.name.parent:
        found.append(judge_effect(timed, context))
    return found


def _source(rule: Rule, one: Evidence, timed: Evidence) -> Evidence:
    """What was timed again is judged on that; another scenario only where it was measured again too."""
    again = rule.about.timed and (rule.where == "single_stream" or rule.where in timed.measurement.scenarios)
    return timed if again else one


def _untouched(outcomes: Sequence[RuleOutcome], is_reference: bool) -> str:
    """What no rule asks of a candidate; the reference's accuracy is judged against chance."""
    asked = {outcome.metric for outcome in outcomes if outcome.kind in BOUNDS}
    accuracy = is_reference or "accuracy" in asked
    latency = any(metric.startswith("latency") for metric in asked)
    return " and no ".join(word for word, there in (("accuracy", accuracy), ("latency", latency)) if not there)


def together(outcomes: Sequence[RuleOutcome], waived: Mapping[str, str]) -> tuple[Status, str]:
    """PASS only when every rule passes that was not waived; the reasons of what decides."""
    blocking = [outcome for outcome in outcomes if outcome.status != "PASS" and outcome.rule not in waived]
    for status in ("FAIL", "INCONCLUSIVE"):
        if deciding := [outcome for outcome in blocking if outcome.status == status]:
            return status, "; ".join(outcome.reason for outcome in deciding)
    aside = [outcome for outcome in outcomes if outcome.status != "PASS"]
    if not aside:
        return "PASS", "every rule is proven"
    told = "; ".join(f"{outcome.reason} (waived: {waived[outcome.rule]})" for outcome in aside)
    return "PASS", f"every rule is proven but what was waived: {told}"


def looks_at_answers(outcome: RuleOutcome) -> bool:
    """Whether an outcome depends on answers to the test split."""
    return outcome.metric not in METRICS or METRICS[outcome.metric].answers


# --- measured again ---------------------------------------------------------------------------


def why_not_confirmed(one: Evidence, again: Evidence | None, restless: float) -> str | None:
    """Why a second measurement says nothing of a candidate; None when its times can be judged on it.

    It must be of the same bundle, parent, host class and index, with as many threads; `bench` may differ: more
    processes, another seed. Meanwhile the parent met itself: that interval must not reach further from 1 than
    `restless`.
    """
    if again is None or again.name != one.name:
        return "its latency was not measured again; run the stage that confirms it"
    if again.measurement.status != "measured" or again.samples is None or one.samples is None:
        return f"measured again, it {again.measurement.status}: {again.measurement.reason}"
    for key, words in SAME_INPUTS:
        if not one.measurement.inputs.get(key) or again.measurement.inputs.get(key) != one.measurement.inputs[key]:
            return f"it was measured again {words}"
    if again.measurement.session.get("threads") != one.measurement.session.get("threads"):
        return "it was measured again with another number of threads"
    if np.array_equal(again.samples.candidate_ns, one.samples.candidate_ns):
        return "its second measurement is the first one: it was not measured again"
    wrong = fault(again.name.runtime, again.measurement, again.samples, one.samples)
    if wrong:
        return f"measured again, its {wrong}"
    return why_restless(_parent_beside_itself(again.samples), restless, again.measurement.host_conditions) or None


def _parent_beside_itself(samples: Samples) -> Estimate | None:
    """The ratio of the parent's time to its own, taken while a candidate was confirmed."""
    mine, theirs = (samples.extra.get(f"self_{side}_ns") for side in ("candidate", "parent"))
    return None if mine is None or theirs is None else stats.ratio_p50(mine, theirs)


def _both(first: RuleOutcome, again: RuleOutcome) -> RuleOutcome:
    if (first.value, first.low, first.high) == (again.value, again.low, again.high):
        return again
    at_first = "unknown" if first.value is None else f"{first.value:.4g} {first.unit}".strip()
    return again.model_copy(update={"reason": f"{again.reason} (measured again; at first {at_first})"})
