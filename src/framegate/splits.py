"""Which clip stands in which split: nothing that hangs together (video, duplicate, group) in two of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from framegate.contract import DataError, Record, RuntimeUnavailable, Split
from framegate.folder import some

SPLITS: tuple[Split, ...] = get_args(Split)
SEEDS = 8  # assignments tried; fewer when there are many groups
GROUPS_FOR_ALL_SEEDS = 500

Codes = NDArray[np.int64]  # i64 [n]


@dataclass(frozen=True, slots=True)
class Member:
    """A clip as far as splitting goes."""

    id: str
    label: str
    group: str
    sha256: str


class SplitShares(Record):
    """Wanted parts of the clips; only their proportion counts."""

    train: Annotated[float, Field(gt=0)] = 0.7
    val: Annotated[float, Field(gt=0)] = 0.15
    test: Annotated[float, Field(gt=0)] = 0.15


# --- what hangs together ----------------------------------------------------------------------


def check_labels(members: Sequence[Member]) -> None:
    """DataError when the same bytes have two labels: one of them is wrong."""
    first: dict[str, Member] = {}
    for member in members:
        other = first.setdefault(member.sha256, member)
        if other.label != member.label:
            raise DataError(
                f"the same bytes have two labels: {other.id!r} ({other.label}) and {member.id!r} ({member.label}); "
                "remove the wrong one"
            )


def components(members: Sequence[Member]) -> list[int]:
    """A number per member, equal for all that share a group or their bytes, directly or through others."""
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        while (up := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[up]
        return node

    for member in members:
        parent[find("group " + member.group)] = find("bytes " + member.sha256)
    roots = [find("group " + member.group) for member in members]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    return [numbers[root] for root in roots]


def check_splits(members: Sequence[Member], splits: Mapping[str, Split]) -> None:
    """DataError when a group, or the same bytes, stands in two splits of a given assignment."""
    for member, other, tie in _ties(members):
        if splits[other.id] != splits[member.id]:
            raise DataError(
                f"{tie} in two splits: {other.id!r} is in {splits[other.id]}, {member.id!r} in "
                f"{splits[member.id]}; what was learnt would be tested: move them to one split "
                "in splits.csv"
            )


def _ties(members: Sequence[Member]) -> Iterator[tuple[Member, Member, str]]:
    """(clip, the first clip it must stand with, why) for each clip, once by group and once by bytes."""
    first: dict[str, Member] = {}
    for member in members:
        for tie in (f"group {member.group!r}", f"the same bytes ({member.sha256})"):
            yield member, first.setdefault(tie, member), tie


def check_classes(members: Sequence[Member], splits: Mapping[str, Split]) -> None:
    """DataError when a class is absent from a split."""
    found = {(member.label, splits[member.id]) for member in members}
    labels = sorted({member.label for member in members})
    for label, split in ((label, split) for label in labels for split in SPLITS):
        if (label, split) not in found:
            groups = sorted({member.group for member in members if member.label == label})
            counted = f"{len(groups)} group{'s' * (len(groups) > 1)}"
            raise DataError(
                f"class {label!r} has no clip in the {split} split: its clips stand in {counted} ({some(groups)}); "
                f"every class needs one in each of train, val and test: add clips of {label!r} from other groups, "
                "change the assignment, or remove the class"
            )


# --- assignment -------------------------------------------------------------------------------


def assign_splits(members: Sequence[Member], shares: SplitShares, seed: int) -> dict[str, Split]:
    """id -> split: every class in every split, shares (of the whole, and class by class) near the wanted ones.

    Tries stratified group folds under several seeds and keeps the best. DataError when there are fewer than
    three groups, or a class cannot be in every split.
    """
    together = np.array(components(members), np.int64)
    groups = len(set(together.tolist()))
    if groups < len(SPLITS):
        raise DataError(
            f"{len(members)} clips hang together in {groups} group{'s' * (groups > 1)}, and a group stands in one "
            "split: train, val and test need at least 3 groups; record more, or correct groups.csv"
        )
    labels, classes = np.unique([member.label for member in members], return_inverse=True)
    total = shares.train + shares.val + shares.test
    wanted = (shares.train / total, shares.val / total, shares.test / total)
    tries = _tries(classes.astype(np.int64), together, wanted, seed)
    nothing_to_try = np.zeros(len(members), np.int64)  # every class too small for any fold: refused below, by name
    best = min(tries, key=lambda codes: _cost(codes, classes, len(labels), wanted), default=nothing_to_try)
    splits = {member.id: SPLITS[code] for member, code in zip(members, best.tolist(), strict=True)}
    check_classes(members, splits)
    return splits


def _cost(codes: Codes, classes: Codes, labels: int, wanted: tuple[float, float, float]) -> float:
    """Missing (class, split) pairs first; then the distance from the wanted shares, overall and by class."""
    counts = np.zeros((labels, len(SPLITS)))  # f64 [K,3]
    np.add.at(counts, (classes, codes), 1)
    by_class = np.abs(counts / counts.sum(1, keepdims=True) - wanted).mean(0).sum()
    overall = np.abs(counts.sum(0) / counts.sum() - wanted).sum()
    return float(1000 * (counts == 0).sum() + by_class + overall)


def _tries(classes: Codes, groups: Codes, wanted: tuple[float, float, float], seed: int) -> Iterator[Codes]:
    """Candidate assignments, i64 [n] of positions in SPLITS: test folds first, val folds from the rest."""
    train, val, test = wanted
    seeds = max(1, min(SEEDS, SEEDS * GROUPS_FOR_ALL_SEEDS // len(np.unique(groups))))
    for turn in range(seed, seed + seeds):
        for in_test in _folds(classes, groups, test, turn):
            rest = np.setdiff1d(np.arange(len(classes)), in_test)
            for in_val in _folds(classes[rest], groups[rest], val / (train + val), turn):
                codes = np.zeros(len(classes), np.int64)
                codes[in_test], codes[rest[in_val]] = SPLITS.index("test"), SPLITS.index("val")
                yield codes


def _folds(classes: Codes, groups: Codes, share: float, seed: int) -> list[Codes]:
    """Positions of each fold that holds about `share` of the clips."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError:
        raise RuntimeUnavailable(
            "splitting needs scikit-learn: pip install 'framegate[train]', or put a splits.csv into the data set"
        ) from None
    most = min(len(np.unique(groups)), int(np.bincount(classes).max()))
    count = min(max(2, round(1 / share)), most)
    if count < 2:
        return []
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class smaller than the number of folds: _cost sees it
        return [fold for _, fold in folds.split(np.zeros((len(classes), 1)), classes, groups)]
