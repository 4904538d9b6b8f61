"""A/A: one bundle against itself, many times. How often does the gate see a difference that is not there?

One run is what the gate does for one candidate: `pairs` fresh processes, two separately opened sessions in each.
Beside it, on the same machine at the same time: the naive way (one process after the other, medians compared), and,
in every `power_every`-th run, a candidate that really is slower by `slowdown`. N is fixed before the first run:
a folder that was begun with one plan refuses another.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from framegate.bench import stats
from framegate.bench.host import host_class, host_digest
from framegate.bench.launch import WORKER, launch
from framegate.bench.stats import Estimate
from framegate.bench.worker import Job
from framegate.contract import Bundle, ConfigError, DataError, Record, atomic_path, explain

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Runs = Annotated[int, Field(ge=1, le=10_000)]
PLAN = "plan.json"
log = logging.getLogger(__name__)


class Plan(Record):
    """What is done, fixed before the first run."""

    runs: Runs
    bundle: str  # digest
    runtime: str
    host_class: str  # digest
    pairs: Annotated[int, Field(ge=2)] = 20
    blocks: Count = 8
    calls: Count = 50
    threads: Count = 1
    seed: int = 0
    slowdown: Share = 0.03
    power_every: Count = 3
    timeout_s: Annotated[float, Field(gt=0)] = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """Samples of one run: ns [pair, block, call]; `slow_*` only in runs that test the power; `naive_*` ns [call]."""

    candidate_ns: NDArray[np.int64]
    parent_ns: NDArray[np.int64]
    naive_first_ns: NDArray[np.int64]
    naive_second_ns: NDArray[np.int64]
    load: float
    slow_ns: NDArray[np.int64] | None = None
    slow_parent_ns: NDArray[np.int64] | None = None


def plan_of(bundle: Bundle, runtime: str, runs: int, **settings: Any) -> Plan:
    """The plan for a bundle on this host."""
    host = host_digest(host_class())
    try:
        return Plan(runs=runs, bundle=bundle.info.digest, runtime=runtime, host_class=host, **settings)
    except ValidationError as error:
        raise ConfigError(f"A/A: {explain(error)}") from None


def measure_runs(bundle: Path, plan: Plan, out: Path, command: Sequence[str] = WORKER) -> Iterator[int]:
    """Make the runs that are missing in `out`, each written when it is done; yields its number.

    ConfigError when `out` was begun with another plan. An interrupted call goes on where it stopped.
    """
    _keep_plan(plan, out / PLAN)
    with tempfile.TemporaryDirectory(prefix="framegate-") as scratch:
        processes = _Processes(bundle, plan, Path(scratch), command)
        for number in range(plan.runs):
            if not (path := run_path(out, number)).is_file():
                _save(processes.run(number), path)
            yield number


def run_path(out: Path, number: int) -> Path:
    """Where one run lies."""
    return out / f"run-{number:05}.npz"


def load_runs(out: Path, plan: Plan) -> list[Run]:
    """The runs of a plan that are there, in order. DataError when one cannot be read."""
    paths = [path for number in range(plan.runs) if (path := run_path(out, number)).is_file()]
    return [_load(path) for path in paths]


def _keep_plan(plan: Plan, path: Path) -> None:
    if not path.is_file():
        plan.write(path)
        return
    begun = Plan.read(path).model_dump()
    differs = [
        f"{key}: {begun[key]} there, {value} now" for key, value in plan.model_dump().items() if begun[key] != value
    ]
    if differs:
        raise ConfigError(
            f"{path}: begun with another plan ({'; '.join(differs)}); the plan is fixed before the first run: "
            "go on with that one, or name another folder with -o"
        )


class _Processes:
    """The fresh processes of the runs."""

    def __init__(self, bundle: Path, plan: Plan, scratch: Path, command: Sequence[str]) -> None:
        self._bundle, self._plan, self._scratch, self._command = bundle, plan, scratch, command
        with np.load(bundle / "golden.npz", allow_pickle=False) as golden:
            np.save(scratch / "clips.npy", golden["frames"])

    def run(self, number: int) -> Run:
        plan, seed = self._plan, self._plan.seed * 1_000_000 + number * 1000
        candidate, parent = self._pairs(seed, 0.0)
        naive = [self._launch("solo", seed, calls=plan.blocks * plan.calls)["solo_ns"] for _ in range(2)]
        slow = self._pairs(seed + 500, plan.slowdown) if number % plan.power_every == 0 else (None, None)
        return Run(candidate, parent, naive[0], naive[1], os.getloadavg()[0], *slow)

    def _pairs(self, seed: int, slowdown: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        found = [
            self._launch("pair", seed + i, slowdown=slowdown, blocks=self._plan.blocks, calls=self._plan.calls)
            for i in range(self._plan.pairs)
        ]
        return np.stack([one["candidate_ns"] for one in found]), np.stack([one["parent_ns"] for one in found])

    def _launch(self, kind: Any, seed: int, **more: Any) -> dict[str, Any]:
        job = Job(
            kind=kind,
            bundle=self._bundle,
            parent=self._bundle,
            runtime=self._plan.runtime,
            parent_runtime=self._plan.runtime,
            threads=self._plan.threads,
            clips=self._scratch / "clips.npy",
            seed=seed,
            **more,
        )
        return launch(job, self._scratch / "found.npz", self._plan.timeout_s, (), self._command)[0]


def _save(run: Run, path: Path) -> None:
    arrays = {name: getattr(run, name) for name in Run.__slots__ if getattr(run, name) is not None}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _load(path: Path) -> Run:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Run(**{**arrays, "load": float(arrays["load"])})
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: not readable as an A/A run ({error}); delete it and run `framegate aa` again"
        ) from None


# --- what they show -----------------------------------------------------------------------------


class Tally(Record):
    """What one way to compare said over `runs` runs, at a margin.

    `alarms`: the value lies beyond the margin and the interval excludes 1. `fails`: the whole interval lies beyond the
    margin, which is what the gate calls FAIL. `passes`: the whole interval lies inside.
    """

    way: str
    margin: float
    slowdown: float
    runs: int
    alarms: int
    alarm_share_low: float | None
    alarm_share_high: float | None
    fails: int
    passes: int
    reach: float | None  # median distance from the value to the upper bound, as a share of the value


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compare; `merged`: so many runs are taken as one, as if it had had that many times the pairs."""

    name: str
    compare: Callable[[Run], Estimate]
    margin: str  # p50 or p99
    merged: int = 1


