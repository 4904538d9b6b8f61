"""What is verified: one verdict with the evidence beside it, read once and kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from framegate.bench.samples import Samples
from framegate.contract import CandidateName, DataError, Measurement, Verdict, digest_of, sha256_file
from framegate.dvclock import Lock
from framegate.index import Index
from framegate.verify.check import NotThere
from framegate.verify.files import read_samples

CONFIRMATION, CHAMPION = "confirmation", "champion"
NAME = re.compile(r"\w[\w.-]*")  # no separator: a name is a folder of the evidence and nothing above it


@dataclass(frozen=True, slots=True)
class Measured:
    """One folder of the evidence. `samples` is None where the measurement names none."""

    measurement: Measurement
    samples: Samples | None

    @property
    def digest(self) -> str:
        """As a verdict names it."""
        return digest_of(self.measurement.model_dump(mode="json"))


class Subject:
    """A folder with verdict.json and evidence/: exports/, or exports/hosts/<class12> of another host class."""

    def __init__(self, root: Path, bundles: Path) -> None:
        self.root, self.bundles, self.evidence = root, bundles, root / "evidence"
        self._read: dict[str, Measured | DataError] = {}

    @cached_property
    def verdict(self) -> Verdict:
        """DataError when it is damaged, NotThere without one."""
        if not (self.root / "verdict.json").is_file():
            raise NotThere(f"{self.root / 'verdict.json'}: missing; the gate stage writes it")
        found = Verdict.read(self.root / "verdict.json")
        for name in (*found.measurements, found.reference, *filter(None, (found.shipped, found.chosen))):
            CandidateName.parse(name)
            if not NAME.fullmatch(name):
                raise DataError(f"{self.root / 'verdict.json'}: {name!r} is no candidate's name")
        return found

    def problems_of_verdict(self) -> Iterator[str]:
        """None when it can be read: nothing can be said about another."""
        yield from () if self.verdict.measurements else ("verdict.json names no measurement",)

    @cached_property
    def index(self) -> Index:
        """The table of the data set that everything was judged on."""
        return Index.read(self.needed("index.json"))

    @cached_property
    def lock(self) -> Lock:
        """dvc.lock as it was when the gate judged."""
        return Lock.read(self.needed("dvc.lock"))

    def needed(self, name: str) -> Path:
        """A file of the evidence; NotThere without it."""
        if not (self.evidence / name).is_file():
            raise NotThere(f"{self.evidence / name}: missing; the gate stage writes it")
        return self.evidence / name

    def folders(self) -> list[str]:
        """Folders of the evidence that hold a measurement: those that the verdict names, and the special ones."""
        if not self.evidence.is_dir():
            raise NotThere(f"{self.evidence}: missing; the gate stage writes it, and it travels with the verdict")
        special = [name for name in (CONFIRMATION, CHAMPION) if (self.evidence / name).is_dir()]
        return [*self.verdict.measurements, *special]

    def measured(self, name: str) -> Measured:
        """One folder's measurement, its samples checked against the sha256 that it names. DataError: damaged."""
        if name not in self._read:
            try:
                self._read[name] = self._measured(name)
            except DataError as error:
                self._read[name] = error
        found = self._read[name]
        if isinstance(found, DataError):
            raise found
        return found

    def readable(self) -> Iterator[tuple[str, Measured]]:
        """Every folder that can be read; the others are a problem of the check on measurements, once."""
        for name in self.folders():
            try:
                yield name, self.measured(name)
            except DataError:
                continue

    def _measured(self, name: str) -> Measured:
        folder = self.evidence / name
        found = Measurement.read(folder / "measurement.json")
        if not found.samples_sha256:
            return Measured(found, None)
        path = folder / "samples.npz"
        if not path.is_file():
            raise DataError(f"{path}: missing; measurement.json names it")
        if (got := sha256_file(path)) != found.samples_sha256:
            raise DataError(f"{path}: sha256 is {got[:12]}…, measurement.json says {found.samples_sha256[:12]}…")
        return Measured(found, read_samples(path))
