"""What the gate knows of a candidate: its measurement and raw samples, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framegate.bench.samples import Samples, SplitSamples
from framegate.bench.stats import Paired, paired
from framegate.contract import (
    CandidateName,
    DataError,
    Measurement,
    Split,
    digest_of,
    sha256_file,
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One candidate. `samples` is None unless the measurement's status is `measured`."""

    name: CandidateName
    measurement: Measurement
    samples: Samples | None

    @property
    def digest(self) -> str:
        """Of the measurement, which names its samples by sha256."""
        return digest_of(self.measurement.model_dump(mode="json"))


def load_evidence(folders: Mapping[str, Path]) -> list[Evidence]:
    """Evidence of every declared candidate from its measurement's folder; what is missing or damaged says so."""
    return [_load(CandidateName.parse(name), folder) for name, folder in folders.items()]


def _load(name: CandidateName, folder: Path) -> Evidence:
    try:
        found = Measurement.read(folder / "measurement.json")
        if found.candidate != str(name):
            raise DataError(f"{folder}: holds the measurement of {found.candidate}; run bench again")
        if found.status != "measured":
            return Evidence(name, found, None)
        samples = folder / "samples.npz"
        if not samples.is_file() or sha256_file(samples) != found.samples_sha256:
            raise DataError(f"{samples}: missing, or not the samples of measurement.json; run bench again")
        return Evidence(name, found, Samples.load(samples))
    except DataError as error:
        return Evidence(name, missing(name, str(error)), None)


def missing(name: CandidateName, reason: str) -> Measurement:
    """A measurement that is not there, as a result."""
    return Measurement(
        candidate=str(name), status="failed", reason=reason, inputs={}, host_class={}, host_conditions={}
    )


def why_not_comparable(one: Evidence, reference: Evidence) -> str | None:
    """Why nothing can be concluded about a candidate, whatever the rules; None when it can."""
    found = one.measurement
    if found.status != "measured" or one.samples is None:
        return f"{found.status}: {found.reason}"
    if reference.samples is None:
        return f"the reference has no measurement ({reference.measurement.status}: {reference.measurement.reason})"
    for key, words in (("host_class", "on another host class"), ("index", "on other data"), ("bench", "otherwise")):
        if not found.inputs.get(key) or found.inputs[key] != reference.measurement.inputs.get(key):
            return f"measured {words} than the reference; run bench for both"
    for whose, samples in (("its", one.samples), ("the reference's", reference.samples)):
        if wrong := sum(int((~np.isfinite(c.logits).all(axis=1)).sum()) for c in samples.splits.values()):
            return f"{whose} logits are not finite in {wrong} clips"
    return None


def pair_with(one: Evidence, reference: Evidence, split: Split) -> Paired | None:
    """Answers of both to the same clips, counted; None when the clips are not the same."""
    mine, theirs = _clips(one, split), _clips(reference, split)
    if mine is None or theirs is None or len(mine.ids) != len(theirs.ids):
        return None
    a, b = np.argsort(mine.ids), np.argsort(theirs.ids)
    for key in ("ids", "labels", "groups"):
        if not np.array_equal(getattr(mine, key)[a], getattr(theirs, key)[b]):
            return None
    return paired(theirs.right[b], mine.right[a], mine.groups[a])


def pair_with_perfect(one: Evidence, split: Split) -> Paired | None:
    """Against answers that are always right: its drop is the error rate."""
    clips = _clips(one, split)
    return None if clips is None else paired(np.ones(len(clips.ids), bool), clips.right, clips.groups)


def pair_with_majority(one: Evidence, split: Split) -> Paired | None:
    """Against always answering the split's most frequent label: a negative drop is better than chance."""
    clips = _clips(one, split)
    if clips is None:
        return None
    majority: NDArray[np.bool_] = clips.labels == np.bincount(clips.labels).argmax()
    return paired(majority, clips.right, clips.groups)


def _clips(one: Evidence, split: Split) -> SplitSamples | None:
    found = one.samples.splits.get(split) if one.samples else None
    return found if found is not None and len(found.ids) else None
