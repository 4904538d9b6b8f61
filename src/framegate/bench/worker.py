"""A fresh process that opens sessions, does one job and writes what it found: `python -m ... JOB OUT`.

It imports numpy and one runtime, nothing else: starts are part of the bill. Whatever kills it here cannot
kill the bench.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field

from framegate.bench.camera import CameraSettings, answer_kept, find_frame_streams
from framegate.bench.clock import WallClock
from framegate.bench.host import peak_memory_bytes
from framegate.bench.latency import Lane, Slowed, time_pair, time_solo
from framegate.bench.launch import answer
from framegate.bench.scenario import (
    OfflineSettings,
    ServerSettings,
    pin_to_one_core,
    search_offline,
    time_offline,
    time_server,
)
from framegate.bench.streams import run_streams
from framegate.contract import Bundle, FramegateError, Record
from framegate.runtime.ort import check_clip_graph
from framegate.runtime.session import Frames, Session, open_session, run_clips

Result = tuple[Session, dict[str, Any]]  # what ran, and what it found
WARMUP_BLOCK = 50


class Job(Record):
    """What one process is to do; `kind` names a function of JOBS."""

    kind: Literal["pair", "solo", "accuracy", "offline_search", "offline", "server", "camera", "kept", "streams"]
    bundle: Path
    runtime: str
    threads: int
    seed: int = 0
    parent: Path | None = None
    parent_runtime: str = "ort-cpu"
    slowdown: float = 0.0  # of the candidate, on purpose: 0.03 makes every step 3 % slower
    clips: Path | None = None  # timed jobs: npy, u8 [V,T,H,W,3]
    blocks: int = 0
    calls: int = 0
    count: int = 0  # accuracy, kept: clips on stdin
    batch: int = 1
    settings: dict[str, Any] = Field(default_factory=dict)  # scenarios: theirs
    keep: Path | None = None  # kept: npy, bool [clip, T], the frames that were seen
    lengths: tuple[int, ...] = ()  # streams: frames of each on stdin, falling


def pair(job: Job, stream: BufferedReader) -> Result:
    """Timed blocks of the candidate beside its parent; which of them is opened first is drawn."""
    assert job.parent
    opened: dict[str, Session] = {}
    order = ("candidate", "parent") if np.random.default_rng(job.seed + 1).random() < 0.5 else ("parent", "candidate")
    for side in order:
        where = (job.bundle, job.runtime) if side == "candidate" else (job.parent, job.parent_runtime)
        opened[side] = open_session(*where, job.threads)
    sides = [opened["candidate"], opened["parent"]]
    if job.slowdown:  # the parent by nothing: what slowing down itself costs is in both times
        sides = [Slowed(session, share) for session, share in zip(sides, (job.slowdown, 0.0), strict=True)]
    clips = _clips(job)
    mine, theirs = (Lane(session, clips, time.perf_counter_ns) for session in sides)
    found = time_pair(mine, theirs, job.blocks, job.calls, job.seed)
    return opened["candidate"], {
        "candidate_ns": found.candidate_ns,
        "parent_ns": found.parent_ns,
        "candidate_first": found.candidate_first,
        **_answers(mine),
        "warmup_calls": found.warmup_calls,
        "stable": found.stable,
    }


def solo(job: Job, stream: BufferedReader) -> Result:
    """Timed steps in a row of one session alone, and what it takes in memory."""
    session = _open(job)
    lane = Lane(session, _clips(job), time.perf_counter_ns)
    ns, warmup, stable = time_solo(lane, job.calls, min(job.calls, WARMUP_BLOCK))
    return session, {
        "solo_ns": ns,
        **_answers(lane),
        "warmup_calls": warmup,
        "stable": stable,
        "memory_bytes": peak_memory_bytes() or 0,  # 0: the kernel does not say
    }


def accuracy(job: Job, stream: BufferedReader) -> Result:
    """Clip logits of all clips on the stream, after proof that both graphs of the bundle compute the same."""
    check_clip_graph(Bundle.load(job.bundle))
    session = _open(job)
    answers = [run_clips(session, clips, job.batch) for clips in _batches(job, session, stream)]
    return session, {"logits": np.concatenate(answers)}


def offline_search(job: Job, stream: BufferedReader) -> Result:
    """A first look at every batch size."""
    session, settings = _open(job), OfflineSettings.model_validate(job.settings)
    return session, search_offline(session, _clips(job), settings, WallClock())


def offline(job: Job, stream: BufferedReader) -> Result:
    """Steps of `batch` streams in lockstep."""
    session = _open(job)
    return session, {"offline_ns": time_offline(session, _clips(job), job.batch, job.calls, WallClock())}


def server(job: Job, stream: BufferedReader) -> Result:
    """Requests that arrive at random, batched as they wait."""
    session, settings = _open(job), ServerSettings.model_validate(job.settings)
    return session, time_server(session, _clips(job), settings, job.seed, WallClock())


def camera(job: Job, stream: BufferedReader) -> Result:
    """How many cameras one core holds, with frames from memory."""
    core = pin_to_one_core()
    session, settings = _open(job), CameraSettings.model_validate(job.settings)
    found = find_frame_streams(session, _clips(job), settings, WallClock()).arrays()
    return session, {**found, "camera_core": np.array([-1 if core is None else core])}


def kept(job: Job, stream: BufferedReader) -> Result:
    """Clip logits when only some frames were seen."""
    assert job.keep
    session, keep, start = _open(job), np.load(job.keep, allow_pickle=False), 0
    answers = []
    for clips in _batches(job, session, stream):
        answers.append(answer_kept(session, clips, keep[start : start + len(clips)]))
        start += len(clips)
    return session, {"logits": np.concatenate(answers)}


def streams(job: Job, stream: BufferedReader) -> Result:
    """The top label of every frame of untrimmed streams, the state never reset."""
    session = _open(job)
    frame = (session.clip.height, session.clip.width, 3)
    alive = [sum(length > t for length in job.lengths) for t in range(max(job.lengths))]
    return session, run_streams(session, (_read(stream, (n, *frame)) for n in alive), job.lengths)


JOBS: dict[str, Callable[[Job, BufferedReader], Result]] = {
    job.__name__: job for job in (pair, solo, accuracy, offline_search, offline, server, camera, kept, streams)
}


def _open(job: Job) -> Session:
    return open_session(job.bundle, job.runtime, job.threads)


def _clips(job: Job) -> Frames:
    """u8 [V,T,H,W,3]: the clips that timed jobs walk through."""
    assert job.clips
    found: Frames = np.load(job.clips, allow_pickle=False)
    return found


def _batches(job: Job, session: Session, stream: BufferedReader) -> Iterator[Frames]:
    """u8 [<= batch,T,H,W,3]: `count` clips from the stream."""
    spec = session.clip
    for start in range(0, job.count, job.batch):
        yield _read(stream, (min(job.batch, job.count - start), spec.frames, spec.height, spec.width, 3))


def _answers(lane: Lane) -> dict[str, Any]:
    """Clip numbers and logits of the clips that were walked to their end."""
    return {
        "answer_clips": np.array([clip for clip, _ in lane.answers], np.int64),
        "answer_logits": np.array([logits for _, logits in lane.answers], np.float32),
    }


def _read(stream: BufferedReader, shape: tuple[int, ...]) -> Frames:
    clips = np.empty(shape, np.uint8)
    if stream.readinto(clips.reshape(-1).data) != clips.nbytes:
        raise FramegateError("the stream of clips ended early")
    return clips


def main(argv: list[str]) -> None:
    """JOB.json OUT.npz; see `launch.answer`."""
    job, stream = Job.read(Path(argv[0])), cast(BufferedReader, sys.stdin.buffer)

    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        session, arrays = JOBS[job.kind](job, stream)
        return arrays, asdict(session.info)

    answer(Path(argv[1]), work)


if __name__ == "__main__":
    main(sys.argv[1:])
