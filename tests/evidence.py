"""Evidence made to order: a candidate as accurate and as fast as a test wants it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench.facts import accuracy_facts, latency_facts
from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import CandidateName, Measurement, Split, Verdict, Waiver, digest_of, sha256_file
from framegate.gate import Case, Evidence, GateRules, choose, decide
from framegate.gate.evidence import missing

CLASSES = ("a", "b", "c", "d")
REFERENCE = "cnn_gru-dense-fp32--ort-cpu"
RULES = GateRules.parse(
    {
        "reference": REFERENCE,
        "rules": [
            {"metric": "accuracy", "drop_max": 1.0},
            {"metric": "latency_p50_ms", "ratio_max": 0.5},
            {"metric": "latency_p50_ms", "max": 10},
            {"metric": "latency_p99_ms", "max": 33.3},
        ],
    }
)
INPUTS = {"index": "i", "dataset": "d", "host_class": "h", "bench": "s"}
PROCESSES = (10, 700)  # fresh ones, and calls in each: p99 needs 662


def answers(split: str, n: int, groups: int, wrong: float, lost: int, won: int) -> SplitSamples:
    """`wrong`: share that the reference gets wrong; of the others `lost` more, of those `won` fewer."""
    rng = np.random.default_rng(len(split))
    labels = rng.integers(0, len(CLASSES), n)
    order = rng.permutation(n)
    bad, good = order[: round(wrong * n)], order[round(wrong * n) :]
    right = np.ones(n, bool)
    right[bad[won:]] = False
    right[good[:lost]] = False
    said = np.where(right, labels, (labels + 1) % len(CLASSES))
    return SplitSamples(
        ids=np.array([f"{split}/{i:05}" for i in range(n)]),
        groups=np.array([f"g{i % groups}" for i in range(n)]),
        labels=labels,
        logits=np.eye(len(CLASSES), dtype=np.float32)[said],
    )


def times(p50_ms: float, seed: int, shape: tuple[int, ...], process_spread: float) -> NDArray[np.int64]:
    """ns [process, ..., call], right-skewed, with a few slow calls."""
    rng = np.random.default_rng(seed)
    processes = rng.normal(1, process_spread, (shape[0], *[1] * (len(shape) - 1)))
    ns = p50_ms * 1e6 * (1 + rng.exponential(0.05, shape)) * processes
    return np.where(rng.random(shape) < 0.002, ns * 4, ns).astype(np.int64)


def make(
    name: str = REFERENCE,
    p50_ms: float = 0.46,
    parent_p50_ms: float = 0.46,
    inputs: dict[str, str] | None = None,
    **how: Any,
) -> Evidence:
    """Evidence of a candidate that was measured; `how` as in `_made`. Made once for all tests: it is never changed."""
    return _made(name, p50_ms, parent_p50_ms, tuple(sorted((inputs or {}).items())), **how)


@lru_cache(maxsize=512)
def _made(
    name: str,
    p50_ms: float,
    parent_p50_ms: float,
    inputs: tuple[tuple[str, str], ...],
    lost: int = 0,
    won: int = 0,
    val_lost: int = 0,
    n: int = 2600,
    groups: int = 40,
    wrong: float = 0.04,
    shape: tuple[int, int, int] = (3, 8, 50),
    process_spread: float = 0.003,
    solo: tuple[int, int] = PROCESSES,
    seed: int = 0,
    size_bytes: int = 1_000_000,
) -> Evidence:
    splits: dict[Split, SplitSamples] = {
        "val": answers("val", 600, groups, wrong, val_lost, 0),
        "test": answers("test", n, groups, wrong, lost, won),
    }
    samples = timed(name, p50_ms, parent_p50_ms, shape, process_spread, solo, seed, splits)
    return of(name, samples, dict(inputs), size_bytes)


def timed(
    name: str,
    p50_ms: float,
    parent_p50_ms: float,
    shape: tuple[int, int, int] = (3, 8, 50),
    process_spread: float = 0.003,
    solo: tuple[int, int] = PROCESSES,
    seed: int = 0,
    splits: dict[Split, SplitSamples] | None = None,
    answered: SplitSamples | None = None,
) -> Samples:
    """Times beside the parent and alone; the answers given meanwhile are those of `answered`, else of the test."""
    seed = sum(name.encode()) + 1000 * seed
    test = answered or (splits or {})["test"]
    return Samples(
        candidate_ns=times(p50_ms, seed, shape, process_spread),
        parent_ns=times(parent_p50_ms, seed + 1, shape, process_spread),
        candidate_first=np.random.default_rng(seed).random(shape[:2]) < 0.5,
        splits=splits or {},
        solo_ns=times(p50_ms, seed + 2, solo, process_spread),
        audit_ids=test.ids[:16],
        audit_logits=test.logits[:16],
    )


def of(name: str, samples: Samples, inputs: dict[str, str] | None = None, size_bytes: int = 1_000_000) -> Evidence:
    """Evidence with these samples; its facts follow from them."""
    parsed = CandidateName.parse(name)
    parent = CandidateName.parse(parsed.parent)
    measurement = Measurement(
        candidate=name,
        status="measured",
        inputs=INPUTS | {"bundle": digest_of(parsed.bundle), "parent": digest_of(parent.bundle)} | (inputs or {}),
        host_class={"cpu": "test", "cores": 2},
        host_conditions={"load_1_5_15": [0.5, 0.4, 0.3]},
        session=SESSIONS[parsed.runtime],
        accuracy={split: accuracy_facts(clips, CLASSES) for split, clips in samples.splits.items()},
        latency=latency_facts(samples, {"decode": 0.2, "resize": 0.05}),
        size_bytes=size_bytes,
        memory_bytes=80_000_000,
        parameters=460_000,
        macs_per_frame=4_300_000,
    )
    return Evidence(parsed, measurement, samples)


def session(runtime: str, provider: str, device: str = "cpu") -> dict[str, str]:
    """What really ran."""
    return {"runtime": runtime, "provider": provider, "device": device}


SESSIONS = {
    "ort-cpu": session("ort-cpu", "CPUExecutionProvider"),
    "ort-cuda": session("ort-cuda", "CUDAExecutionProvider", "gpu"),
    "openvino": session("openvino", "CPU"),
    "openvino-bf16": session("openvino-bf16", "CPU"),
}


def again(one: Evidence, p50_ms: float | None = None, inputs: dict[str, str] | None = None) -> Evidence:
    """A candidate's latency measured again in ten pairs, by default as it was at first: its confirmation."""
    return _again(one, p50_ms, tuple(sorted((inputs or {}).items())))


