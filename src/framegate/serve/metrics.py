"""What Prometheus sees. Names end in their unit; `/metrics` shows them.

What happens with every step and request is counted together, `TOGETHER` at a time: after a step the counters' code has
left the processor's caches, and counted at once it took a fifth of the time that the server needs for a request.
"""

from __future__ import annotations

import math
import os
from collections import Counter as TopCounts
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from framegate.contract import BundleInfo
from framegate.runtime.session import Floats
from framegate.serve.batcher import Batch

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)
PHASES = ("decode", "queue", "infer", "total")
TOGETHER = 64


class Metrics:
    """Counters of one process; `low_confidence`: an answer below it counts as one of low confidence."""

    def __init__(self, low_confidence: float = 0.5) -> None:
        self._low, self.registry = low_confidence, CollectorRegistry()
        self._later: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        registry = self.registry
        latency = Histogram(
            "framegate_latency_seconds",
            "Seconds by phase, without /v1/predict: decode of a live frame, total of one or of a request of the Open "
            "Inference Protocol; with it, of a batch: infer, and queue, its longest wait",
            ["phase"],
            buckets=SECONDS,
            registry=registry,
        )
        self._phase = {phase: latency.labels(phase) for phase in PHASES}
        self._rows = Histogram("framegate_batch_rows", "Frames answered by one step", buckets=ROWS, registry=registry)
        self._queue = Gauge(
            "framegate_queue_jobs",
            "Jobs of the last batch: what waited together",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._requests = Counter(
            "framegate_requests_total",
            "Answered requests, by route and outcome",
            ["route", "outcome"],
            registry=registry,
        )
        self._dropped = Counter(
            "framegate_dropped_frames_total", "Live frames that a newer one replaced", registry=registry
        )
        self._missed = Counter(
            "framegate_deadline_missed_total", "Frames and requests whose turn came too late", registry=registry
        )
        self._streams = Gauge(
            "framegate_streams",
            "Streams that are open, by kind",
            ["kind"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._answers = Counter("framegate_answers_total", "Answers, by top label", ["label"], registry=registry)
        self._low_answers = Counter(
            "framegate_low_confidence_answers_total", "Answers whose top label has a low probability", registry=registry
        )
        self._shown: list[Gauge] = []  # of the version that serves
        self._outcomes: dict[tuple[str, str], Counter] = {}
        self._labels: dict[str, Counter] = {}
        self._count_versions(registry)

    def _count_versions(self, registry: CollectorRegistry) -> None:
        """What is known of the versions that serve, stay out, or run beside."""
        self._trained = Gauge(
            "framegate_training_share",
            "Share of each label among the training clips: what framegate_answers_total drifts from",
            ["label"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._version = Gauge(
            "framegate_model_info",
            "1 for the version that new work goes to",
            ["version", "bundle", "digest", "runtime"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._rejections = Counter(
            "framegate_rejected_bundles_total", "Folders that stayed out, by reason", ["reason"], registry=registry
        )
        self._rejected = Gauge(
            "framegate_rejected_bundle",
            "1 while what lies in the served folder stays out",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._shadow = Counter(
            "framegate_shadow_frames_total", "Frames shown to the shadow, by outcome", ["outcome"], registry=registry
        )
        self._shadow_seconds = Histogram(
            "framegate_shadow_latency_seconds", "Seconds of a shadow's answer", buckets=SECONDS, registry=registry
        )

    def text(self) -> bytes:
        """What /metrics shows: this process, or all workers where there are several."""
        self.flush()
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # set by the supervisor, read by prometheus_client on import
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    # --- work ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Count what waits to be counted; from any thread."""
        while True:
            try:
                count, values = self._later.popleft()
            except IndexError:
                return
            count(*values)

    def _soon(self, count: Callable[..., None], *values: Any) -> None:
        self._later.append((count, values))
        if len(self._later) >= TOGETHER:
            self.flush()

    def observe_batch(self, labels: Sequence[str], batch: Batch) -> None:
        """One step of the champion."""
        self._soon(self._count_batch, labels, batch)

    def observe(self, phase: str, seconds: float) -> None:
        """A phase of one live frame or request of the protocol: decode or total."""
        self._soon(self._phase[phase].observe, seconds)

    def request(self, route: str, outcome: str) -> None:
        """One request has its answer; `outcome`: an HTTP status, a gRPC code, or how a WebSocket was closed."""
        self._soon(self._count_request, route, outcome)

    def _count_batch(self, labels: Sequence[str], batch: Batch) -> None:
        if batch.expired:
            self._missed.inc(batch.expired)
        if batch.logits is not None:
            self._rows.observe(batch.rows)
            self._queue.set(batch.jobs)
            self._phase["queue"].observe(batch.waited_s)
            self._phase["infer"].observe(batch.infer_s)
            self._answered(labels, batch.logits)

    def _answered(self, labels: Sequence[str], logits: Floats) -> None:
        """Answers [N,K]: their labels and how sure they are."""
        if len(logits) == 1:  # without numpy's overhead per call: an idle server answers one by one
            row = logits[0].tolist()
            largest = max(row)
            tops, sure = [row.index(largest)], [1 / sum(math.exp(one - largest) for one in row)]
        else:
            tops = logits.argmax(axis=1).tolist()
            sure = (1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)).tolist()
        for top, count in TopCounts(tops).items():
            label = labels[top]
            if label not in self._labels:
                self._labels[label] = self._answers.labels(label)
            self._labels[label].inc(count)
        if low := sum(not one >= self._low for one in sure):
            self._low_answers.inc(low)

    def _count_request(self, route: str, outcome: str) -> None:
        key = (route, outcome)
        if key not in self._outcomes:
            self._outcomes[key] = self._requests.labels(*key)
        self._outcomes[key].inc()

    def dropped(self, frames: int) -> None:
        """Live frames that were replaced before their turn."""
        self._dropped.inc(frames)

    def missed(self) -> None:
        """A request that waited too long for its turn in its sequence."""
        self._missed.inc()

    def streams(self, kind: str, change: int) -> None:
        """A stream was opened (1) or closed (-1)."""
        self._streams.labels(kind).inc(change)

    # --- versions -----------------------------------------------------------------------------

    def show_version(self, info: BundleInfo, version: str, runtime: str) -> None:
        """What serves now, and how its training labels were spread, when the bundle says."""
        for gauge in self._shown:
            gauge.set(0)
        self._shown = [self._version.labels(version, info.name, info.digest, runtime)]
        self._shown[0].set(1)
        total = sum(info.lineage.label_counts)
        for label, count in zip(info.labels, info.lineage.label_counts, strict=False):
            self._shown.append(self._trained.labels(label))
            self._shown[-1].set(count / total if total else 0.0)

    def show_accepted(self) -> None:
        """What lies in the served folder serves."""
        self._rejected.set(0)

    def show_rejected(self, reason: str) -> None:
        """A folder stays out."""
        self._rejected.set(1)
        self._rejections.labels(reason).inc()

    # --- shadow -------------------------------------------------------------------------------

    def shadow_answered(self, agreed: bool, seconds: float) -> None:
        """The shadow answered a frame."""
        self._shadow.labels("agreed" if agreed else "disagreed").inc()
        self._shadow_seconds.observe(seconds)

    def shadow_skipped(self, frames: int) -> None:
        """Frames passed the shadow by."""
        self._shadow.labels("skipped").inc(frames)
