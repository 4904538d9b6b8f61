"""Alarms: per hour on untrimmed streams, per run of A/A; and how long an event waits for its alarm."""

from __future__ import annotations

import numpy as np
from scipy import special

from framegate.bench.stats.bounds import CONFIDENCE, Counts, Estimate, Values, proportion, t_quantile


def rate(events: Counts | int, hours: Values | float) -> Estimate:
    """Events per hour with exact Poisson bounds (Garwood, Biometrika 28:437, 1936); None without any hour.

    Two numbers: all events in all hours, taken as independent. Two arrays [stream]: events of one stream come together
    (one waving tree, many alarms), so events and hours are divided by the design effect, the variance between streams
    over that of a Poisson count, and by (t / z)^2 for few streams, as Korn & Graubard do for shares.
    """
    counts, times = np.atleast_1d(np.asarray(events, np.float64)), np.atleast_1d(np.asarray(hours, np.float64))
    total, time = float(counts.sum()), float(times.sum())
    if not time > 0:
        return Estimate(None, None, None, int(total))
    effect = _design_effect(counts, times) if len(counts) > 1 else 1.0
    k, t = total / effect, time / effect
    low = float(special.gammaincinv(k, 1 - CONFIDENCE)) if k > 0 else 0.0
    return Estimate(total / time, low / t, float(special.gammaincinv(k + 1, CONFIDENCE)) / t, int(total))


def _design_effect(counts: Values, times: Values) -> float:
    total, streams = counts.sum(), len(counts)
    expected = times * total / times.sum()
    spread = ((counts - expected) ** 2).sum() * streams / (streams - 1) / total if total else 1.0
    return max(1.0, float(spread)) * (t_quantile(streams - 1) / t_quantile(np.inf)) ** 2


def median_time(seconds: Values) -> Estimate:
    """The median time to detect, an undetected event counting as infinite; bounds are order statistics.

    sorted[k] and sorted[n - 1 - k] for the largest k with BinomialCDF(k; n, 1/2) <= 0.05 (David & Nagaraja, Order
    Statistics, 7.1), whatever the distribution; events are taken as independent. Fewer than 5: bounds unknown.
    """
    n = len(seconds)
    if n == 0:
        return Estimate(None, None, None, 0)
    ordered = np.sort(seconds)
    value = float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)
    k = int((special.bdtr(np.arange(n // 2 + 1), n, 0.5) <= 1 - CONFIDENCE).sum()) - 1
    if k < 0:
        return Estimate(value, None, None, n)
    return Estimate(value, float(ordered[k]), float(ordered[n - 1 - k]), n)


def alarm_rate(alarms: int, runs: int) -> Estimate:
    """The share of runs that raise an alarm, with exact bounds (Clopper-Pearson); None without a run."""
    if runs < 1:
        return Estimate(None, None, None, 0)
    return Estimate(alarms / runs, *proportion(alarms, runs), runs)


def min_runs(alarms: int, at_most: float = 0.01) -> int:
    """The smallest number of runs, fixed in advance, in which so many alarms show a rate of `at_most`.

    299 with none, 473 with one, 628 with two for 1 %.
    """
    low, high = alarms + 1, alarms + 2
    while proportion(alarms, high)[1] > at_most:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if proportion(alarms, middle)[1] <= at_most else (middle + 1, high)
    return low
