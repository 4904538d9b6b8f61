"""How often the test split was opened: by other models or other rules, since its clips changed.

Every look at a test split that leads to another model wears it out a little; no formula gives that back, so the
count stands in verdict and report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from framegate.contract import Record, digest_of
from framegate.gate.evidence import Evidence
from framegate.gate.rules import GateRules
from framegate.index import Index


class Ledger(Record):
    """test_ledger.json: digest of a test split -> digests of what was judged on it, in order."""

    openings: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def open_test(path: Path, index: Index, evidence: Sequence[Evidence], rules: GateRules) -> int:
    """Note in the ledger that these models are judged by these rules; how often its test split was opened by now.

    The same models under the same rules count once: a run that is made again has learned nothing new.
    """
    test = digest_of(sorted((clip.id, clip.sha256) for clip in index.clips if clip.split == "test"))
    judged = digest_of([rules.digest, {str(one.name): one.measurement.inputs.get("bundle") for one in evidence}])
    ledger = Ledger.read(path) if path.is_file() else Ledger()
    known = ledger.openings.get(test, ())
    if judged not in known:
        known = (*known, judged)
        Ledger(openings={**ledger.openings, test: known}).write(path)
    return len(known)
