"""Geometry of the scatter accuracy against step latency: where points, lines, ticks and labels go.

Pixels of a fixed canvas; the page draws them. Latency is logarithmic; the accuracy axis shows the band
where the decision falls, and what lies below sits on its lower edge with an arrow. Labels are placed one by
one where they cover least, with a line back to their point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["pass", "fail", "inconclusive", "shipped"]

WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 30, 52
CHAR, LINE = 6.6, 16.0  # of a label, in px
RADIUS = 6.0
BAND_POINTS = 4.0  # of accuracy shown below the floor


@dataclass(frozen=True, slots=True)
class Dot:
    """One candidate in units of the axes: ms, per cent."""

    label: str
    title: str
    p50_ms: float
    accuracy: float
    low: float | None
    high: float | None
    kind: Kind


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its corners."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """Area in common."""
        wide = min(self.x1, other.x1) - max(self.x0, other.x0)
        high = min(self.y1, other.y1) - max(self.y0, other.y0)
        return wide * high if wide > 0 and high > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate in px; `below`: it lies under the axis. `box` holds its label."""

    dot: Dot
    x: float
    y: float
    y_low: float
    y_high: float
    below: bool
    box: Box

    @property
    def line_end(self) -> tuple[float, float]:
        """The point of the label's box that is nearest."""
        return min(max(self.x, self.box.x0), self.box.x1), min(max(self.y, self.box.y0), self.box.y1)

    @property
    def is_far(self) -> bool:
        """Whether the label needs a line."""
        x, y = self.line_end
        return math.hypot(x - self.x, y - self.y) > 2.2 * RADIUS


