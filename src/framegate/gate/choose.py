"""Which one of the proven candidates: shortlist, walk, ties.

Choosing the fastest of many on one test split would ship a bad one far more often than 5 % (the winner's
curse). So: shortlist on *validation* (all rules but those on answers proven, drop there at most half the margin),
order from slow to fast, walk the *test* split and stop at the first that does not PASS. This is a fixed-sequence
test: the order owes nothing to test answers, and whoever is tried later is only believed when all before were
proven, so all that the walk proved is proven together at 5 %, without a correction for how many were tried.
Whichever of them is taken after that is an honest choice, also one by their test answers.

Outcomes on test are recorded for every candidate, walked or not: each is an honest statement about that one
candidate, and none of those that were not walked can ship.

Measured times never tie, so a difference of 0.1 % would decide, and another run would decide otherwise. All whose
interval of times to the fastest proven one reaches within `indifference` of it are tied; among them the one that
ships now stays, else the smallest upper bound of the drop, then size, then name decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framegate.bench import stats
from framegate.bench.stats import Estimate
from framegate.gate.case import Case
from framegate.gate.context import Context
from framegate.gate.evidence import Evidence, pair, pair_with, pair_with_perfect
from framegate.gate.judged import Judged, looks_at_answers
from framegate.gate.metrics import alone, ratio_of
from framegate.gate.rules import Rule


@dataclass(frozen=True, slots=True)
class Choice:
    """`barred`: candidate -> why it was not walked, None for the shortlist; `walk`: from slow to fast."""

    barred: Mapping[str, str | None]
    walk: tuple[Judged, ...]
    tied: tuple[str, ...]
    incumbent: str | None
    winner: Judged | None


def choose_among(
    judged: Sequence[Judged], context: Context, case: Case, waived: Mapping[str, str], above_chance: bool
) -> Choice:
    """The walk and what it found; the reference where nothing faster is proven, if it is proven itself."""
    barred = {one.name: _why_not_shortlisted(one, context, waived) for one in judged}
    shortlist = [one for one in judged if barred[one.name] is None]
    shortlist.sort(key=lambda one: (-(one.p50_ms or 0.0), one.name))
    walk = _walk(shortlist) if above_chance else []
    incumbent = _incumbent(case, context)
    fallback = [one for one in judged if one.evidence is context.reference or _was_walked(one, incumbent, context)]
    proven = [one for one in judged if one in (*fallback, *walk) and one.status == "PASS"]
    if not proven:
        return Choice(barred, tuple(walk), (), incumbent, None)
    best = min(proven, key=lambda one: (one.p50_ms or math.inf, one.name))
    tied = [one for one in proven if is_tied(one.evidence, best.evidence, context.rules.indifference)]
    staying = [one for one in tied if one.name == incumbent]
    winner = staying[0] if staying else min(tied, key=lambda one: _preference(one.evidence, context))
    names = tuple(one.name for one in tied) if len(tied) > 1 else ()
    return Choice(barred, tuple(walk), names, incumbent, winner)


# --- shortlist --------------------------------------------------------------------------------


def _why_not_shortlisted(one: Judged, context: Context, waived: Mapping[str, str]) -> str | None:
    """None for a candidate that may be walked. Looks at validation and times, never at test answers."""
    if one.evidence is context.reference:
        return "the reference"
    others = [outcome for outcome in one.outcomes if not looks_at_answers(outcome)]
    if not one.outcomes or any(outcome.status != "PASS" and outcome.rule not in waived for outcome in others):
        return "not proven otherwise"
    baseline = context.reference.measurement.latency
    if one.p50_ms is None or (baseline and baseline.p50_ms is not None and one.p50_ms >= baseline.p50_ms):
        return "not faster than the reference"
    for rule in context.rules.rules:
        asked = rule.metric == "accuracy" and rule.where == "single_stream" and rule.covers(one.evidence.name)
        if asked and str(rule) not in waived and (why := _why_not_on_validation(rule, one.evidence, context)):
            return why
    return None


def _why_not_on_validation(rule: Rule, one: Evidence, context: Context) -> str | None:
    """Half the margin on validation, as a point estimate: a filter, no proof."""
    if rule.kind == "min":
        return _over(pair_with_perfect(one.answers.get("val")), 100 - rule.bound, "error rate")
    for name, other in context.opponents(rule, one):
        pairs = pair(one.answers.get("val"), other.answers.get("val")) if other else None
        if why := _over(pairs, rule.bound / 2, f"drop below the {name}"):
            return why
    return None


def _over(pairs: stats.Paired | None, limit: float, what: str) -> str | None:
    if pairs is None:
        return "no validation clips in common with what it is compared with"
    if 100 * pairs.drop <= limit:
        return None
    return f"{what} on validation {100 * pairs.drop:.2f} points, at most {limit:g} to be shortlisted"


def _walk(shortlist: Sequence[Judged]) -> list[Judged]:
    """From slow to fast up to and including the first that does not PASS."""
    walked: list[Judged] = []
    for one in shortlist:
        walked.append(one)
        if one.status != "PASS":
            break
    return walked


def _was_walked(one: Judged, incumbent: str | None, context: Context) -> bool:
    """Whether it ships now, after a walk on these very clips: that a slower one now stops the walk undoes no proof."""
    return one.name == incumbent and context.champion is not None


# --- ties -------------------------------------------------------------------------------------


def is_tied(one: Evidence, best: Evidence, zone: float) -> bool:
    """Whether a candidate is not proven slower than the best by more than the zone (a share of the best's time).

    Of one parent: by their ratios to it, each taken beside it, so that a machine that slowed down between the two
    runs slowed the parent too. Of different parents: by their own times alone, one after the other. Those wander
    by more than 2 % between runs that are equal, which no interval of one run contains: such a tie may be seen where
    there is none or missed where there is one. It costs a few per cent of time, never accuracy: all are proven.
    """
    same = one.measurement.inputs.get("parent") == best.measurement.inputs.get("parent")
    mine, theirs = (ratio_of(x, "p50") if same else alone(x, 0.5) for x in (one, best))
    low = _least_ratio(mine, theirs)
    return one is best or low is None or low <= 1 + zone


def _least_ratio(mine: Estimate, theirs: Estimate) -> float | None:
    """Lower bound of mine / theirs: independent errors add as squares, in logarithms; None when one is unknown."""
    if not (mine.value and mine.low and theirs.value and theirs.high):
        return None
    reach = math.hypot(math.log(mine.value / mine.low), math.log(theirs.high / theirs.value))
    return mine.value / theirs.value * math.exp(-reach)


def _preference(one: Evidence, context: Context) -> tuple[float, float, str]:
    """Smaller is better: the drop's upper bound, size, name."""
    size = one.measurement.size_bytes
    return _drop_bound(one, context.reference), math.inf if size is None else float(size), str(one.name)


def _drop_bound(one: Evidence, reference: Evidence) -> float:
    if one is reference:
        return 0.0
    pairs = pair_with(one, reference, "test")
    high = stats.drop_interval(pairs).high if pairs else None
    return math.inf if high is None else high


def _incumbent(case: Case, context: Context) -> str | None:
    """The candidate that ships now, if its bundle is still the one that was measured here."""
    champion, present = case.champion, context.by_name.get(case.incumbent or "")
    if champion is None or present is None or not present.bundle:
        return None
    same = str(champion.name) == case.incumbent and champion.bundle == present.bundle
    return case.incumbent if same else None