@lru_cache(maxsize=512)
def _again(one: Evidence, p50_ms: float | None, inputs: tuple[tuple[str, str], ...]) -> Evidence:
    assert one.samples
    mine, theirs = (float(np.median(ns)) / 1e6 / 1.035 for ns in (one.samples.candidate_ns, one.samples.parent_ns))
    answered = one.samples.splits["test"]  # `times` adds the 3.5 %
    samples = timed(str(one.name), p50_ms or mine, theirs, (10, 4, 50), seed=7, answered=answered)
    itself = {"self_candidate_ns": times(theirs, 8, (10, 4, 50), 0.003), "self_parent_ns": samples.parent_ns}
    samples = replace(samples, extra=itself)
    return of(str(one.name), samples, one.measurement.inputs | {"bench": "another"} | dict(inputs))


def case_of(
    evidence: Iterable[Evidence], rules: GateRules = RULES, waivers: Sequence[Waiver] = (), **more: Any
) -> Case:
    """A case in which whatever is chosen was measured again, unless `confirmation` says otherwise."""
    case = Case(tuple(evidence), **more)
    if "confirmation" in more:
        return case
    chosen = choose(case, rules, waivers)
    found = [again(one) for one in case.evidence if str(one.name) == chosen]
    return replace(case, confirmation=found[0] if found else None)


def decided(
    evidence: Iterable[Evidence], rules: GateRules = RULES, waivers: Sequence[Waiver] = (), **more: Any
) -> Verdict:
    """The verdict over such a case."""
    return decide(case_of(evidence, rules, waivers, **more), rules, waivers)


def write_evidence(one: Evidence, folder: Path) -> Path:
    """As the bench stage leaves it."""
    assert one.samples
    one.samples.save(folder / "samples.npz")
    found = one.measurement.model_copy(update={"samples_sha256": sha256_file(folder / "samples.npz")})
    found.write(folder / "measurement.json")
    return folder


def absent(name: str, status: str = "failed", reason: str = "killed by SIGKILL") -> Evidence:
    """Evidence that is not there."""
    parsed = CandidateName.parse(name)
    return Evidence(parsed, missing(parsed, reason).model_copy(update={"status": status}), None)
