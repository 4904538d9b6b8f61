"""Evidence made to order: a candidate as accurate and as fast as a test wants it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from framegate.bench.facts import accuracy_facts, latency_facts
from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import CandidateName, Measurement, Split
from framegate.gate import Evidence, GateRules
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
INPUTS = {"bundle": "b", "parent": "p", "index": "i", "dataset": "d", "host_class": "h", "bench": "s"}


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


def times(p50_ms: float, seed: int, shape: tuple[int, int, int], process_spread: float) -> NDArray[np.int64]:
    """ns [process, block, call], right-skewed, with a few slow calls."""
    rng = np.random.default_rng(seed)
    ns = p50_ms * 1e6 * (1 + rng.exponential(0.05, shape)) * rng.normal(1, process_spread, (shape[0], 1, 1))
    return np.where(rng.random(shape) < 0.002, ns * 4, ns).astype(np.int64)


def make(
    name: str = REFERENCE,
    p50_ms: float = 0.46,
    parent_p50_ms: float = 0.46,
    lost: int = 0,
    won: int = 0,
    val_lost: int = 0,
    n: int = 2600,
    groups: int = 40,
    wrong: float = 0.04,
    shape: tuple[int, int, int] = (3, 21, 50),
    process_spread: float = 0.003,
    inputs: dict[str, str] | None = None,
) -> Evidence:
    """Evidence of a candidate that was measured."""
    seed = sum(name.encode())
    splits: dict[Split, SplitSamples] = {
        "val": answers("val", 600, groups, wrong, val_lost, 0),
        "test": answers("test", n, groups, wrong, lost, won),
    }
    first = np.random.default_rng(seed).random(shape[:2]) < 0.5
    mine, theirs = times(p50_ms, seed, shape, process_spread), times(parent_p50_ms, seed + 1, shape, process_spread)
    return of(name, Samples(mine, theirs, first, splits), inputs or {})


def of(name: str, samples: Samples, inputs: dict[str, str]) -> Evidence:
    """Evidence with these samples."""
    measurement = Measurement(
        candidate=name,
        status="measured",
        inputs=INPUTS | inputs,
        host_class={"cpu": "test", "cores": 2},
        host_conditions={"load_1_5_15": [0.5, 0.4, 0.3]},
        accuracy={split: accuracy_facts(clips, CLASSES) for split, clips in samples.splits.items()},
        latency=latency_facts(samples, {"decode": 0.2, "resize": 0.05}),
        size_bytes=1_000_000,
        parameters=460_000,
        macs_per_frame=4_300_000,
    )
    return Evidence(CandidateName.parse(name), measurement, samples)


def absent(name: str, status: str = "failed", reason: str = "killed by SIGKILL") -> Evidence:
    """Evidence that is not there."""
    parsed = CandidateName.parse(name)
    return Evidence(parsed, missing(parsed, reason).model_copy(update={"status": status}), None)
