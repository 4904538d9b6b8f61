"""Geometry of two latency distributions on one axis: how often each time occurs, and how often it is exceeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from framegate.bench import stats
from framegate.report.figures import number
from framegate.report.labels import APART, FAR, Label, Wanted, place
from framegate.report.scale import Box, Canvas, Guide, LogScale, Scale

BIN = 5.0  # px
TAIL_POINTS = 140
RARE = {0.5: "half", 0.1: "1 in 10", 0.01: "1 in 100", 0.001: "1 in 1,000", 0.0001: "1 in 10,000"}


@dataclass(frozen=True, slots=True)
class Times:
    """What one of the two took: every call, in ms."""

    name: str
    role: str  # winner, parent
    ms: NDArray[np.float64]  # [call]


@dataclass(frozen=True, slots=True)
class Curve:
    """One of the two, drawn. `spots`: its percentiles on the tail, in px; `labels`: their words and its own."""

    times: Times
    shape: str  # path of the density
    tail: str  # path of the share of calls that are slower
    spots: tuple[tuple[float, float], ...]
    words: tuple[str, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Everything to draw: `upper` holds the densities, `lower` the tails."""

    upper: Canvas
    lower: Canvas
    curves: tuple[Curve, ...]
    x_ticks: tuple[Guide, ...]
    y_ticks: tuple[Guide, ...]
    budgets: tuple[Guide, ...]
    calls: int


PANELS = {
    "wide": (Canvas(1032, 430, 84, 1022, 30, 190), Canvas(1032, 430, 84, 1022, 214, 392)),
    "medium": (Canvas(660, 410, 80, 652, 30, 180), Canvas(660, 410, 80, 652, 204, 372)),
    "narrow": (Canvas(340, 400, 68, 336, 30, 165), Canvas(340, 400, 68, 336, 190, 362)),
}


def distributions(both: Sequence[Times], budgets_ms: Sequence[float]) -> dict[str, Distribution]:
    """One drawing per canvas; none without a call. Only finite times above 0 can be drawn, and are all there are."""
    both = [one for one in both if one.ms.size]
    if not both:
        return {}
    return {name: _distribution(both, budgets_ms, *panels) for name, panels in PANELS.items()}


def _distribution(both: Sequence[Times], budgets_ms: Sequence[float], upper: Canvas, lower: Canvas) -> Distribution:
    low, high = min(float(one.ms.min()) for one in both), max(float(one.ms.max()) for one in both)
    near = [ms for ms in budgets_ms if low <= ms <= 3 * high]
    across = LogScale.over(low, max([high, *near]), upper.left, upper.right, margin=0.02)
    edges = np.linspace(across.inner.low, across.inner.high, round((upper.right - upper.left) / BIN) + 1)
    shares = [np.histogram(np.log10(one.ms), edges)[0] / one.ms.size for one in both]
    tallest = max(float(share.max()) for share in shares)
    rarest = min(1 / max(one.ms.size for one in both), 0.1)
    down = Scale(np.log10(rarest), 0.0, lower.bottom, lower.top)
    names = _names(both, [share / tallest for share in shares], upper)
    tails = [_tail(one, across, down) for one in both]
    marks = [_percentiles(one, across, down) for one in both]
    beside = _beside(marks, tails, lower)
    curves = [
        Curve(
            times=one,
            shape=_steps(shares[n] / tallest, upper),
            tail=f"M{across.inner.px_low:g} {down.px_high:g}" + "".join(f"L{x:g} {y:g}" for x, y in tails[n]),
            spots=tuple((x, y) for x, y, _ in marks[n]),
            words=tuple(words for _, _, words in marks[n]),
            labels=tuple(label for label in (names[n], *beside[n]) if label),
        )
        for n, one in enumerate(both)
    ]
    return Distribution(
        upper=upper,
        lower=lower,
        curves=tuple(curves),
        x_ticks=across.ticks(),
        y_ticks=tuple(Guide(down.at(np.log10(rare)), words) for rare, words in RARE.items() if rare >= rarest),
        budgets=tuple(Guide(across.at(ms), f"≤ {ms:g} ms") for ms in near),
        calls=sum(one.ms.size for one in both),
    )


def _names(both: Sequence[Times], heights: Sequence[NDArray[np.float64]], panel: Canvas) -> list[Label | None]:
    """Who is who, beside the peaks and off the shapes."""
    tall = panel.bottom - panel.top
    bars = [
        Box(panel.left + n * BIN, panel.bottom - height * tall, panel.left + (n + 1) * BIN, panel.bottom)
        for each in heights
        for n, height in enumerate(each)
        if height > 0
    ]
    peaks = [(panel.left + (int(each.argmax()) + 0.5) * BIN, panel.bottom - each.max() * tall) for each in heights]
    wanted = [Wanted(one.role, "", x, y + 14, BIN, FAR) for one, (x, y) in zip(both, peaks, strict=True)]
    return place(wanted, panel, bars)


def _tail(one: Times, across: LogScale, down: Scale) -> list[tuple[float, float]]:
    """Points of the share of calls that take so long or longer, in px."""
    ordered = np.sort(one.ms)
    rare = np.geomspace(1.0, 1 / one.ms.size, TAIL_POINTS)
    return [(across.at(_slower(ordered, share)), down.at(np.log10(share))) for share in rare]


def _percentiles(one: Times, across: LogScale, down: Scale) -> list[tuple[float, float, str]]:
    """Places on the tail of the estimates that tables and rules use, with words; those that are known."""
    found = [(name, stats.percentile(one.ms, share)) for name, share in (("p50", 0.5), ("p99", 0.99))]
    return [
        (across.at(ms), down.clip(np.log10(float((one.ms >= ms).mean()))), f"{name} {number(ms)} ms")
        for name, ms in found
        if ms is not None
    ]


def _beside(
    marks: Sequence[list[tuple[float, float, str]]], tails: Sequence[list[tuple[float, float]]], panel: Canvas
) -> list[list[Label | None]]:
    """The words of all percentiles, off both curves."""
    curves = [
        Box(min(x0, x1) - 2, min(y0, y1) - 2, max(x0, x1) + 2, max(y0, y1) + 2)
        for tail in tails
        for (x0, y0), (x1, y1) in pairwise(tail)
    ]
    wanted = [Wanted(f"{words} ", words.split()[0], x, y, 3, APART) for each in marks for x, y, words in each]
    placed = iter(place(wanted, panel, curves))
    return [[next(placed) for _ in each] for each in marks]


def _steps(heights: NDArray[np.float64], panel: Canvas) -> str:
    """The outline of a histogram, empty bins left out at both ends."""
    filled = np.flatnonzero(heights)
    first, last = int(filled[0]), int(filled[-1])
    width = (panel.right - panel.left) / len(heights)
    tall = panel.bottom - panel.top
    path = f"M{panel.left + first * width:.1f} {panel.bottom}"
    for n in range(first, last + 1):
        path += f"V{panel.bottom - heights[n] * tall:.1f}H{panel.left + (n + 1) * width:.1f}"
    return f"{path}V{panel.bottom}Z"


def _slower(ordered: NDArray[np.float64], share: float) -> float:
    """The time that `share` of the calls reach or exceed; ordered: ascending."""
    return float(ordered[min(round((1 - share) * len(ordered)), len(ordered) - 1)])
