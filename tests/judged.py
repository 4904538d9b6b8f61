"""A whole project's output, small and consistent: bundles, index, measurements, dvc.lock, verdict, what ships.

Times are made up; answers are what the bundles give. Every file is written by the code that writes the real ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from framegate.bench.facts import accuracy_facts, latency_facts
from framegate.bench.host import host_digest
from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import (
    Bundle,
    BundleInfo,
    CandidateName,
    Lineage,
    Measurement,
    Skipped,
    Split,
    Verdict,
    sha256_file,
)
from framegate.dvclock import md5_of
from framegate.gate import GateRules, decide
from framegate.gate.case import Case, CaseFacts, Sources, write_case
from framegate.gate.ledger import LEDGER, open_test
from framegate.index import Clip, Index, dataset_digest
from framegate.promotion.origin import Origin
from framegate.promotion.ship import ship
from tests.bundles import LABELS, SPEC, WEIGHTS, color_clips, make_bundle
from tests.scenarios import facts_of

DENSE, PRUNED, INT8 = "tiny-dense-fp32--ort-cpu", "tiny-pruned-fp32--ort-cpu", "tiny-pruned-int8--ort-cpu"
HOST = {"system": "Linux", "cpu": "test", "cores": 2}
RULES = GateRules.parse(
    {
        "reference": DENSE,
        "rules": [
            {"metric": "accuracy", "drop_max": 5.0},
            {"metric": "latency_p50_ms", "ratio_max": 0.8},
            {"metric": "latency_p50_ms", "max": 10},
        ],
    }
)
MS = {DENSE: 1.0, PRUNED: 0.4, INT8: 0.3}  # of one step
BENCH = {"pairs": 1, "blocks": 2, "calls_per_block": 10, "solo_processes": 1, "solo_calls": 20}  # in dvc.lock
SIZES: dict[Split, int] = {"train": 30, "val": 60, "test": 300}


@dataclass(frozen=True)
class Project:
    """Where everything lies."""

    root: Path

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def evidence(self) -> Path:
        return self.exports / "evidence"

    def measured(self, name: str) -> Path:
        return self.root / "work" / "measurements" / name


def make_index() -> Index:
    """Clips of three colours from cameras of their own split."""
    clips, number = [], 0
    for split, count in SIZES.items():
        for i in range(count):
            clips.append(
                Clip(
                    id=f"{LABELS[i % 3]}/{number:04}.mkv",
                    label=LABELS[i % 3],
                    group=f"{split}-camera{i % 20}",
                    split=split,
                    sha256=f"{number:064x}",
                    fps=10,
                    frames=SPEC.frames,
                    duration_s=0.4,
                )
            )
            number += 1
    ordered = tuple(sorted(clips, key=lambda clip: clip.id))
    return Index(
        dataset=dataset_digest(ordered, None),
        kind="video",
        spec=SPEC,
        labels=LABELS,
        flips=None,
        clips=ordered,
        skipped=(),
    )


def frames_of(index: Index) -> NDArray[np.uint8]:
    """u8 [n,T,H,W,3] of all clips, in order."""
    return color_clips([index.labels.index(clip.label) for clip in index.clips], seed=1)


def reseal(folder: Path, **lineage: object) -> BundleInfo:
    """The bundle with another lineage, its digest made to fit."""
    info = BundleInfo.read(folder / "bundle.json")
    sealed = info.model_copy(update={"lineage": info.lineage.model_copy(update=lineage)}).sealed()
    sealed.write(folder / "bundle.json")
    return sealed


def make_bundles(exports: Path, index: Index) -> None:
    """Dense fp32, pruned fp32 and its int8."""
    train = tuple(index.clips[i].id for i in index.split("train")[:8])
    val = tuple(index.clips[i].id for i in index.split("val")[:4])
    origin = Lineage(dataset=index.dataset, config="c", weights="w", golden=val).model_dump()
    for name in ("tiny-dense-fp32", "tiny-pruned-fp32", "tiny-pruned-int8"):
        make_bundle(exports, name, weights=WEIGHTS.astype(np.float32))
        reseal(exports / name, **origin)
    parent = BundleInfo.read(exports / "tiny-pruned-fp32" / "bundle.json").digest
    reseal(exports / "tiny-pruned-int8", parent=parent, calibration=train)


def samples_of(index: Index, ms: float, parent_ms: float, seed: int, splits: Sequence[Split]) -> Samples:
    """Answers of the formula that the bundles compute; times with some spread."""
    rng = np.random.default_rng(seed)
    logits = (frames_of(index).mean(axis=(1, 2, 3)) / 255 @ WEIGHTS).astype(np.float32)
    drawn = rng.permutation(index.split("test"))[:16]

    def ns(around: float, *shape: int) -> NDArray[np.int64]:
        return (around * 1e6 * rng.normal(1, 0.01, shape)).astype(np.int64)

    return Samples(
        candidate_ns=ns(ms, 3, 8, 50),
        parent_ns=ns(parent_ms, 3, 8, 50),
        candidate_first=rng.random((3, 8)) < 0.5,
        solo_ns=ns(ms, 10, 700),
        audit_ids=np.array([index.clips[i].id for i in drawn]),
        audit_logits=logits[drawn],
        splits={split: _answers(index, split, logits) for split in splits},
    )


def again_of(index: Index, ms: float, parent_ms: float) -> Samples:
    """A confirmation: times alone, and the parent beside itself."""
    itself = samples_of(index, parent_ms, parent_ms, 98, ())
    beside = {"self_candidate_ns": itself.candidate_ns, "self_parent_ns": itself.parent_ns}
    return replace(samples_of(index, ms, parent_ms, 99, ()), extra=beside)


def _answers(index: Index, split: Split, logits: NDArray[np.float32]) -> SplitSamples:
    rows = list(index.split(split))
    clips = [index.clips[i] for i in rows]
    return SplitSamples(
        ids=np.array([clip.id for clip in clips]),
        groups=np.array([clip.group for clip in clips]),
        labels=np.array([index.labels.index(clip.label) for clip in clips]),
        logits=logits[rows],
    )


def write_measurement(
    folder: Path, name: str, samples: Samples, index: Index, exports: Path, host: dict[str, object] = HOST
) -> Measurement:
    """measurement.json and samples.npz, as bench writes them."""
    parsed = CandidateName.parse(name)
    bundle, parent = (Bundle.load(exports / one) for one in (parsed.bundle, CandidateName.parse(parsed.parent).bundle))
    samples.save(folder / "samples.npz")
    found = Measurement(
        candidate=name,
        status="measured",
        inputs={
            "bundle": bundle.info.digest,
            "parent": parent.info.digest,
            "index": index.digest,
            "dataset": index.dataset,
            "host_class": host_digest(host),
            "bench": "s" * 64,
        },
        host_class=host,
        host_conditions={"load_1_5_15": [0.5, 0.4, 0.3]},
        session={
            "runtime": "ort-cpu",
            "provider": "CPUExecutionProvider",
            "device": "cpu",
            "threads": 1,
            "version": "1",
        },
        accuracy={split: accuracy_facts(clips, LABELS) for split, clips in samples.splits.items()},
        latency=latency_facts(samples, {"decode": 0.2, "resize": 0.05}),
        size_bytes=bundle.size_bytes,
        parameters=bundle.info.parameters,
        macs_per_frame=bundle.info.macs_per_frame,
        samples_sha256=sha256_file(folder / "samples.npz"),
        **facts_of(samples, LABELS),
    )
    found.write(folder / "measurement.json")
    return found


def make_project(root: Path) -> Project:
    """Everything that a run of the pipeline leaves."""
    project, index = Project(root), make_index()
    index.write(root / "work" / "index" / "index.json")
    make_bundles(project.exports, index)
    for seed, (name, ms) in enumerate(MS.items()):
        samples = samples_of(index, ms, MS[DENSE], seed, ("val", "test"))
        write_measurement(project.measured(name), name, samples, index, project.exports)
    again = again_of(index, MS[INT8], MS[DENSE])
    write_measurement(root / "work" / "confirmation", INT8, again, index, project.exports)
    write_lock(project)
    judge(project)
    return project


def write_lock(project: Project) -> None:
    """A dvc.lock in DVC's form over what lies there."""
    root, stages = project.root, {}
    stages["index"] = _stage(root, [], ["work/index/index.json"])
    for kind in ("dense", "pruned"):
        bundles = [f"exports/tiny-{kind}-{precision}" for precision in ("fp32", "int8")]
        stages[f"export@tiny-{kind}"] = _stage(
            root, ["work/index/index.json"], [b for b in bundles if (root / b).is_dir()]
        )
    for name in MS:
        bundle = f"exports/{CandidateName.parse(name).bundle}"
        stages[f"bench@{name}"] = _stage(root, [bundle, "work/index/index.json"], [f"work/measurements/{name}"])
        stages[f"bench@{name}"]["params"] = {"params.yaml": {"bench": dict(BENCH)}}
    if (root / "exports/hosts.json").is_file():
        stages["gate"] = _stage(root, [], ["exports/hosts.json"])
    stages["choose"] = _stage(root, ["work/agreement"], [])
    stages["confirm"] = _stage(root, ["work/measurements"], ["work/confirmation"])
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))


