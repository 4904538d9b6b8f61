"""Lengths of bars: where the time of a frame goes, and what each candidate sustains under load."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from framegate.report.figures import number, rounded, size
from framegate.report.row import Kind, Row

PHASES = ("decode", "resize", "infer")
SHOWN = 10  # bars of one list
SETTINGS = {  # of each scenario, those that say what its figures mean
    "camera": ("fps", "deadline_ms", "jitter_ms", "limit"),
    "offline": ("batch",),
    "server": ("rate_per_s", "streams", "max_batch"),
}


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a frame's time; `share` of the longest stack, in per cent."""

    name: str
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Stack:
    """Where one candidate's time goes, from the encoded frame to the label."""

    name: str
    role: str
    phases: tuple[Phase, ...]
    total_ms: float


def stacks(shown: Sequence[tuple[str, Row]]) -> list[Stack]:
    """One stack per candidate with its role, on one scale; phases that were not timed are absent."""
    found = [(role, row, _phases(row)) for role, row in shown]
    longest = max((sum(phases.values()) for _, _, phases in found), default=0.0)
    return [
        Stack(
            row.name,
            role,
            tuple(Phase(name, ms, 100 * ms / longest) for name, ms in phases.items()),
            sum(phases.values()),
        )
        for role, row, phases in found
        if phases
    ]


def _phases(row: Row) -> dict[str, float]:
    """Decode and resize as measured on video, infer as reported: of the confirmation where there is one."""
    phases = row.latency.phases_ms if row.latency else {}
    if "decode" not in phases and row.measurement and row.measurement.latency:
        phases = row.measurement.latency.phases_ms | phases
    return {name: phases[name] for name in PHASES if math.isfinite(phases.get(name, math.nan)) and phases[name] > 0}


@dataclass(frozen=True, slots=True)
class Bar:
    """One candidate; `share` of the longest bar, in per cent."""

    number: int
    label: str
    name: str
    kind: Kind
    text: str
    note: str
    share: float


@dataclass(frozen=True, slots=True)
class BarList:
    """One quantity of all candidates that have it, best first."""

    title: str
    better: str
    settings: str
    bars: tuple[Bar, ...]
    hidden: int


def loads(rows: Sequence[Row]) -> list[BarList]:
    """Streams per core, throughput, p99 under load, memory: each only where it was measured."""
    found = [
        _bars(rows, "Camera streams per core", True, lambda row: row.streams_per_core, rounded, "camera", _missed),
        _bars(rows, "Throughput, frames a second", True, lambda row: row.throughput_fps, _whole, "offline"),
        _bars(rows, "p99 from the scheduled arrival, ms", False, _server_p99, number, "server"),
        _bars(rows, "Peak memory of one session", False, _memory, _size, ""),
    ]
    return [one for one in found if one.bars]


def _bars(
    rows: Sequence[Row],
    title: str,
    more_is_better: bool,
    value: Callable[[Row], float | None],
    words: Callable[[float], str],
    scenario: str,
    note: Callable[[Row], str] = lambda row: "",
) -> BarList:
    known = [(found, row) for row in rows if (found := value(row)) is not None]
    known.sort(key=lambda one: (-one[0] if more_is_better else one[0], one[1].number))
    shown = [one for n, one in enumerate(known) if n < SHOWN or one[1].kind == "shipped"]
    longest = max((found for found, _ in shown), default=0.0) or 1.0
    bars = [
        Bar(row.number, row.label, row.name, row.kind, words(found), note(row), 100 * found / longest)
        for found, row in shown
    ]
    better = "longer is better" if more_is_better else "shorter is better"
    settings = next((_settings(row, scenario) for _, row in shown), "")
    return BarList(title, better, settings, tuple(bars), len(known) - len(shown))


def _settings(row: Row, scenario: str) -> str:
    """How it was loaded, in the words of the configuration."""
    found = row.scenarios.get(scenario)
    said = found.settings if found else {}
    return ", ".join(
        f"{key.replace('_', ' ')} {_plain(said[key])}" for key in SETTINGS.get(scenario, ()) if key in said
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _missed(row: Row) -> str:
    """How often it came too late at its point of operation, and what the drops cost."""
    camera = row.scenarios["camera"]
    words = [f"{camera.streams} streams"]
    if camera.scheduled and camera.missed is not None and camera.dropped is not None:
        late = camera.missed + camera.dropped
        words.append(f"{100 * late / camera.scheduled:.3f} % of {camera.scheduled:,} frames missed or dropped")
    if camera.accuracy:
        words.append(f"accuracy under drops {100 * camera.accuracy.accuracy:.1f} %")
    return ", ".join(words)


def _server_p99(row: Row) -> float | None:
    server = row.scenarios.get("server")
    return server.p99_ms if server and server.p99_ms is not None and math.isfinite(server.p99_ms) else None


def _memory(row: Row) -> float | None:
    found = row.measurement.memory_bytes if row.measurement else None
    return None if found is None else float(found)


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _size(value: float) -> str:
    return size(int(value))
