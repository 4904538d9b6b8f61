"""Every measurement is the one that was judged, and its facts follow from its samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench.facts import audit, recomputed
from framegate.bench.host import host_digest
from framegate.bench.samples import Samples
from framegate.contract import CandidateName, DataError, Measurement
from framegate.gate.evidence import load_one
from framegate.verify.check import NotThere, differences, guarded
from framegate.verify.subject import CHAMPION, CONFIRMATION, Measured, Subject


def measurements(subject: Subject) -> Iterator[str]:
    """Digests as the verdict names them; samples as measurement.json names them; facts as the samples give them."""
    for name in subject.folders():
        yield from guarded(_one(subject, name), name)


def _one(subject: Subject, name: str) -> Iterator[str]:
    verdict = subject.verdict
    try:
        found = subject.measured(name)
    except DataError as error:
        if name not in verdict.measurements or _as_missing(subject, name) != verdict.measurements[name]:
            yield str(error)
        return
    told = found.measurement
    judged = verdict.evidence.get(name) if name in (CONFIRMATION, CHAMPION) else verdict.measurements[name]
    if found.digest != judged:
        yield f"measurement.json has digest {found.digest[:12]}…, the verdict was made from {str(judged)[:12]}…"
    if name not in (CONFIRMATION, CHAMPION, told.candidate):
        yield f"holds the measurement of {told.candidate}"
    if told.host_class and host_digest(told.host_class) != told.inputs.get("host_class"):
        yield "the digest of its host class does not follow from the host that it describes"
    if name != CHAMPION and told.inputs and told.inputs.get("host_class") != verdict.host_class:
        yield f"measured on host class {_start(told, 'host_class')}…, the verdict is for {verdict.host_class[:12]}…"
    if found.samples is None:
        if told.status == "measured":
            yield "measured, but names no samples"
        return
    labels = subject.index.labels
    malformed = list(shape_problems(found.samples, len(labels)))
    yield from malformed or differences(*_facts(told, found.samples, labels))


def _as_missing(subject: Subject, name: str) -> str:
    """The digest that the gate gives to what it cannot read: if that is what was judged, nothing was taken away."""
    return load_one(CandidateName.parse(name), subject.evidence / name).digest


def _start(told: Measurement, key: str) -> str:
    return told.inputs.get(key, "")[:12]


def _facts(told: Measurement, samples: Samples, labels: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What measurement.json says, and what its samples give; what no sample is kept of stays as it is."""
    again, keys = recomputed(told, samples), {"accuracy", "latency", "scenarios", "streams"}
    given = again.model_dump(mode="json", include=keys)
    for facts in (*given["accuracy"].values(), *(one["accuracy"] for one in given["scenarios"].values())):
        for key in ("f1_per_class", "recall_per_class") if facts else ():
            facts[key] = {labels[int(number)]: value for number, value in facts[key].items()}
    return told.model_dump(mode="json", include=keys), given


# --- shapes -----------------------------------------------------------------------------------


def shape_problems(samples: Samples, classes: int) -> Iterator[str]:
    """Arrays that are not what samples.npz holds: what is computed from them would mean nothing."""
    pair, first = samples.candidate_ns, samples.candidate_first
    for name, array, axes in (
        ("candidate_ns", pair, 3),
        ("parent_ns", samples.parent_ns, 3),
        ("solo_ns", samples.solo_ns, 2),
    ):
        if array.ndim != axes or array.dtype != np.int64 or not array.size:
            yield f"samples.npz: {name} is {_kind(array)}, expected int64 of {axes} axes"
        elif (array <= 0).any():
            yield f"{name} holds {int((array <= 0).sum())} times of nothing or less; no clock runs backwards"
    if samples.parent_ns.shape != pair.shape or first.shape != pair.shape[:2] or first.dtype != np.bool_:
        yield f"samples.npz: candidate {pair.shape}, parent {samples.parent_ns.shape}, who was first {_kind(first)}"
    answered = {"audit": (samples.audit_ids, samples.audit_logits)}
    for split, clips in samples.splits.items():
        answered[split] = (clips.ids, clips.logits)
        n = clips.ids.shape
        if clips.groups.shape != n or clips.labels.shape != n or clips.labels.dtype != np.int64:
            yield f"samples.npz: {split} has {n} clips, groups {_kind(clips.groups)}, labels {_kind(clips.labels)}"
        elif clips.labels.size and not (clips.labels.min() >= 0 and clips.labels.max() < classes):
            yield f"samples.npz: {split} has labels {clips.labels.min()} to {clips.labels.max()} of {classes} classes"
    for name, (ids, logits) in answered.items():
        if ids.ndim != 1 or ids.dtype.kind != "U" or logits.dtype != np.float32 or logits.shape != (len(ids), classes):
            yield f"samples.npz: {name} has ids {_kind(ids)}, logits {_kind(logits)}; {classes} classes"


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


# --- what was timed is what was judged --------------------------------------------------------


def answers(subject: Subject) -> Iterator[str]:
    """Answers given while time was taken are those of the accuracy run, of the same clips of the same bundle."""
    compared = 0
    for name, found in subject.readable():
        judged = _judged(subject, found)
        if found.samples is None or judged is None or judged.samples is None or "test" not in judged.samples.splits:
            continue
        compared += 1
        yield from guarded(_audited(found.samples, judged.samples), name)
    if not compared:
        raise NotThere("no measurement with samples: no answers to compare")


def _audited(timed: Samples, judged: Samples) -> Iterator[str]:
    if note := audit(timed, judged.splits["test"]):
        yield note


def _judged(subject: Subject, found: Measured) -> Measured | None:
    """Where the accuracy of the same bundle on the same runtime stands: beside it, or for a confirmation elsewhere."""
    if found.samples is None or found.samples.splits:
        return found
    name = found.measurement.candidate
    return subject.measured(name) if name in subject.verdict.measurements else None
