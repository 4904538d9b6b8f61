"""All rules, all candidates: which one ships.

Choosing the fastest of many on one test split would ship a bad one far more often than 5 % (the winner's
curse). So: shortlist on *validation* (all rules but accuracy proven, drop there at most half the margin),
order from slow to fast, walk the *test* split and stop at the first that does not PASS; the last PASS ships.
Outcomes on test are recorded for every candidate, walked or not: each is an honest statement about that one
candidate, and none of those that were not walked can ship, so the order of the walk spends the error budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from framegate.bench import stats
from framegate.contract import CandidateVerdict, ConfigError, RuleOutcome, Status, Verdict, nearest
from framegate.gate import words
from framegate.gate.evidence import Evidence, pair_with, pair_with_perfect, why_not_comparable
from framegate.gate.judge import Judged, judge, judge_chance, judge_effect
from framegate.gate.rules import GateRules, Rule


def decide(evidence: Sequence[Evidence], rules: GateRules) -> Verdict:
    """The verdict over all declared candidates. Pure; the order of the candidates changes nothing.

    ConfigError when the reference is not among them or one is declared twice.
    """
    reference = _reference(evidence, rules)
    ordered = sorted(evidence, key=lambda one: str(one.name))
    chance = judge_chance(reference) if reference.samples else None
    judged = [_judge_all(one, reference, rules, chance) for one in ordered]
    barred = {one.name: _why_not_shortlisted(one, reference, rules) for one in judged}
    shortlist = [one for one in judged if barred[one.name] is None]
    shortlist.sort(key=lambda one: (-(one.p50_ms or 0.0), one.name))
    walk = _walk(shortlist) if chance and chance.status == "PASS" else []
    shipped = _shipped(walk, judged, rules.reference)
    return Verdict(
        sentence=words.sentence(shipped, judged, reference),
        shipped=shipped.name if shipped else None,
        bundle=shipped.evidence.measurement.inputs.get("bundle") if shipped else None,
        reference=rules.reference,
        compressed=shipped is not None and _is_compressed(shipped),
        candidates=tuple(_written(one, barred[one.name], walk, shipped, judged) for one in judged),
        warnings=tuple(_warnings(judged, reference, rules)),
        walk=tuple(one.name for one in walk),
        dataset=reference.measurement.inputs.get("dataset", ""),
        host_class=reference.measurement.inputs.get("host_class", ""),
        rules=rules.digest,
        measurements={str(one.name): one.digest for one in ordered},
    )


def _reference(evidence: Sequence[Evidence], rules: GateRules) -> Evidence:
    names = [str(one.name) for one in evidence]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"candidates declared twice: {', '.join(twice)}")
    if rules.reference not in names:
        raise ConfigError(
            f"gate.reference {rules.reference!r} is not among the {len(names)} declared candidates"
            f"{nearest(rules.reference, names)}"
        )
    return evidence[names.index(rules.reference)]


def _judge_all(one: Evidence, reference: Evidence, rules: GateRules, chance: RuleOutcome | None) -> Judged:
    """Every rule that applies; INCONCLUSIVE with the reason where nothing can be concluded."""
    if why := why_not_comparable(one, reference):
        return Judged(one, (), "INCONCLUSIVE", why)
    is_reference = one is reference
    applying = [rule for rule in rules.rules if rule.applies_to(one.name, rules.reference)]
    outcomes = [judge(rule, one, reference) for rule in applying]
    if is_reference and chance:
        outcomes.insert(0, chance)
    if str(one.name) != one.name.parent:
        outcomes.append(judge_effect(one))
    if chance and chance.status != "PASS":
        return Judged(one, tuple(outcomes), "INCONCLUSIVE", chance.reason)
    if lacks := _untouched(applying, is_reference):
        return Judged(one, tuple(outcomes), "INCONCLUSIVE", f"no {lacks} rule applies to it")
    return Judged(one, tuple(outcomes), *_together(outcomes))


def _untouched(applying: Sequence[Rule], is_reference: bool) -> str:
    """What no rule asks of a candidate; the reference's accuracy is judged against chance."""
    accuracy = is_reference or any(rule.metric == "accuracy" for rule in applying)
    latency = any(rule.metric.startswith("latency") for rule in applying)
    return " and no ".join(word for word, there in (("accuracy", accuracy), ("latency", latency)) if not there)


