"""What the gate knows of a candidate: its measurement and raw samples, or why there is none; answers in pairs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from framegate.bench.samples import Samples, SplitSamples
from framegate.bench.stats import Paired, paired
from framegate.contract import (
    CandidateName,
    DataError,
    Measurement,
    Record,
    Split,
    atomic_path,
    digest_of,
    sha256_file,
)
from framegate.gate.faults import fault


@dataclass(frozen=True, slots=True)
class Answers:
    """The clips of a split in the order of their ids, so that two candidates' answers pair by position."""

    ids: NDArray[np.str_]  # [n]
    groups: NDArray[np.str_]  # [n]
    group: NDArray[Any]  # int [n], the same as numbers: counting is faster
    labels: NDArray[np.int64]  # [n]
    right: NDArray[np.bool_]  # [n]

    @classmethod
    def of(cls, clips: SplitSamples) -> Answers:
        """Sorted."""
        order = np.argsort(clips.ids)
        _, group = np.unique(clips.groups[order], return_inverse=True)
        return cls(clips.ids[order], clips.groups[order], group, clips.labels[order], clips.right[order])

    def same_clips(self, other: Answers) -> bool:
        """Whether ids, labels and groups are those of the other."""
        return all(np.array_equal(getattr(self, key), getattr(other, key)) for key in ("ids", "labels", "groups"))

    def taken(self, which: NDArray[Any]) -> Answers:
        """Some of them, by positions or a mask."""
        return Answers(*(getattr(self, key)[which] for key in Answers.__slots__))


@dataclass(frozen=True, eq=False)
class Evidence:
    """One candidate. `samples` is None unless the measurement's status is `measured`.

    What is computed from it is computed once: a decision looks at the same answers again and again.
    """

    name: CandidateName
    measurement: Measurement
    samples: Samples | None

    @cached_property
    def digest(self) -> str:
        """Of the measurement, which names its samples by sha256."""
        return digest_of(self.measurement.model_dump(mode="json"))

    @property
    def bundle(self) -> str:
        """Digest of the bundle that was measured; empty when unknown."""
        return self.measurement.inputs.get("bundle", "")

    @cached_property
    def fault(self) -> str | None:
        """What is wrong with a measurement that was made, by itself; None when nothing is."""
        return None if self.samples is None else fault(self.name.runtime, self.measurement, self.samples)

    @cached_property
    def answers(self) -> dict[Split, Answers]:
        """Of every split that has clips."""
        splits = self.samples.splits if self.samples else {}
        return {split: Answers.of(clips) for split, clips in splits.items() if len(clips.ids)}

    @cached_property
    def camera_answers(self) -> Answers | None:
        """To test clips under the drop pattern of the camera's operating point; None: not measured or not of them."""
        test = self.answers.get("test")
        extra = self.samples.extra if self.samples else {}
        if test is None or "camera_ids" not in extra or not len(extra["camera_ids"]):
            return None
        ids, logits = extra["camera_ids"], extra["camera_logits"]
        order = np.argsort(ids)
        where = np.minimum(np.searchsorted(test.ids, ids[order]), len(test.ids) - 1)
        if len(np.unique(ids)) < len(ids) or not np.array_equal(test.ids[where], ids[order]):
            return None
        clips = test.taken(where)
        right = np.isfinite(logits).all(axis=1)[order] & (logits.argmax(axis=1)[order] == clips.labels)
        return Answers(clips.ids, clips.groups, clips.group, clips.labels, right)


def load_evidence(folders: Mapping[str, Path]) -> list[Evidence]:
    """Evidence of every declared candidate from its measurement's folder; what is missing or damaged says so."""
    return [load_one(CandidateName.parse(name), folder) for name, folder in folders.items()]


def load_one(name: CandidateName, folder: Path) -> Evidence:
    """One candidate's; never an exception for what is damaged."""
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
        told = str(error).replace(str(folder), folder.name)  # wherever the folder lies: it is decided again elsewhere
        return Evidence(name, missing(name, told), None)


def missing(name: CandidateName, reason: str) -> Measurement:
    """A measurement that is not there, as a result."""
    return Measurement(
        candidate=str(name), status="failed", reason=reason, inputs={}, host_class={}, host_conditions={}
    )


# --- pairs of answers -------------------------------------------------------------------------


def pair(mine: Answers | None, theirs: Answers | None) -> Paired | None:
    """Answers of both to the same clips, counted; None when the clips are not the same."""
    if mine is None or theirs is None or not mine.same_clips(theirs):
        return None
    return paired(theirs.right, mine.right, mine.group)


