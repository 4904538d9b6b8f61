"""What the statistics are worth: coverage, false PASS and power of each, on noise whose truth is known.

    python -m benchmarks.statistics [--runs 2000] [--only ratio]

One core, some minutes. `misses`: a one-sided 95 % bound lies on the wrong side of the truth, nominal 5 %. The last line
is one JSON object. The fast variants of the same cases are tests/unit/test_simulations.py.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from benchmarks.noise import BURSTS, QUIET, RESTLESS, Cameras, Machine
from framegate.bench import stats

Random = np.random.Generator
Once = Callable[[Random], dict[str, bool]]  # one simulated run: what happened in it
BLOCKS = (16, 50)  # blocks a process, calls a block
MARGIN = 0.01  # of accuracy
P50_MARGIN, P99_MARGIN = 1.02, 1.1


@dataclass(frozen=True, slots=True)
class Case:
    """One simulated situation; `cost`: its runs are divided by it."""

    study: str
    name: str
    once: Once
    cost: int = 1


def simulate(once: Once, runs: int, seed: int = 0) -> dict[str, float]:
    """The share of runs in which each thing happened."""
    rng = np.random.default_rng(seed)
    found = [once(rng) for _ in range(runs)]
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def main() -> None:
    """Print the table, last one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulated runs a case; the slow ones take a fraction")
    parser.add_argument("--only", default="", help="studies whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started, result = time.monotonic(), {}
    print("| study | case | what happened, in % of the runs | runs |\n|---|---|---|---|")
    for case in (one for one in CASES if arguments.only in one.study):
        runs = max(20, arguments.runs // case.cost)
        found = simulate(case.once, runs, arguments.seed)
        said = [f"{what} {100 * s:.1f} ± {100 * monte_carlo_error(s, runs):.1f}" for what, s in found.items()]
        print(f"| {case.study} | {case.name} | {' · '.join(said)} | {runs} |", flush=True)
        result[f"{case.study}: {case.name}"] = {what: round(share, 4) for what, share in found.items()}
    print(json.dumps({"runs": arguments.runs, "seconds": round(time.monotonic() - started), "shares": result}))


def monte_carlo_error(share: float, runs: int) -> float:
    """Standard error of a share of so many runs; as of one run where it happened never or always."""
    inside = min(max(share, 1 / runs), 1 - 1 / runs)
    return math.sqrt(inside * (1 - inside) / runs)


# --- latency ----------------------------------------------------------------------------------


def one_trace(share: float, calls: int, rng: Random) -> dict[str, bool]:
    """Independent calls, the assumption of LoadGen; nominal 1 %."""
    trace = rng.random(calls)
    high, low = stats.percentile(trace, share), stats.percentile_low(trace, share)
    return {"high misses": high is not None and high < share, "low misses": low is not None and low > share}


@lru_cache
def true_quantile_ms(machine: Machine, share: float) -> float:
    """Of all calls of all processes."""
    return float(np.quantile(machine.calls(np.random.default_rng(99), 4000, 1500), share)) / 1e6


def over_processes(machine: Machine, processes: int, calls: int, share: float, rng: Random) -> dict[str, bool]:
    """Bounds of a solo percentile; and what one trace of the same calls, or t bounds over the processes, would say."""
    ns, truth = machine.calls(rng, processes, calls), true_quantile_ms(machine, share)
    low, high = known(stats.process_percentile(ns, share))
    trace = stats.percentile(ns.ravel() / 1e6, share) or 0.0
    each = np.array([stats.percentile(one / 1e6, share) for one in ns])
    by_t = each.mean() + stats.t_quantile(processes - 1) * each.std(ddof=1) / math.sqrt(processes)
    naive = {"high as one trace misses": trace < truth, "high by t alone misses": bool(by_t < truth)}
    return {"high misses": high < truth, "low misses": low > truth} | naive


def known(found: stats.Estimate) -> tuple[float, float]:
    """Both bounds; an unknown one is infinitely far."""
    return -math.inf if found.low is None else found.low, math.inf if found.high is None else found.high


def beside(
    ratio: Callable[..., stats.Estimate], margin: float, machine: Machine, pairs: int, factor: float, rng: Random
) -> dict[str, bool]:
    """A candidate `factor` times as slow as its parent, in pairs of processes.

    Seen as slower: proven slower at all, and by more than the margin as measured.
    """
    found = ratio(*machine.pairs(rng, (pairs, *BLOCKS), factor))
    low, high = known(found)
    seen = low > 1 and (found.value or 0) > margin
    what = {"high misses": high < factor, "low misses": low > factor}
    return what | {f"PASS at {margin}": high <= margin, f"FAIL at {margin}": low > margin, "seen as slower": seen}


def alone(machine: Machine, factor: float, rng: Random) -> dict[str, bool]:
    """The naive way: one process each, one after the other, medians compared; the speed drifts in between."""
    mine, theirs = (machine.pairs(rng, (1, *BLOCKS), f)[0] for f in (factor, 1.0))
    return {f"over {P50_MARGIN}": bool(np.median(mine) / np.median(theirs) > P50_MARGIN)}


# --- accuracy ---------------------------------------------------------------------------------


def drop_of(cameras: Cameras, drop: float, disagreement: float, rng: Random) -> dict[str, bool]:
    """The drop rule at a margin of one point; at a true drop of one point a PASS is false, and so is a FAIL.

    PASS by G - 1: by the common form of the rule, t(.95, G - 1) for the variance between groups too. Warned: the design
    effect shows that a few groups decide.
    """
    reference, candidate, groups = cameras.answers(rng, drop, disagreement)
    pairs = stats.paired(reference, candidate, groups)
    low, high = known(stats.drop_interval(pairs))
    variance = max(pairs.cluster_variance, stats.tango_variance(pairs, MARGIN))
    common = MARGIN - pairs.drop >= stats.t_quantile(pairs.groups - 1) * math.sqrt(variance)
    passed = {"PASS": high <= MARGIN, "PASS by G - 1": common}
    return passed | {"FAIL": low > MARGIN, "warned": pairs.rests_on_few_groups}


def bootstrapped_drop_of(cameras: Cameras, drop: float, disagreement: float, rng: Random) -> dict[str, bool]:
    """The same by the percentile bootstrap over groups, which the rule replaces."""
    reference, candidate, which = cameras.answers(rng, drop, disagreement)
    sums = np.bincount(which, weights=reference.astype(float) - candidate, minlength=cameras.groups)
    sizes, again = np.bincount(which), rng.integers(0, cameras.groups, (400, cameras.groups))
    drops = sums[again].sum(axis=1) / sizes[again].sum(axis=1)
    return {"PASS": bool(np.quantile(drops, 0.95) <= MARGIN)}


def agreement_of(cameras: Cameras, share: float, rng: Random) -> dict[str, bool]:
    """PASS at one point without labels; at a true share of one point it is a false one."""
    which = cameras.which(rng)
    _, high = known(stats.agreement(cameras.hits(rng, which, share), which))
    return {"PASS": high <= MARGIN}


def classes_of(cameras: Cameras, fall: float, rng: Random) -> dict[str, bool]:
    """Nine classes with 4 % disagreement; the recall of the first falls by `fall`."""
    reference, candidate, groups = cameras.answers(rng, 0.0, 0.04)
    labels = rng.integers(0, 9, cameras.clips)
    candidate &= ~((labels == 0) & (rng.random(cameras.clips) < fall))
    found = stats.recall_guardrails(reference, candidate, labels, groups, [str(k) for k in range(9)])
    return {"first class harmed": found[0].harmed, "another class harmed": any(one.harmed for one in found[1:])}


# --- alarms -----------------------------------------------------------------------------------


def alarms_of(streams: int, hours: float, each: float, spread: float, rng: Random) -> dict[str, bool]:
    """`each` alarms an hour on average; `spread`: relative deviation of the rate between streams (gamma)."""
    rates = each * (rng.gamma(1 / spread**2, spread**2, streams) if spread else np.ones(streams))
    events, time_each = rng.poisson(rates * hours), np.full(streams, hours)
    by_stream = known(stats.rate(events, time_each))
    together = known(stats.rate(int(events.sum()), streams * hours))
    return {
        "high misses": by_stream[1] < each,
        "low misses": by_stream[0] > each,
        "high of the sum misses": together[1] < each,
        "low of the sum misses": together[0] > each,
    }


def detections_of(events: int, undetected: float, rng: Random) -> dict[str, bool]:
    """Exponential times, some never; the truth is the median of all."""
    times = np.where(rng.random(events) < undetected, np.inf, rng.exponential(1.0, events))
    truth = -math.log(1 - 0.5 / (1 - undetected))
    low, high = known(stats.median_time(times))
    return {"high misses": high < truth, "low misses": low > truth}


def runs_of(runs: int, rate: float, rng: Random) -> dict[str, bool]:
    """Null runs that raise an alarm with probability `rate`: how often they show at most 1 %."""
    found = stats.alarm_rate(int(rng.binomial(runs, rate)), runs)
    return {"shown to be <= 1 %": found.high is not None and found.high <= 0.01}


ALIKE, UNLIKE, EXTREME = 0.0, 0.6, 1.5
DRIFTING = Machine(process_spread=0.003, drift=0.003)
MACHINES = {"quiet": QUIET, "1 % between processes": RESTLESS, "bursts 1.5 %": BURSTS}
P99_MACHINES = MACHINES | {"bursts 0.3 %": Machine(slow=0.003)}


def cases() -> list[Case]:
    """All that the table shows."""
    found = [
        *(Case("percentile", f"p{100 * p:g}, 1050 calls", partial(one_trace, p, 1050)) for p in (0.5, 0.9, 0.99)),
        *(
            Case("process_percentile", f"p{100 * p:g}, {m} x {c}, {name}", partial(over_processes, machine, m, c, p), 4)
            for p, m, c, name, machine in [
                (0.5, 10, 800, "bursts 1.5 %", BURSTS),
                (0.99, 10, 800, "no bursts", RESTLESS),
                (0.99, 10, 800, "bursts 1.5 %", BURSTS),
                (0.99, 10, 1500, "bursts 1.5 %", BURSTS),
                (0.99, 20, 1500, "bursts 1.5 %", BURSTS),
                (0.99, 10, 800, "bursts of 50, 1.1 %", Machine(slow=0.011, burst=(50, 50))),
                (0.99, 10, 1500, "bursts of 50, 1.1 %", Machine(slow=0.011, burst=(50, 50))),
            ]
        ),
        *(
            Case(
                "ratio_p50", f"{pairs} pairs, x{f:g}, {name}", partial(beside, stats.ratio_p50, P50_MARGIN, m, pairs, f)
            )
            for pairs, f in [(3, 1.0), (10, 1.0), (20, 1.0), (10, 1.03), (20, 1.03)]
            for name, m in MACHINES.items()
        ),
        *(Case("one after the other", f"x{f:g}, drift 1.5 %", partial(alone, DRIFTING, f)) for f in (1.0, 1.03)),
        *(
            Case(
                "ratio_p99",
                f"{pairs} pairs, x{f:g}, {name}",
                partial(beside, stats.ratio_p99, P99_MARGIN, P99_MACHINES[name], pairs, f),
                10,
            )
            for pairs, f, name in [
                (3, 1.0, "1 % between processes"),
                (3, 1.0, "bursts 1.5 %"),
                (10, 1.0, "1 % between processes"),
                (10, 1.0, "bursts 1.5 %"),
                (40, 1.0, "bursts 1.5 %"),
                (10, 1.0, "bursts 0.3 %"),
                (40, 1.0, "bursts 0.3 %"),
                (10, 1.2, "1 % between processes"),
            ]
        ),
    ]
    return found + accuracy_cases() + alarm_cases()


def accuracy_cases() -> list[Case]:
    """At a margin of one point; 3 % of the clips disagree where the true drop is one point."""
    boundary = [
        *((f"50 clips, {g} groups", Cameras(50, g), MARGIN) for g in (2, 9, 40)),  # often none of them disagrees
        *((f"1000 clips, {g} groups alike", Cameras(1000, g), 0.03) for g in (2, 9, 40)),
        *((f"1000 clips, {g} groups unlike", Cameras(1000, g, UNLIKE), 0.03) for g in (2, 9, 40)),
        ("3000 clips, 12 groups unlike", Cameras(3000, 12, UNLIKE), 0.03),
        ("3000 clips, 12 groups unlike and uneven", Cameras(3000, 12, UNLIKE, 1.0), 0.03),
        ("3000 clips, 40 groups unlike", Cameras(3000, 40, UNLIKE), 0.03),
        ("3000 clips, 40 groups unlike and uneven", Cameras(3000, 40, UNLIKE, 1.0), 0.03),
        ("3000 clips, 40 groups, a few carry the loss", Cameras(3000, 40, EXTREME), 0.03),
        ("3000 clips, 12 groups, a few carry the loss", Cameras(3000, 12, EXTREME), 0.03),
    ]
    inside = [(n, d, drop) for n, d in ((1000, 0.02), (3000, 0.03)) for drop in (0.0, 0.003)]
    unlabelled = [("alike", ALIKE), ("unlike", UNLIKE), ("a few carry it", EXTREME)]
    classes = [("alike", ALIKE, 0.0), ("unlike", UNLIKE, 0.0), ("alike", ALIKE, 0.1), ("alike", ALIKE, 0.15)]
    own, few = Cameras(299, 299), Cameras(1000, 40)
    found = [Case("drop at the margin", name, partial(drop_of, c, MARGIN, d)) for name, c, d in boundary]
    found += [Case("by bootstrap", name, partial(bootstrapped_drop_of, c, MARGIN, d), 4) for name, c, d in boundary[:9]]
    for n, d, drop in inside:
        name = f"drop {100 * drop:g}, {n} clips, 40 groups, {100 * d:g} % disagree"
        found.append(Case("drop inside", name, partial(drop_of, Cameras(n, 40), drop, d)))
    for groups in (12, 40):
        name = f"drop 0.3, 3000 clips, {groups} groups unlike, 3 % disagree"
        found.append(Case("drop inside", name, partial(drop_of, Cameras(3000, groups, UNLIKE), 0.003, 0.03)))
    found.append(Case("agreement at the margin", "299 clips, each its own", partial(agreement_of, own, MARGIN)))
    for name, spread in unlabelled:
        once = partial(agreement_of, Cameras(1000, 40, spread), MARGIN)
        found.append(Case("agreement at the margin", f"1000 clips, 40 groups, {name}", once))
    found.append(Case("agreement inside", "0.2 %, 1000 clips, 40 groups", partial(agreement_of, few, 0.002)))
    for name, spread, fall in classes:
        once = partial(classes_of, Cameras(1125, 40, spread), fall)
        found.append(Case("recall, Holm", f"9 x 125 clips, 40 groups {name}, first class -{100 * fall:g}", once, 2))
    return found


def alarm_cases() -> list[Case]:
    """Streams, events and A/A runs."""
    found = []
    for streams, hours, each in ((20, 1.0, 0.1), (20, 5.0, 1.0), (67, 1.0, 0.5)):
        for name, spread in (("alike", ALIKE), ("unlike", 1.0)):
            case = f"{streams} streams x {hours:g} h, {each:g} an hour, {name}"
            found.append(Case("alarms per hour", case, partial(alarms_of, streams, hours, each, spread)))
    for n, never in ((5, 0.0), (5, 0.3), (10, 0.0), (10, 0.3), (50, 0.0), (50, 0.3)):
        once = partial(detections_of, n, never)
        found.append(Case("time to detect", f"{n} events, {100 * never:g} % never", once))
    for n in (299, 473, 628):
        for each in (0.01, 0.001):
            found.append(Case("A/A", f"{n} runs, {100 * each:g} % alarm", partial(runs_of, n, each)))
    return found


CASES = cases()

if __name__ == "__main__":
    main()
