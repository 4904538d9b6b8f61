"""From raw samples to what is said of foreign models: figures, the comparison, whether they compute the same.

Every bound is one-sided at 95 %, over fresh processes; None = unknown. The verdict is about p50.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from framegate.bench import stats
from framegate.bench.foreign.inputs import matched
from framegate.bench.stats.bounds import mean_high, mean_low
from framegate.contract import Record

Word = Literal["faster", "slower", "cannot tell"]
Count = Annotated[int, Field(ge=1)]
SAME = 0.01  # of the largest value: what is further away is another answer, not rounding
FINEST = 6e-8  # the smallest step of float16: values below it are lost in an fp16 model


class Settings(Record):
    """What was asked for."""

    runtime: str = "ort-cpu"
    threads: Count = 1
    pairs: Count = 10
    processes: Count = 10
    calls: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    timeout_s: Annotated[float, Field(gt=0)] = 600.0


class Plan(Record):
    """What is done, fixed before the first timed call."""

    pairs: int
    blocks: int
    calls_per_block: int
    processes: int
    calls: int  # of each solo process


class Bounded(Record):
    """A value with its bounds."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, estimate: stats.Estimate) -> Bounded:
        return cls(value=estimate.value, low=estimate.low, high=estimate.high)


class Tensor(Record):
    """One input or output as it was; `dtype` is a word like `list` where it is no array. `bad`: values not finite."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bad: int = 0


class ModelFacts(Record):
    """One model on this host. Times are of one call, from arrays in to arrays out, one caller."""

    path: str
    sha256: str
    size_bytes: int  # with its external data files
    inputs: tuple[Tensor, ...]
    source: str  # of the inputs
    assumed: tuple[str, ...]  # dynamic axes that were given length 1
    outputs: tuple[Tensor, ...]
    session: dict[str, Any]  # what really ran
    processes: int
    calls: int
    p50_ms: Bounded
    p90_ms: Bounded
    p99_ms: Bounded
    throughput_per_s: Bounded
    open_ms: float | None
    first_call_ms: float | None
    memory_bytes: int | None  # peak resident set of a process with this model
    runtime_memory_bytes: int | None  # of which the process had before the model was opened
    unstable: int  # processes that had not warmed up


class Difference(Record):
    """One output of both models: largest absolute difference, and the largest absolute value of either."""

    name: str
    other: str
    max_abs: float
    scale: float

    @property
    def same(self) -> bool:
        """Whether it is rounding."""
        return self.max_abs <= max(SAME * self.scale, FINEST)


class Comparison(Record):
    """Time of A / time of B, in the same processes; whether they gave the same outputs."""

    pairs: int
    calls: int
    ratio_p50: Bounded
    ratio_p99: Bounded
    margin: float
    verdict: Word
    sentence: str
    unstable: int
    outputs: tuple[Difference, ...]
    not_compared: tuple[str, ...]

    @property
    def same_outputs(self) -> bool | None:
        """None when nothing could be compared."""
        return all(one.same for one in self.outputs) if self.outputs else None


class Found(Record):
    """All that `framegate bench MODEL.onnx [OTHER.onnx]` says; raw samples lie beside it in samples.npz."""

    format: Literal[1] = 1
    models: tuple[ModelFacts, ...]
    comparison: Comparison | None
    settings: Settings
    plan: Plan
    stopped: str = ""  # why it ended before the plan was done
    host_class: dict[str, Any]
    host_conditions: dict[str, Any]
    samples_sha256: str = ""


@dataclass(slots=True)
class Timings:
    """Arrays of finished processes: of each model alone, and of the pairs."""

    solo: tuple[list[dict[str, Any]], ...]
    pairs: list[dict[str, Any]] = field(default_factory=list)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For samples.npz: candidate = the first model, parent = the second."""
        names = [f"{side}solo_ns" for side in ("", "parent_")]
        found = {name: _stacked(solo, "solo_ns") for name, solo in zip(names, self.solo, strict=False) if solo}
        if self.pairs:
            found |= {key: _stacked(self.pairs, key) for key in ("candidate_ns", "parent_ns", "candidate_first")}
        return found


def _stacked(processes: Sequence[dict[str, Any]], key: str) -> NDArray[Any]:
    return np.stack([process[key] for process in processes])