def pair_with(one: Evidence, reference: Evidence, split: Split) -> Paired | None:
    """As `pair`, of one split."""
    return pair(one.answers.get(split), reference.answers.get(split))


def pair_with_perfect(answers: Answers | None) -> Paired | None:
    """Against answers that are always right: its drop is the error rate."""
    return None if answers is None else paired(np.ones(len(answers.ids), bool), answers.right, answers.group)


def pair_with_majority(one: Evidence, split: Split) -> Paired | None:
    """Against always answering the split's most frequent label: a negative drop is better than chance."""
    clips = one.answers.get(split)
    if clips is None:
        return None
    majority: NDArray[np.bool_] = clips.labels == np.bincount(clips.labels).argmax()
    return paired(majority, clips.right, clips.group)


# --- agreement on unlabelled clips -------------------------------------------------------------


class Agreement(Record):
    """agreement.json: how often a candidate and the reference answer otherwise on clips that nobody labelled.

    samples.npz beside it: ids, groups, sha256, candidate_top, reference_top, each [n]. `index`: digest of the index
    whose training and validation clips were left out; empty when there was none. `host_class`: digest of where it was
    asked; quantized nets may answer otherwise on another CPU.
    """

    format: int = 1
    candidate: str
    reference: str
    bundle: str  # digest of the candidate's
    reference_bundle: str
    index: str = ""
    host_class: str = ""
    n: int
    groups: int
    disagreements: int
    samples_sha256: str = ""


@dataclass(frozen=True, eq=False)
class Agreed:
    """An agreement with its raw answers: what is proven is computed from these."""

    record: Agreement
    ids: NDArray[np.str_]  # [n]
    groups: NDArray[np.str_]  # [n]
    sha256: NDArray[np.str_]  # [n], of the files
    candidate_top: NDArray[np.int64]  # [n], position of the top label; -1 where a logit was not finite
    reference_top: NDArray[np.int64]  # [n]

    @property
    def digest(self) -> str:
        """Of the record, which names its samples by sha256."""
        return digest_of(self.record.model_dump(mode="json"))

    @cached_property
    def disagrees(self) -> NDArray[np.bool_]:
        """Which clips were answered otherwise, or not at all: [n]."""
        other: NDArray[np.bool_] = (self.candidate_top != self.reference_top) | (self.candidate_top < 0)
        return other

    def why_not(self, one: Evidence, reference: Evidence) -> str:
        """Why it says nothing of these two; empty when it does."""
        said, found = self.record, (len(self.ids), len(np.unique(self.groups)), int(self.disagrees.sum()))
        if (said.candidate, said.reference) != (str(one.name), str(reference.name)):
            return f"it compares {said.candidate} with {said.reference}"
        if (said.bundle, said.reference_bundle) != (one.bundle, reference.bundle):
            return "it was made of other bundles"
        if not said.index or said.index != one.measurement.inputs.get("index"):
            return "the clips that these models learnt from were not told apart: it was made without their index"
        if not said.host_class or said.host_class != one.measurement.inputs.get("host_class"):
            return "it was made on another host class"
        if len(np.unique(self.sha256)) < len(self.ids):
            return "a clip stands in it twice"
        if (said.n, said.groups, said.disagreements) != found:
            return "its numbers do not follow from its samples"
        return ""

    def write(self, folder: Path) -> None:
        """samples.npz, then agreement.json, which names it."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in AGREED}
        with atomic_path(folder / "samples.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        sha256 = sha256_file(folder / "samples.npz")
        self.record.model_copy(update={"samples_sha256": sha256}).write(folder / "agreement.json")

    @classmethod
    def load(cls, folder: Path) -> Agreed:
        """DataError when something is missing, cut or changed."""
        record, path = Agreement.read(folder / "agreement.json"), folder / "samples.npz"
        if not path.is_file() or sha256_file(path) != record.samples_sha256:
            raise DataError(f"{path}: missing, or not the samples of agreement.json; run `framegate agree` again")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(record, *(arrays[name] for name in AGREED))
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not readable ({error}); run `framegate agree` again") from error
        if {getattr(found, name).shape for name in AGREED} != {(record.n,)}:
            raise DataError(f"{path}: not one answer of each for {record.n} clips; run `framegate agree` again")
        return found


AGREED = ("ids", "groups", "sha256", "candidate_top", "reference_top")
