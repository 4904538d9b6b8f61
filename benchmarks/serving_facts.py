"""What `benchmarks.serving` says of its rounds: medians, ratios of one round, targets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, TypeVar

CLIENTS = (1, 16)
S = TypeVar("S")
PEER_LANE = "litserve"  # how its lanes' names begin, one for each setting
BEST = {"cpu_ms": min, "requests_per_s": max, "p99_ms": min}  # what is judged against LitServe
Report = dict[str, Any]  # of `benchmarks.http_load`


def median(reports: Sequence[Report], key: str) -> float:
    """Over the rounds."""
    return float(statistics.median(report[key] for report in reports))


def ratio(over: Sequence[Report], under: Sequence[Report], key: str) -> float:
    """Median over the rounds of one / other of the same round."""
    return float(statistics.median(a[key] / b[key] for a, b in zip(over, under, strict=True)))


def facts(reports: dict[tuple[str, int], list[Report]], bare: list[float]) -> Report:
    """What the targets speak of, and the medians behind it."""
    keys = ("requests_per_s", "cpu_ms", "p50_ms", "p99_ms", "client_cores")
    overhead = statistics.median(one["cpu_ms"] - step for one, step in zip(reports["ours", 1], bare, strict=True))
    most = CLIENTS[-1]
    found: Report = {
        "servers": {
            f"{name} {n}": {key: round(median(all_, key), 3) for key in keys} for (name, n), all_ in reports.items()
        },
        "bare_ms": round(statistics.median(bare), 3),
        "overhead_ms": round(overhead, 3),
        "batched_to_unbatched": round(ratio(reports["ours", most], reports["ours unbatched", most], "cpu_ms"), 3),
        "ratio": None,  # CPU per request of LitServe / ours
    }
    for n in CLIENTS:
        peers = {name: all_ for (name, clients), all_ in reports.items() if clients == n and name.startswith(PEER_LANE)}
        if peers:
            found[f"litserve_{n}"] = {key: against(reports["ours", n], peers, key) for key in BEST}
    if peer := found.get(f"litserve_{most}"):
        found["ratio"] = round(1 / peer["cpu_ms"], 2)
    return found


def against(ours: Sequence[Report], peers: dict[str, list[Report]], key: str) -> float:
    """Ours / the peer's, with whichever of its settings is best at this."""
    best = BEST[key](peers.values(), key=lambda reports: median(reports, key))
    return round(ratio(ours, best, key), 3)


def best_settings(tried: dict[S, Report]) -> list[S]:
    """Those that are best at something judged, each once, in their order."""
    best = [better(tried, key=lambda setting: tried[setting][key]) for key, better in BEST.items()]
    return [setting for setting in tried if setting in best]


def overload_facts(rounds: Sequence[Report]) -> Report:
    """Medians over the rounds: goodput / peak, and what was really sent of the arrivals."""
    shares = [one["good_per_s"] / one["peak_per_s"] for one in rounds]
    sent = [one["sent_per_s"] / one["peak_per_s"] for one in rounds]
    return {
        "goodput": round(statistics.median(shares), 3),
        "goodput_spread": [round(min(shares), 3), round(max(shares), 3)],
        "sent_to_peak": round(statistics.median(sent), 2),
        "lost_share": round(statistics.median(one["lost"] / max(one["arrivals"], 1) for one in rounds), 4),
        "overload": list(rounds),
    }


def print_table(reports: dict[tuple[str, int], list[Report]], bare: list[float]) -> None:
    """Medians, with the lowest and highest round."""
    columns = {"requests_per_s": 0, "cpu_ms": 3, "p50_ms": 2, "p99_ms": 2}
    print(f"{'server':24}{'clients':>8}" + "".join(f"{name:>24}" for name in columns))
    for (name, clients), found in sorted(reports.items(), key=lambda item: item[0][1]):
        cells = [spread([report[key] for report in found], digits) for key, digits in columns.items()]
        print(f"{name:24}{clients:>8}" + "".join(f"{cell:>24}" for cell in cells))
    print(f"bare runtime: {spread(bare, 3)} CPU ms a step of one frame")


def spread(values: Sequence[float], digits: int) -> str:
    """Median (lowest-highest)."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def no_targets(result: Report) -> str:
    """The CPU figures of a model that has no targets."""
    ratios = [f"CPU over the bare runtime, 1 client, ms: {result['overhead_ms']}"]
    ratios += [f"batched / unbatched CPU, {CLIENTS[-1]} clients: {result['batched_to_unbatched']}"]
    for n in CLIENTS:
        if peer := result.get(f"litserve_{n}"):
            ratios.append(f"CPU / LitServe's, {n} clients: {peer['cpu_ms']}")
    return "\n".join(f"{result['model']['bundle']}, no target: {one}" for one in ratios)


def verdicts(result: Report) -> list[tuple[bool, str]]:
    """Each target: whether it is met, and what it says."""
    at_most = {
        "CPU over the bare runtime, 1 client, ms": (result["overhead_ms"], 0.5),
        "batched / unbatched CPU, 16 clients": (result["batched_to_unbatched"], 0.45),
    }
    at_least = {}
    if "goodput" in result:
        sent = f"{result['sent_to_peak']:g}x really sent, {result['lost_share']:.1%} of arrivals lost"
        at_least[f"goodput at 3x overload / peak ({sent})"] = (result["goodput"], 0.8)
    for n in CLIENTS:
        if peer := result.get(f"litserve_{n}"):
            at_most |= {
                f"CPU / LitServe's, {n} clients": (peer["cpu_ms"], 0.5),
                f"p99 / LitServe's, {n} clients": (peer["p99_ms"], 1.0),
            }
            at_least[f"requests/s / LitServe's, {n} clients"] = (peer["requests_per_s"], 1.2)
    lines = [(value <= bound, f"{what}: {value} (at most {bound})") for what, (value, bound) in at_most.items()]
    return lines + [
        (value >= bound, f"{what}: {value} (at least {bound})") for what, (value, bound) in at_least.items()
    ]
