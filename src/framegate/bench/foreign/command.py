"""`framegate bench MODEL.onnx [OTHER.onnx]`: what is run, in which order, and what becomes of a run that is stopped.

Every model is opened in fresh processes only. One round is each model alone, then both in one process, so that a
machine that slows down slows everything alike. Ctrl-C or a model that dies midway ends the rounds, not the report.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tqdm import tqdm

from framegate.bench.foreign.facts import (
    Comparison,
    Found,
    ModelFacts,
    Plan,
    Settings,
    Tensor,
    Timings,
    differences,
    ratio_facts,
    timing_facts,
)
from framegate.bench.foreign.files import check_file, save, size_bytes
from framegate.bench.foreign.inputs import (
    Feeds,
    Shape,
    from_file,
    made_up,
    matched,
    parse_shape,
    unknown_shapes,
    why_not_same,
)
from framegate.bench.foreign.page import page
from framegate.bench.foreign.worker import ForeignJob, Graph
from framegate.bench.host import host_class, host_conditions
from framegate.bench.launch import WorkerStopped, launch
from framegate.contract import ConfigError, FramegateError, explain, sha256_file
from framegate.runtime.raw import Declared, raw_backend

WORKER = (sys.executable, "-m", "framegate.bench.foreign.worker")
EXIT_CODES = {"faster": 0, "slower": 2, "cannot tell": 3}
BLOCKS = 8
BLOCK_CALLS, BLOCK_SECONDS = (2, 50), 0.05
SOLO_CALLS, SOLO_SECONDS = (11, 700), 3.0  # p50 takes 11 calls of each process, p99 662


def run(parsed: argparse.Namespace) -> int:
    """Measure, print, keep. 0 faster, 2 slower, 3 cannot tell; one model: 0. 1 when it was stopped."""
    settings = _settings(parsed)
    shapes = dict(parse_shape(text) for text in parsed.shape)
    if parsed.out:
        parsed.out.mkdir(parents=True, exist_ok=True)  # an error now rather than after minutes of timing
        if not os.access(parsed.out, os.W_OK):
            raise ConfigError(f"{parsed.out}: not writable; name another folder with -o")
    found, timings = measure(parsed.paths, settings, shapes, parsed.input)
    if parsed.out:
        found = save(found, timings.arrays(), parsed.out)
    print(found.to_json() if parsed.json else page(found), end="")
    if found.stopped:
        return 1
    return EXIT_CODES[found.comparison.verdict] if found.comparison else 0


def _settings(parsed: argparse.Namespace) -> Settings:
    """ConfigError names every option that cannot be."""
    told = {name: getattr(parsed, name, None) for name in Settings.model_fields}
    try:
        return Settings.model_validate({name: value for name, value in told.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def measure(
    paths: Sequence[Path], settings: Settings, shapes: Mapping[str, Shape], files: Sequence[Path] = ()
) -> tuple[Found, Timings]:
    """One or two models on this host. `files`: npz with inputs, one for all models or one for each.

    Raises FramegateError when a model cannot be run at all; once timing has begun, what stops it stands in the result.
    """
    if not 1 <= len(paths) <= 2 or len(files) not in (0, 1, len(paths)):
        raise ConfigError(f"got {len(paths)} models and {len(files)} --input; expected one or two, and one or one each")
    raw_backend(settings.runtime)
    for path in paths:
        check_file(path)
    conditions = host_conditions()
    with tempfile.TemporaryDirectory(prefix="framegate-") as scratch:
        bench = _Bench(settings, Path(scratch))
        asked = bench.prepare(paths, shapes, files)
        plan = _plan(settings, max(one.call_ns for one in asked) / 1e9)
        timings, stopped = bench.rounds(asked, plan)
    models = [_model(one, solo) for one, solo in zip(asked, timings.solo, strict=True)]
    found = Found(
        models=tuple(models),
        comparison=_comparison(asked, timings.pairs, settings) if len(asked) == 2 else None,
        settings=settings,
        plan=plan,
        stopped=stopped,
        host_class=host_class(),
        host_conditions=conditions,
    )
    return found, timings


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that has answered its inputs once."""

    graph: Graph
    feeds: Feeds
    outputs: dict[str, NDArray[Any]]  # those that are arrays of numbers
    all_outputs: tuple[str, ...]
    session: dict[str, Any]
    call_ns: float


