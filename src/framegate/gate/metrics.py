"""What can be asked: every metric, the bounds that it takes in which scenario, and where its estimate comes from.

Adding a metric is a line in METRICS and a function from a question to what was found. Absolute percentiles come
from solo runs only: an interleaved call finds its caches warmed by somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from framegate.bench import stats
from framegate.bench.stats import Estimate, Paired
from framegate.contract import Scenario
from framegate.gate.evidence import Answers, Evidence, pair, pair_with_perfect

Bound = Literal["max", "min", "drop_max", "ratio_max"]

MIN_GROUPS = 10  # below, the variance between groups is a guess
MEGABYTE = 1e6
UNKNOWN = Estimate(None, None, None, 0)


@dataclass(frozen=True, slots=True)
class Question:
    """What a rule asks of one candidate; `other`: whose answers a drop is counted from."""

    one: Evidence
    other: Evidence | None
    scenario: Scenario | None
    bound: float


@dataclass(frozen=True, slots=True)
class Found:
    """An estimate; `undecidable`: why these data can prove no PASS.

    `unknown`: why there is none, or what would decide; said when nothing is proven. `note`: said in any case.
    """

    estimate: Estimate
    unknown: str = ""
    undecidable: str = ""
    note: str = ""


Taker = Callable[[Question], Found]
Key = tuple[Bound, Scenario | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table. The first scenario that a bound is given for is the default.

    `timed`: says how fast this machine is, so a restless machine proves nothing. `answers`: looks at answers to the
    test split, so nothing may be shortlisted by it. `streams`: looks at untrimmed streams.
    """

    unit: str
    takes: Mapping[Key, Taker]
    timed: bool = False
    answers: bool = False
    streams: bool = False

    @property
    def bounds(self) -> list[Bound]:
        """Every bound that it takes, in some scenario."""
        return list(dict.fromkeys(bound for bound, _ in self.takes))

    def scenarios(self, bound: Bound) -> list[Scenario | None]:
        """Where a bound is taken; the default first."""
        return [scenario for kind, scenario in self.takes if kind == bound]


# --- answers ----------------------------------------------------------------------------------


def _drop(q: Question) -> Found:
    return _points(q.one.answers.get("test"), q.other.answers.get("test") if q.other else None, q.bound / 100)


def _camera_drop(q: Question) -> Found:
    """Under the drop pattern against the other's undisturbed answers: what dropping costs counts."""
    mine, whole = q.one.camera_answers, q.other.answers.get("test") if q.other else None
    if mine is None or whole is None:
        return _not_measured(q)
    return _points(mine, _same_clips(whole, mine), q.bound / 100)


def _floor(q: Question) -> Found:
    return _accuracy(q.one.answers.get("test"), q)


def _camera_floor(q: Question) -> Found:
    return _accuracy(q.one.camera_answers, q)


def _same_clips(whole: Answers, part: Answers) -> Answers:
    return whole.taken(np.isin(whole.ids, part.ids))


def _points(mine: Answers | None, theirs: Answers | None, margin: float) -> Found:
    """A drop in percentage points."""
    pairs = pair(mine, theirs)
    if pairs is None or mine is None or theirs is None:
        return Found(UNKNOWN, "measured on other clips than what it is compared with")
    undecidable = why_undecidable(pairs.n, pairs.groups, margin)
    return Found(
        percent(stats.drop_interval(pairs)),
        unknown="" if undecidable else _would_do(pairs, margin),
        undecidable=undecidable,
        note=_by_few_groups(pairs, mine, theirs),
    )


def _would_do(pairs: Paired, margin: float) -> str:
    """What it would take to prove the margin, and how often a flawless candidate is proven on these clips."""
    size, disagreement = stats.enough(pairs, margin), (pairs.lost + pairs.won) / pairs.n
    told = f"{size.clips} clips of {size.groups} groups like these would prove it; " if size else ""
    share = stats.power(pairs.n, disagreement, 0.0, margin, pairs.groups)
    return f"{told}one that loses nothing is proven on so many independent clips in {100 * share:.0f} %"