def timing_facts(solo: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fields of ModelFacts that come from processes with this model alone."""
    nothing = np.empty((0, 0), np.int64)
    ns = _stacked(solo, "solo_ns") if solo else nothing
    each = {f"p{p}_ms": Bounded.of(stats.process_percentile(ns, p / 100)) for p in (50, 90, 99)} if solo else {}
    return {
        "processes": len(solo),
        "calls": ns.size,
        **{name: each.get(name, Bounded(value=None, low=None, high=None)) for name in ("p50_ms", "p90_ms", "p99_ms")},
        "throughput_per_s": throughput(ns),
        "open_ms": _median(solo, "open_ns", 1e6),
        "first_call_ms": _median(solo, "first_ns", 1e6),
        "memory_bytes": _whole(_median(solo, "memory_bytes", 1)),
        "runtime_memory_bytes": _whole(_median(solo, "memory_before", 1)),
        "unstable": sum(not process["stable"] for process in solo),
    }


def _median(processes: Sequence[dict[str, Any]], key: str, unit: float) -> float | None:
    return float(np.median([process[key] for process in processes])) / unit if processes else None


def _whole(value: float | None) -> int | None:
    return int(value) if value else None


def throughput(ns: NDArray[np.int64]) -> Bounded:
    """Calls per second of one caller from ns [process, call], with t bounds over the processes."""
    if not ns.size:
        return Bounded(value=None, low=None, high=None)
    each = 1e9 / ns.mean(axis=1)
    value = float(each.mean())
    if len(each) < 2:
        return Bounded(value=value, low=None, high=None)
    return Bounded(value=value, low=mean_low(each), high=mean_high(each))


# --- two models -------------------------------------------------------------------------------


def ratio_facts(pairs: Sequence[dict[str, Any]], margin: float, seed: int) -> dict[str, Any]:
    """The fields of Comparison that come from the pairs of processes."""
    unknown = Bounded(value=None, low=None, high=None)
    p50 = p99 = unknown
    calls = 0
    if pairs:
        ours, theirs = _stacked(pairs, "candidate_ns"), _stacked(pairs, "parent_ns")
        calls = ours.size
        p50, p99 = Bounded.of(stats.ratio_p50(ours, theirs, seed)), Bounded.of(stats.ratio_p99(ours, theirs, seed))
    word = verdict(p50, margin)
    return {
        "pairs": len(pairs),
        "calls": calls,
        "ratio_p50": p50,
        "ratio_p99": p99,
        "margin": margin,
        "verdict": word,
        "sentence": sentence(p50, margin, word, len(pairs)),
        "unstable": sum(not pair["stable"] for pair in pairs),
    }


def verdict(ratio: Bounded, margin: float) -> Word:
    """faster: high < 1 - margin, so A takes less time than B by more than the margin, with 95 % confidence.

    slower is the same seen from B: low > 1 / (1 - margin). So the answer turns round when the models change places.
    Everything else is `cannot tell`: a difference below the margin may come from where a process lies in memory.
    """
    if ratio.low is None or ratio.high is None:
        return "cannot tell"
    if ratio.high < 1 - margin:
        return "faster"
    return "slower" if ratio.low > 1 / (1 - margin) else "cannot tell"


def sentence(ratio: Bounded, margin: float, word: Word, pairs: int) -> str:
    """The verdict as one says it."""
    if ratio.value is None:
        return "Cannot tell: no pair of processes was finished."
    if ratio.low is None or ratio.high is None:
        return (
            f"Cannot tell: A takes {ratio.value:.3f} of B's time, but one pair of processes bounds nothing; --pairs 10."
        )
    value, low, high = ratio.value, ratio.low, ratio.high
    if word == "faster":
        return f"A is faster than B: {1 / value:.2f} times as fast (between {1 / high:.2f} and {1 / low:.2f})."
    if word == "slower":
        return f"A is slower than B: it takes {value:.2f} times as long (between {low:.2f} and {high:.2f})."
    between = f"A takes {value:.3f} of B's time (between {low:.3f} and {high:.3f})"
    if low >= 1 - margin and high <= 1 / (1 - margin):
        return f"Cannot tell them apart: {between}; a difference of more than {100 * margin:g} % is ruled out."
    edges = f"faster is below {1 - margin:.3f}, slower above {1 / (1 - margin):.3f}"
    return f"Cannot tell: {between}; {edges}. Try --pairs {4 * pairs} or a quieter machine."


def differences(
    ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]
) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    """Outputs of the same name (or place) and shape against each other; which could not be compared, and why."""
    pairs = matched(list(ours), list(theirs))
    found = []
    skipped = [f"{name} is only in A" for name in ours if name not in [mine for mine, _ in pairs]]
    skipped += [f"{name} is only in B" for name in theirs if name not in [other for _, other in pairs]]
    for mine, other in pairs:
        a, b = ours[mine], theirs[other]
        if a.shape != b.shape:
            skipped.append(f"{mine} is {list(a.shape)} in A and {list(b.shape)} in B")
        else:
            found.append(_difference(mine, other, a, b))
    return tuple(found), tuple(skipped)


def _difference(name: str, other: str, a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """A NaN or infinity in one of them alone makes the difference infinite."""
    kind = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    x, y = a.astype(kind).ravel(), b.astype(kind).ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    alike = finite | (np.isnan(x) & np.isnan(y)) | (x == y)
    worst = float(np.abs(x[finite] - y[finite]).max(initial=0.0)) if alike.all() else math.inf
    scale = float(np.abs(np.concatenate([x[finite], y[finite]])).max(initial=0.0))
    return Difference(name=name, other=other, max_abs=worst, scale=scale)
