"""From the raw arrays of the scenarios and streams to the facts of a measurement, all of them computable again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.bench import stats
from framegate.bench.camera import DROPPED, MISSED, CameraSettings, judge
from framegate.bench.scenario import PHASES, OfflineSettings, ServerSettings, best_batch, overloaded
from framegate.bench.streams import StreamSettings, count_alarms
from framegate.contract import AccuracyFacts, ScenarioFacts, StreamFacts

Arrays = Mapping[str, NDArray[Any]]


def offline_facts(arrays: Arrays, settings: OfflineSettings) -> ScenarioFacts:
    """Frames per second at the best batch size, from offline_sizes, offline_search_ns, offline_ns [process, call]."""
    batch = best_batch(arrays["offline_sizes"], arrays["offline_search_ns"])
    ns = arrays["offline_ns"]
    return ScenarioFacts(
        scenario="offline",
        n=ns.size,
        processes=len(ns),
        settings=settings.model_dump(mode="json") | {"batch": batch},
        throughput_fps=float(batch * ns.size / (ns.sum() / 1e9)),
    )


def server_facts(arrays: Arrays, settings: ServerSettings) -> ScenarioFacts:
    """Percentiles from the scheduled arrival, of server_at_ns and server_ns [process, query].

    Overloaded in any process: unknown, for they would grow with the number of queries.
    """
    at_ns, ns = arrays["server_at_ns"], arrays["server_ns"]
    behind = sum(overloaded(at, taken, settings.max_batch) for at, taken in zip(at_ns, ns, strict=True))
    percentiles = {} if behind else _percentiles(ns.ravel() / 1e6)
    return ScenarioFacts(
        scenario="server",
        n=ns.size,
        processes=len(ns),
        settings=settings.model_dump(mode="json") | {"overloaded_processes": behind},
        **percentiles,
    )


def camera_facts(arrays: Arrays, settings: CameraSettings, accuracy: AccuracyFacts | None = None) -> ScenarioFacts:
    """Confirmed streams (None: unknown) and what became of the frames, from the arrays of `CameraFound`.

    The percentiles count a dropped frame as never answered. 0 streams: not even one kept up.
    """
    outcome, tried = arrays["camera_outcome"], int(arrays["camera_streams"][0])
    judged = judge(list(outcome), settings.limit)
    confirmed = judged == "confirmed" and len(outcome) == settings.confirm_runs
    hopeless = judged == "too many failed" and tried == 1
    answered = int((outcome != DROPPED).sum())
    means = arrays["camera_phase_ns"].sum(axis=0) / max(answered, 1) / 1e6
    latency = arrays["camera_ns"].ravel()
    return ScenarioFacts(
        scenario="camera",
        n=outcome.size,
        processes=1,
        settings=settings.model_dump(mode="json")
        | {"tried": tried, "phases_ms": dict(zip(PHASES, means.tolist(), strict=True))},
        streams=tried if confirmed else 0 if hopeless else None,
        scheduled=outcome.size,
        missed=int((outcome == MISSED).sum()),
        dropped=int((outcome == DROPPED).sum()),
        accuracy=accuracy,
        **_percentiles(np.where(latency < 0, np.inf, latency / 1e6)),
    )


def stream_facts(arrays: Arrays, labels: tuple[str, ...], fps: float, settings: StreamSettings) -> StreamFacts:
    """False alarms per hour of background and time to detect, from stream_top, stream_confidence, stream_truth.

    Bounds of the rate are over streams: one that raises an alarm raises more.
    """
    top, truth = arrays["stream_top"], arrays["stream_truth"]
    background = labels.index(settings.background)
    alarms = count_alarms(top, arrays["stream_confidence"], truth, background, fps, settings)
    hours = alarms.background_frames / fps / 3600
    rate, delay = stats.rate(alarms.false, hours), stats.median_time(alarms.delays_s)
    return StreamFacts(
        background=settings.background,
        hold_s=settings.hold_s,
        streams=len(top),
        background_hours=float(hours.sum()),
        false_alarms=int(alarms.false.sum()),
        false_alarms_per_hour=_number(rate.value),
        false_alarms_per_hour_low=0.0 if rate.low is None else rate.low,
        false_alarms_per_hour_high=_number(rate.high),
        events=len(alarms.delays_s),
        detected=int(np.isfinite(alarms.delays_s).sum()),
        time_to_detect_s=delay.value,
        time_to_detect_s_low=delay.low,
        time_to_detect_s_high=delay.high,
        settings=settings.model_dump(mode="json") | {"fps": fps, "labels": list(labels)},
    )


def _number(value: float | None) -> float:
    """Unknown as infinite: no background was seen, so no rate is too high to be true."""
    return float("inf") if value is None else value


def _percentiles(milliseconds: NDArray[np.float64]) -> dict[str, Any]:
    return {f"p{round(100 * share)}_ms": stats.percentile(milliseconds, share) for share in (0.5, 0.9, 0.99)}