def _by_few_groups(pairs: Paired, mine: Answers, theirs: Answers) -> str:
    """The drop without each group in turn, where a few of them decide it."""
    if not pairs.rests_on_few_groups:
        return ""
    without = stats.drop_without(theirs.right, mine.right, mine.groups)
    told = [f"{100 * drop:.2g} points without {name}" for name, drop in sorted(without.items(), key=lambda x: x[1])]
    return f"few groups decide it: {told[0]}, {told[-1]}"


def _accuracy(answers: Answers | None, q: Question) -> Found:
    """Accuracy in per cent; `q.bound` is its floor, so what the floor leaves is the margin of the error rate."""
    pairs = pair_with_perfect(answers)
    if pairs is None:
        return Found(UNKNOWN, "no test clips") if q.scenario != "camera" else _not_measured(q)
    errors = percent(stats.drop_interval(pairs))
    low, high = (None if end is None else 100 - end for end in (errors.high, errors.low))
    right = Estimate(None if errors.value is None else 100 - errors.value, low, high, errors.n)
    return Found(right, undecidable=why_undecidable(pairs.n, pairs.groups, 1 - q.bound / 100))


def percent(share: Estimate) -> Estimate:
    """Shares to percentage points."""
    value, low, high = (None if v is None else 100 * v for v in (share.value, share.low, share.high))
    return Estimate(value, low, high, share.n)


def why_undecidable(clips: int, groups: int, margin: float) -> str:
    """Why no PASS at this margin (share) can come of so few clips or groups, and what would do; empty when it can."""
    counted = groups if groups >= MIN_GROUPS else None  # what more clips would do, once there are groups enough
    enough, best, lacks = stats.min_clips(margin, counted), stats.smallest_margin(clips, counted), []
    if enough is None:
        lacks.append("no number of clips proves that nothing at all was lost")
    elif clips < enough:
        told = "" if best is None else f" decide {100 * best:.2g} points at best"
        lacks.append(f"{clips} clips{told}, {enough} would do")
    if groups < MIN_GROUPS:
        lacks.append(f"{groups} groups, {MIN_GROUPS} would do")
    return "; ".join(lacks)


# --- times ------------------------------------------------------------------------------------


def alone(one: Evidence, share: float) -> Estimate:
    """A percentile of its steps, in milliseconds, measured alone."""
    ns = one.samples.solo_ns if one.samples else np.empty((0, 0), np.int64)
    return stats.process_percentile(ns, share) if ns.size else UNKNOWN


def _alone(share: float) -> Taker:
    def take(q: Question) -> Found:
        processes = len(q.one.samples.solo_ns) if q.one.samples else 0
        text = f"measured alone in {processes} processes, {stats.MIN_PROCESSES} would do"
        return Found(alone(q.one, share), text if processes < stats.MIN_PROCESSES else "")

    return take


def _server(share: float) -> Taker:
    def take(q: Question) -> Found:
        ns = _extra(q, "server_ns")
        if ns is None:
            return _not_measured(q)
        if behind := q.one.measurement.scenarios["server"].settings.get("overloaded_processes"):
            return Found(UNKNOWN, f"requests came faster than they were answered in {behind} processes")
        return Found(stats.process_percentile(ns, share))

    return take


def _camera(share: float) -> Taker:
    def take(q: Question) -> Found:
        ns = _extra(q, "camera_ns")
        if ns is None:
            return _not_measured(q)
        return Found(stats.clustered_percentile(np.where(ns < 0, np.inf, ns / 1e6), share))

    return take


def _times(share: float) -> dict[Key, Taker]:
    """Every scenario in which a percentile of the times is bounded."""
    return {
        ("max", "single_stream"): _alone(share),
        ("max", "server"): _server(share),
        ("max", "camera"): _camera(share),
    }


def ratio_of(one: Evidence, share: Literal["p50", "p99"]) -> Estimate:
    """Of a candidate's time to its parent's. Facts were computed again from samples before any rule was asked."""
    facts, samples = one.measurement.latency, one.samples
    if facts is None or samples is None:
        return UNKNOWN
    value, low, high = (getattr(facts, f"ratio_{share}{end}") for end in ("", "_low", "_high"))
    return Estimate(value, low, high, samples.candidate_ns.size)


def _ratio(share: Literal["p50", "p99"]) -> Taker:
    return lambda q: Found(ratio_of(q.one, share))


