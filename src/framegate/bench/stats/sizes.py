"""How much data a claim takes: clips for a margin, the margin for given clips, power."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from framegate.bench.stats.accuracy import Paired, tango, tango_variance
from framegate.bench.stats.bounds import CONFIDENCE, t_quantile


@dataclass(frozen=True, slots=True)
class Size:
    """Clips and groups of a test split."""

    clips: int
    groups: int


def min_clips(margin: float, groups: int | None = None) -> int | None:
    """Clips without any disagreement that a margin (share) takes: 299 for 0.01; None for no margin.

    (1 - margin)^n <= 0.05: the zero-failure bound, below which no data could prove the margin. With the number of
    groups also what `drop_interval` asks for then: n >= t^2 (1 - margin) / margin, t = t(.95, groups - 1).
    """
    if not 1e-6 < margin < 1:
        return None if margin < 1 else 1
    independent = math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-margin))
    if groups is None:
        return independent
    if groups < 2:
        return None
    return max(independent, math.ceil(t_quantile(groups - 1) ** 2 * (1 - margin) / margin))


def smallest_margin(clips: int, groups: int | None = None) -> float | None:
    """The smallest margin (share) that so many clips could prove, if none disagreed: 0.076 for 38 clips.

    The inverse of `min_clips`; with the number of groups it is what the rule can really decide (38 clips of 2 groups:
    0.51). None without clips or with one group.
    """
    if clips < 1 or (groups is not None and groups < 2):
        return None
    independent = -math.expm1(math.log(1 - CONFIDENCE) / clips)
    if groups is None:
        return independent
    squared = t_quantile(groups - 1) ** 2
    return max(independent, squared / (clips + squared))


def enough(pairs: Paired, margin: float) -> Size | None:
    """Clips and groups of the same kind at which a drop like this one would be proven inside the margin.

    Solves the equation of `drop_interval` for k times the data: both variances fall as 1/k, and groups and effective
    groups grow as k. None when the drop itself is not inside the margin, or nothing is known of groups.
    """
    room = margin - pairs.drop if pairs.n else 0.0
    clips = min_clips(margin)
    if room <= 0 or clips is None or pairs.groups < 2:
        return None
    low, high = 1.01 / pairs.groups, 2.0
    while _lacks(pairs, margin, high):
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _lacks(pairs, margin, middle) else (low, middle)
    factor = max(high, clips / pairs.n)
    return Size(math.ceil(factor * pairs.n - 1e-6), math.ceil(factor * pairs.groups - 1e-6))


def _lacks(pairs: Paired, margin: float, factor: float) -> bool:
    """Whether `factor` times the data is still too little."""
    room, groups = (margin - pairs.drop) * math.sqrt(factor), factor * pairs.groups
    effective = factor * min(pairs.effective_groups, pairs.groups)
    if groups <= 1:
        return True
    clustered = t_quantile(max(effective - 1, 1.0)) * math.sqrt(pairs.cluster_variance)
    return room < max(clustered, t_quantile(groups - 1) * math.sqrt(tango_variance(pairs, margin)))


def power(clips: int, disagreement: float, drop: float, margin: float, groups: int | None = None) -> float:
    """Probability that `drop_interval` proves the margin, clips being independent; all shares.

    Exact: the sum over all counts of lost and won clips (trinomial, lost + won = `disagreement`, lost - won = `drop`)
    for which z >= t(.95, groups - 1). Groups: by default each clip its own. Between unlike groups it is lower.
    """
    lost, won = (disagreement + drop) / 2, (disagreement - drop) / 2
    if not 0 <= won <= lost + won <= 1 or lost < 0:
        raise ValueError(f"a drop of {drop:g} takes a disagreement of {abs(drop):g}..1, got {disagreement:g}")
    b, c = np.meshgrid(_likely(clips, lost), _likely(clips, won), indexing="ij")
    same = clips - b - c
    logs = special.gammaln(clips + 1) - sum(special.gammaln(x + 1) for x in (b, c, same))
    logs += special.xlogy(b, lost) + special.xlogy(c, won) + special.xlogy(same, 1 - lost - won)
    found = (b - c) / clips
    variance = np.maximum((b + c - (b - c) ** 2 / clips) / clips**2, tango(clips, b, c, margin))  # E = G
    passes = margin - found >= t_quantile((groups or clips) - 1) * np.sqrt(variance)
    return float(np.exp(logs[passes & (same >= 0)]).sum())


def _likely(n: int, share: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The counts of n trials that carry all but 1e-9 of the probability."""
    mean, reach = n * share, 7 * math.sqrt(n * share * (1 - share)) + 7
    return np.arange(max(0, math.floor(mean - reach)), min(n, math.ceil(mean + reach)) + 1, dtype=np.float64)
