"""How often a question was asked again: the test split opened, a choice confirmed.

Every look at a test split that leads to another model wears it out a little, and a confirmation that is repeated
until it holds confirms nothing; no formula gives that back, so the counts stand in verdict and report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from framegate.contract import Measurement, Record, digest_of
from framegate.gate.case import Sources
from framegate.gate.evidence import Evidence
from framegate.gate.rules import GateRules
from framegate.index import Index


class Ledger(Record):
    """test_ledger.json: what was asked, in order.

    `openings`: digest of a test split -> digests of what was judged on it. `confirmations`: digest of a measurement ->
    digests of those that measured its candidate's latency again.
    """

    openings: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    confirmations: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def open_test(path: Path, index: Index, evidence: Sequence[Evidence], rules: GateRules) -> int:
    """Note in the ledger that these models are judged by these rules; how often its test split was opened by now.

    The same models under the same rules count once: a run that is made again has learned nothing new.
    """
    test = digest_of(sorted((clip.id, clip.sha256) for clip in index.clips if clip.split == "test"))
    judged = digest_of([rules.digest, {str(one.name): one.measurement.inputs.get("bundle") for one in evidence}])
    return _note(path, "openings", test, judged)


def note_confirmation(path: Path, sources: Sources) -> int:
    """Note in the ledger that a latency was measured again; how often the same measurement was by now. 0: it was not.

    The same second measurement counts once. DataError when one of the two is damaged.
    """
    if sources.confirmation is None:
        return 0
    again = Measurement.read(sources.confirmation / "measurement.json")
    first = sources.measurements.get(again.candidate)
    if first is None or not (first / "measurement.json").is_file():
        return 0
    pair = Measurement.read(first / "measurement.json"), again
    return _note(path, "confirmations", *(digest_of(one.model_dump(mode="json")) for one in pair))


def _note(path: Path, what: Literal["openings", "confirmations"], key: str, entry: str) -> int:
    ledger = Ledger.read(path) if path.is_file() else Ledger()
    noted: dict[str, tuple[str, ...]] = getattr(ledger, what)
    known = noted.get(key, ())
    if entry not in known:
        known = (*known, entry)
        ledger.model_copy(update={what: {**noted, key: known}}).write(path)
    return len(known)
