"""How often a question was asked again: the test split opened, a choice confirmed.

Every look at a test split that leads to another model wears it out a little, and a confirmation that is repeated
until it holds confirms nothing; no formula gives that back, so the counts stand in verdict and report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from framegate.contract import Measurement, Record, digest_of
from framegate.gate.case import Sources
from framegate.gate.evidence import Evidence
from framegate.gate.rules import GateRules
from framegate.index import Index

LEDGER = "test_ledger.json"


class Ledger(Record):
    """test_ledger.json: what was asked, in order.

    `openings`: digest of a test split -> digests of what was judged on it. `confirmations`: digest of what was measured
    (candidate, bundle, parent, data, host class) -> digests of the measurements that confirmed it.
    """

    openings: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    confirmations: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def open_test(path: Path, index: Index, evidence: Sequence[Evidence], rules: GateRules) -> int:
    """Note in the ledger that these models are judged by these rules; how often its test split was opened by now.

    The same models under the same rules count once: a run that is made again has learned nothing new.
    """
    return _note(path, "openings", *opening(index, {str(one.name): one.bundle for one in evidence}, rules.digest))


def opening(index: Index, bundles: Mapping[str, str], rules: str) -> tuple[str, str]:
    """Digests of a test split and of what is judged on it: candidates with their bundles, and the rules' digest."""
    clips = sorted(clip.sha256 for clip in index.clips if clip.split == "test")
    return digest_of(clips), digest_of([rules, dict(bundles)])


def note_confirmation(path: Path, sources: Sources) -> int:
    """Note in the ledger that a latency was measured again; how often the same was by now. 0: it was not.

    The same measurement counts once. DataError when it is damaged.
    """
    if sources.confirmation is None:
        return 0
    again = Measurement.read(sources.confirmation / "measurement.json")
    subject = [again.candidate, *(again.inputs.get(key) for key in ("bundle", "parent", "index", "host_class"))]
    return _note(path, "confirmations", digest_of(subject), digest_of(again.model_dump(mode="json")))


def _note(path: Path, what: Literal["openings", "confirmations"], key: str, entry: str) -> int:
    ledger = Ledger.read(path) if path.is_file() else Ledger()
    noted: dict[str, tuple[str, ...]] = getattr(ledger, what)
    known = noted.get(key, ())
    if entry not in known:
        known = (*known, entry)
        ledger.model_copy(update={what: {**noted, key: known}}).write(path)
    return len(known)
