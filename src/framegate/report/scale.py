"""From values to pixels: linear and logarithmic axes, their ticks, boxes on a canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Guide:
    """A tick or a budget line: place in px, words."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Canvas:
    """A drawing and its plot area, all in px."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Linear: values to px."""

    low: float
    high: float
    px_low: float
    px_high: float

    def at(self, value: float) -> float:
        """Place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.px_low + share * (self.px_high - self.px_low), 1)

    def holds(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return self.low <= value <= self.high

    def clip(self, value: float) -> float:
        """Place of a value, or the end of the axis that is nearest."""
        return self.at(min(max(value, self.low), self.high))


@dataclass(frozen=True, slots=True)
class LogScale:
    """Logarithmic: values above 0 to px."""

    inner: Scale

    @classmethod
    def over(cls, low: float, high: float, px_low: float, px_high: float, margin: float = 0.0) -> LogScale:
        """From `low` to `high`, widened on both sides by `margin` of its length (at least a fiftieth of a decade)."""
        first, last = math.log10(low), math.log10(high)
        wider = max(margin * (last - first), 0.02)
        return cls(Scale(first - wider, last + wider, px_low, px_high))

    def at(self, value: float) -> float:
        """Place of a value; its end for one that is off the axis."""
        return self.inner.clip(math.log10(value)) if value > 0 else self.inner.px_low

    def holds(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return value > 0 and self.inner.holds(math.log10(value))

    def ticks(self) -> tuple[Guide, ...]:
        """1-2-5 values; where they are fewer than three, every value of one digit."""
        for steps in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
            values = self._values(steps)
            if len(values) >= 3:
                break
        return tuple(Guide(self.at(value), f"{value:g}") for value in values)

    def _values(self, steps: tuple[int, ...]) -> list[float]:
        decades = range(math.floor(self.inner.low), math.ceil(self.inner.high) + 1)
        found = [float(f"{step}e{decade}") for decade in decades for step in steps]
        return [value for value in found if self.holds(value)]


def round_values(low: float, high: float, at_most: int = 8) -> list[float]:
    """A few round values in a range."""
    steps = (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 20, 25, 50)
    step = next((step for step in steps if (high - low) / step <= at_most), 100)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its corners, in px."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """Area in common."""
        wide = min(self.x1, other.x1) - max(self.x0, other.x0)
        high = min(self.y1, other.y1) - max(self.y0, other.y0)
        return wide * high if wide > 0 and high > 0 else 0.0

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of it that is nearest to another."""
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)

    def is_in(self, canvas: Canvas) -> bool:
        """Whether it lies within the plot area."""
        inside_x = self.x0 >= canvas.left + 2 and self.x1 <= canvas.right - 2
        return inside_x and self.y0 >= canvas.top + 2 and self.y1 <= canvas.bottom - 2