class _Bench:
    """The processes: what they are given and what they bring back."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self._settings, self._scratch, self._count = settings, scratch, 0

    def prepare(self, paths: Sequence[Path], shapes: Mapping[str, Shape], files: Sequence[Path]) -> list[Asked]:
        """Read what the models declare, give them inputs and have them answer once."""
        declared = [self._inspect(path) for path in paths]
        every = [one for inputs in declared for one in inputs]
        unknown_shapes(shapes, every)
        if shapes and files:
            raise ConfigError("--shape and --input: the arrays of the file have their shapes; give one of the two")
        pairs = matched(*[[one.name for one in inputs] for inputs in declared]) if len(declared) == 2 else []
        keys = {other: mine for mine, other in pairs}
        asked = []
        for number, (path, inputs) in enumerate(zip(paths, declared, strict=True)):
            if files:
                elsewhere = every if len(files) == 1 else ()
                feeds = from_file(files[min(number, len(files) - 1)], path, inputs, elsewhere)
            else:
                given = {name: shape for name, shape in shapes.items() if name in [one.name for one in inputs]}
                feeds = made_up(inputs, given, self._settings.seed, keys if number else {})
            asked.append(self._ask(path, feeds))
        return asked

    def _inspect(self, path: Path) -> list[Declared]:
        """The inputs of a model, read in a process of its own: opening it may be what kills."""
        job = ForeignJob(kind="inspect", model=Graph(path=path), runtime="ort-cpu", threads=1)
        _, facts = self._first(job)
        return [Declared.model_validate(one) for one in facts["inputs"]]

    def _ask(self, path: Path, feeds: Feeds) -> Asked:
        file = self._scratch / f"inputs{self._count}.npz"
        np.savez(file, *feeds.arrays.values())
        graph = Graph(path=path, names=tuple(feeds.arrays), inputs=file)
        arrays, facts = self._first(self._job("try", graph))
        outputs = {name: arrays[f"output_{n}"] for n, name in enumerate(facts["plain"])}
        call_ns = float(arrays["call_ns"])
        return Asked(graph, feeds, outputs, tuple(facts["outputs"]), facts["session"], call_ns)

    def rounds(self, asked: Sequence[Asked], plan: Plan) -> tuple[Timings, str]:
        """Time all that is planned; and what stopped it, or nothing."""
        timings = Timings(tuple([] for _ in asked))
        total = plan.processes * len(asked) + plan.pairs * (len(asked) == 2)
        with tqdm(total=total, unit="process", disable=None, leave=False, file=sys.stderr) as bar:
            try:
                for number in range(max(plan.processes, plan.pairs)):
                    for job, where in self._jobs(asked, plan, timings, number):
                        where.append(self._launch(job)[0])
                        bar.update()
            except WorkerStopped as stop:
                return timings, stop.reason
            except KeyboardInterrupt:
                return timings, "interrupted"
        return timings, ""

    def _jobs(
        self, asked: Sequence[Asked], plan: Plan, timings: Timings, number: int
    ) -> list[tuple[ForeignJob, list[dict[str, Any]]]]:
        """The processes of one round, and where what they bring is kept."""
        graphs, jobs = [one.graph for one in asked], []
        if number < plan.processes:
            alone = {"calls": plan.calls, "warmup_block": plan.calls_per_block}
            for graph, kept in zip(graphs, timings.solo, strict=True):
                jobs.append((self._job("solo", graph, number).model_copy(update=alone), kept))
        if number < plan.pairs and len(graphs) == 2:
            beside = {"other": graphs[1], "blocks": plan.blocks, "calls": plan.calls_per_block}
            jobs.append((self._job("pair", graphs[0], number).model_copy(update=beside), timings.pairs))
        return jobs

    def _job(self, kind: Literal["try", "pair", "solo"], graph: Graph, number: int = 0) -> ForeignJob:
        """On the runtime asked for; `number` of the process, from which it draws."""
        settings = self._settings
        seed = settings.seed * 1000 + number
        return ForeignJob(kind=kind, model=graph, runtime=settings.runtime, threads=settings.threads, seed=seed)

    def _first(self, job: ForeignJob) -> tuple[dict[str, Any], dict[str, Any]]:
        """A job without which there is nothing to measure; FramegateError names the model."""
        try:
            return self._launch(job)
        except WorkerStopped as stop:
            path = str(job.model.path)
            raise FramegateError(stop.reason if path in stop.reason else f"{path}: {stop.reason}") from None

    def _launch(self, job: ForeignJob) -> tuple[dict[str, Any], dict[str, Any]]:
        self._count += 1
        return launch(job, self._scratch / f"{self._count}.npz", self._settings.timeout_s, (), WORKER)


def _plan(settings: Settings, call_s: float) -> Plan:
    """As many calls as their time allows, unless told."""
    return Plan(
        pairs=settings.pairs,
        blocks=BLOCKS,
        calls_per_block=_within(BLOCK_CALLS, BLOCK_SECONDS / call_s),
        processes=settings.processes,
        calls=settings.calls or _within(SOLO_CALLS, SOLO_SECONDS / call_s),
    )


def _within(bounds: tuple[int, int], count: float) -> int:
    return int(min(max(count, bounds[0]), bounds[1]))


def _model(asked: Asked, solo: Sequence[dict[str, Any]]) -> ModelFacts:
    return ModelFacts(
        path=str(asked.graph.path),
        sha256=sha256_file(asked.graph.path),
        size_bytes=size_bytes(asked.graph.path),
        inputs=tuple(_tensor(name, array) for name, array in asked.feeds.arrays.items()),
        source=asked.feeds.source,
        assumed=asked.feeds.assumed,
        outputs=tuple(_tensor(name, asked.outputs.get(name)) for name in asked.all_outputs),
        session=asked.session,
        **timing_facts(solo),
    )


def _tensor(name: str, array: NDArray[Any] | None) -> Tensor:
    if array is None:
        return Tensor(name=name, dtype="no array of numbers", shape=())
    bad = int((~np.isfinite(array)).sum()) if array.dtype.kind in "fc" else 0
    return Tensor(name=name, dtype=array.dtype.name, shape=array.shape, bad=bad)


def _comparison(asked: Sequence[Asked], pairs: Sequence[dict[str, Any]], settings: Settings) -> Comparison:
    ours, theirs = asked
    outputs, skipped = differences(ours.outputs, theirs.outputs)
    if reason := why_not_same(ours.feeds.arrays, theirs.feeds.arrays):
        outputs, skipped = (), (f"the models were not asked the same: {reason}",)
    return Comparison(**ratio_facts(pairs, settings.margin, settings.seed), outputs=outputs, not_compared=skipped)
