"""What one candidate does on this host: latency beside its parent, accuracy through its artifact, phases.

Everything that opens a runtime happens in worker processes; here they are started, fed and written down.
Whatever goes wrong with a candidate is a result (`skipped` or `failed`, with the reason), never an exception.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from framegate.bench.facts import accuracy_facts, latency_facts
from framegate.bench.host import host_class, host_conditions, host_digest
from framegate.bench.launch import WORKER, WorkerStopped, launch
from framegate.bench.phases import video_phases
from framegate.bench.samples import Samples, SplitSamples
from framegate.bench.worker import Job
from framegate.contract import (
    Bundle,
    BundleInfo,
    CandidateName,
    DataError,
    FramegateError,
    Measurement,
    Record,
    Split,
    digest_of,
    sha256_file,
)
from framegate.index import ShardReader, centre_window
from framegate.runtime.session import Floats, Frames

Count = Annotated[int, Field(ge=1)]
Arrays = dict[str, Any]
log = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("val", "test")
LATENCY_CLIPS = 16
AUDIT_TOLERANCE = 1e-2  # of the largest logit: what the audit looks for is another answer, not rounding


class BenchSettings(Record):
    """The `bench` section; see conf/bench."""

    pairs: Count = 3
    blocks: Count = 16
    calls_per_block: Count = 50
    threads: Count = 1
    accuracy_threads: Count = 2
    batch: Count = 16
    seed: int = 0
    timeout_s: Annotated[float, Field(gt=0)] = 900.0

    @property
    def digest(self) -> str:
        """Of all that decides the result."""
        return digest_of(self.model_dump(mode="json", exclude={"timeout_s"}))


def measure(
    candidate: CandidateName,
    bundle: Path,
    parent: Path,
    reader: ShardReader,
    settings: BenchSettings,
    out: Path,
    videos: Sequence[Path] = (),
    command: Sequence[str] = WORKER,
) -> Measurement:
    """Measure and write out/measurement.json (last) and out/samples.npz.

    `videos`: a few files of the test split, for the phases before inference. `command`: the worker's.
    """
    host = host_class()
    empty = Measurement(
        candidate=str(candidate),
        status="failed",
        inputs=_digests(bundle, parent, reader, settings, host),
        host_class=host,
        host_conditions=host_conditions(),
    )
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="framegate-") as scratch:
            run = _Run(candidate.runtime, bundle, parent, reader, settings, Path(scratch), command)
            found = _measured(empty, run, videos, out)
    except WorkerStopped as stop:
        found = empty.model_copy(update={"status": stop.status, "reason": stop.reason})
    except FramegateError as error:
        found = empty.model_copy(update={"reason": str(error)})
    found.write(out / "measurement.json")
    log.info("%s", summary(found, time.perf_counter() - start))
    return found


class _Run:
    """The processes of one candidate: what they are given and what they bring back."""

    def __init__(
        self,
        runtime: str,
        bundle: Path,
        parent: Path,
        reader: ShardReader,
        settings: BenchSettings,
        scratch: Path,
        command: Sequence[str],
    ) -> None:
        self.bundle, self.parent, self.reader, self.settings = bundle, parent, reader, settings
        self._runtime, self._scratch, self._command = runtime, scratch, command

    def latency(self) -> tuple[list[Arrays], dict[str, Any]]:
        """Arrays of each fresh process that timed the pair; what the session said of itself."""
        np.save(self._scratch / "clips.npy", self._latency_clips())
        results: list[Arrays] = []
        session: dict[str, Any] = {}
        for number in range(self.settings.pairs):
            job = Job(
                kind="latency",
                bundle=self.bundle,
                parent=self.parent,
                runtime=self._runtime,
                threads=self.settings.threads,
                clips=self._scratch / "clips.npy",
                blocks=self.settings.blocks,
                calls=self.settings.calls_per_block,
                seed=self.settings.seed * 1000 + number,
            )
            arrays, session = self._launch(job, f"pair{number}.npz")
            results.append(arrays)
        return results, session

    def accuracy(self, positions: Sequence[int]) -> Arrays:
        """Logits of the clips, and answers to what was audited in the latency runs."""
        job = Job(
            kind="accuracy",
            bundle=self.bundle,
            runtime=self._runtime,
            threads=self.settings.accuracy_threads,
            count=len(positions),
            batch=self.settings.batch,
            answers=tuple(self._scratch / f"pair{n}.npz" for n in range(self.settings.pairs)),
        )
        feed = (self._window(position).tobytes() for position in positions)
        return self._launch(job, "accuracy.npz", feed)[0]

    def _launch(self, job: Job, name: str, feed: Iterable[bytes] = ()) -> tuple[Arrays, dict[str, Any]]:
        return launch(job, self._scratch / name, self.settings.timeout_s, feed, self._command)

    def _window(self, position: int) -> Frames:
        """The centre window that every evaluation looks at: u8 [T,H,W,3]."""
        index = self.reader.index
        start = centre_window(index.clips[position].frames, index.spec.frames)
        return self.reader.window(position, start, index.spec.frames)

    def _latency_clips(self) -> Frames:
        """u8 [V,T,H,W,3]: some test clips, chosen by the seed."""
        positions = self.reader.index.split("test")
        if not positions:
            raise DataError("the test split holds no clip: latency needs real frames")
        rng = np.random.default_rng(self.settings.seed)
        chosen = rng.permutation(positions)[:LATENCY_CLIPS]
        return np.stack([self._window(int(position)) for position in chosen])


def _measured(empty: Measurement, run: _Run, videos: Sequence[Path], out: Path) -> Measurement:
    """All facts of a candidate; samples.npz is written on the way."""
    bundle, index = Bundle.load(run.bundle), run.reader.index
    _check_task(bundle, run.reader)
    _check_task(Bundle.load(run.parent), run.reader)
    pairs, session = run.latency()
    positions = [position for split in SPLITS for position in index.split(split)]
    found = run.accuracy(positions)
    _check_answers(pairs, found["answer_logits"])
    samples = Samples(
        candidate_ns=np.stack([pair["candidate_ns"] for pair in pairs]),
        parent_ns=np.stack([pair["parent_ns"] for pair in pairs]),
        candidate_first=np.stack([pair["candidate_first"] for pair in pairs]),
        splits=_by_split(run.reader, positions, found["logits"]),
    )
    samples.save(out / "samples.npz")
    wrong = int((~np.isfinite(found["logits"]).all(axis=1)).sum())
    phases_ms = video_phases(videos, index.spec)
    return empty.model_copy(
        update={
            "status": "failed" if wrong else "measured",
            "reason": f"logits of {wrong} of {len(positions)} clips are not finite" if wrong else "",
            "session": session,
            "accuracy": {s: accuracy_facts(c, bundle.info.labels) for s, c in samples.splits.items()},
            "latency": latency_facts(samples, phases_ms).model_copy(
                update={
                    "warmup_calls": sum(int(p["warmup_calls"]) for p in pairs),
                    "stable": all(bool(p["stable"]) for p in pairs),
                }
            ),
            "size_bytes": bundle.size_bytes,
            "parameters": bundle.info.parameters,
            "macs_per_frame": bundle.info.macs_per_frame,
            "samples_sha256": sha256_file(out / "samples.npz"),
        }
    )


def _check_task(bundle: Bundle, reader: ShardReader) -> None:
    """DataError when a bundle answers another question than the index asks."""
    info, index = bundle.info, reader.index
    if info.labels != index.labels or info.clip != index.spec:
        raise DataError(
            f"{bundle.path}: made for labels {list(info.labels)} and {info.clip}, the index has "
            f"{list(index.labels)} and {index.spec}; train and export again"
        )


def _check_answers(pairs: Sequence[Arrays], again: Floats) -> None:
    """FramegateError when a session answered otherwise while it was timed (the hole of MLPerf's TEST01)."""
    timed = np.concatenate([pair["answer_logits"] for pair in pairs])
    worst, scale = float(np.abs(timed - again).max()), max(1.0, float(np.abs(again).max()))
    if not worst <= AUDIT_TOLERANCE * scale:
        raise FramegateError(
            f"answers during the latency run differ from the accuracy run's by {worst:.3g} "
            f"(largest logit {scale:.3g}): what was timed is not what was judged"
        )


def _by_split(reader: ShardReader, positions: Sequence[int], logits: Any) -> dict[Split, SplitSamples]:
    clips = [reader.index.clips[position] for position in positions]
    number = {label: k for k, label in enumerate(reader.index.labels)}
    splits: dict[Split, SplitSamples] = {}
    for split in SPLITS:
        rows = [i for i, clip in enumerate(clips) if clip.split == split]
        if rows:
            splits[split] = SplitSamples(
                ids=np.array([clips[i].id for i in rows]),
                groups=np.array([clips[i].group for i in rows]),
                labels=np.array([number[clips[i].label] for i in rows], np.int64),
                logits=logits[rows],
            )
    return splits


def _digests(
    bundle: Path, parent: Path, reader: ShardReader, settings: BenchSettings, host: dict[str, Any]
) -> dict[str, str]:
    """What a measurement is a function of."""
    return {
        "bundle": _bundle_digest(bundle),
        "parent": _bundle_digest(parent),
        "index": reader.index.digest,
        "dataset": reader.index.dataset,
        "host_class": host_digest(host),
        "bench": settings.digest,
    }


def _bundle_digest(path: Path) -> str:
    """As bundle.json says; empty when it cannot be read (the reason then stands in the measurement)."""
    try:
        return BundleInfo.read(path / "bundle.json").digest
    except DataError:
        return ""


def summary(found: Measurement, seconds: float) -> str:
    """One line for the log."""
    if found.status != "measured" or found.latency is None:
        return f"{found.candidate}: {found.status}: {found.reason}"
    facts = found.latency
    accuracy = ", ".join(f"{split} {100 * a.accuracy:.1f} %" for split, a in found.accuracy.items())
    p50 = "unknown" if facts.p50_ms is None else f"{facts.p50_ms:.3f} ms"
    return (
        f"{found.candidate}: {accuracy}; step p50 {p50}, {facts.ratio_p50:.3f} of its parent's; "
        f"{facts.calls} calls in {facts.pairs} processes; {seconds:.1f} s"
    )