def _stage(root: Path, deps: list[str], outs: list[str]) -> dict:
    def lines(paths: list[str]) -> list[dict]:
        return [{"path": path, "hash": "md5", "md5": md5_of(root / path)} for path in paths]

    return {"cmd": "python -m pipelines", "deps": lines(deps), "outs": lines(outs)}


def judge(project: Project, names: Sequence[str] = tuple(MS), rules: GateRules = RULES) -> Verdict:
    """Gate and ship, as the stages do."""
    root = project.root
    write_case(
        project.evidence,
        Sources(
            measurements={name: project.measured(name) for name in names},
            confirmation=root / "work" / "confirmation",
            index=root / "work" / "index" / "index.json",
            lock=root / "dvc.lock",
        ),
    )
    with contextlib.chdir(root):
        case = Case.load(Path("exports/evidence"), names)
        index = Index.read(Path("exports/evidence/index.json"))
        openings = open_test(Path("exports") / LEDGER, index, case.evidence, rules)
        CaseFacts(openings=openings).write(Path("exports/evidence/case.json"))
        verdict = decide(replace(case, openings=openings), rules)
        verdict.write(Path("exports/verdict.json"))
        lock = yaml.safe_load(Path("dvc.lock").read_text())
        if verdict.shipped:
            ship(Path("exports"), Origin("2026-01-31T12:00:00+00:00", lock), Skipped("no registry"))
    return verdict