def _throughput(q: Question) -> Found:
    """The mean over processes, with t bounds."""
    ns = _extra(q, "offline_ns")
    if ns is None:
        return _not_measured(q)
    frames = q.one.measurement.scenarios["offline"].settings["batch"] * ns.shape[1]
    fps = frames / (ns.sum(axis=1) / 1e9)  # [process]
    value = float(fps.mean())
    if len(fps) < 2:
        return Found(Estimate(value, None, None, ns.size), "one process bounds nothing")
    reach = stats.t_quantile(len(fps) - 1) * float(fps.std(ddof=1)) / math.sqrt(len(fps))
    return Found(Estimate(value, value - reach, value + reach, ns.size))


def _streams(q: Question) -> Found:
    facts = q.one.measurement.scenarios.get("camera")
    if facts is None:
        return _not_measured(q)
    return _exact(facts.streams, "no number of streams was confirmed")


def _missed(q: Question) -> Found:
    """Runs are the clusters: frames are missed in bursts."""
    outcome = _extra(q, "camera_outcome")
    if outcome is None:
        return _not_measured(q)
    bad = outcome != 0
    low, high = stats.clustered_proportion(bad.sum(axis=1), np.full(len(bad), bad.shape[1])) or (None, None)
    return Found(Estimate(float(bad.mean()), low, high, bad.size))


def _extra(q: Question, name: str) -> np.ndarray | None:
    """The raw samples of a scenario; None when it was not measured."""
    assert q.one.samples and q.scenario
    return q.one.samples.extra.get(name) if q.scenario in q.one.measurement.scenarios else None


# --- alarms and sizes -------------------------------------------------------------------------


def _alarms(q: Question) -> Found:
    facts = q.one.measurement.streams
    if facts is None:
        return _not_measured(q)
    ends = facts.false_alarms_per_hour_low, facts.false_alarms_per_hour_high
    return Found(Estimate(facts.false_alarms_per_hour, *ends, facts.false_alarms))


def _detection(q: Question) -> Found:
    facts = q.one.measurement.streams
    if facts is None:
        return _not_measured(q)
    return Found(
        Estimate(facts.time_to_detect_s, facts.time_to_detect_s_low, facts.time_to_detect_s_high, facts.events)
    )


def _fact(name: str, unit: float = 1) -> Taker:
    """A plain number of the measurement, in units of `unit`."""

    def take(q: Question) -> Found:
        value = getattr(q.one.measurement, name)
        return _exact(None if value is None else value / unit, f"its {name} was not measured")

    return take


def _exact(value: float | None, unknown: str) -> Found:
    if value is None:
        return Found(UNKNOWN, unknown)
    return Found(Estimate(float(value), float(value), float(value), 1))


def _not_measured(q: Question) -> Found:
    return Found(UNKNOWN, f"not measured: add {q.scenario or 'streams'} to bench.scenarios")


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "%",
        {
            ("drop_max", "single_stream"): _drop,
            ("drop_max", "camera"): _camera_drop,
            ("min", "single_stream"): _floor,
            ("min", "camera"): _camera_floor,
        },
        answers=True,
    ),
    "latency_p50_ms": Metric("ms", _times(0.5) | {("ratio_max", "single_stream"): _ratio("p50")}, timed=True),
    "latency_p90_ms": Metric("ms", _times(0.9), timed=True),
    "latency_p99_ms": Metric("ms", _times(0.99) | {("ratio_max", "single_stream"): _ratio("p99")}, timed=True),
    "throughput_fps": Metric("fps", {("min", "offline"): _throughput}, timed=True),
    "streams": Metric("", {("min", "camera"): _streams}, timed=True),
    "missed_share": Metric("", {("max", "camera"): _missed}, timed=True),
    "false_alarms_per_hour": Metric("/h", {("max", None): _alarms}, answers=True, streams=True),
    "time_to_detect_s": Metric("s", {("max", None): _detection}, answers=True, streams=True),
    "size_bytes": Metric("", {("max", None): _fact("size_bytes")}),
    "memory_mb": Metric("MB", {("max", None): _fact("memory_bytes", MEGABYTE)}),
    "parameters": Metric("", {("max", None): _fact("parameters")}),
}
