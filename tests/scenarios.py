"""Arrays of every scenario, as bench leaves them in samples.npz, made to order; facts follow by the product's rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench.camera import DROPPED, LATENCIES_KEPT, MISSED, CameraSettings
from framegate.bench.facts import scenarios_of, streams_of
from framegate.bench.samples import Samples, SplitSamples
from framegate.bench.scenario import PHASES, OfflineSettings, ServerSettings
from framegate.bench.settings import ScenarioSettings
from framegate.bench.streams import StreamSettings

FPS = 10.0
BATCH = 8  # the best of two
CAMERAS, FRAMES = 6, 3400  # frames of each in a run: enough to confirm
HOURS_FRAMES = 18_000  # of each of 20 streams: ten hours together
EVENT, FALSE_ALARM = 20, 7  # frames
LAG = 5  # frames until an event is called by its name; with hold_s it is detected after 0.9 s

Arrays = dict[str, NDArray[Any]]


def asked(background: str) -> ScenarioSettings:
    """What `arrays_of` are the arrays of."""
    return ScenarioSettings(
        offline=OfflineSettings(batch_sizes=(1, BATCH), search_calls=10, calls=50, processes=10),
        server=ServerSettings(queries=700),
        camera=CameraSettings(fps=FPS),
        streams=StreamSettings(background=background),
    )


def arrays_of(test: SplitSamples, p50_ms: float = 1.0, missed: int = 0, lost: int = 0, false_alarms: int = 3) -> Arrays:
    """`missed` frames in each of three camera runs; `lost` more of 1200 test clips go wrong under the camera's drops."""
    return _offline(p50_ms) | _server(p50_ms) | _camera(p50_ms, missed) | _kept(test, lost) | _streams(false_alarms)


def facts_of(samples: Samples, labels: tuple[str, ...]) -> dict[str, Any]:
    """`scenarios` and `streams` of a measurement; the first label is the background."""
    if "offline_ns" not in samples.extra:
        return {}
    settings = asked(labels[0])
    return {
        "scenarios": scenarios_of(samples, settings, labels),
        "streams": streams_of(samples, settings, labels, FPS),
    }


def _ns(ms: float, seed: int, *shape: int) -> NDArray[np.int64]:
    """Right-skewed times, their median 3.5 % above `ms`."""
    rng = np.random.default_rng(seed)
    return (ms * 1e6 * rng.normal(1, 0.003, (shape[0], 1)) * (1 + rng.exponential(0.05, shape))).astype(np.int64)


def _offline(p50_ms: float) -> Arrays:
    return {
        "offline_sizes": np.array([1, BATCH]),
        "offline_search_ns": np.stack([_ns(2 * p50_ms, 1, 1, 10)[0], _ns(BATCH * p50_ms, 2, 1, 10)[0]]),
        "offline_ns": _ns(BATCH * p50_ms, 3, 10, 50),
    }


def _server(p50_ms: float) -> Arrays:
    latency = _ns(p50_ms, 4, 10, 700)
    every_5_ms = np.arange(1, 701) * 5_000_000
    return {"server_at_ns": np.tile(every_5_ms, (10, 1)), "server_ns": latency}


def _camera(p50_ms: float, missed: int) -> Arrays:
    outcome = np.zeros((3, CAMERAS * FRAMES), np.uint8)
    outcome[:, : missed // 2] = DROPPED
    outcome[:, missed // 2 : missed] = MISSED
    return {
        "camera_streams": np.array([CAMERAS]),
        "camera_outcome": outcome,
        "camera_ns": _ns(p50_ms, 5, 3, LATENCIES_KEPT),
        "camera_phase_ns": _ns(p50_ms * outcome.shape[1] / len(PHASES), 6, 3, len(PHASES)),
        "camera_core": np.array([1]),
    }


def _kept(test: SplitSamples, lost: int) -> Arrays:
    """In another order than the split's, and fewer."""
    logits = test.logits[:1200].copy()
    hits = np.flatnonzero(test.right[:1200])[:lost]
    logits[hits] = np.roll(logits[hits], 1, axis=1)
    return {"camera_ids": test.ids[:1200][::-1], "camera_logits": logits[::-1]}


def _streams(false_alarms: int) -> Arrays:
    """Label 0 is the background; five events of label 1 in each stream, and one false alarm in some of them."""
    truth = np.zeros((20, HOURS_FRAMES), np.int16)
    top = truth.copy()
    for start in range(1000, HOURS_FRAMES, 3600):
        truth[:, start : start + EVENT] = 1
        top[:, start + LAG : start + EVENT] = 1
    top[:false_alarms, 50 : 50 + FALSE_ALARM] = 1
    return {"stream_top": top, "stream_truth": truth, "stream_confidence": np.full(top.shape, 0.9, np.float32)}
