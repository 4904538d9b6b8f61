"""Raw samples of one measurement: what samples.npz holds. No sample is ever dropped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from framegate.contract import DataError, Split, atomic_path


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
    """One candidate's samples. `*_ns` are [process, block, call]; `candidate_first` is [process, block]."""

    candidate_ns: NDArray[np.int64]
    parent_ns: NDArray[np.int64]
    candidate_first: NDArray[np.bool_]
    splits: dict[Split, SplitSamples]

    def save(self, path: Path) -> None:
        """Write atomically."""
        arrays: dict[str, Any] = {
            "candidate_ns": self.candidate_ns,
            "parent_ns": self.parent_ns,
            "candidate_first": self.candidate_first,
        }
        for split, clips in self.splits.items():
            for name in SplitSamples.__slots__:
                arrays[f"{split}_{name}"] = getattr(clips, name)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Samples:
        """Read; DataError when the file is missing, cut or not what it should be."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                splits: dict[Split, SplitSamples] = {
                    split: SplitSamples(*(arrays[f"{split}_{name}"] for name in SplitSamples.__slots__))
                    for split in cast(tuple[Split, ...], ("train", "val", "test"))
                    if f"{split}_ids" in arrays
                }
                return cls(arrays["candidate_ns"], arrays["parent_ns"], arrays["candidate_first"], splits)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path}: not readable as samples ({error}); run bench again") from error
