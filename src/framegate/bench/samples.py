"""Raw samples of one measurement: what samples.npz holds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from framegate.contract import DataError, Split, atomic_path

ARRAYS = ("candidate_ns", "parent_ns", "candidate_first", "solo_ns", "audit_ids", "audit_logits")
EXTRA = "extra_"


@dataclass(frozen=True, slots=True)
class SplitSamples:
    """Every clip of one split: what it is and what the candidate answered."""

    ids: NDArray[np.str_]  # [n]
    groups: NDArray[np.str_]  # [n]
    labels: NDArray[np.int64]  # [n], positions in the bundle's labels
    logits: NDArray[np.float32]  # [n,K]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which clips were answered rightly; a logit that is not finite is no answer."""
        finite = np.isfinite(self.logits).all(axis=1)
        return cast(NDArray[np.bool_], (self.logits.argmax(axis=1) == self.labels) & finite)


@dataclass(frozen=True, slots=True)
class Samples:
    """One candidate's samples, in nanoseconds; no sample is ever dropped.

    Interleaved with the parent, in fresh processes: `candidate_ns`, `parent_ns` [pair, block, call] and
    `candidate_first` [pair, block]. Alone and sustained, in other fresh processes: `solo_ns` [process, call].
    `audit_*`: clip logits that were given while time was taken, [m] ids of test clips and [m,K]. `extra`: arrays of
    the scenarios, by name (see `scenario` and `streams`).
    """

    candidate_ns: NDArray[np.int64]
    parent_ns: NDArray[np.int64]
    candidate_first: NDArray[np.bool_]
    solo_ns: NDArray[np.int64]
    audit_ids: NDArray[np.str_]
    audit_logits: NDArray[np.float32]
    splits: dict[Split, SplitSamples]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write atomically."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"{EXTRA}{name}": array for name, array in self.extra.items()}
        for split, clips in self.splits.items():
            for name in SplitSamples.__slots__:
                arrays[f"{split}_{name}"] = getattr(clips, name)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Samples:
        """Read; DataError when the file is missing, cut or not what it should be."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                splits: dict[Split, SplitSamples] = {
                    split: SplitSamples(*(arrays[f"{split}_{name}"] for name in SplitSamples.__slots__))
                    for split in cast(tuple[Split, ...], ("train", "val", "test"))
                    if f"{split}_ids" in arrays
                }
                extra = {name.removeprefix(EXTRA): arrays[name] for name in arrays if name.startswith(EXTRA)}
                return cls(**{name: arrays[name] for name in ARRAYS}, splits=splits, extra=extra)
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not readable as samples ({error}); run bench again") from error
