"""Bounds of a mean, a share, a rate and a median: what all the others are built from. One-sided, at 95 %."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Nanoseconds = NDArray[np.int64]
Values = NDArray[np.float64]
Counts = NDArray[np.int64]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its one-sided bounds and the number of samples behind it."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def t_quantile(df: float) -> float:
    """Student's t at CONFIDENCE, one-sided."""
    return float(special.stdtrit(df, CONFIDENCE))


def mean_low(values: Values) -> float:
    """Lower bound of the mean that a few independent values come from: mean - t(.95, m-1) s / sqrt(m)."""
    reach = t_quantile(len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - reach)


def mean_high(values: Values) -> float:
    """Upper bound, the mirror of `mean_low`."""
    return -mean_low(-values)


def center_low(values: Values) -> float:
    """Lower bound of what independent, symmetric values lie around (Wilcoxon, Biometrics Bull. 1:80, 1945).

    The k-th smallest Walsh average (v_i + v_j) / 2, k by the signed-rank distribution: exact for symmetric values,
    whatever their tails, so that one process that met a busy neighbour does not widen it as it does a t interval.
    Fewer than five values have no such bound: the t bound then.
    """
    n = len(values)
    if (k := _signed_rank(n)) < 1:
        return mean_low(values)
    i, j = np.triu_indices(n)
    return float(np.partition((values[i] + values[j]) / 2, k - 1)[k - 1])


def center_high(values: Values) -> float:
    """Upper bound, the mirror of `center_low`."""
    return -center_low(-values)


@lru_cache(maxsize=64)
def _signed_rank(n: int) -> int:
    """How many values w of the signed-rank statistic have P(W <= w) <= 1 - CONFIDENCE; it counts subsets of 1..n."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] += ways[:-rank].copy()
    return int((np.cumsum(ways) / 2.0**n <= 1 - CONFIDENCE).sum())


def proportion(hits: float, n: float) -> tuple[float, float]:
    """Exact bounds of a share from `hits` among n independent trials (Clopper & Pearson, Biometrika 26:404, 1934).

    Beta quantiles, so that effective counts need not be whole. No hit in n: at most 1 - 0.05^(1/n).
    """
    low = special.betaincinv(hits, n - hits + 1, 1 - CONFIDENCE) if hits > 0 else 0.0
    high = special.betaincinv(hits + 1, n - hits, CONFIDENCE) if hits < n else 1.0
    return float(low), float(high)


def clustered_proportion(hits: Counts, sizes: Counts) -> tuple[float, float] | None:
    """Bounds of a share from hits [cluster] among sizes [cluster], where hits of one cluster come together.

    Korn & Graubard (Survey Methodology 24:193, 1998): Clopper-Pearson with the effective size
    n* = n / max(1, deff) * (t(n-1) / t(m-1))^2; deff = variance between the m clusters (ratio estimator) over that
    of independent trials. A normal or t interval fails here: with few hits it knows neither their skewness nor,
    without any, that there could be some. Fewer than two clusters: None.
    """
    clusters, n, k = len(sizes), int(sizes.sum()), int(hits.sum())
    if clusters < 2:
        return None
    share = k / n
    between = float(((hits - share * sizes) ** 2).sum()) * clusters / (clusters - 1) / n**2
    effect = max(1.0, between * n / (share * (1 - share))) if 0 < k < n else 1.0
    effective = n / effect * min(1.0, t_quantile(n - 1) / t_quantile(clusters - 1)) ** 2
    return proportion(effective * share, effective)
