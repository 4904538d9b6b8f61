"""A fresh process that opens foreign models and does one job: `python -m framegate.bench.foreign.worker JOB OUT`.

It imports numpy and one runtime. Whatever a model does to it cannot hurt the bench.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from framegate.bench.host import peak_memory_bytes
from framegate.bench.latency import time_pair, time_solo
from framegate.bench.launch import answer
from framegate.contract import Record
from framegate.runtime.raw import ModelError, RawSession, open_raw, raw_backend

TRY_NS = 300_000_000  # how long a model is tried, to plan the rest
TRY_CALLS = 50

Result = tuple[dict[str, Any], dict[str, Any]]  # arrays, facts


class Graph(Record):
    """A model and what goes into it: `inputs` is an npz of arrays arr_0, arr_1, ... in the order of `names`."""

    path: Path
    names: tuple[str, ...] = ()
    inputs: Path | None = None


class ForeignJob(Record):
    """What one process is to do; `kind` names a function of JOBS."""

    kind: Literal["inspect", "try", "pair", "solo"]
    model: Graph
    runtime: str
    threads: int
    other: Graph | None = None
    seed: int = 0
    blocks: int = 0
    calls: int = 0  # pair: of a block
    warmup_block: int = 0


class CallLane:
    """One call, made again and again; see `latency.Timed`."""

    def __init__(self, call: Callable[[], object], clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._call, self._clock = call, clock

    def block(self, calls: int) -> NDArray[np.int64]:
        """Nanoseconds of each of `calls` calls."""
        ns, call, clock = np.empty(calls, np.int64), self._call, self._clock
        for i in range(calls):
            start = clock()
            call()
            ns[i] = clock() - start
        return ns


class Opened:
    """A model with its inputs, opened and called once."""

    def __init__(self, graph: Graph, runtime: str, threads: int) -> None:
        assert graph.inputs
        with np.load(graph.inputs, allow_pickle=False) as arrays:
            found = [arrays[f"arr_{n}"] for n in range(len(graph.names))]
        texts = (array.astype(object) if array.dtype.kind == "U" else array for array in found)
        self._feeds = dict(zip(graph.names, texts, strict=True))
        start = time.perf_counter_ns()
        shapes = {name: array.shape for name, array in self._feeds.items()}
        self.session: RawSession = open_raw(graph.path, runtime, threads, shapes)
        opened = time.perf_counter_ns()
        try:
            self.first = self.session.run(self._feeds)
        except Exception as error:  # classes of the runtimes' bindings: they share no base but this
            raise ModelError(f"{graph.path}: does not run on these inputs: {error}") from error
        self.open_ns, self.first_ns = opened - start, time.perf_counter_ns() - opened

    def lane(self) -> CallLane:
        run, feeds = self.session.run, self._feeds
        return CallLane(lambda: run(feeds))

    def facts(self) -> dict[str, Any]:
        return asdict(self.session.info) | {"note": self.session.note}


def inspect(job: ForeignJob) -> Result:
    """What the file declares, as ONNX Runtime reads it."""
    session = open_raw(job.model.path, "ort-cpu", job.threads, {})
    sides = {"inputs": session.inputs, "outputs": session.outputs}
    return {}, {key: [one.model_dump() for one in side] for key, side in sides.items()}


def try_out(job: ForeignJob) -> Result:
    """The answers to the inputs, and about how long a call takes."""
    opened = Opened(job.model, job.runtime, job.threads)
    names = [declared.name for declared in opened.session.outputs]
    plain = {name: np.asarray(one) for name, one in zip(names, opened.first, strict=True) if _is_plain(one)}
    lane, ns = opened.lane(), np.array([opened.first_ns])
    while ns.sum() < TRY_NS and len(ns) < TRY_CALLS:
        ns = np.append(ns, lane.block(1))
    arrays = {f"output_{number}": array for number, array in enumerate(plain.values())} | {"call_ns": np.median(ns)}
    return arrays, {"session": opened.facts(), "plain": list(plain), "outputs": names}


def pair(job: ForeignJob) -> Result:
    """Timed blocks of both models; which of them is opened first is drawn."""
    assert job.other
    graphs = {"model": job.model, "other": job.other}
    order = ("model", "other") if np.random.default_rng(job.seed + 1).random() < 0.5 else ("other", "model")
    opened = {side: Opened(graphs[side], job.runtime, job.threads) for side in order}
    found = time_pair(opened["model"].lane(), opened["other"].lane(), job.blocks, job.calls, job.seed)
    return {
        "candidate_ns": found.candidate_ns,
        "parent_ns": found.parent_ns,
        "candidate_first": found.candidate_first,
        "stable": found.stable,
    }, {}


def solo(job: ForeignJob) -> Result:
    """Timed calls in a row of one model alone; what it takes in memory, beside the runtime's own share."""
    raw_backend(job.runtime).probe(job.runtime)  # loads the runtime
    before = peak_memory_bytes() or 0  # 0: the kernel does not say
    opened = Opened(job.model, job.runtime, job.threads)
    ns, _, stable = time_solo(opened.lane(), job.calls, job.warmup_block)
    after = peak_memory_bytes() or 0
    return {
        "solo_ns": ns,
        "stable": stable,
        "open_ns": opened.open_ns,
        "first_ns": opened.first_ns,
        "memory_before": before,
        "memory_bytes": after,
    }, {}


JOBS: dict[str, Callable[[ForeignJob], Result]] = {"inspect": inspect, "try": try_out, "pair": pair, "solo": solo}


def _is_plain(value: Any) -> bool:
    """Whether an output is an array of numbers, not a list, a map or text."""
    return isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind in "biufc"


def main(argv: list[str]) -> None:
    """JOB.json OUT.npz; see `launch.answer`."""
    job = ForeignJob.read(Path(argv[0]))
    answer(Path(argv[1]), lambda: JOBS[job.kind](job))


if __name__ == "__main__":
    main(sys.argv[1:])
