"""One candidate as the page shows it: its verdict, and the facts that the reader compares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from framegate.bench import stats
from framegate.contract import (
    AccuracyFacts,
    CandidateVerdict,
    LatencyFacts,
    Measurement,
    RuleOutcome,
    ScenarioFacts,
    Status,
    Verdict,
)
from framegate.gate.evidence import Evidence

Kind = Literal["shipped", "pass", "fail", "inconclusive"]
KINDS: dict[Status, Kind] = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "inconclusive"}
RANKS: tuple[Kind, ...] = ("shipped", "pass", "fail", "inconclusive")
LABEL = 34  # characters of a name in a chart


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate. `confirmed`: its latency measured again, for the chosen one; what is reported then."""

    number: int
    verdict: CandidateVerdict
    evidence: Evidence | None
    confirmed: Evidence | None
    kind: Kind
    label: str

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.verdict.candidate

    @property
    def measurement(self) -> Measurement | None:
        """What was measured, if anything."""
        return self.evidence.measurement if self.evidence else None

    @property
    def test(self) -> AccuracyFacts | None:
        """Accuracy on the test split."""
        return self.measurement.accuracy.get("test") if self.measurement else None

    @property
    def accuracy(self) -> float | None:
        """On the test split, in per cent."""
        return 100 * self.test.accuracy if self.test else None

    @property
    def latency(self) -> LatencyFacts | None:
        """Of one step; of the confirmation where there is one."""
        again = self.confirmed.measurement.latency if self.confirmed else None
        return again or (self.measurement.latency if self.measurement else None)

    @property
    def scenarios(self) -> Mapping[str, ScenarioFacts]:
        """By name."""
        return {str(name): found for name, found in self.measurement.scenarios.items()} if self.measurement else {}

    @property
    def drop(self) -> RuleOutcome | None:
        """The accuracy rule against the reference."""
        return next((o for o in self.verdict.outcomes if _is_drop(o)), None)

    @property
    def p50_ms(self) -> float | None:
        """Of one step."""
        return _finite(self.latency.p50_ms) if self.latency else None

    @property
    def p99_ms(self) -> float | None:
        """Of one step, alone and sustained."""
        return _finite(self.latency.p99_ms) if self.latency else None

    @property
    def p99_bounds(self) -> tuple[float | None, float | None]:
        """From the rule that asks for it, else from the samples; unknown otherwise."""
        outcome = next((o for o in self.verdict.outcomes if is_p99(o) and o.value == self.p99_ms), None)
        if outcome:
            return _finite(outcome.low), _finite(outcome.high)
        ns = solo_ns(self.confirmed) if self.confirmed else solo_ns(self.evidence)
        if ns is None:
            return None, None
        found = stats.process_percentile(ns, 0.99)
        return _finite(found.low), _finite(found.high)

    @property
    def streams_per_core(self) -> float | None:
        """Cameras at once, for each thread that the session used."""
        camera = self.scenarios.get("camera")
        threads = self.measurement.session.get("threads") if self.measurement else None
        if not camera or camera.streams is None or not isinstance(threads, int) or threads < 1:
            return None
        return camera.streams / threads

    @property
    def throughput_fps(self) -> float | None:
        """Frames a second when all of them are there at once."""
        offline = self.scenarios.get("offline")
        return _finite(offline.throughput_fps) if offline else None


def rows(verdict: Verdict, evidence: Sequence[Evidence], confirmation: Evidence | None) -> list[Row]:
    """What ships first, then PASS, FAIL, INCONCLUSIVE, the fast ones first; numbered in that order."""
    by_name = {str(one.name): one for one in evidence}
    found = [_row(one, by_name.get(one.candidate), verdict, confirmation) for one in verdict.candidates]
    found.sort(key=lambda row: (RANKS.index(row.kind), row.p50_ms or math.inf, row.name))
    return [
        Row(n, row.verdict, row.evidence, row.confirmed, row.kind, row.label) for n, row in enumerate(found, start=1)
    ]


def _row(one: CandidateVerdict, evidence: Evidence | None, verdict: Verdict, again: Evidence | None) -> Row:
    kind: Kind = "shipped" if one.candidate == verdict.shipped else KINDS[one.status]
    confirmed = again if again and str(again.name) == one.candidate and again.measurement.latency else None
    return Row(0, one, evidence, confirmed, kind, short(one.candidate, verdict.reference))


def short(name: str, reference: str) -> str:
    """A name without the model that all share: `pruned int8 · openvino`."""
    bundle, _, runtime = name.partition("--")
    model = reference.partition("-")[0]
    label = f"{bundle.removeprefix(f'{model}-').replace('-', ' ')} · {runtime}"
    return label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"


def solo_ns(one: Evidence | None) -> NDArray[np.int64] | None:
    """[process, call] of the sustained runs; None where there are none."""
    ns = one.samples.solo_ns if one and one.samples else None
    return ns if ns is not None and ns.ndim == 2 and ns.size else None


def is_p99(outcome: RuleOutcome) -> bool:
    """Whether it bounds the p99 of one step, in ms, calls alone and one after the other."""
    return (outcome.metric, outcome.unit, outcome.scenario) == ("latency_p99_ms", "ms", "single_stream")


def _is_drop(outcome: RuleOutcome) -> bool:
    about = (outcome.metric, outcome.kind, outcome.against, outcome.scenario)
    return about == ("accuracy", "drop_max", "reference", "single_stream")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
