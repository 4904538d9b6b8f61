"""The fresh processes of one candidate: what they are given and what they bring back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from framegate.bench.launch import WORKER, launch
from framegate.bench.settings import BenchSettings
from framegate.bench.worker import Job
from framegate.contract import CandidateName, DataError
from framegate.index import ShardReader, centre_window
from framegate.runtime.session import Floats, Frames

Arrays = dict[str, Any]
TIMED_CLIPS = 16  # of each process, walked frame by frame


@dataclass(frozen=True, slots=True)
class Bench:
    """What one measurement is made of. `videos`: a few test files, for the phases before inference."""

    candidate: CandidateName
    bundle: Path
    parent: Path
    reader: ShardReader
    settings: BenchSettings
    videos: Sequence[Path] = ()
    command: Sequence[str] = WORKER  # of a worker process


class Processes:
    """The processes of one candidate: what they are given and what they bring back."""

    def __init__(self, bench: Bench, scratch: Path) -> None:
        self.bench, self.scratch = bench, scratch
        self.session: dict[str, Any] = {}
        self.audit: list[tuple[str, Floats]] = []  # id of a clip, its logits while time was taken

    def timed(self, kind: Literal["pair", "solo"], count: int, calls: int) -> list[Arrays]:
        """Arrays of `count` fresh processes that timed steps, each on test clips of its own."""
        settings, results = self.bench.settings, []
        for number in range(count):
            seed = settings.seed * 1000 + number + (500 if kind == "solo" else 0)
            ids, clips = self.clips(seed)
            job = self.job(kind, seed, parent=self.bench.parent, clips=clips, blocks=settings.blocks, calls=calls)
            arrays = self.run(job)
            told = zip(arrays["answer_clips"], arrays["answer_logits"], strict=True)
            self.audit += [(ids[int(clip)], logits) for clip, logits in told]
            results.append(arrays)
        return results

    def parent_pairs(self, count: int, calls: int) -> list[Arrays]:
        """Arrays of `count` fresh processes in which two sessions of the parent were timed beside each other."""
        parent, blocks = self.bench.parent, self.bench.settings.blocks
        seeds = [self.bench.settings.seed * 1000 + 900 + number for number in range(count)]
        found = []
        for seed in seeds:
            more = {"bundle": parent, "runtime": "ort-cpu", "parent": parent, "blocks": blocks, "calls": calls}
            found.append(self.run(self.job("pair", seed, clips=self.clips(seed)[1], **more)))
        return found

    def accuracy(self, positions: Sequence[int]) -> Floats:
        """Logits [n,K] of the clips at these positions of the index."""
        settings = self.bench.settings
        job = self.job("accuracy", threads=settings.accuracy_threads, count=len(positions), batch=settings.batch)
        logits: Floats = self.run(job, self.windows(positions))["logits"]
        return logits

    def job(self, kind: str, seed: int = 0, clips: Frames | None = None, **more: Any) -> Job:
        """A job for a fresh process of this candidate; `clips` u8 [V,T,H,W,3] are handed over as a file."""
        if clips is not None:
            np.save(self.scratch / "clips.npy", clips)
            more["clips"] = self.scratch / "clips.npy"
        common = {"threads": self.bench.settings.threads, "runtime": self.bench.candidate.runtime}
        return Job.model_validate({"kind": kind, "seed": seed, "bundle": self.bench.bundle, **common, **more})

    def run(self, job: Job, feed: Iterable[bytes] = ()) -> Arrays:
        """The arrays that a job brings back; WorkerStopped when it brings none."""
        timeout_s, command = self.bench.settings.timeout_s, self.bench.command
        arrays, self.session = launch(job, self.scratch / "found.npz", timeout_s, feed, command)
        return arrays

    def windows(self, positions: Sequence[int]) -> Iterator[bytes]:
        """The centre windows that every evaluation looks at, for a worker's stdin."""
        return (self._window(position).tobytes() for position in positions)

    def _window(self, position: int) -> Frames:
        """The centre window that every evaluation looks at: u8 [T,H,W,3]."""
        index = self.bench.reader.index
        start = centre_window(index.clips[position].frames, index.spec.frames)
        return self.bench.reader.window(position, start, index.spec.frames)

    def clips(self, seed: int) -> tuple[list[str], Frames]:
        """Some test clips, drawn by the seed: ids, u8 [V,T,H,W,3]."""
        index = self.bench.reader.index
        positions = index.split("test")
        if not positions:
            raise DataError("the test split holds no clip: latency needs real frames")
        drawn = np.random.default_rng(seed).permutation(positions)[:TIMED_CLIPS]
        return [index.clips[int(i)].id for i in drawn], np.stack([self._window(int(i)) for i in drawn])
