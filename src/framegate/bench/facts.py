"""From raw samples to the numbers of a measurement: how often a candidate is right, and how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench import stats
from framegate.bench.camera import CameraSettings
from framegate.bench.samples import Samples, SplitSamples
from framegate.bench.scenario import OfflineSettings, ServerSettings
from framegate.bench.scenario_facts import camera_facts, offline_facts, server_facts, stream_facts
from framegate.bench.settings import ScenarioSettings
from framegate.bench.streams import StreamSettings
from framegate.contract import (
    AccuracyFacts,
    DataError,
    LatencyFacts,
    Measurement,
    Record,
    Scenario,
    ScenarioFacts,
    StreamFacts,
)

TOP = 5
AUDIT_MARGIN = 0.1
SCENARIOS: dict[str, type[Record]] = {
    "offline": OfflineSettings,
    "server": ServerSettings,
    "camera": CameraSettings,
    "streams": StreamSettings,
}
AUDIT_TOLERANCE = 0.05  # of the largest logit: what is looked for is another answer, not rounding


def accuracy_facts(clips: SplitSamples, labels: tuple[str, ...]) -> AccuracyFacts:
    """Accuracy, mean class accuracy, F1 and recall per class; top-5 where there are more classes.

    A class without a clip in the split has no recall and no part in the means.
    """
    counts = confusion(clips, len(labels))
    hits, support, predicted = counts.diagonal(), counts.sum(axis=1), counts[:, :-1].sum(axis=0)
    present = [k for k in range(len(labels)) if support[k]]
    recall = {labels[k]: float(hits[k] / support[k]) for k in present}
    f1 = {labels[k]: float(2 * hits[k] / (support[k] + predicted[k])) for k in present}
    return AccuracyFacts(
        n=len(clips.labels),
        groups=len(np.unique(clips.groups)),
        accuracy=float(clips.right.mean()),
        mean_class_accuracy=float(np.mean(list(recall.values()))),
        macro_f1=float(np.mean(list(f1.values()))),
        f1_per_class=f1,
        recall_per_class=recall,
        top5=_top_accuracy(clips) if len(labels) > TOP else None,
    )


def latency_facts(samples: Samples, phases_ms: dict[str, float]) -> LatencyFacts:
    """The numbers of a measurement, from its raw samples."""
    flat = samples.solo_ns.ravel() / 1e6
    p50, p90, p99 = (stats.percentile(flat, share) for share in (0.5, 0.9, 0.99))
    median = stats.ratio_p50(samples.candidate_ns, samples.parent_ns)
    tail = stats.ratio_p99(samples.candidate_ns, samples.parent_ns)
    return LatencyFacts(
        calls=flat.size,
        pairs=len(samples.candidate_ns),
        processes=len(samples.solo_ns),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        parent_p50_ms=stats.percentile(samples.parent_ns.ravel() / 1e6, 0.5),
        ratio_p50=median.value,
        ratio_p50_low=median.low,
        ratio_p50_high=median.high,
        ratio_p99=tail.value,
        ratio_p99_low=tail.low,
        ratio_p99_high=tail.high,
        phases_ms=phases_ms | ({"infer": p50} if p50 is not None else {}),
    )


def audit(samples: Samples, judged: SplitSamples) -> str | None:
    """How answers given while time was taken differ from those that were judged; None when they agree.

    Agreement: the same top label wherever the judged one leads by more than AUDIT_MARGIN, and every logit within
    AUDIT_TOLERANCE of the largest; the judged answers come from batches, which round otherwise.
    """
    place = {str(clip): i for i, clip in enumerate(judged.ids)}
    if not len(samples.audit_ids) or not {str(clip) for clip in samples.audit_ids} <= place.keys():
        return "answers given while time was taken were not kept, or are not of clips of the test split"
    expected = judged.logits[[place[str(clip)] for clip in samples.audit_ids]]
    if samples.audit_logits.shape != expected.shape:
        return f"answers given while time was taken are {samples.audit_logits.shape}, the judged ones {expected.shape}"
    scale = max(1.0, float(np.abs(expected).max()))
    worst = float(np.abs(samples.audit_logits - expected).max())
    ordered = np.sort(expected, axis=1)
    sure = ordered[:, -1] - ordered[:, -2:-1].max(axis=1, initial=-np.inf) > AUDIT_MARGIN
    labels = int((sure & (samples.audit_logits.argmax(axis=1) != expected.argmax(axis=1))).sum())
    if worst <= AUDIT_TOLERANCE * scale and not labels:
        return None
    return (
        f"answers given while time was taken differ from the judged ones by {worst:.3g} "
        f"(largest logit {scale:.3g}), the top label in {labels} clips: what was timed is not what was judged"
    )


def scenarios_of(samples: Samples, asked: ScenarioSettings, labels: tuple[str, ...]) -> dict[Scenario, ScenarioFacts]:
    """The facts of every scenario that was measured."""
    found: dict[Scenario, ScenarioFacts] = {}
    if asked.offline:
        found["offline"] = offline_facts(samples.extra, asked.offline)
    if asked.server:
        found["server"] = server_facts(samples.extra, asked.server)
    if asked.camera:
        found["camera"] = camera_facts(samples.extra, asked.camera, _under_drops(samples, labels))
    return found


def streams_of(samples: Samples, asked: ScenarioSettings, labels: tuple[str, ...], fps: float) -> StreamFacts | None:
    """What alarms would have been raised; None when streams were not measured."""
    return stream_facts(samples.extra, labels, fps, asked.streams) if asked.streams else None


def _under_drops(samples: Samples, labels: tuple[str, ...]) -> AccuracyFacts | None:
    """Accuracy on the test clips when frames were dropped as the camera run dropped them."""
    if "camera_logits" not in samples.extra:
        return None
    test, ids, logits = samples.splits["test"], samples.extra["camera_ids"], samples.extra["camera_logits"]
    place = {str(clip): i for i, clip in enumerate(test.ids)}
    rows = [place[str(clip)] for clip in ids]
    return accuracy_facts(SplitSamples(ids, test.groups[rows], test.labels[rows], logits), labels)


def recomputed(found: Measurement, samples: Samples) -> Measurement:
    """The measurement with every fact that follows from its samples computed again; the others as they are.

    Labels are numbered, because a measurement names only the classes that have clips: compare values in order.
    DataError when samples of a scenario are missing.
    """
    classes = next((clips.logits.shape[1] for clips in samples.splits.values()), 0)
    numbered = tuple(str(k) for k in range(classes))
    accuracy = {split: accuracy_facts(clips, numbered) for split, clips in samples.splits.items()}
    latency = found.latency and latency_facts(samples, found.latency.phases_ms).model_copy(
        update={"warmup_calls": found.latency.warmup_calls, "stable": found.latency.stable}
    )
    try:
        scenarios = scenarios_of(samples, _asked(found), numbered)
        streams = found.streams and streams_of(
            samples, _asked(found), tuple(found.streams.settings["labels"]), found.streams.settings["fps"]
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{found.candidate}: the samples of its scenarios are missing or damaged ({error!r})") from None
    return found.model_copy(
        update={"accuracy": accuracy, "latency": latency, "scenarios": scenarios, "streams": streams}
    )


def _asked(found: Measurement) -> ScenarioSettings:
    """The settings that the facts of a measurement name; what was measured stands among them and is left out."""
    told: dict[str, Mapping[str, Any]] = {name: facts.settings for name, facts in found.scenarios.items()}
    told |= {"streams": found.streams.settings} if found.streams else {}
    fields = {name: SCENARIOS[name].model_fields for name in told}
    return ScenarioSettings.model_validate(
        {name: {key: said[key] for key in fields[name] if key in said} for name, said in told.items()}
    )


def confusion(clips: SplitSamples, classes: int) -> NDArray[np.int64]:
    """Clips by true class (rows) and answer (columns); the last column holds answers that are not finite."""
    answer = np.where(np.isfinite(clips.logits).all(axis=1), clips.logits.argmax(axis=1), classes)
    flat = np.bincount(clips.labels * (classes + 1) + answer, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def _top_accuracy(clips: SplitSamples) -> float:
    best = np.argpartition(clips.logits, -TOP, axis=1)[:, -TOP:]
    hit = (best == clips.labels[:, None]).any(axis=1) & np.isfinite(clips.logits).all(axis=1)
    return float(hit.mean())
