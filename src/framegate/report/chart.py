"""Geometry of the scatter accuracy against p99: where points, intervals, lines, names and the Pareto front go.

Pixels of a canvas; the page draws them, on one canvas for a desk, one for a tablet and one for a phone. Latency is
logarithmic; the accuracy axis shows the band where the decision falls, and what lies below sits in a lane under it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from framegate.report.labels import FAR, NEAR, Label, Wanted, place
from framegate.report.row import Kind
from framegate.report.scale import Box, Canvas, Guide, LogScale, Scale, round_values

CANVASES = {
    "wide": Canvas(1032, 500, 48, 1022, 34, 452),
    "medium": Canvas(660, 450, 46, 652, 34, 402),
    "narrow": Canvas(340, 400, 36, 336, 30, 352),
}
RADIUS = 6.0
NAMED = 500  # px; on a narrower canvas only what ships and the reference are named, the others numbered
LANE = 44  # px under the band, for what is less accurate
BAND_POINTS = 4.0  # of accuracy shown below the floor
TOP_ACCURACY = 100.4


@dataclass(frozen=True, slots=True)
class Dot:
    """One candidate in units of the axes: p99 in ms, accuracy in per cent, each with its one-sided bounds."""

    number: int
    label: str
    title: str
    p99_ms: float
    p99_low: float | None
    p99_high: float | None
    accuracy: float
    low: float | None
    high: float | None
    kind: Kind
    must: bool = False  # be named


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate in px; `below`: it lies in the lane under the axis. `label`: where there is room for one."""

    dot: Dot
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    below: bool
    label: Label | None


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything to draw."""

    canvas: Canvas
    points: tuple[Point, ...]  # what ships last, on top
    x_ticks: tuple[Guide, ...]
    y_ticks: tuple[Guide, ...]
    floor: Guide | None
    budgets: tuple[Guide, ...]
    beyond: tuple[str, ...]  # budgets off the axis
    front: str  # path of the Pareto front
    base: float  # lower edge of the band, in px

    @property
    def allowed(self) -> Box | None:
        """Where both the floor and the strictest budget hold."""
        if self.floor is None:
            return None
        right = min((line.at for line in self.budgets), default=self.canvas.right)
        return Box(self.canvas.left, self.canvas.top, right, max(self.floor.at, self.canvas.top))


def charts(dots: Sequence[Dot], floor: float | None, budgets_ms: Sequence[float]) -> dict[str, Chart]:
    """One chart per canvas; none without a point. `floor`: the lowest accuracy allowed, in per cent."""
    dots = [dot for dot in dots if dot.p99_ms > 0 and math.isfinite(dot.p99_ms + dot.accuracy)]
    if not dots:
        return {}
    return {name: _chart(dots, floor, budgets_ms, canvas) for name, canvas in CANVASES.items()}


def _chart(dots: Sequence[Dot], floor: float | None, budgets_ms: Sequence[float], canvas: Canvas) -> Chart:
    across = _across(dots, budgets_ms, canvas)
    bottom, top = _band(dots, floor)
    lane = LANE if any(dot.accuracy < bottom for dot in dots) else 0
    up = Scale(bottom, top, canvas.bottom - lane, canvas.top)
    budgets = tuple(Guide(across.at(ms), f"≤ {ms:g} ms") for ms in budgets_ms if across.holds(ms))
    line = None if floor is None else Guide(up.clip(floor), f"floor {floor:.1f} %")
    return Chart(
        canvas=canvas,
        points=_points(dots, across, up, canvas, budgets, line),
        x_ticks=across.ticks(),
        y_ticks=tuple(Guide(up.at(y), f"{y:g}") for y in round_values(bottom, top)),
        floor=line,
        budgets=budgets,
        beyond=tuple(_beyond(ms, dots) for ms in budgets_ms if not across.holds(ms)),
        front=_front(dots, across, up, canvas),
        base=up.px_low,
    )


def _across(dots: Sequence[Dot], budgets_ms: Sequence[float], canvas: Canvas) -> LogScale:
    """All points, most of their bounds, and the budgets that are not far away."""
    times = [dot.p99_ms for dot in dots]
    low, high = min(times), max(times)
    ends = [end for dot in dots for end in (dot.p99_low, dot.p99_high) if end is not None and math.isfinite(end)]
    shown = [end for end in ends if low / 1.6 <= end <= high * 1.6]
    near = [ms for ms in budgets_ms if low / 3 <= ms <= 3 * high]
    values = [*times, *shown, *near]
    return LogScale.over(min(values), max(values), canvas.left, canvas.right, margin=0.06)


def _band(dots: Sequence[Dot], floor: float | None) -> tuple[float, float]:
    """From under the floor and all points near it, at most BAND_POINTS lower, to just over the highest bound."""
    anchor = max(dot.accuracy for dot in dots) if floor is None else floor
    top = min(max(_ends(dot)[1] for dot in dots) + 0.2, TOP_ACCURACY)
    near = [dot for dot in dots if dot.accuracy >= anchor - BAND_POINTS]
    lowest = min((_ends(dot)[0] for dot in near), default=anchor)
    bottom = max(min(lowest, anchor) - 0.3, anchor - BAND_POINTS - 0.3, 0.0)
    return bottom, max(top, bottom + 1.0)


def _ends(dot: Dot) -> tuple[float, float]:
    """Lowest and highest of accuracy and its bounds."""
    known = [end for end in (dot.accuracy, dot.low, dot.high) if end is not None]
    return min(known), max(known)


def _beyond(ms: float, dots: Sequence[Dot]) -> str:
    """A budget that would squeeze the points together if the axis went there."""
    slowest = max(dot.p99_ms for dot in dots)
    return f"budget {ms:g} ms →" if ms > slowest else f"← budget {ms:g} ms"


def _points(
    dots: Sequence[Dot], across: LogScale, up: Scale, canvas: Canvas, budgets: Sequence[Guide], floor: Guide | None
) -> tuple[Point, ...]:
    """The important ones get their names first and are drawn last."""
    ranked = sorted(dots, key=lambda dot: (dot.kind != "shipped", not dot.must, dot.number))
    wanted = [_wanted(dot, across, up, canvas) for dot in ranked]
    bars = [_bars(dot, across, up) for dot in ranked]
    lines = [Box(x0, w.y - 2, x1, w.y + 2) for w, (x0, x1, _, _) in zip(wanted, bars, strict=True)]
    lines += [Box(w.x - 2, y1, w.x + 2, y0) for w, (_, _, y0, y1) in zip(wanted, bars, strict=True)]
    lines += [Box(line.at - 2, canvas.top, line.at + 2, canvas.bottom) for line in budgets]
    taken = [Box(canvas.left, up.px_low - 3, canvas.right, up.px_low + 3)] if up.px_low < canvas.bottom else []
    if floor:
        lines.append(Box(canvas.left, floor.at - 2, canvas.right, floor.at + 2))
        taken.append(Box(canvas.right - 96, floor.at, canvas.right, floor.at + 20))
    labels = place(wanted, canvas, taken, lines)
    placed = [
        Point(dot, w.x, w.y, *bar, dot.accuracy < up.low, label)
        for dot, w, bar, label in zip(ranked, wanted, bars, labels, strict=True)
    ]
    return tuple(reversed(placed))


def _wanted(dot: Dot, across: LogScale, up: Scale, canvas: Canvas) -> Wanted:
    below = dot.accuracy < up.low
    text = f"{dot.number} {dot.label}" + (f" ({dot.accuracy:.1f} %)" if below else "")
    text = text if dot.must or canvas.width > NAMED else str(dot.number)
    return Wanted(
        text, str(dot.number), across.at(dot.p99_ms), _height(dot, up, canvas), RADIUS, FAR if dot.must else NEAR
    )


def _height(dot: Dot, up: Scale, canvas: Canvas) -> float:
    """Within the band, or in the lane under it."""
    return up.at(dot.accuracy) if dot.accuracy >= up.low else canvas.bottom - LANE / 3


def _bars(dot: Dot, across: LogScale, up: Scale) -> tuple[float, float, float, float]:
    """Ends of both intervals in px, within the axes: left, right, lower, upper."""
    left, right = (dot.p99_ms if end is None else end for end in (dot.p99_low, dot.p99_high))
    lower, upper = (dot.accuracy if end is None else end for end in (dot.low, dot.high))
    return across.at(left), across.at(right), up.clip(lower), up.clip(upper)


def pareto(dots: Sequence[Dot]) -> list[Dot]:
    """From fast to slow those that nothing beats in both: each is more accurate than every faster one."""
    front: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.p99_ms, -dot.accuracy, dot.number)):
        if not front or dot.accuracy > front[-1].accuracy:
            front.append(dot)
    return front


def _front(dots: Sequence[Dot], across: LogScale, up: Scale, canvas: Canvas) -> str:
    """A staircase through the Pareto front, from the lower edge to the right one."""
    spots = [(across.at(dot.p99_ms), _height(dot, up, canvas)) for dot in pareto(dots)]
    steps = "".join(f"H{x:g}V{y:g}" for x, y in spots[1:])
    return f"M{spots[0][0]:g} {canvas.bottom}V{spots[0][1]:g}{steps}H{across.inner.px_high:g}"
