"""How often the gate ships a bad candidate when all are bad: each exactly as much worse as the margin allows.

    python -m benchmarks.null_gate --seeds 200 --jobs 2

Forty candidates that lose as many points as the margin on validation and on test alike (in truth; what a seed draws
scatters round it, clip by clip and camera by camera), each flawless otherwise and faster than the reference. Shipping
any of them is an error; at most 5 % of the runs may. Beside the gate's rules, the same data under two others: the
fastest whose drop is proven on test, and the fastest whose measured drop is within the margin. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench import stats
from framegate.bench.facts import accuracy_facts, latency_facts
from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import CandidateName, Measurement, Split
from framegate.gate import Case, Evidence, GateRules, decide

CLASSES = ("a", "b", "c", "d")
REFERENCE = "net-dense-fp32--ort-cpu"
REFERENCE_MS, RIGHT = 0.4, 0.96  # of the reference
WON = 0.005  # share of all clips that a candidate gets right and the reference does not; it loses that and the margin


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    candidates: int = 40
    margin_points: float = 1.0
    clips: int = 2700  # of the test split
    val_clips: int = 600
    groups: int = 40  # of either
    spread: float = 0.4  # between groups, of the share that is lost: standard deviation / mean; 0 = clips independent


@dataclass(frozen=True)
class Shipped:
    """Whether one run ships a bad candidate: by the gate, by the best single proof, by the point estimate."""

    gate: bool
    alone: bool
    naive: bool


def simulate(seed: int, setting: Setting) -> Shipped:
    """One run: new clips, new candidates, new times."""
    rng = np.random.default_rng(seed)
    clips = {
        "val": draw_clips(rng, "val", setting.val_clips, setting),
        "test": draw_clips(rng, "test", setting.clips, setting),
    }
    reference = evidence(rng, REFERENCE, REFERENCE_MS, clips)
    others = [
        evidence(rng, f"net-v{i}-int8--ort-cpu", p50_ms, {split: worsen(rng, c, setting) for split, c in clips.items()})
        for i, p50_ms in enumerate(rng.uniform(0.02, 0.18, setting.candidates))
    ]
    verdict = decide(Case((reference, *others)), rules(setting))
    proven = {one.candidate for one in verdict.candidates if one.status == "PASS"} - {REFERENCE}
    return Shipped(
        gate=verdict.chosen not in (None, REFERENCE),
        alone=bool(proven),
        naive=any(drop(one, reference) <= setting.margin_points for one in others),
    )


def rules(setting: Setting) -> GateRules:
    """As the default ones, as far as they can tell these candidates apart."""
    return GateRules.parse(
        {
            "reference": REFERENCE,
            "rules": [
                {"metric": "accuracy", "drop_max": setting.margin_points},
                {"metric": "latency_p50_ms", "ratio_max": 0.5},
                {"metric": "latency_p50_ms", "max": 10},
            ],
        }
    )


def draw_clips(rng: np.random.Generator, split: str, n: int, setting: Setting) -> SplitSamples:
    """Clips of a split and the reference's answers."""
    labels = rng.integers(0, len(CLASSES), n)
    return SplitSamples(
        ids=np.array([f"{split}/{i:05}" for i in range(n)]),
        groups=np.array([f"{split}-{i % setting.groups}" for i in range(n)]),
        labels=labels,
        logits=answers(labels, rng.random(n) < RIGHT),
    )


def worsen(rng: np.random.Generator, clips: SplitSamples, setting: Setting) -> SplitSamples:
    """A candidate's answers: its expected drop is the margin, exactly; some cameras suffer more than others."""
    _, group = np.unique(clips.groups, return_inverse=True)
    spread = setting.spread
    burst = rng.gamma(spread**-2, spread**2, setting.groups)[group] if spread else np.ones(len(group))
    loses = rng.random(len(group)) < burst * (setting.margin_points / 100 + WON) / RIGHT
    wins = rng.random(len(group)) < WON / (1 - RIGHT)
    right = np.where(clips.right, ~loses, wins)
    return SplitSamples(clips.ids, clips.groups, clips.labels, answers(clips.labels, right))


