"""Where the files of a decision lie: this host's, and those of every other host class that was brought back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from framegate.bench.collected import host_cases
from framegate.contract import DataError
from framegate.gate import CaseFacts, Evidence, Sources, load_evidence
from framegate.gate.ledger import note_confirmation
from framegate.index import Index
from framegate.promotion.record import FILE, SHIPPED, read_record
from pipelines._candidates import read_candidates

EXPORTS, WORK = Path("exports"), Path("work")
HOSTS, AGREEMENT = WORK / "hosts", WORK / "agreement"


def local_sources() -> Sources:
    """Those of this host: the declared candidates, never a folder listing."""
    return _sources(WORK / "measurements", WORK / "confirmation", EXPORTS)


def other_hosts() -> Iterator[tuple[Path, Sources, list[str]]]:
    """exports/hosts/<class> and its sources, for every class that `framegate collect` brought back.

    And what was measured there and is declared nowhere: nobody asked the gate about it.
    """
    declared = read_candidates().candidates
    for name, measured in host_cases(HOSTS).items():
        folder, exports = HOSTS / name, EXPORTS / "hosts" / name
        sources = _sources(folder, folder / "confirmation", exports)
        yield exports, sources, sorted(measured.keys() - set(declared))


def check_current(sources: Sources, here: Sequence[Evidence], index: Index) -> None:
    """DataError when another host measured other data or other bundles than there are now."""
    bundles = {str(one.name): one.bundle for one in here}
    for one in load_evidence(sources.measurements):
        told = one.measurement.inputs
        if told and told.get("host_class") == here[0].measurement.inputs.get("host_class"):
            raise DataError("it is of this very host class, which is judged by what was measured here")
        if told and (told.get("index") != index.digest or bundles.get(str(one.name)) not in ("", told.get("bundle"))):
            raise DataError(f"{one.name} was measured there before the data or its bundle changed; measure there again")


def counted(sources: Sources, ledger: Path, openings: int) -> Sources:
    """The same, with how often the test split was opened and the choice confirmed."""
    confirmations = note_confirmation(ledger, sources)
    facts = sources.facts.model_copy(update={"openings": openings, "confirmations": confirmations})
    return replace(sources, facts=facts)


def _sources(measurements: Path, confirmation: Path, exports: Path) -> Sources:
    shipped = exports / SHIPPED
    now = read_record(shipped / FILE)
    return Sources(
        measurements={name: measurements / name for name in read_candidates().candidates},
        confirmation=_with(confirmation, "measurement.json"),
        champion=_with(shipped, "measurement.json"),
        agreements={path.parent.name: path.parent for path in sorted(AGREEMENT.glob("*/agreement.json"))},
        index=WORK / "index" / "index.json",
        lock=Path("dvc.lock") if Path("dvc.lock").is_file() else None,
        facts=CaseFacts(incumbent=now.candidate if now else None),
    )


def _with(folder: Path, file: str) -> Path | None:
    return folder if (folder / file).is_file() else None
