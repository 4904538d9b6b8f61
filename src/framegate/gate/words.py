"""The gate's sentences, each computed from the measurements that it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from framegate.gate.choose import Choice
from framegate.gate.evidence import Evidence
from framegate.gate.judged import Judged


def sentence(
    shipped: Judged | None,
    winner: Judged | None,
    why_not: str,
    judged: Sequence[Judged],
    reference: Judged,
    tied: Sequence[str],
    waived: Mapping[str, str],
) -> str:
    """The verdict in one sentence."""
    if winner is None:
        return f"Nothing ships: no candidate is proven, nor is the reference {reference.name} ({reference.reason})."
    if shipped is None:
        return f"Nothing ships: {winner.name} was chosen, but {why_not}; what shipped before stays."
    by = "".join(f"; waived: {rule} ({reason})" for rule, reason in waived.items())
    if shipped.evidence is reference.evidence:
        nothing = "nothing proven is faster by more than a tie" if tied else "nothing faster is proven"
        return (
            f"{reference.name}, the reference itself, ships uncompressed: {nothing} "
            f"({_tally(judged, shipped)}); accuracy {_accuracy(shipped.evidence)}, {_p50(shipped.timed)} a step{by}."
        )
    return f"{shipped.name} ships: {_speed(shipped.timed)}, {_drop(shipped, reference)}{by}."


def passed_over(name: str, barred: str | None, walked: bool, choice: Choice) -> str | None:
    """Why one that is proven does not ship."""
    if barred:
        return None if barred == "the reference" else f"not shortlisted: {barred}"
    if not walked:
        return f"not tried: the walk from slow to fast stopped at {choice.walk[-1].name}" if choice.walk else None
    if name in choice.tied and choice.winner:
        return f"tied in time with {choice.winner.name}, which is preferred"
    return None


def does_not_pay(one: Evidence, others: Sequence[Evidence]) -> str | None:
    """Where int8 or bf16 is not faster than the same net in fp32 on the same runtime.

    Both were timed beside one parent: the ratio of their ratios compares them.
    """
    name = one.name
    if name.runtime == "openvino-bf16":
        kind, sibling = "bf16", f"{name.bundle}--openvino"
    elif name.precision.startswith("int8"):
        kind, sibling = name.precision, f"{name.model}-{name.variant}-fp32--{name.runtime}"
    else:
        return None
    mine = _ratio(one)
    theirs = next((_ratio(other) for other in others if str(other.name) == sibling), None)
    if mine is None or not theirs or mine < theirs:
        return None
    return f"{kind} does not pay: {mine / theirs:.2f}x the time of {sibling}"


def _speed(timed: Evidence) -> str:
    latency = timed.measurement.latency
    if latency is None or latency.ratio_p50 is None or str(timed.name) == timed.name.parent:
        return f"{_p50(timed)} a step"
    return f"{1 / latency.ratio_p50:.1f}x faster than its dense parent ({_p50(timed)} a step)"


def _drop(shipped: Judged, reference: Judged) -> str:
    accuracy = f"accuracy {_accuracy(shipped.evidence)} against {_accuracy(reference.evidence)}"
    asked = ("drop_max", "reference", "single_stream")
    drops = [found for found in shipped.outcomes if (found.kind, found.against, found.scenario) == asked]
    for found in drops:
        if found.value is not None and found.high is not None:
            return f"{accuracy} (drop {found.value:.1f}, at most {found.high:.1f} points; margin {found.bound:.1f})"
    return accuracy


def _tally(judged: Sequence[Judged], reference: Judged) -> str:
    others = [one.status for one in judged if one is not reference]
    counts = {"fail": others.count("FAIL"), "inconclusive": others.count("INCONCLUSIVE")}
    told = [f"{count} {word}" for word, count in counts.items() if count]
    return f"{len(others)} others: {', '.join(told)}" if told else f"{len(others)} others"


def _accuracy(one: Evidence) -> str:
    facts = one.measurement.accuracy.get("test")
    return f"{100 * facts.accuracy:.1f} %" if facts else "unknown"


def _p50(one: Evidence) -> str:
    latency = one.measurement.latency
    return f"{latency.p50_ms:.3f} ms" if latency and latency.p50_ms is not None else "unknown time"


def _ratio(one: Evidence) -> float | None:
    latency = one.measurement.latency
    return latency.ratio_p50 if latency else None
