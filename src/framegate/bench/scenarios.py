"""The scenarios of one candidate: which fresh processes measure them, and the arrays that they leave in samples.npz."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench.camera import CameraSettings, drop_pattern
from framegate.bench.processes import Arrays, Processes
from framegate.bench.scenario import OfflineSettings, ServerSettings, best_batch
from framegate.bench.settings import ScenarioSettings
from framegate.bench.streams import StreamSettings, plan_streams, stream_lengths, stream_ticks, stream_truth
from framegate.contract import ClipSpec, ConfigError, Skipped
from framegate.index import Index

Extra = dict[str, NDArray[Any]]


def check_scenarios(settings: ScenarioSettings, index: Index, timeout_s: float) -> None:
    """ConfigError that lists all that keeps a scenario from being measured with these clips, before anything is."""
    problems = camera_problems(settings.camera, index.spec, timeout_s) if settings.camera else []
    if settings.streams and isinstance(plan := plan_streams(index, settings.streams), Skipped):
        problems.append(f"bench.scenarios.streams: {plan.reason}; or set bench.scenarios.streams: null")
    if problems:
        raise ConfigError("; ".join(problems))


def camera_problems(settings: CameraSettings, spec: ClipSpec, timeout_s: float) -> list[str]:
    """What contradicts the clips or `bench.timeout_s`, each with its keys."""
    problems = []
    if settings.fps != spec.fps:
        problems.append(f"bench.scenarios.camera.fps is {settings.fps:g}, data.clip.fps {spec.fps:g}; make them equal")
    if settings.timeout_s >= timeout_s:
        problems.append(
            f"bench.scenarios.camera.timeout_s is {settings.timeout_s:g}, but bench.timeout_s ends the process after "
            f"{timeout_s:g}; raise bench.timeout_s"
        )
    for key in ("search_seconds", "confirm_seconds"):
        if (frames := settings.frames(seconds := getattr(settings, key))) < spec.frames:
            problems.append(
                f"bench.scenarios.camera.{key} is {seconds:g}, {frames} frames of a stream, but a clip has "
                f"{spec.frames}: nothing would say what dropping costs; raise it"
            )
    return problems


def measure_scenarios(processes: Processes, settings: ScenarioSettings, test: Sequence[int]) -> Extra:
    """Arrays of every scenario that is asked for; `test`: positions of the test split. WorkerStopped as of a process.

    `check_scenarios` has found nothing.
    """
    extra: Extra = {}
    for name, measure in MEASURES.items():
        if (asked := getattr(settings, name)) is not None:
            extra |= measure(processes, asked, test)
    return extra


def _offline(processes: Processes, settings: OfflineSettings, test: Sequence[int]) -> Extra:
    """One process looks at every batch size; fresh ones measure the best."""
    clips = processes.clips(settings.seed)[1]
    plain = settings.model_dump(mode="json")
    found: Arrays = processes.run(processes.job("offline_search", settings.seed, clips, settings=plain))
    batch = best_batch(found["offline_sizes"], found["offline_search_ns"])
    job = processes.job("offline", settings.seed, clips, batch=batch, calls=settings.calls)
    return found | {"offline_ns": np.stack([processes.run(job)["offline_ns"] for _ in range(settings.processes)])}


def _server(processes: Processes, settings: ServerSettings, test: Sequence[int]) -> Extra:
    clips, plain = processes.clips(settings.seed)[1], settings.model_dump(mode="json")
    seeds = range(settings.seed * 1000, settings.seed * 1000 + settings.processes)
    found = [processes.run(processes.job("server", seed, clips, settings=plain)) for seed in seeds]
    return {name: np.stack([one[name] for one in found]) for name in ("server_at_ns", "server_ns")}


def _camera(processes: Processes, settings: CameraSettings, test: Sequence[int]) -> Extra:
    """The largest number of streams, then the test clips again as they are seen under the drops of that point."""
    clips, plain = processes.clips(settings.seed)[1], settings.model_dump(mode="json")
    found = processes.run(processes.job("camera", settings.seed, clips, settings=plain))
    streams, outcome = int(found["camera_streams"][0]), found["camera_outcome"]
    index = processes.bench.reader.index
    if not streams or not outcome.size:
        return found
    keep = drop_pattern(outcome, streams, len(test), index.spec.frames, settings.seed)
    path = processes.scratch / "keep.npy"
    np.save(path, keep)
    threads, batch = processes.bench.settings.accuracy_threads, processes.bench.settings.batch
    job = processes.job("kept", keep=path, count=len(test), batch=batch, threads=threads)
    logits = processes.run(job, processes.windows(test))["logits"]
    return found | {"camera_ids": np.array([index.clips[i].id for i in test]), "camera_logits": logits}


def _streams(processes: Processes, settings: StreamSettings, test: Sequence[int]) -> Extra:
    reader, threads = processes.bench.reader, processes.bench.settings.accuracy_threads
    plan = plan_streams(reader.index, settings)
    assert not isinstance(plan, Skipped)
    job = processes.job("streams", threads=threads, lengths=tuple(stream_lengths(reader.index, plan)))
    found = processes.run(job, (tick.tobytes() for tick in stream_ticks(reader, plan)))
    return found | {"stream_truth": stream_truth(reader.index, plan)}


MEASURES: dict[str, Callable[[Processes, Any, Sequence[int]], Extra]] = {
    "offline": _offline,
    "server": _server,
    "camera": _camera,
    "streams": _streams,
}
