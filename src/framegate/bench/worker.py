"""A fresh process that opens sessions, does one job and writes what it found: `python -m ... JOB OUT`.

It imports numpy and one runtime, nothing else: starts are part of the bill. Whatever kills it here cannot
kill the bench.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import numpy as np

from framegate.bench.latency import run_process
from framegate.contract import FramegateError, Record, RuntimeUnavailable, write_json
from framegate.runtime.session import Frames, Session, open_session, run_clips


class Job(Record):
    """What one process is to do."""

    kind: str  # latency: candidate beside parent; accuracy: logits of the clips that come in on stdin
    bundle: Path
    runtime: str
    threads: int
    seed: int = 0
    parent: Path | None = None
    clips: Path | None = None  # latency: npy, u8 [V,T,H,W,3]
    blocks: int = 0
    calls: int = 0
    count: int = 0  # accuracy: clips on stdin
    batch: int = 1
    answers: tuple[Path, ...] = ()  # accuracy: results of latency jobs, to be answered again


def time_pair(job: Job, candidate: Session) -> dict[str, Any]:
    """Timed blocks of the candidate and its parent, and some answers given meanwhile."""
    assert job.parent and job.clips
    parent = open_session(job.parent, "ort-cpu", job.threads)
    clips = np.load(job.clips, allow_pickle=False)
    found = run_process(candidate, parent, clips, job.blocks, job.calls, job.seed)
    return {
        "candidate_ns": found.candidate_ns,
        "parent_ns": found.parent_ns,
        "candidate_first": found.candidate_first,
        "answer_frames": np.concatenate([answer.frame for answer in found.answers]),
        "answer_states": np.concatenate([answer.state for answer in found.answers]),
        "answer_logits": np.concatenate([answer.logits for answer in found.answers]),
        "warmup_calls": found.warmup_calls,
        "stable": found.stable,
    }


def answer_clips(job: Job, session: Session, stream: BufferedReader) -> dict[str, Any]:
    """Clip logits of all clips on the stream, and this session's answers to the audited calls."""
    spec = session.clip
    shape = (spec.frames, spec.height, spec.width, 3)
    logits = np.empty((job.count, len(session.labels)), np.float32)
    for start in range(0, job.count, job.batch):
        clips = _read(stream, (min(job.batch, job.count - start), *shape))
        logits[start : start + len(clips)] = run_clips(session, clips, job.batch)
    again = [_answer_again(session, path) for path in job.answers]
    return {"logits": logits, "answer_logits": np.concatenate(again) if again else np.empty(0)}


def _read(stream: BufferedReader, shape: tuple[int, ...]) -> Frames:
    clips = np.empty(shape, np.uint8)
    if stream.readinto(clips.reshape(-1).data) != clips.nbytes:
        raise FramegateError("the stream of clips ended early")
    return clips


def _answer_again(session: Session, path: Path) -> Any:
    with np.load(path, allow_pickle=False) as kept:
        calls = zip(kept["answer_frames"], kept["answer_states"], strict=True)
        return np.concatenate([session.step(f[None], s[None])[0] for f, s in calls])


def run(job: Job, out: Path, stream: BufferedReader) -> dict[str, Any]:
    """Do the job; the arrays go to `out`, the returned facts say how it went."""
    try:
        session = open_session(job.bundle, job.runtime, job.threads)
    except RuntimeUnavailable as error:
        return {"status": "skipped", "reason": str(error)}
    except FramegateError as error:
        return {"status": "failed", "reason": str(error)}
    arrays = time_pair(job, session) if job.kind == "latency" else answer_clips(job, session, stream)
    with out.open("wb") as file:
        np.savez(file, **arrays)
    return {"status": "done", "reason": "", "session": asdict(session.info)}


def main(argv: list[str]) -> None:
    """JOB.json OUT.npz; the outcome is written to OUT.json, last."""
    job, out = Job.read(Path(argv[0])), Path(argv[1])
    write_json(out.with_suffix(".json"), run(job, out, cast(BufferedReader, sys.stdin.buffer)))


if __name__ == "__main__":
    main(sys.argv[1:])