def _together(outcomes: Sequence[RuleOutcome]) -> tuple[Status, str]:
    """PASS only when every rule passes; the reasons of what decides."""
    for status in ("FAIL", "INCONCLUSIVE"):
        if deciding := [outcome for outcome in outcomes if outcome.status == status]:
            return status, "; ".join(outcome.reason for outcome in deciding)
    return "PASS", "every rule is proven"


# --- choosing ---------------------------------------------------------------------------------


def _why_not_shortlisted(one: Judged, reference: Evidence, rules: GateRules) -> str | None:
    """None for a candidate that may be walked. Looks at validation and latency, never at test answers."""
    if one.name == rules.reference:
        return "the reference"
    if not one.outcomes or any(outcome.status != "PASS" for outcome in one.outcomes if outcome.metric != "accuracy"):
        return "not proven otherwise"
    baseline = reference.measurement.latency
    if one.p50_ms is None or (baseline and baseline.p50_ms is not None and one.p50_ms >= baseline.p50_ms):
        return "not faster than the reference"
    for rule in rules.rules:
        applies = rule.metric == "accuracy" and rule.applies_to(one.evidence.name, rules.reference)
        if applies and (why := _why_not_on_validation(rule, one.evidence, reference)):
            return why
    return None


def _why_not_on_validation(rule: Rule, one: Evidence, reference: Evidence) -> str | None:
    """Half the margin on validation, as a point estimate: a filter, no proof."""
    drop = rule.kind == "drop_max"
    pairs = pair_with(one, reference, "val") if drop else pair_with_perfect(one, "val")
    if pairs is None:
        return "no validation clips in common with the reference"
    limit = rule.bound / 2 if drop else 100 - rule.bound
    if 100 * pairs.drop <= limit:
        return None
    what = "drop" if drop else "error rate"
    return f"{what} on validation {100 * pairs.drop:.2f} points, at most {limit:g} to be shortlisted"


def _walk(shortlist: Sequence[Judged]) -> list[Judged]:
    """From slow to fast up to and including the first that does not PASS."""
    walked: list[Judged] = []
    for one in shortlist:
        walked.append(one)
        if one.status != "PASS":
            break
    return walked


def _shipped(walk: Sequence[Judged], judged: Sequence[Judged], reference: str) -> Judged | None:
    """The last PASS of the walk, else the reference under its absolute rules, else nothing."""
    fallback = [one for one in judged if one.name == reference]
    proven = [one for one in (*fallback, *walk) if one.status == "PASS"]
    return proven[-1] if proven else None


def _is_compressed(one: Judged) -> bool:
    name = one.evidence.name
    return (name.variant, name.precision) != ("dense", "fp32")


def _written(
    one: Judged, barred: str | None, walk: Sequence[Judged], shipped: Judged | None, judged: Sequence[Judged]
) -> CandidateVerdict:
    """The record, its reason completed by what the walk did and by what did not pay."""
    walked = one in walk
    reasons = [one.reason]
    if one.status == "PASS" and shipped is not None and one.name != shipped.name:
        if barred and barred != "the reference":
            reasons.append(f"not shortlisted: {barred}")
        elif barred is None and not walked:
            reasons.append(f"not tried: the walk from slow to fast stopped at {walk[-1].name}")
    if note := words.does_not_pay(one.evidence, [other.evidence for other in judged]):
        reasons.append(note)
    return CandidateVerdict(
        candidate=one.name,
        status=one.status,
        reason="; ".join(reasons),
        shortlisted=barred is None,
        walked=walked,
        outcomes=one.outcomes,
    )


# --- warnings ---------------------------------------------------------------------------------


def _warnings(judged: Sequence[Judged], reference: Evidence, rules: GateRules) -> list[str]:
    found = []
    margins = [rule.bound for rule in rules.rules if rule.kind == "drop_max"]
    for one in judged:
        if one.name != rules.reference and one.name == one.evidence.name.parent and margins:
            pairs = pair_with(one.evidence, reference, "test")
            interval = stats.drop_interval(pairs) if pairs else None
            if interval and interval.high is not None and 100 * interval.high < -min(margins):
                gain = -100 * (interval.value or 0.0)
                found.append(f"the reference is not the best dense model: {one.name} is {gain:.1f} points better")
        latency = one.evidence.measurement.latency
        if latency and not latency.stable:
            found.append(f"{one.name}: its calls had not settled when they were timed")
    if note := words.restless(reference):
        found.append(note)
    return found