def ways(plan: Plan) -> list[Way]:
    """The gate's, with more pairs where the tail takes them, and the naive one."""
    paired = [("p50", 1), ("p99", 1), ("p99", 4), ("p99", 16)]
    return [
        *(Way(f"{p}, {plan.pairs * k} pairs", _ratio(p), p, k) for p, k in paired),
        *(Way(f"{p}, one after the other", _naive(share), p) for p, share in (("p50", 0.5), ("p99", 0.99))),
    ]


def _ratio(percentile: str) -> Callable[[Run], Estimate]:
    ratio = {"p50": stats.ratio_p50, "p99": stats.ratio_p99}[percentile]
    return lambda run: ratio(run.candidate_ns, run.parent_ns)


def _naive(share: float) -> Callable[[Run], Estimate]:
    """One process after the other, the two quantiles divided: no interval at all."""

    def compare(run: Run) -> Estimate:
        value = float(np.quantile(run.naive_second_ns, share) / np.quantile(run.naive_first_ns, share))
        return Estimate(value, value, value, run.naive_first_ns.size)

    return compare


def tally(runs: Sequence[Run], plan: Plan, margins: Mapping[str, float]) -> list[Tally]:
    """Every way over every run, then the paired ones over those that were slowed; margins of p50 and p99."""
    slowed = [
        replace(run, candidate_ns=run.slow_ns, parent_ns=run.slow_parent_ns)
        for run in runs
        if run.slow_ns is not None and run.slow_parent_ns is not None
    ]
    quiet = [_tally(way, runs, margins[way.margin], 0.0) for way in ways(plan)]
    paired = [way for way in ways(plan) if "pairs" in way.name]
    found = quiet + [_tally(way, slowed, margins[way.margin], plan.slowdown) for way in paired]
    return [one for one in found if one.runs]


def _tally(way: Way, runs: Sequence[Run], margin: float, slowdown: float) -> Tally:
    each = [_together(runs[i : i + way.merged]) for i in range(0, len(runs) - way.merged + 1, way.merged)]
    found = [way.compare(run) for run in each]
    ends = [(e.value, e.low, e.high) for e in found if e.value is not None and e.low is not None and e.high is not None]
    alarms = sum((low > 1 and v > 1 + margin) or (high < 1 and v < 1 - margin) for v, low, high in ends)
    share = stats.alarm_rate(alarms, len(found))
    return Tally(
        way=way.name,
        margin=margin,
        slowdown=slowdown,
        runs=len(found),
        alarms=alarms,
        alarm_share_low=share.low,
        alarm_share_high=share.high,
        fails=sum(low > 1 + margin or high < 1 - margin for _, low, high in ends),
        passes=sum(low >= 1 - margin and high <= 1 + margin for _, low, high in ends),
        reach=float(np.median([high / value - 1 for value, _, high in ends])) if ends else None,
    )


def _together(runs: Sequence[Run]) -> Run:
    """Several runs as one."""
    candidate, parent = (
        np.concatenate([getattr(run, f"{side}_ns") for run in runs]) for side in ("candidate", "parent")
    )
    return replace(runs[0], candidate_ns=candidate, parent_ns=parent)
