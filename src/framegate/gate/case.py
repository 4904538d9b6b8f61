"""All that a decision is made from, and the folder that it travels in: exports/evidence.

The gate stage writes the folder (`write_case`) and decides from what it holds (`Case.load`), so that anybody who
has the folder can decide again and compare.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from framegate.contract import CandidateName, DataError, Measurement, Record, Verdict, atomic_folder
from framegate.gate.evidence import Agreed, Evidence, load_evidence, load_one

FILES = ("measurement.json", "samples.npz")


class CaseFacts(Record):
    """case.json: what is no measurement. As in `Case`."""

    openings: int = 1
    confirmations: int = 1
    incumbent: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision is made from.

    `confirmation`: the chosen candidate's latency measured again in a fresh run. `champion`: the evidence archived
    when the present champion shipped. `agreements`: by candidate. `openings`: of the test split, this one included.
    `confirmations`: how often the same measurement was confirmed, this one included. `incumbent`: the candidate that
    ships now.
    """

    evidence: tuple[Evidence, ...]
    confirmation: Evidence | None = None
    champion: Evidence | None = None
    agreements: Mapping[str, Agreed] = field(default_factory=dict)
    openings: int = 1
    confirmations: int = 1
    incumbent: str | None = None

    @classmethod
    def load(cls, folder: Path, names: Iterable[str]) -> Case:
        """From a folder that `write_case` wrote. What is missing or damaged of a candidate is a result that says so.

        DataError when an agreement, case.json or the measurement.json of champion or confirmation is damaged.
        """
        return cls.read(Sources.inside(folder, names))

    @classmethod
    def read(cls, sources: Sources) -> Case:
        """From wherever the files are."""
        return cls(
            evidence=tuple(load_evidence(sources.measurements)),
            confirmation=_named_by_itself(sources.confirmation),
            champion=_named_by_itself(sources.champion),
            agreements={name: Agreed.load(path) for name, path in sources.agreements.items()},
            openings=sources.facts.openings,
            confirmations=sources.facts.confirmations,
            incumbent=sources.facts.incumbent,
        )


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the files of a case are: folders of measurements and agreements, index.json, dvc.lock."""

    measurements: Mapping[str, Path]
    confirmation: Path | None = None
    champion: Path | None = None
    agreements: Mapping[str, Path] = field(default_factory=dict)
    index: Path | None = None
    lock: Path | None = None
    facts: CaseFacts = field(default_factory=CaseFacts)

    @classmethod
    def inside(cls, folder: Path, names: Iterable[str]) -> Sources:
        """Those of exports/evidence; what is optional and not there is None."""
        agreements = sorted((folder / "agreement").glob("*/agreement.json"))
        return cls(
            measurements={name: folder / name for name in names},
            confirmation=_there(folder / "confirmation"),
            champion=_there(folder / "champion"),
            agreements={path.parent.name: path.parent for path in agreements},
            index=_there(folder / "index.json"),
            lock=_there(folder / "dvc.lock"),
            facts=CaseFacts.read(folder / "case.json"),
        )


def read_judged(exports: Path) -> tuple[Verdict, Case]:
    """A verdict and what it was computed from. DataError when they are not there or do not belong together."""
    verdict, folder = Verdict.read(exports / "verdict.json"), exports / "evidence"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; run the gate stage, which writes it beside verdict.json")
    case = Case.load(folder, (one.candidate for one in verdict.candidates))
    found, named = {str(one.name): one.digest for one in case.evidence}, verdict.measurements
    found |= {name: one.digest for name in ("confirmation", "champion") if (one := getattr(case, name))}
    found |= {f"agreement/{name}": one.digest for name, one in case.agreements.items()}
    named = named | {name: digest for name, digest in verdict.evidence.items() if name != "index"}
    if other := [name for name in {**found, **named} if found.get(name) != named.get(name)]:
        raise DataError(
            f"{folder}: {', '.join(other)}: not what {exports / 'verdict.json'} was computed from; "
            "run the gate stage again"
        )
    return verdict, case


def write_case(folder: Path, sources: Sources) -> None:
    """Copy everything that a decision is made from; the folder is swapped in whole.

    A candidate without a measurement leaves none here either: it is judged as missing.
    """
    with atomic_folder(folder) as new:
        whole = dict(sources.measurements)
        whole |= {"confirmation": sources.confirmation} if sources.confirmation else {}
        whole |= {"champion": sources.champion} if sources.champion else {}
        for name, path in whole.items():
            _copy(path, new / name, FILES)
        for name, path in sources.agreements.items():
            _copy(path, new / "agreement" / name, ("agreement.json", "samples.npz"))
        for source, name in ((sources.index, "index.json"), (sources.lock, "dvc.lock")):
            if source is not None:
                shutil.copyfile(source, new / name)
        sources.facts.write(new / "case.json")


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        if (source / name).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _named_by_itself(folder: Path | None) -> Evidence | None:
    """Evidence of whichever candidate the folder holds; DataError when its measurement cannot be read."""
    if folder is None:
        return None
    name = Measurement.read(folder / "measurement.json").candidate
    return load_one(CandidateName.parse(name), folder)
