"""The percentile equals MLPerf LoadGen's early stopping on the very trace that LoadGen timed."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.bench import stats

loadgen = pytest.importorskip("mlperf_loadgen", reason="no wheel of mlcommons-loadgen for this platform")


def timed_by_loadgen(folder: Path, queries: int, share: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Latencies in ns of a SingleStream run as LoadGen recorded them, and what it logged."""
    waits = iter(np.random.default_rng(queries).exponential(2e-6, queries + 1))

    def answer(samples: list[Any]) -> None:
        end = time.perf_counter() + next(waits)
        while time.perf_counter() < end:
            pass
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in samples])

    settings, log = loadgen.TestSettings(), loadgen.LogSettings()
    settings.scenario, settings.mode = loadgen.TestScenario.SingleStream, loadgen.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = queries
    settings.min_duration_ms = 0
    settings.single_stream_target_latency_percentile = share
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    log.log_output, log.enable_trace = output, True
    sut = loadgen.ConstructSUT(answer, lambda: None)
    library = loadgen.ConstructQSL(16, 16, lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(sut, library, settings, log, "")
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    # its trace is not always well-formed JSON: read the fields where they stand
    trace = re.findall(r'"issue_start_ns":(\d+),"complete_ns":(\d+)', (folder / "mlperf_log_trace.json").read_text())
    lines = (folder / "mlperf_log_detail.txt").read_text().splitlines()
    logged = [json.loads(line.partition(":::MLLOG")[2]) for line in lines if ":::MLLOG" in line]
    return np.array([int(end) - int(start) for start, end in trace]), {one["key"]: one["value"] for one in logged}


@pytest.mark.parametrize(
    ("share", "queries"),
    [(0.5, 11), (0.5, 99), (0.9, 64), (0.9, 577), (0.95, 391), (0.99, 662), (0.99, 3310), (0.999, 6637)],
)
def test_percentile_equals_loadgen_on_the_same_trace(tmp_path: Path, share: float, queries: int) -> None:
    trace, logged = timed_by_loadgen(tmp_path, queries, share)
    assert len(trace) == queries and logged["early_stopping_met"]
    assert stats.percentile(trace, share) == logged["early_stopping_latency_ss"]
    assert logged["result_max_latency_ns"] == trace.max()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_below_the_minimum_loadgen_refuses_too(tmp_path: Path, share: float) -> None:
    trace, logged = timed_by_loadgen(tmp_path, stats.min_samples(share) - 1, share)
    assert not logged["early_stopping_met"] and stats.percentile(trace, share) is None
