"""What is wrong with a measurement by itself: looked at before any rule, and never waived.

Every function gives a text to be read after `its`, or None when there is nothing wrong.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench.facts import audit, recomputed
from framegate.bench.samples import Samples
from framegate.contract import DataError, Measurement

SAME = 1e-6  # relative: the same formula on another machine rounds elsewhere
DEVICES = {  # where a runtime must really have run: a silent fallback is another candidate
    "ort-cpu": "cpu",
    "openvino": "cpu",
    "openvino-bf16": "cpu",
    "ort-cuda": "gpu",
    "ort-tensorrt": "gpu",
    "tensorrt": "gpu",
}
TIMES = ("candidate_ns", "parent_ns", "solo_ns")
EXTRA_TIMES = ("offline_ns", "server_ns", "self_candidate_ns", "self_parent_ns")  # a camera's frame may stay unanswered


def fault(runtime: str, found: Measurement, samples: Samples, judged: Samples | None = None) -> str | None:
    """The first thing that is wrong. `judged`: samples that hold the answers to the clips of the audit, else the same.

    A measurement of the latency alone has no accuracy run: its audited answers are compared with those of the first.
    """
    try:
        return (
            _wrong_session(runtime, found.session)
            or _wrong_times(samples)
            or _wrong_logits(samples)
            or _wrong_audit(samples, samples if judged is None else judged)
            or _wrong_facts(found, samples)
        )
    except (ValueError, TypeError, IndexError, KeyError, AttributeError) as error:  # numpy, on arrays of any kind
        return f"samples are not of the shapes and kinds that they should be ({error})"


def _wrong_session(runtime: str, session: dict[str, Any]) -> str | None:
    ran = f"session ran {session.get('runtime')} by {session.get('provider')} on {session.get('device')}"
    device = DEVICES.get(runtime)
    fell_back = str(session.get("provider")).startswith("CPU") != (device == "cpu")
    if session.get("runtime") != runtime or session.get("device") != device or fell_back:
        return f"{ran}, the candidate is for {runtime} on {device}"
    return None


def _wrong_times(samples: Samples) -> str | None:
    """Times are whole, in pairs, and positive: a clock that stands or goes backwards measured nothing."""
    mine, theirs = samples.candidate_ns, samples.parent_ns
    if mine.ndim != 3 or mine.shape != theirs.shape or samples.solo_ns.ndim != 2 or not mine.size:
        return f"times have shapes {mine.shape}, {theirs.shape} and {samples.solo_ns.shape}; run bench again"
    arrays = {name: getattr(samples, name) for name in TIMES}
    arrays |= {name: samples.extra[name] for name in EXTRA_TIMES if name in samples.extra}
    for name, array in arrays.items():
        if wrong := int((array <= 0).sum()):
            return f"clock went backwards or stood still: {wrong} of {array.size} times in {name} are not positive"
    return None


def _wrong_logits(samples: Samples) -> str | None:
    """A logit that is not finite anywhere, be it in one class or one split only."""
    arrays: dict[str, NDArray[Any]] = {split: clips.logits for split, clips in samples.splits.items()}
    arrays |= {name: array for name, array in samples.extra.items() if name.endswith("_logits")}
    arrays["timed calls"] = samples.audit_logits
    for name, logits in arrays.items():
        if logits.size and (wrong := int((~np.isfinite(logits).all(axis=1)).sum())):
            return f"logits are not finite in {wrong} clips ({name})"
    for split, clips in samples.splits.items():
        n, classes = clips.logits.shape
        if len({len(clips.ids), len(clips.groups), len(clips.labels), n}) > 1 or len(np.unique(clips.ids)) < n:
            return f"clips of {split} are not one answer each"
        if n and not (clips.labels.min() >= 0 and clips.labels.max() < classes):
            return f"labels of {split} are not among its {classes} classes"
    return None


def _wrong_audit(timed: Samples, judged: Samples) -> str | None:
    """What was timed must be what was judged (the hole that MLPerf's audit TEST01 closes)."""
    test = judged.splits.get("test")
    return "test split has no clip" if test is None or not len(test.ids) else audit(timed, test)


def _wrong_facts(found: Measurement, samples: Samples) -> str | None:
    """Every number in measurement.json that follows from the samples must follow from them."""
    try:
        again = recomputed(found, samples)
    except DataError as error:
        return f"measurement does not follow from its samples: {error}"
    for name in ("accuracy", "latency", "scenarios", "streams"):
        said, true = _plain(getattr(found, name)), _plain(getattr(again, name))
        if where := _difference(said, true, name):
            return f"measurement does not follow from its samples: {where}; it was changed after bench wrote it"
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value.model_dump() if hasattr(value, "model_dump") else value


def _difference(said: Any, true: Any, where: str) -> str:
    """The first place where two plain values differ; empty when they are the same but for rounding.

    Classes are compared in order: samples know their numbers, not their names.
    """
    if isinstance(said, dict) and isinstance(true, dict):
        if len(said) != len(true):
            return f"{where} has {len(said)} entries, {len(true)} follow"
        keys = list(true) if where.endswith("_per_class") else list(said)
        found = (_difference(said[k], true.get(t), f"{where}.{k}") for k, t in zip(said, keys, strict=True))
        return next((text for text in found if text), "")
    if isinstance(said, float) and isinstance(true, (int, float)):
        same = math.isclose(said, true, rel_tol=SAME, abs_tol=1e-12) or (math.isnan(said) and math.isnan(true))
    else:
        same = said == true
    return "" if same else f"{where} is {said}, {true} follows"
