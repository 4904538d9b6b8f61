"""Where the names of points go: near, off other points and names, and left out where there is no room.

Where a name finds no room its number does, which the table below explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from framegate.report.scale import Box, Canvas

CHAR, LINE = 7.0, 16.0  # of a name, in px
NEAR, APART, FAR = 26.0, 44.0, 130.0  # how far from its point a name may stand


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name that should stand beside a point, at most `reach` px away; `short` does where it cannot."""

    text: str
    short: str
    x: float
    y: float
    radius: float
    reach: float


@dataclass(frozen=True, slots=True)
class Label:
    """A name in its box, with the end of the line to its point where it stands apart."""

    text: str
    box: Box
    lead: tuple[float, float] | None


def place(
    wanted: Sequence[Wanted], canvas: Canvas, taken: Sequence[Box] = (), lines: Sequence[Box] = ()
) -> list[Label | None]:
    """A place for each name, in the order of importance given; None where even the short one would cover something.

    `taken`: what no name may cover; `lines`: what it should not cross.
    """
    covered = [*taken, *(_around(one) for one in wanted)]
    placed: list[Label | None] = []
    for one in wanted:
        found = (_label(one, text, canvas, covered, lines) for text in (one.text, one.short))
        label = next((label for label in found if label), None)
        placed.append(label)
        if label:
            covered.append(label.box)
    return placed


def _label(one: Wanted, text: str, canvas: Canvas, covered: Sequence[Box], lines: Sequence[Box]) -> Label | None:
    box = _best(one, text, canvas, covered, lines) if text else None
    if box is None:
        return None
    x, y = box.nearest(one.x, one.y)
    apart = math.hypot(x - one.x, y - one.y) > one.radius + 12
    return Label(text, box, (x, y) if apart else None)


def _around(one: Wanted) -> Box:
    reach = one.radius + 1
    return Box(one.x - reach, one.y - reach, one.x + reach, one.y + reach)


def _best(one: Wanted, text: str, canvas: Canvas, covered: Sequence[Box], lines: Sequence[Box]) -> Box | None:
    best, least = None, math.inf
    for box in _boxes(one, text):
        x, y = box.nearest(one.x, one.y)
        cost = math.hypot(x - one.x, y - one.y) + 0.3 * abs((box.y0 + box.y1) / 2 - one.y)
        if cost >= least or not box.is_in(canvas) or any(box.overlap(other) for other in covered):
            continue
        cost += 0.4 * sum(box.overlap(other) for other in lines)
        if cost < least:
            best, least = box, cost
    return best


def _boxes(one: Wanted, text: str) -> Iterator[Box]:
    """Right, left and centred, level and above and below, ever farther."""
    wide, gap = CHAR * len(text), one.radius + 4
    rise = 0.0
    while rise <= one.reach:
        for dy in {rise, -rise}:
            yield from (Box(x, one.y + dy - LINE / 2, x + wide, one.y + dy + LINE / 2) for x in _starts(one, wide, gap))
        rise += LINE / 2


def _starts(one: Wanted, wide: float, gap: float) -> Iterator[float]:
    yield from (one.x + gap, one.x - gap - wide, one.x - wide / 2, one.x - wide * 0.8, one.x - wide * 0.2)
    if one.reach > NEAR:
        yield from (one.x + 3 * gap, one.x - 3 * gap - wide, one.x + 6 * gap, one.x - 6 * gap - wide)
