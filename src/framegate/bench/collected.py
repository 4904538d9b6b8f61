"""Measurements that were brought home: checked as a whole, kept per host class, given to the gate."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from framegate.bench.host import host_digest
from framegate.bench.samples import Samples
from framegate.contract import DataError, Measurement, atomic_folder, sha256_file

HOSTS = Path("work/hosts")
CONFIRMATION = "confirmation"
FILES = ("measurement.json", "samples.npz")
CLASS = 12  # characters of a host class's digest that name its folder


def collect(folder: Path, into: Path = HOSTS) -> tuple[Path, int]:
    """Copy the measurements in `folder` to into/<class12>, replacing what that class had; gives it, and how many.

    DataError with every problem (damaged, renamed, of several host classes or settings): then nothing is copied.
    """
    folders = sorted(path.parent for path in folder.glob("*/measurement.json"))
    if not folders:
        raise DataError(f"{folder}: no measurements here; name the folder that `framegate bench ... -o DIR` wrote")
    found: dict[str, Measurement] = {}
    problems: list[str] = []
    for one in folders:
        try:
            found[one.name] = _checked(one)
        except DataError as error:
            problems.append(str(error))
    problems += _mixed(found)
    if problems:
        raise DataError(f"{folder}: nothing is collected:\n  " + "\n  ".join(problems))
    target = into / next(iter(found.values())).inputs["host_class"][:CLASS]
    with atomic_folder(target) as empty:
        for name in found:
            _copy(folder / name, empty / name)
    return target, len(found)


def host_cases(root: Path = HOSTS) -> dict[str, dict[str, Path]]:
    """Class (12 characters) -> candidate -> folder, of all that was collected; `confirmation` lies beside them."""
    cases: dict[str, dict[str, Path]] = {}
    for path in sorted(root.glob("[!.]*/*/measurement.json")):
        if path.parent.name != CONFIRMATION:
            cases.setdefault(path.parent.parent.name, {})[path.parent.name] = path.parent
    return cases


def _checked(folder: Path) -> Measurement:
    found = Measurement.read(folder / "measurement.json")
    if folder.name not in (found.candidate, CONFIRMATION):
        raise DataError(f"{folder}: holds the measurement of {found.candidate}; the folder was renamed")
    if not found.host_class or host_digest(found.host_class) != found.inputs.get("host_class"):
        raise DataError(f"{folder}: the digest of its host class does not follow from the host that it describes")
    samples = folder / "samples.npz"
    if not found.samples_sha256 and found.status != "measured":
        return found
    if not samples.is_file():
        raise DataError(f"{samples}: missing; copy the whole folder")
    if sha256_file(samples) != found.samples_sha256:
        raise DataError(f"{samples}: not the samples of measurement.json; it was cut or changed, copy it again")
    Samples.load(samples)
    return found


def _mixed(found: dict[str, Measurement]) -> Iterator[str]:
    """Measurements that cannot be judged together. The confirmation has settings of its own."""
    for key, words in (("host_class", "host classes"), ("index", "indexes"), ("bench", "bench settings")):
        names = defaultdict(list)
        for name, one in found.items():
            if not (key == "bench" and name == CONFIRMATION):
                names[one.inputs.get(key, "")[:CLASS]].append(name)
        if len(names) > 1:
            told = "; ".join(f"{digest or 'unknown'}: {', '.join(listed)}" for digest, listed in names.items())
            yield f"measured on {len(names)} {words}, judged together they would say nothing: {told}"


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