@dataclass(frozen=True, slots=True)
class Guide:
    """A tick or a budget line: place in px, words."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything to draw."""

    points: tuple[Point, ...]
    x_ticks: tuple[Guide, ...]
    y_ticks: tuple[Guide, ...]
    floor: Guide | None
    budgets: tuple[Guide, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(dots: Sequence[Dot], floor: float | None, budgets_ms: Sequence[tuple[float, str]]) -> Chart | None:
    """Place everything; None without a point. `floor`: the lowest accuracy allowed, in per cent."""
    dots = [dot for dot in dots if dot.p50_ms > 0 and math.isfinite(dot.p50_ms + dot.accuracy)]
    if not dots:
        return None
    across = _log_axis([dot.p50_ms for dot in dots], [ms for ms, _ in budgets_ms])
    bottom, top = _band(dots, floor)
    up = _Scale(bottom, top, HEIGHT - BOTTOM, TOP)
    budgets = [Guide(across.at(math.log10(ms)), text) for ms, text in budgets_ms if across.holds(math.log10(ms))]
    return Chart(
        points=_label(dots, across, up, bottom, budgets, floor),
        x_ticks=tuple(Guide(across.at(math.log10(ms)), f"{ms:g}") for ms in _nice_ms(across)),
        y_ticks=tuple(Guide(up.at(y), f"{y:g}") for y in _nice(bottom, top)),
        floor=None if floor is None else Guide(up.at(floor), f"accuracy floor {floor:.1f} %"),
        budgets=tuple(budgets),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """Linear: values to px."""

    low: float
    high: float
    px_low: float
    px_high: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.px_low + share * (self.px_high - self.px_low), 1)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def _log_axis(times_ms: Sequence[float], budgets_ms: Sequence[float]) -> _Scale:
    """All points, and the budgets that are not far away."""
    near = [ms for ms in budgets_ms if 0 < ms <= 3 * max(times_ms) and ms >= min(times_ms) / 3]
    low, high = math.log10(min(*times_ms, *near, math.inf)), math.log10(max(*times_ms, *near, 0.0))
    margin = max(0.08 * (high - low), 0.08)
    return _Scale(low - margin, high + margin, LEFT, WIDTH - RIGHT)


def _band(dots: Sequence[Dot], floor: float | None) -> tuple[float, float]:
    """From just under the lowest point, at most BAND_POINTS under the floor, to just over the highest bound."""
    top = min(max(dot.high if dot.high is not None else dot.accuracy for dot in dots) + 0.5, 100.4)
    lowest = min(dot.low if dot.low is not None else dot.accuracy for dot in dots)
    anchor = floor if floor is not None else max(dot.accuracy for dot in dots)
    bottom = max(lowest - 0.5, anchor - BAND_POINTS, 0.0)
    return bottom, max(top, bottom + 2.0)


def _nice(low: float, high: float) -> list[float]:
    """Five to nine round values."""
    step = next(step for step in (0.25, 0.5, 1, 2, 5, 10, 20, 50) if (high - low) / step <= 9)
    first = math.ceil(low / step)
    return [step * i for i in range(first, math.floor(high / step) + 1)]


def _nice_ms(across: _Scale) -> list[float]:
    """1-2-5 values within the axis."""
    decades = range(math.floor(across.low), math.ceil(across.high) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if across.holds(math.log10(m * 10.0**d))]


# --- labels -----------------------------------------------------------------------------------


def _label(
    dots: Sequence[Dot], across: _Scale, up: _Scale, bottom: float, budgets: Sequence[Guide], floor: float | None
) -> tuple[Point, ...]:
    """Shipped first, then from right to left: the earlier, the better the place."""
    placed: list[Point] = []
    spots = {id(dot): (across.at(math.log10(dot.p50_ms)), up.at(max(dot.accuracy, bottom))) for dot in dots}
    bars = {id(dot): _bar(dot, up, bottom) for dot in dots}
    lines = [Box(spots[key][0] - 2, high, spots[key][0] + 2, low) for key, (low, high) in bars.items()]
    lines += [Box(guide.at - 3, TOP, guide.at + 3, HEIGHT - BOTTOM) for guide in budgets]
    taken = [_around(x, y) for x, y in spots.values()]
    if floor is not None:
        lines.append(Box(LEFT, up.at(floor) - 3, WIDTH - RIGHT, up.at(floor) + 3))
        taken.append(Box(WIDTH - RIGHT - 160, up.at(floor), WIDTH - RIGHT, up.at(floor) + LINE + 4))
    for dot in sorted(dots, key=lambda dot: (dot.kind != "shipped", -dot.p50_ms, dot.label)):
        x, y = spots[id(dot)]
        below = dot.accuracy < bottom
        text = f"{dot.label} ({dot.accuracy:.1f} %)" if below else dot.label
        box = _best_box(x, y, CHAR * len(text), taken, lines)
        taken.append(box)
        placed.append(Point(dot, x, y, *bars[id(dot)], below, box))
    return tuple(placed)


def _bar(dot: Dot, up: _Scale, bottom: float) -> tuple[float, float]:
    """Ends of the interval in px, within the axis."""
    ends = [dot.accuracy if end is None else end for end in (dot.low, dot.high)]
    return up.at(max(ends[0], bottom)), up.at(max(ends[1], bottom))


def _around(x: float, y: float) -> Box:
    return Box(x - RADIUS - 2, y - RADIUS - 2, x + RADIUS + 2, y + RADIUS + 2)


def _best_box(x: float, y: float, width: float, taken: Sequence[Box], lines: Sequence[Box]) -> Box:
    """Where a text of `width` reads best: off points and labels, then off lines, then near."""
    boxes = sorted(filter(_is_inside, _around_at(x, y, width)), key=lambda box: _distance(box, x, y))
    best, least = boxes[0], math.inf
    for box in boxes:
        distance = _distance(box, x, y)
        if distance >= least:
            break
        covered = sum(box.overlap(other) for other in taken)
        crossed = sum(box.overlap(other) for other in lines)
        if (cost := 50 * covered + 2 * crossed + distance) < least:
            best, least = box, cost
    return best


def _around_at(x: float, y: float, width: float) -> Iterable[Box]:
    """Boxes to the right, to the left and centred, up to a third of the canvas away."""
    for dy in range(-160, 161, 8):
        for dx in range(10, 250, 12):
            for x0 in (x + dx, x - dx - width):
                yield Box(x0, y + dy - LINE / 2, x0 + width, y + dy + LINE / 2)
        if abs(dy) >= LINE:
            yield Box(x - width / 2, y + dy - LINE / 2, x + width / 2, y + dy + LINE / 2)


def _is_inside(box: Box) -> bool:
    return box.x0 >= LEFT + 4 and box.x1 <= WIDTH - RIGHT and box.y0 >= TOP and box.y1 <= HEIGHT - BOTTOM


def _distance(box: Box, x: float, y: float) -> float:
    """From a point to a box; height counts more, and level with the point is best."""
    across = min(max(x, box.x0), box.x1) - x
    up = min(max(y, box.y0), box.y1) - y
    return math.hypot(across, 1.5 * up) + 0.05 * abs((box.y0 + box.y1) / 2 - y)
