"""A guardrail per class: was a class harmed. Holm's step-down keeps false alarms of all classes together at 5 %."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from framegate.bench.stats.accuracy import Booleans, Names, Paired, paired, tango_variance
from framegate.bench.stats.bounds import CONFIDENCE


@dataclass(frozen=True, slots=True)
class ClassRecall:
    """One class before and after; `p` of no harm, `adjusted` for all classes. None: nothing can be said."""

    label: str
    pairs: Paired | None
    p: float | None
    adjusted: float | None

    @property
    def harmed(self) -> bool:
        """Whether harm is proven; what is unknown proves none."""
        return self.adjusted is not None and self.adjusted <= 1 - CONFIDENCE


def recall_guardrails(
    reference_right: Booleans,
    candidate_right: Booleans,
    labels: NDArray[np.int64],
    groups: Names,
    classes: Sequence[str],
    tolerance: float = 0.0,
) -> tuple[ClassRecall, ...]:
    """Every class's evidence that its recall fell by more than `tolerance` (a share), Holm-adjusted.

    A guardrail, no non-inferiority claim: with 125 clips a class no class could ever prove a margin of one point, so a
    class fails only on evidence of harm. Harm at tolerance 0 is any proven fall: right on small data, where only a
    large one can be proven; on large data a candidate inside its overall margin would fail for a class that lost half
    a point. The overall margin is the natural tolerance: no class may lose more than the whole may.

    A class without clips, or whose clips are of one group, has no p-value and no part in the family.
    Source: Holm, Scand. J. Statist. 6:65, 1979.
    """
    found: list[Paired | None] = []
    for k in range(len(classes)):
        mine = labels == k
        found.append(paired(reference_right[mine], candidate_right[mine], groups[mine]) if mine.any() else None)
    p = [None if pairs is None else harm(pairs, tolerance) for pairs in found]
    rows = zip(classes, found, p, holm(p), strict=True)
    return tuple(ClassRecall(*row) for row in rows)


def harm(pairs: Paired, tolerance: float = 0.0) -> float | None:
    """One-sided p-value of "the drop is at most `tolerance`"; None with fewer than two groups.

    The largest of those by V_cluster and by V_Tango (as in `drop_interval`) and of the exact sign test of lost against
    won: the others claim too much when three clips are lost and none is won.
    """
    if pairs.groups < 2:
        return None
    if pairs.drop <= max(tolerance, 0.0):
        return 1.0
    variances = ((pairs.cluster_variance, pairs.cluster_df), (tango_variance(pairs, tolerance), pairs.groups - 1))
    by_groups = [special.stdtr(df, (tolerance - pairs.drop) / math.sqrt(v)) for v, df in variances if v > 0]
    return float(max(*by_groups, special.bdtrc(pairs.lost - 1, pairs.lost + pairs.won, 0.5)))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm-adjusted p-values in the order given; None stays None and does not count."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    worst = 0.0
    for rank, (value, i) in enumerate(known):
        worst = max(worst, min(1.0, value * (len(known) - rank)))
        adjusted[i] = worst
    return adjusted