def answers(labels: NDArray[np.int64], right: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Logits f32 [n,K]."""
    logits: NDArray[np.float32] = np.eye(len(CLASSES), dtype=np.float32)[np.where(right, labels, (labels + 1) % 4)]
    return logits


def evidence(rng: np.random.Generator, name: str, p50_ms: float, clips: dict[Split, SplitSamples]) -> Evidence:
    """A measurement without any other fault."""
    samples = Samples(
        candidate_ns=times(rng, p50_ms, (3, 4, 10)),
        parent_ns=times(rng, REFERENCE_MS, (3, 4, 10)),
        candidate_first=np.zeros((3, 4), bool),
        solo_ns=times(rng, p50_ms, (10, 40)),
        audit_ids=clips["test"].ids[:8],
        audit_logits=clips["test"].logits[:8],
        splits=clips,
    )
    parsed = CandidateName.parse(name)
    same = {"parent": REFERENCE, "index": "i", "dataset": "d", "host_class": "h", "bench": "s"}
    measurement = Measurement(
        candidate=name,
        status="measured",
        inputs=same | {"bundle": REFERENCE if name == REFERENCE else name},
        host_class={},
        host_conditions={},
        session={"runtime": parsed.runtime, "provider": "CPUExecutionProvider", "device": "cpu"},
        accuracy={split: accuracy_facts(found, CLASSES) for split, found in clips.items()},
        latency=latency_facts(samples, {}),
    )
    return Evidence(parsed, measurement, samples)


def times(rng: np.random.Generator, p50_ms: float, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """ns [process, ..., call] of processes that differ by 0.3 %."""
    process = rng.normal(1, 0.003, (shape[0], *[1] * (len(shape) - 1)))
    return (p50_ms * 1e6 * process * (1 + rng.exponential(0.02, shape))).astype(np.int64)


def drop(one: Evidence, reference: Evidence) -> float:
    """In points, as measured."""
    mine, theirs = (x.measurement.accuracy["test"].accuracy for x in (one, reference))
    return 100 * (theirs - mine)


def run(seeds: Iterable[int], setting: Setting, jobs: int = 1) -> dict[str, Any]:
    """All runs: how many shipped a bad one, the share, and its upper bound at 95 % (Clopper-Pearson)."""
    start, numbers = time.perf_counter(), list(seeds)
    if jobs == 1:
        found = [simulate(seed, setting) for seed in numbers]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            found = list(pool.map(partial(simulate, setting=setting), numbers))
    facts: dict[str, Any] = {"seeds": len(numbers)} | asdict(setting)
    for rule in Shipped.__dataclass_fields__:
        bad = sum(getattr(one, rule) for one in found)
        upper = stats.proportion(bad, len(numbers))[1]
        facts[rule] = {"bad": bad, "share": round(bad / len(numbers), 4), "upper": round(upper, 4)}
    return facts | {"seconds_per_seed": round((time.perf_counter() - start) / len(numbers), 2)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--groups", type=int, default=40, help="cameras in either split")
    parser.add_argument("--spread", type=float, default=Setting().spread, help="of what cameras lose; 0: none")
    options = parser.parse_args()
    setting = Setting(candidates=options.candidates, groups=options.groups, spread=options.spread)
    facts = run(range(options.seeds), setting, options.jobs)
    said = {
        "gate": "shortlist on validation, walk on test",
        "alone": "the fastest that is proven on test",
        "naive": "the fastest whose drop looks small enough",
    }
    for rule, words in said.items():
        found = facts[rule]
        print(f"{words:<44} {found['bad']:>4} of {facts['seeds']} ship a bad one, at most {100 * found['upper']:.1f} %")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
