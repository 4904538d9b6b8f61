"""What the samples prove: pure functions from raw samples to values with one-sided 95 % bounds.

Every interval here is a pair of one-sided bounds at 95 % (together a 90 % interval), because every rule
asks one question: is the bound on the right side of the limit. `None` means unknown, and unknown never
passes. Sources stand at each formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Nanoseconds = NDArray[np.int64]
Values = NDArray[np.float64]

CONFIDENCE = 0.95  # of every bound
PERCENTILE_CONFIDENCE = 0.99  # MLPerf LoadGen's early stopping
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its one-sided bounds and the number of samples behind it."""

    value: float | None
    low: float | None
    high: float | None
    n: int


# --- latency ----------------------------------------------------------------------------------


def percentile(samples: Values | Nanoseconds, share: float) -> float | None:
    """An upper estimate of the `share` quantile that holds with 99 % confidence, or None: too few.

    MLPerf LoadGen's early stopping at tolerance 0 (Reddi et al., 2020; `early_stopping.cc`):
    sorted[n - t] for the largest t with BinomialCDF(t; n, 1 - share) <= 0.01.
    Assumes independent calls.
    """
    n = len(samples)
    t = _excess(n, share)
    return None if t < 1 else float(np.partition(samples, n - t)[n - t])


def min_samples(share: float) -> int:
    """The smallest number of samples for which `percentile` answers."""
    n = 1
    while _excess(n, share) < 1:
        n += 1
    return n


def _excess(n: int, share: float) -> int:
    """The largest t with BinomialCDF(t; n, 1 - share) <= 0.01; -1 when there is none."""
    if n == 0:
        return -1
    t = np.arange(math.ceil(n * (1 - share)) + 1)
    return int((special.bdtr(t, n, 1 - share) <= 1 - PERCENTILE_CONFIDENCE).sum()) - 1


def process_percentile(ns: Nanoseconds, share: float) -> Estimate:
    """Milliseconds at the `share` quantile of ns [process, block, call], with a t bound over processes.

    Slow calls come in bursts, so calls of one process are no independent evidence of each other: every
    process must have enough calls of its own, and the bounds come from the spread between processes.
    """
    each = [percentile(process.ravel() / 1e6, share) for process in ns]
    pooled = percentile(ns.ravel() / 1e6, share)
    known = [value for value in each if value is not None]
    if pooled is None or len(known) < max(len(each), 2):
        return Estimate(pooled, None, None, ns.size)
    low, high = _t_bounds(np.array(known))
    return Estimate(pooled, min(low, pooled), max(high, pooled), ns.size)


def ratio_p50(candidate: Nanoseconds, parent: Nanoseconds, seed: int = 0) -> Estimate:
    """Candidate time / parent time from ns [process, block, call] of the same processes and blocks.

    Value: the median of block ratios (each the ratio of two medians a few milliseconds apart). Bounds:
    the wider of (a) a t interval over the processes' log medians and (b) a bootstrap over processes, then
    blocks. (b) alone is too narrow with three processes, (a) alone ignores what a lucky agreement of three
    medians hides. One process: bounds unknown.
    """
    blocks = np.median(candidate, axis=2) / np.median(parent, axis=2)  # [process, block]
    value = float(np.median(blocks))
    if len(blocks) < 2:
        return Estimate(value, None, None, candidate.size)
    t_low, t_high = np.exp(_t_bounds(np.log(np.median(blocks, axis=1))))
    b_low, b_high = _bootstrap_median(blocks, seed)
    low, high = min(t_low, b_low, value), max(t_high, b_high, value)
    return Estimate(value, float(low), float(high), candidate.size)


