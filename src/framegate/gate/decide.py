"""A whole case: what ships, and every reason. Pure: the same case and rules give the same verdict anywhere.

`choose` names the candidate whose latency is to be measured again; `decide` judges it on that second measurement.
What is not confirmed does not ship, and nothing ships in its place: what shipped before stays, because a fallback
chosen after looking would be a second try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framegate.bench import stats
from framegate.contract import CandidateVerdict, RuleOutcome, Status, Verdict, Waiver
from framegate.gate import words
from framegate.gate.case import Case
from framegate.gate.choose import Choice, choose_among
from framegate.gate.context import Context
from framegate.gate.evidence import Evidence, pair_with
from framegate.gate.judge import judge_chance
from framegate.gate.judged import Judged, judge_all, why_not_confirmed
from framegate.gate.rules import GateRules

MANY_OPENINGS = 10  # of one test split: from here on what is found may be what was looked for


@dataclass(frozen=True, slots=True)
class _Considered:
    """A case up to the choice."""

    context: Context
    waived: Mapping[str, str]
    chance: RuleOutcome | None
    judged: tuple[Judged, ...]
    choice: Choice


def choose(case: Case, rules: GateRules, waivers: Sequence[Waiver] = ()) -> str | None:
    """The candidate to be confirmed and shipped, the reference itself where nothing faster is proven; or None.

    ConfigError as `decide`. Looks at no confirmation.
    """
    winner = _consider(case, rules, waivers).choice.winner
    return winner.name if winner else None


def decide(case: Case, rules: GateRules, waivers: Sequence[Waiver] = ()) -> Verdict:
    """The verdict over all declared candidates. The order of the candidates changes nothing.

    `waivers`: rules that a person set aside; an outcome stays what it is, but does not block. ConfigError when no
    candidate is declared, one twice, the reference is not among them, or a waiver names no rule.
    """
    found = _consider(case, rules, waivers)
    context, choice = found.context, found.choice
    judged, winner, why_not = _confirmed(found, case)
    shipped = None if why_not else winner
    reference = next(one for one in judged if one.evidence is context.reference)
    inputs = context.reference.measurement.inputs
    return Verdict(
        status=_status(shipped, judged),
        sentence=words.sentence(shipped, winner, why_not, judged, reference, choice.tied, found.waived),
        shipped=shipped.name if shipped else None,
        bundle=shipped.evidence.bundle if shipped else None,
        chosen=winner.name if winner else None,
        reference=rules.reference,
        compressed=shipped is not None and _is_compressed(shipped),
        candidates=tuple(_written(one, choice, winner, why_not, judged) for one in judged),
        warnings=tuple(_warnings(judged, context, case)),
        walk=tuple(one.name for one in choice.walk),
        tied=choice.tied,
        incumbent=choice.incumbent,
        openings=case.openings,
        waived=tuple(Waiver(rule=rule, reason=reason) for rule, reason in found.waived.items()),
        dataset=inputs.get("dataset", ""),
        host_class=inputs.get("host_class", ""),
        rules=rules.digest,
        gate=rules.model_dump(mode="json"),
        measurements={name: one.digest for name, one in context.by_name.items()},
        evidence=_digests(case, inputs.get("index", "")),
    )


def _consider(case: Case, rules: GateRules, waivers: Sequence[Waiver]) -> _Considered:
    waived, context = rules.waived(waivers), Context.of(case, rules)
    usable = context.reference.samples is not None and not context.reference.fault
    chance = judge_chance(context.reference) if usable else None
    judged = tuple(judge_all(one, context, chance, waived) for one in context.by_name.values())
    above_chance = chance is not None and chance.status == "PASS"
    return _Considered(context, waived, chance, judged, choose_among(judged, context, case, waived, above_chance))


def _confirmed(found: _Considered, case: Case) -> tuple[tuple[Judged, ...], Judged | None, str]:
    """All candidates, the winner, and why it does not ship (empty: it does).

    Whoever was measured again is judged on that, chosen or not: so another candidate changes nothing about it.
    """
    again, winner = case.confirmation, found.choice.winner
    judged = tuple(_again(one, again, found) for one in found.judged)
    if winner is None:
        return judged, None, ""
    if why := why_not_confirmed(winner.evidence, again, found.context.rules.restless):
        return judged, winner, why
    winner = next(one for one in judged if one.name == winner.name)
    return judged, winner, "" if winner.status == "PASS" else f"measured again, {winner.reason}"


def _again(one: Judged, again: Evidence | None, found: _Considered) -> Judged:
    restless = found.context.rules.restless
    if again is None or again.name != one.evidence.name or why_not_confirmed(one.evidence, again, restless):
        return one
    return judge_all(one.evidence, found.context, found.chance, found.waived, again)


def _status(shipped: Judged | None, judged: Sequence[Judged]) -> Status:
    if shipped:
        return "PASS"
    return "FAIL" if all(one.status == "FAIL" for one in judged) else "INCONCLUSIVE"


def _is_compressed(one: Judged) -> bool:
    name = one.evidence.name
    return (name.variant, name.precision) != ("dense", "fp32")


def _digests(case: Case, index: str) -> dict[str, str]:
    """Of all evidence that is no candidate's measurement."""
    found = {"index": index}
    found |= {"confirmation": case.confirmation.digest} if case.confirmation else {}
    found |= {"champion": case.champion.digest} if case.champion else {}
    return found | {f"agreement/{name}": agreed.digest for name, agreed in sorted(case.agreements.items())}


def _written(
    one: Judged, choice: Choice, winner: Judged | None, why_not: str, judged: Sequence[Judged]
) -> CandidateVerdict:
    """The record, its reason completed by what the walk did and by what did not pay."""
    barred, walked = choice.barred[one.name], any(one.name == other.name for other in choice.walk)
    reasons = [one.reason]
    if winner is not None and one.name == winner.name:
        reasons += [f"chosen, but {why_not}"] if why_not and one.status == "PASS" else []
    elif one.status == "PASS":
        reasons += [note] if (note := words.passed_over(one.name, barred, walked, choice)) else []
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


def _warnings(judged: Sequence[Judged], context: Context, case: Case) -> list[str]:
    found = []
    margins = [rule.bound for rule in context.rules.rules if rule.kind == "drop_max"]
    for one in judged:
        dense = one.evidence is not context.reference and one.name == one.evidence.name.parent
        if dense and margins and (note := _better_than_reference(one, context, min(margins))):
            found.append(note)
        latency = one.evidence.measurement.latency
        if latency and not latency.stable:
            found.append(f"{one.name}: its calls had not settled when they were timed")
    found += [note for note in (context.restless, context.unfit) if note]
    if case.openings >= MANY_OPENINGS:
        found.append(f"the test split was opened {case.openings} times: what it proves wears off; take new clips")
    if case.confirmation and case.confirmations > 1:
        found.append(
            f"the latency of {case.confirmation.name} was measured again {case.confirmations} times: what is repeated "
            "until it holds confirms little"
        )
    return found


def _better_than_reference(one: Judged, context: Context, margin: float) -> str | None:
    pairs = pair_with(one.evidence, context.reference, "test")
    interval = stats.drop_interval(pairs) if pairs and one.outcomes else None
    if interval is None or interval.high is None or 100 * interval.high >= -margin:
        return None
    gain = -100 * (interval.value or 0.0)
    return f"the reference is not the best dense model: {one.name} is {gain:.1f} points better"
