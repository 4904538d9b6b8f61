"""The gate's sentences, each computed from the measurements that it speaks of."""

from __future__ import annotations

from collections.abc import Sequence

from framegate.bench import stats
from framegate.gate.evidence import Evidence
from framegate.gate.judge import Judged

RESTLESS = 0.02  # of its own time, beyond the interval: three quiet processes stay within it


def sentence(shipped: Judged | None, judged: Sequence[Judged], reference: Evidence) -> str:
    """The verdict in one sentence."""
    mine = next(one for one in judged if one.evidence is reference)
    if shipped is None:
        return f"Nothing ships: no candidate is proven, nor is the reference {mine.name} ({mine.reason})."
    if shipped.evidence is reference:
        return (
            f"{mine.name}, the reference itself, ships uncompressed: nothing faster is proven "
            f"({_tally(judged, mine)}); accuracy {_accuracy(mine.evidence)}, {_p50(mine.evidence)} a step."
        )
    return f"{shipped.name} ships: {_speed(shipped.evidence)}, {_drop(shipped, mine)}."


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


def restless(reference: Evidence) -> str | None:
    """A reference that is measurably unlike itself: the machine, not the model."""
    if reference.samples is None or str(reference.name) != reference.name.parent:
        return None
    found = stats.ratio_p50(reference.samples.candidate_ns, reference.samples.parent_ns)
    if found.low is None or found.high is None or (found.low <= 1 + RESTLESS and found.high >= 1 - RESTLESS):
        return None
    load = reference.measurement.host_conditions.get("load_1_5_15", ["unknown"])[0]
    return (
        f"this machine was restless: the reference took {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] "
        f"of its own time in the same processes (load {load})"
    )


def _speed(one: Evidence) -> str:
    latency = one.measurement.latency
    if latency is None or latency.ratio_p50 is None or str(one.name) == one.name.parent:
        return f"{_p50(one)} a step"
    parent = "unknown" if latency.parent_p50_ms is None else f"{latency.parent_p50_ms:.3f} ms"
    return f"{1 / latency.ratio_p50:.1f}x faster than its dense parent ({_p50(one)} against {parent} a step)"


def _drop(shipped: Judged, reference: Judged) -> str:
    accuracy = f"accuracy {_accuracy(shipped.evidence)} against {_accuracy(reference.evidence)}"
    drops = [found for found in shipped.outcomes if found.metric == "accuracy" and found.unit == "points"]
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
