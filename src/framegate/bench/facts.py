"""From raw samples to the numbers of a measurement: how often a candidate is right, and how fast it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from framegate.bench import stats
from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import AccuracyFacts, LatencyFacts

TOP = 5


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
    flat = samples.candidate_ns.ravel() / 1e6
    p50, p90, p99 = (stats.percentile(flat, share) for share in (0.5, 0.9, 0.99))
    ratio = stats.ratio_p50(samples.candidate_ns, samples.parent_ns)
    return LatencyFacts(
        calls=flat.size,
        pairs=len(samples.candidate_ns),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        parent_p50_ms=stats.percentile(samples.parent_ns.ravel() / 1e6, 0.5),
        ratio_p50=ratio.value,
        ratio_p50_low=ratio.low,
        ratio_p50_high=ratio.high,
        phases_ms=phases_ms | ({"infer": p50} if p50 is not None else {}),
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
