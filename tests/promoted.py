"""An exports folder as the gate leaves it: real bundles, their evidence, and a verdict that names one of them."""

from pathlib import Path
from typing import Any

import numpy as np

from framegate.bench.host import host_class, host_digest
from framegate.contract import (
    Bundle,
    CandidateVerdict,
    Measurement,
    RuleOutcome,
    Skipped,
    Verdict,
    Waiver,
    digest_of,
    sha256_file,
    write_json,
)
from framegate.promotion import Promotion
from framegate.promotion.archive import check_promotion
from framegate.promotion.origin import Origin
from framegate.promotion.ship import ship
from tests.bundles import WEIGHTS, make_bundle

A, B = "tiny-dense-fp32--ort-cpu", "tiny-pruned-fp32--ort-cpu"
WEIGHTS_OF = {A: WEIGHTS, B: np.roll(WEIGHTS, 1, axis=1)}  # B answers otherwise
NO_REGISTRY = Skipped("no registry in this test")
LOCK = {
    "stages": {
        "index": {"deps": [{"path": "data"}], "outs": [{"path": "work/index/index.json"}]},
        f"bench@{A}": {"deps": [{"path": "work/index/index.json"}], "outs": [{"path": f"work/measurements/{A}"}]},
        f"bench@{B}": {"deps": [{"path": "work/index/index.json"}], "outs": [{"path": f"work/measurements/{B}"}]},
        "gate": {"deps": [{"path": "work/measurements"}], "outs": [{"path": "exports/verdict.json"}]},
    }
}


def origin(day: int = 1, **more: Any) -> Origin:
    """A promotion of the n-th of January."""
    return Origin(time=f"2026-01-{day:02}T12:00:00+00:00", lock=LOCK, git_sha="abc", git_dirty=False, **more)


def measured(exports: Path, candidate: str, host: dict[str, Any] | None = None) -> Measurement:
    """Write the candidate's bundle (once) and its evidence."""
    name = candidate.split("--")[0]
    path = exports / name
    bundle = Bundle.load(path) if path.is_dir() else make_bundle(exports, name, weights=WEIGHTS_OF[candidate])
    facts = host or host_class()
    folder = exports / "evidence" / candidate
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "samples.npz", candidate_ns=np.arange(6).reshape(1, 2, 3))
    found = Measurement(
        candidate=candidate,
        status="measured",
        inputs={"bundle": bundle.info.digest, "dataset": "d", "host_class": host_digest(facts)},
        host_class=facts,
        host_conditions={},
        session={"runtime": candidate.split("--")[1], "threads": 1},
        samples_sha256=sha256_file(folder / "samples.npz"),
    )
    found.write(folder / "measurement.json")
    return found


def judged(exports: Path, shipped: str | None, waived: tuple[Waiver, ...] = (), sentence: str = "") -> Verdict:
    """Write exports/verdict.json over A and B."""
    found = {candidate: measured(exports, candidate) for candidate in (A, B)}
    verdict = Verdict(
        status="PASS" if shipped else "INCONCLUSIVE",
        sentence=sentence or (f"{shipped} ships." if shipped else "Nothing ships."),
        shipped=shipped,
        bundle=found[shipped].inputs["bundle"] if shipped else None,
        reference=A,
        compressed=shipped == B,
        candidates=tuple(
            CandidateVerdict(
                candidate=candidate,
                status="PASS" if candidate == shipped else "FAIL",
                reason="every rule is proven" if candidate == shipped else "too slow",
                shortlisted=False,
                walked=False,
                outcomes=tuple(set_aside(one.rule) for one in waived),
            )
            for candidate in found
        ),
        waived=waived,
        dataset="d",
        host_class=found[A].inputs["host_class"],
        rules="r",
        measurements={name: digest_of(one.model_dump(mode="json")) for name, one in found.items()},
        evidence={"index": "i" * 64},
    )
    verdict.write(exports / "verdict.json")
    write_json(exports / "hosts.json", {})
    return verdict


def set_aside(rule: str) -> RuleOutcome:
    """A rule that is not proven."""
    return RuleOutcome(
        rule=rule, metric="m", status="FAIL", value=2, bound=1, low=2, high=2, n=9, unit="x", reason=f"{rule} fails"
    )


def ship_of(exports: Path, candidate: str, day: int = 1) -> Promotion:
    judged(exports, candidate)
    return ship(exports, origin(day), NO_REGISTRY).promotion


def shipped(exports: Path) -> Promotion:
    return check_promotion(exports / "shipped")


def contents(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): sha256_file(f) for f in sorted(folder.rglob("*")) if f.is_file()}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
