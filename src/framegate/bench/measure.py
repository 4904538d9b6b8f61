"""What one candidate does on this host: latency beside its parent, accuracy through its artifact, phases.

Everything that opens a runtime happens in worker processes; here they are started, fed and written down.
Whatever goes wrong with a candidate is a result (`skipped` or `failed`, with the reason), never an exception.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench.facts import accuracy_facts, audit, latency_facts, scenarios_of, streams_of
from framegate.bench.host import host_class, host_conditions, host_digest
from framegate.bench.launch import WorkerStopped
from framegate.bench.phases import video_phases
from framegate.bench.processes import Bench, Processes
from framegate.bench.samples import Samples, SplitSamples
from framegate.bench.scenarios import check_scenarios, measure_scenarios
from framegate.bench.settings import BenchSettings, ScenarioSettings
from framegate.contract import (
    Bundle,
    BundleInfo,
    DataError,
    FramegateError,
    Measurement,
    Split,
    sha256_file,
)
from framegate.index import ShardReader
from framegate.runtime.session import Floats

log = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("val", "test")


def measure(bench: Bench, out: Path) -> Measurement:
    """Latency and accuracy, into out/measurement.json (last) and out/samples.npz."""
    return _written(bench, out, (*SPLITS,))


def measure_again(bench: Bench, out: Path) -> Measurement:
    """Latency alone, in fresh processes, and the parent beside itself meanwhile: what confirms a choice."""
    return _written(bench, out, ())


def _written(bench: Bench, out: Path, splits: tuple[Split, ...]) -> Measurement:
    host = host_class()
    empty = Measurement(
        candidate=str(bench.candidate),
        status="failed",
        inputs=inputs_of(bench, host),
        host_class=host,
        host_conditions=host_conditions(),
    )
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="framegate-") as scratch:
            found = _measured(empty, Processes(bench, Path(scratch)), splits, out)
    except WorkerStopped as stop:
        found = empty.model_copy(update={"status": stop.status, "reason": stop.reason})
    except FramegateError as error:
        found = empty.model_copy(update={"reason": str(error)})
    found.write(out / "measurement.json")
    log.info("%s", summary(found, time.perf_counter() - start))
    return found


def _measured(empty: Measurement, run: Processes, splits: tuple[Split, ...], out: Path) -> Measurement:
    """All facts of a candidate; samples.npz is written on the way."""
    bench = run.bench
    bundle, index, settings = Bundle.load(bench.bundle), bench.reader.index, bench.settings
    _check_task(bundle, bench.reader)
    _check_task(Bundle.load(bench.parent), bench.reader)
    asked = settings.scenarios if splits else ScenarioSettings()  # what confirms a choice is its latency
    check_scenarios(asked, index, settings.timeout_s)
    meets_itself = str(bench.candidate) == bench.candidate.parent
    count = max(settings.pairs, settings.confirm_pairs) if meets_itself else settings.pairs
    pairs = run.timed("pair", count, settings.calls_per_block)
    solos = run.timed("solo", settings.solo_processes, settings.solo_calls)
    session = run.session
    positions = [position for split in splits for position in index.split(split)]
    logits = run.accuracy(positions) if positions else np.empty((0, len(index.labels)), np.float32)
    samples = Samples(
        candidate_ns=np.stack([pair["candidate_ns"] for pair in pairs]),
        parent_ns=np.stack([pair["parent_ns"] for pair in pairs]),
        candidate_first=np.stack([pair["candidate_first"] for pair in pairs]),
        solo_ns=np.stack([solo["solo_ns"] for solo in solos]),
        audit_ids=np.array([clip for clip, _ in run.audit]),
        audit_logits=np.array([logits for _, logits in run.audit], np.float32).reshape(-1, len(index.labels)),
        splits=_by_split(bench.reader, positions, logits, splits),
        extra=measure_scenarios(run, asked, index.split("test")) if splits else _parent_beside_itself(run, settings),
    )
    samples.save(out / "samples.npz")
    wrong = int((~np.isfinite(logits)).any(axis=1).sum())
    reason = f"logits of {wrong} of {len(positions)} clips are not finite" if wrong else ""
    if not reason and "test" in samples.splits:
        reason = audit(samples, samples.splits["test"]) or ""
    facts = latency_facts(samples, video_phases(bench.videos, index.spec))
    settled = [bool(one["stable"]) for one in (*pairs, *solos)]
    warmup = sum(int(one["warmup_calls"]) for one in (*pairs, *solos))
    return empty.model_copy(
        update={
            "status": "failed" if reason else "measured",
            "reason": reason,
            "session": session,
            "accuracy": {s: accuracy_facts(c, bundle.info.labels) for s, c in samples.splits.items()},
            "latency": facts.model_copy(update={"warmup_calls": warmup, "stable": all(settled)}),
            "scenarios": scenarios_of(samples, asked, bundle.info.labels),
            "streams": streams_of(samples, asked, bundle.info.labels, index.spec.fps),
            "size_bytes": bundle.size_bytes,
            "memory_bytes": max((int(one["memory_bytes"]) for one in solos), default=0) or None,
            "parameters": bundle.info.parameters,
            "macs_per_frame": bundle.info.macs_per_frame,
            "samples_sha256": sha256_file(out / "samples.npz"),
        }
    )


def _parent_beside_itself(run: Processes, settings: BenchSettings) -> dict[str, NDArray[np.int64]]:
    """Two sessions of the parent in the same fresh processes: how far a ratio of nothing is from 1, here and now."""
    found = run.parent_pairs(settings.pairs, settings.calls_per_block)
    return {f"self_{side}_ns": np.stack([one[f"{side}_ns"] for one in found]) for side in ("candidate", "parent")}


def _check_task(bundle: Bundle, reader: ShardReader) -> None:
    """DataError when a bundle answers another question than the index asks."""
    info, index = bundle.info, reader.index
    if info.labels != index.labels or info.clip != index.spec:
        raise DataError(
            f"{bundle.path}: made for labels {list(info.labels)} and {info.clip}, the index has "
            f"{list(index.labels)} and {index.spec}; train and export again"
        )


def _by_split(
    reader: ShardReader, positions: Sequence[int], logits: Floats, names: Sequence[Split]
) -> dict[Split, SplitSamples]:
    clips = [reader.index.clips[position] for position in positions]
    number = {label: k for k, label in enumerate(reader.index.labels)}
    splits: dict[Split, SplitSamples] = {}
    for split in names:
        rows = [i for i, clip in enumerate(clips) if clip.split == split]
        if rows:
            splits[split] = SplitSamples(
                ids=np.array([clips[i].id for i in rows]),
                groups=np.array([clips[i].group for i in rows]),
                labels=np.array([number[clips[i].label] for i in rows], np.int64),
                logits=logits[rows],
            )
    return splits


def inputs_of(bench: Bench, host: dict[str, Any]) -> dict[str, str]:
    """What a measurement is a function of."""
    return {
        "bundle": _bundle_digest(bench.bundle),
        "parent": _bundle_digest(bench.parent),
        "index": bench.reader.index.digest,
        "dataset": bench.reader.index.dataset,
        "host_class": host_digest(host),
        "bench": bench.settings.digest,
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
    ratio = "unknown" if facts.ratio_p50 is None else f"{facts.ratio_p50:.3f}"
    return (
        f"{found.candidate}: {accuracy or 'latency again'}; step p50 {p50}, {ratio} of its parent's; "
        f"{facts.pairs} pairs and {facts.processes} processes; {seconds:.1f} s"
    )
