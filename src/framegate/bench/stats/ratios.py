"""Two candidates timed beside each other in the same fresh processes: how many times the other's time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from framegate.bench.stats.bounds import (
    CONFIDENCE,
    Counts,
    Estimate,
    Nanoseconds,
    Values,
    center_high,
    center_low,
)
from framegate.bench.stats.percentiles import min_samples

RESAMPLES = 2000


def ratio_p50(candidate: Nanoseconds, parent: Nanoseconds, seed: int = 0) -> Estimate:
    """Candidate time / parent time from ns [process, block, call] of the same processes and blocks.

    Value: the median of block ratios (each the ratio of two medians a few milliseconds apart). Bounds: the wider of
    (a) a signed-rank interval over the processes' log medians (a t interval with fewer than five) and (b) a bootstrap
    over processes, then blocks (Davison & Hinkley, 1997, 3.8). (b) alone errs in 10-17 % with three processes; both
    together in 4-5 %. One process, or a clock that stood still: bounds unknown.
    """
    if not _is_timed(candidate, parent):
        return Estimate(None, None, None, candidate.size)
    blocks = np.median(candidate, axis=2) / np.median(parent, axis=2)  # [process, block]
    value = float(np.median(blocks))
    if len(blocks) < 2:
        return Estimate(value, None, None, candidate.size)
    drawn = _weighted_medians(blocks.ravel(), _draws(*blocks.shape, seed))
    return _wider(value, np.log(np.median(blocks, axis=1)), drawn, candidate.size)


def ratio_p99(candidate: Nanoseconds, parent: Nanoseconds, seed: int = 0, share: float = 0.99) -> Estimate:
    """Ratio of the pooled `share` quantiles of ns [process, block, call]; never a median of the blocks' own.

    Bounds as in `ratio_p50`, the bootstrap drawing blocks of both sides alike. Fewer calls a side than `min_samples`:
    unknown. One process: bounds unknown.
    """
    if not _is_timed(candidate, parent) or min(candidate.size, parent.size) < min_samples(share):
        return Estimate(None, None, None, candidate.size)
    value = _quantile(candidate, share) / _quantile(parent, share)
    if len(candidate) < 2:
        return Estimate(value, None, None, candidate.size)
    draws = _draws(*candidate.shape[:2], seed)
    drawn = _weighted_quantiles(candidate, draws, share) / _weighted_quantiles(parent, draws, share)
    each = np.array([_quantile(a, share) / _quantile(b, share) for a, b in zip(candidate, parent, strict=True)])
    return _wider(value, np.log(each), drawn, candidate.size)


def _is_timed(candidate: Nanoseconds, parent: Nanoseconds) -> bool:
    """Whether there are calls, as many of either side, and each took time: a clock that runs back proves nothing."""
    return candidate.shape == parent.shape and candidate.size > 0 and bool(min(candidate.min(), parent.min()) > 0)


def _wider(value: float, logs: Values, drawn: Values, n: int) -> Estimate:
    """The wider of the interval of logs [process] and the quantiles of what was drawn again."""
    low, high = np.quantile(drawn, [1 - CONFIDENCE, CONFIDENCE])
    t_low, t_high = np.exp(center_low(logs)), np.exp(center_high(logs))
    return Estimate(value, float(min(t_low, low, value)), float(max(t_high, high, value)), n)


# --- the bootstrap, by weights ------------------------------------------------------------------


@lru_cache(maxsize=8)
def _draws(processes: int, blocks: int, seed: int) -> Counts:
    """How often each block is drawn [resample, process * block] when processes, then blocks in each, are drawn."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, processes, (RESAMPLES, processes, 1))
    which = rng.integers(0, blocks, (RESAMPLES, processes, blocks))
    rows = np.arange(RESAMPLES)[:, None, None] * (processes * blocks)
    size = RESAMPLES * processes * blocks
    counts = np.bincount((rows + who * blocks + which).ravel(), minlength=size)
    counts = counts.reshape(RESAMPLES, -1)
    counts.flags.writeable = False
    return counts


def _weighted_medians(values: Values, weights: Counts) -> Values:
    """The median of values [n] repeated weights [resample, n] times; every row sums to n."""
    order, n = np.argsort(values), len(values)
    below = np.cumsum(weights[:, order], axis=1)
    ordered = values[order]
    ends = [ordered[(below <= rank).sum(axis=1)] for rank in ((n - 1) // 2, n // 2)]
    medians: Values = (ends[0] + ends[1]) / 2
    return medians


def _quantile(ns: Nanoseconds, share: float) -> float:
    """The call of which exactly the rest of 1 - share are slower (inverse of the distribution function)."""
    flat = ns.ravel()
    return float(np.partition(flat, _rank(flat.size, share))[_rank(flat.size, share)])


def _rank(n: int, share: float) -> int:
    return int(np.ceil(n * share - 1e-9)) - 1


def _weighted_quantiles(ns: Nanoseconds, weights: Counts, share: float) -> Values:
    """`_quantile` of ns [process, block, call] whose blocks are repeated weights [resample, block] times.

    Exact in two steps, so that 2000 x 8000 calls are never laid out: cut the sorted calls into chunks, find each
    resample's chunk from weighted chunk sizes, then the call inside it.
    """
    n, calls = ns.size, ns.shape[2]
    order = np.argsort(ns, axis=None)
    chunk = max(1, int(np.sqrt(n)))
    block_of, chunk_of = order // calls, np.arange(n) // chunk
    blocks, chunks = weights.shape[1], int(chunk_of[-1]) + 1
    sizes = np.bincount(chunk_of * blocks + block_of, minlength=chunks * blocks).reshape(chunks, blocks)
    below = weights.astype(np.float32) @ np.cumsum(sizes, axis=0).T.astype(
        np.float32
    )  # [resample, chunk], whole < 2^24
    rank = _rank(n, share)
    found = (below <= rank).sum(axis=1)
    before = np.where(found > 0, below[np.arange(len(below)), np.maximum(found - 1, 0)], 0.0)
    inside = np.minimum(found[:, None] * chunk + np.arange(chunk), n - 1)  # [resample, chunk]
    passed = before[:, None] + np.cumsum(np.take_along_axis(weights, block_of[inside], axis=1), axis=1)
    place = found * chunk + (passed <= rank).sum(axis=1)
    values: Values = ns.ravel()[order[np.minimum(place, n - 1)]].astype(np.float64)
    return values
