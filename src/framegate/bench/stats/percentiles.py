"""Percentiles of one candidate's calls: of one trace (as MLPerf LoadGen does), and over fresh processes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from framegate.bench.stats.bounds import (
    Counts,
    Estimate,
    Nanoseconds,
    Values,
    clustered_proportion,
    mean_high,
    mean_low,
)

PERCENTILE_CONFIDENCE = 0.99  # of MLPerf LoadGen's early stopping
MIN_PROCESSES = 10  # for an absolute claim


def percentile(samples: Values | Nanoseconds, share: float) -> float | None:
    """An upper estimate of the `share` quantile that holds with 99 % confidence, or None: too few.

    MLPerf LoadGen's early stopping at tolerance 0 (Reddi et al., 2020; `early_stopping.cc`):
    sorted[n - t] for the largest t with BinomialCDF(t; n, 1 - share) <= 0.01. One order statistic more than needed,
    as there. Assumes independent calls: with bursts of slow calls it misses far more often than 1 %.
    """
    n = len(samples)
    t = _excess(n, share)
    return None if t < 1 else float(np.partition(samples, n - t)[n - t])


def percentile_low(samples: Values | Nanoseconds, share: float) -> float | None:
    """A lower estimate of the `share` quantile, the mirror of `percentile`; what a FAIL rests on.

    sorted[t - 1] for the largest t with BinomialCDF(t; n, share) <= 0.01.
    """
    t = _excess(len(samples), 1 - share)
    return None if t < 1 else float(np.partition(samples, t - 1)[t - 1])


def min_samples(share: float) -> int:
    """The smallest number of samples for which `percentile` answers: 662 for 0.99."""
    return _smallest(1, share)


def min_samples_without_miss(share: float) -> int:
    """The fewest calls, none of them late, that prove "at least `share` in time" at 99 %: 459 for 0.99."""
    return _smallest(0, share)


def process_percentile(ns: Nanoseconds, share: float) -> Estimate:
    """Milliseconds at the `share` quantile of ns [process, call] or [process, block, call], with bounds over processes.

    Value: `percentile` of all calls. Slow calls come in bursts, so calls of one process are no independent evidence of
    each other. Bounds: the wider of (a) one-sided t bounds over the processes' own upper (lower) estimates, which
    speak of a typical process, and (b) the quantiles at which the clustered share of slower calls meets 1 - share,
    which speak of all calls. (a) alone misses the p99 of all calls in up to half of the runs when only some processes
    meet a burst; (b) alone is narrow with few calls a process. Fewer than MIN_PROCESSES processes, or too few calls in
    one: bounds unknown.
    """
    calls = ns.reshape(len(ns), -1) / 1e6
    value = percentile(calls.ravel(), share)
    lows = [found for one in calls if (found := percentile_low(one, share)) is not None]
    highs = [found for one in calls if (found := percentile(one, share)) is not None]
    if value is None or len(calls) < MIN_PROCESSES or min(len(lows), len(highs)) < len(calls):
        return Estimate(value, None, None, ns.size)
    low, high = _exceedance_bounds(calls, share)
    if low is None or high is None:
        return Estimate(value, None, None, ns.size)
    low, high = min(low, mean_low(np.array(lows))), max(high, mean_high(np.array(highs)))
    return Estimate(value, min(low, value), max(high, value), ns.size)


def clustered_percentile(ms: Values, share: float) -> Estimate:
    """A percentile of ms [run, frame], infinite where there was no answer; runs are the clusters.

    Bounds: the quantiles at which the clustered share of slower frames meets 1 - share, as (b) in `process_percentile`.
    """
    value = percentile(ms.ravel(), share)
    low, high = _exceedance_bounds(ms, share) if value is not None and len(ms) > 1 else (None, None)
    if value is None or low is None or high is None:
        return Estimate(value, None, None, ms.size)
    return Estimate(value, min(low, value), max(high, value), ms.size)


def _exceedance_bounds(calls: Values, share: float) -> tuple[float | None, float | None]:
    """Bounds of the pooled quantile of calls [process, call]: order statistics found by bisection.

    High: the smallest call such that the share of slower ones is at most 1 - share, by its clustered upper bound.
    Low: the largest call such that the share of those at least as slow is at least 1 - share, by its lower bound.
    """
    ordered, rest = np.sort(calls.ravel()), 1 - share
    sizes = np.full(len(calls), calls.shape[1])

    def bounds(hits: Counts) -> tuple[float, float]:
        return clustered_proportion(hits, sizes) or (0.0, 1.0)

    high = _first(len(ordered), lambda i: bounds((calls > ordered[i]).sum(axis=1))[1] <= rest)
    beyond = _first(len(ordered), lambda i: bounds((calls >= ordered[i]).sum(axis=1))[0] < rest)
    return (
        float(ordered[beyond - 1]) if beyond > 0 else None,
        float(ordered[high]) if high < len(ordered) else None,
    )


def _first(n: int, holds: Callable[[int], bool]) -> int:
    """The first of 0..n-1 for which `holds`, by bisection; n when there is none."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _smallest(misses: int, share: float) -> int:
    """The smallest n with BinomialCDF(misses; n, 1 - share) <= 0.01."""
    n = misses + 1
    while special.bdtr(misses, n, 1 - share) > 1 - PERCENTILE_CONFIDENCE:
        n += 1
    return n


def _excess(n: int, share: float) -> int:
    """The largest t with BinomialCDF(t; n, 1 - share) <= 0.01; -1 when there is none."""
    if n == 0:
        return -1
    t = np.arange(math.ceil(n * (1 - share)) + 1)
    return int((special.bdtr(t, n, 1 - share) <= 1 - PERCENTILE_CONFIDENCE).sum()) - 1
