"""Recall of every class before (reference) and after (winner), with what was found about harm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from framegate.bench import stats
from framegate.bench.stats import ClassRecall
from framegate.gate.evidence import Evidence
from framegate.report.scale import Guide, round_values

SHOWN = 24  # classes; those that lost most


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: recall in per cent, places in per cent of the axis."""

    label: str
    before: float
    after: float
    before_at: float
    after_at: float
    guardrail: ClassRecall | None

    @property
    def change(self) -> float:
        """Points; negative is worse."""
        return self.after - self.before

    @property
    def left(self) -> float:
        """Where the line between both begins."""
        return min(self.before_at, self.after_at)

    @property
    def width(self) -> float:
        """Of the line between both."""
        return abs(self.after_at - self.before_at)


@dataclass(frozen=True, slots=True)
class Recall:
    """The classes that lost most, first; `hidden`: how many more there are, each of which lost no more than these."""

    rows: tuple[ClassRow, ...]
    ticks: tuple[Guide, ...]  # in per cent of the axis
    hidden: int
    low: float  # where the axis begins, in per cent

    @property
    def guarded(self) -> bool:
        """Whether harm was looked for in any of them."""
        return any(row.guardrail for row in self.rows)


def recall(reference: Evidence, winner: Evidence, points: float | None) -> Recall | None:
    """None when both have no class in common. `points`: what the guardrail lets a class lose; None: there is none."""
    before, after = (_per_class(one) for one in (reference, winner))
    found = [(label, 100 * before[label], 100 * after[label]) for label in before if label in after]
    found = [one for one in found if math.isfinite(one[1] + one[2])]
    if not found:
        return None
    found.sort(key=lambda one: (one[2] - one[1], one[0]))
    shown, harm = found[:SHOWN], {} if points is None else _harm(reference, winner, points)
    low = _floor(min(min(was, now) for _, was, now in shown))
    rows = [ClassRow(label, was, now, _at(was, low), _at(now, low), harm.get(label)) for label, was, now in shown]
    ticks = [Guide(_at(value, low), f"{value:g}") for value in round_values(low, 100.0, at_most=5)]
    return Recall(tuple(rows), tuple(ticks), len(found) - len(shown), low)


def _per_class(one: Evidence) -> dict[str, float]:
    facts = one.measurement.accuracy.get("test")
    return facts.recall_per_class if facts else {}


def _harm(reference: Evidence, winner: Evidence, points: float) -> dict[str, ClassRecall]:
    """What the guardrail found, class by class; nothing when the clips are not the same."""
    mine, theirs, labels = winner.answers.get("test"), reference.answers.get("test"), list(_per_class(winner))
    if mine is None or theirs is None or not mine.same_clips(theirs):
        return {}
    present, label = np.unique(mine.labels, return_inverse=True)  # the facts name the classes that have clips
    if len(present) != len(labels):
        return {}
    found = stats.recall_guardrails(theirs.right, mine.right, label, mine.group, labels, points / 100)
    return {one.label: one for one in found}


def _floor(lowest: float) -> float:
    """The start of the axis: a round number with some room below the lowest point."""
    return float(max(min(5 * math.floor((lowest - 1) / 5), 95), 0))


def _at(value: float, low: float) -> float:
    return round(100 * (value - low) / (100 - low), 2)