def _t_bounds(values: Values) -> tuple[float, float]:
    """One-sided bounds of the mean of a few independent values."""
    reach = t_quantile(len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def _bootstrap_median(blocks: Values, seed: int) -> tuple[float, float]:
    """Bounds of the median of [process, block] when processes, then their blocks, are drawn again."""
    rng = np.random.default_rng(seed)
    processes, n = blocks.shape
    who = rng.integers(0, processes, (RESAMPLES, processes, 1))
    which = rng.integers(0, n, (RESAMPLES, processes, n))
    medians = np.median(blocks[who, which].reshape(RESAMPLES, -1), axis=1)
    low, high = np.quantile(medians, [1 - CONFIDENCE, CONFIDENCE])
    return float(low), float(high)


def t_quantile(df: int) -> float:
    """Student's t at CONFIDENCE, one-sided."""
    return float(special.stdtrit(df, CONFIDENCE))


# --- accuracy ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paired:
    """Two answers to the same clips, counted: all that a drop in accuracy depends on."""

    n: int
    groups: int
    lost: int  # reference right, candidate wrong
    won: int  # the other way round
    cluster_variance: float  # of the drop, between groups; 0 with one group

    @property
    def drop(self) -> float:
        """Share of clips lost, net."""
        return (self.lost - self.won) / self.n


def paired(reference_right: NDArray[np.bool_], candidate_right: NDArray[np.bool_], groups: NDArray[np.str_]) -> Paired:
    """Count pairs of answers; the variance is that of group sums (clips of one camera err together).

    Cluster-robust: V = G/(G-1) * sum_g (sum_{i in g} (d_i - mean d))^2 / n^2.
    """
    difference = reference_right.astype(np.int64) - candidate_right.astype(np.int64)
    n = len(difference)
    _, which = np.unique(groups, return_inverse=True)
    count = int(which.max()) + 1 if n else 0
    variance = 0.0
    if count > 1:
        sums = np.bincount(which, weights=difference - difference.mean())
        variance = float((sums**2).sum() * count / (count - 1) / n**2)
    return Paired(n, count, int((difference > 0).sum()), int((difference < 0).sum()), variance)


def tango_variance(pairs: Paired, drop: float) -> float:
    """Variance of the observed drop if the true one were `drop` (Tango, Stat. Med. 17:891, 1998).

    q = constrained maximum-likelihood share of `won`; V = (2q + drop (1 - drop)) / n. Positive even when
    no clip disagrees, which is where a bootstrap claims certainty.
    """
    n, b, c = pairs.n, pairs.lost, pairs.won
    linear = (2 * n - b + c) * drop - b - c
    root = math.sqrt(max(linear * linear + 8 * n * c * drop * (1 - drop), 0.0))
    q = (root - linear) / (4 * n)
    return max(2 * q + drop * (1 - drop), 0.0) / n


def drop_interval(pairs: Paired) -> Estimate:
    """The drop with the bounds at which z = |bound - drop| / sqrt(max(V_cluster, V_Tango)) = t(.95, G-1).

    So "upper bound <= margin" is the non-inferiority test at the margin. Fewer than two groups: unknown.
    """
    if pairs.n == 0:
        return Estimate(None, None, None, 0)
    if pairs.groups < 2:
        return Estimate(pairs.drop, None, None, pairs.n)
    reach = t_quantile(pairs.groups - 1)

    def outside(bound: float) -> bool:
        variance = max(pairs.cluster_variance, tango_variance(pairs, bound))
        return abs(bound - pairs.drop) >= reach * math.sqrt(variance)

    low, high = _edge(outside, pairs.drop, -1.0), _edge(outside, pairs.drop, 1.0)
    return Estimate(pairs.drop, low, high, pairs.n)


def _edge(outside: Callable[[float], bool], inner: float, outer: float) -> float:
    """The bound between inner and outer where `outside` becomes true, by bisection; outer if never."""
    for _ in range(60):
        middle = (inner + outer) / 2
        inner, outer = (inner, middle) if outside(middle) else (middle, outer)
    return outer


def min_clips(margin: float) -> int | None:
    """Clips without any disagreement that a margin (share) takes: 299 for 0.01; None for no margin.

    (1 - margin)^n <= 0.05: the zero-failure bound, below which no data could prove the margin.
    """
    if not 1e-6 < margin < 1:
        return None if margin < 1 else 1
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-margin))
