"""What `framegate bench MODEL.onnx [OTHER.onnx]` prints: the answer, the figures, how they came about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from framegate.bench.foreign.facts import SAME, Bounded, Comparison, Difference, Found, ModelFacts, Tensor
from framegate.bench.foreign.inputs import words
from framegate.bench.stats import MIN_PROCESSES, min_samples

Row = tuple[str, ...]
LETTERS = ("A", "B")
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def page(found: Found) -> str:
    """The whole page."""
    lines = [_title(number, one, found) for number, one in enumerate(found.models)]
    lines += ["", *_answer(found), "", *_table(found), "", *_about(found)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _title(number: int, one: ModelFacts, found: Found) -> str:
    return f"{LETTERS[number]}  {one.path}" if len(found.models) > 1 else one.path


def _who(number: int, found: Found) -> str:
    return f"{LETTERS[number]}: " if len(found.models) > 1 else ""


# --- the answer -------------------------------------------------------------------------------


def _answer(found: Found) -> list[str]:
    comparison = found.comparison
    lines = [f"Stopped: {found.stopped}. What follows is what was measured until then."] if found.stopped else []
    lines += [comparison.sentence, *agreement(comparison)] if comparison else [_headline(found.models[0])]
    for number, one in enumerate(found.models):
        lines += [f"{_who(number, found)}{text}" for text in warnings(one)]
    if comparison and comparison.unstable:
        lines.append(_restless(comparison.unstable, comparison.pairs, "pairs"))
    return lines


def _headline(one: ModelFacts) -> str:
    if one.p50_ms.value is None:
        return "Nothing was timed."
    tail = "" if one.p99_ms.value is None else f", {number_of(one.p99_ms.value)} ms at p99"
    return f"One call takes {number_of(one.p50_ms.value)} ms at p50{tail}."


def agreement(comparison: Comparison) -> list[str]:
    """Whether both compute the same: a faster model that does not is no win."""
    each = ", ".join(_apart(one) for one in comparison.outputs)
    within = f"{100 * SAME:g} %"
    words = {None: [], True: [f"Their outputs agree within {within}: {each}."]}
    words[False] = [f"Their outputs DIFFER by more than {within}: {each}."]
    return words[comparison.same_outputs] + [f"Outputs not compared: {why}." for why in comparison.not_compared]


def _apart(one: Difference) -> str:
    name = one.name if one.name == one.other else f"{one.name} ({one.other} in B)"
    if one.max_abs == 0:
        return f"{name} equal"
    if not math.isfinite(one.max_abs):
        return f"{name} not finite in one of them"
    share = f" ({one.max_abs / one.scale:.2g} of the largest value)" if one.scale else ""
    return f"{name} off by at most {one.max_abs:.2g}{share}"


def _restless(count: int, of: int, what: str) -> str:
    return f"{count} of {of} {what} had not warmed up: the machine is restless, or the model never settles."


def warnings(one: ModelFacts) -> list[str]:
    """What a reader of the figures must know."""
    found = [f"output {o.name}: {o.bad} of {math.prod(o.shape)} values are not finite." for o in one.outputs if o.bad]
    if one.session.get("note"):
        found.append(f"{one.session['note']}.")
    if one.unstable:
        found.append(_restless(one.unstable, one.processes, "processes"))
    return found


# --- the figures ------------------------------------------------------------------------------


def _table(found: Found) -> list[str]:
    rows = [_row(name, pick, unit, found) for name, unit, pick in ROWS]
    for name, ratio in _ratios(found.comparison):
        rows = [(*row[:-2], *ratio_cells(ratio)) if row[0] == name else row for row in rows]
    head = ("", *(cell for one in LETTERS for cell in (one, "")), "A / B", "") if found.comparison else ()
    return aligned([head, *rows] if head else rows)


ROWS: tuple[tuple[str, str, Callable[[ModelFacts], Bounded | float | None]], ...] = (
    ("p50", "ms", lambda one: one.p50_ms),
    ("p90", "ms", lambda one: one.p90_ms),
    ("p99", "ms", lambda one: one.p99_ms),
    ("throughput", "/s", lambda one: one.throughput_per_s),
    ("open", "ms", lambda one: one.open_ms),
    ("first call", "ms", lambda one: one.first_call_ms),
    ("peak memory", "MB", lambda one: _mega(one.memory_bytes)),
    ("  of the model", "MB", lambda one: _mega(_own_memory(one))),
    ("size", "MB", lambda one: _mega(one.size_bytes)),
)


def _row(name: str, pick: Callable[[ModelFacts], Bounded | float | None], unit: str, found: Found) -> Row:
    each = [pick(one) for one in found.models]
    cells = [cell for value in each for cell in _cells(value, f" {unit}")]
    if not found.comparison:
        return (name, *cells)
    a, b = (value.value if isinstance(value, Bounded) else value for value in each)
    timed = name in SHARES  # alone in other processes: no ratio comes from those
    return (name, *cells, "" if timed or not a or not b else f"{a / b:.3f}", "")


def _ratios(comparison: Comparison | None) -> list[tuple[str, Bounded]]:
    return [("p50", comparison.ratio_p50), ("p99", comparison.ratio_p99)] if comparison else []


def _cells(value: Bounded | float | None, unit: str = "") -> tuple[str, str]:
    """A value with its unit, and its bounds."""
    if not isinstance(value, Bounded):
        value = Bounded(value=value, low=None, high=None)
    if value.value is None:
        return "unknown", ""
    bounds = ""
    if value.low is not None and value.high is not None:
        bounds = f"{number_of(value.low, value.value)} … {number_of(value.high, value.value)}"
    return f"{number_of(value.value)}{unit}", bounds


def ratio_cells(ratio: Bounded) -> tuple[str, str]:
    """A ratio and its bounds, three decimals."""
    if ratio.value is None:
        return "unknown", ""
    known = ratio.low is not None and ratio.high is not None
    return f"{ratio.value:.3f}", f"{ratio.low:.3f} … {ratio.high:.3f}" if known else ""


def number_of(value: float, like: float | None = None) -> str:
    """Four significant digits, without an exponent; as many decimals as `like` has."""
    scale = abs(value if like is None else like)
    decimals = min(max(3 - math.floor(math.log10(scale)), 0), 6) if scale > 0 else 0
    return f"{value:,.{decimals}f}"


def aligned(rows: Sequence[Row]) -> list[str]:
    """Columns: names to the left, values to the right, bounds to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    sides = ["<", *(">" if column % 2 else "<" for column in range(1, len(widths)))]
    cells = ([f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)] for row in rows)
    return [
        "  ".join([row[0], *(f"  {cell}" if n % 2 == 0 else cell for n, cell in enumerate(row[1:]))]) for row in cells
    ]


def _mega(value: int | None) -> float | None:
    return None if value is None else value / 1e6


def _own_memory(one: ModelFacts) -> int | None:
    if one.memory_bytes is None or one.runtime_memory_bytes is None:
        return None
    return one.memory_bytes - one.runtime_memory_bytes


# --- how they came about ----------------------------------------------------------------------


def _about(found: Found) -> list[str]:
    each = [_tensors(one) for one in found.models]
    if len(each) == 2 and each[0] != each[1]:
        rows = [
            (f"{letter} {key}" if key else "", text) for letter, of in zip("AB", each, strict=True) for key, text in of
        ]
    else:
        rows = each[0]
    host, session = found.host_class, found.models[0].session
    load = found.host_conditions.get("load_1_5_15", ["unknown"])[0]
    threads = f"{session['threads']} thread{'s' * (session['threads'] != 1)}"
    rows += [
        ("runtime", f"{session['runtime']} {session['version']}, {session['provider']}, {threads}"),
        ("host", f"{host['cpu']}, {host['cores']} cores, load {load} before"),
        ("samples", _samples(found)),
        ("bounds", "one-sided at 95 %, over fresh processes; a ratio comes from processes that hold both"),
    ]
    rows += [("", text) for text in _unknown(found)]
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {text}" for name, text in rows]


def _tensors(one: ModelFacts) -> list[tuple[str, str]]:
    rows = [("inputs", f"{_listed(one.inputs)}; {one.source}")]
    if one.assumed:
        rows.append(("", f"of length 1, as nobody told: {', '.join(one.assumed)}; --shape NAME=1,3,224,224 tells"))
    return [*rows, ("outputs", _listed(one.outputs))]


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{one.name} {words(one.dtype, one.shape)}" for one in tensors) or "none"


def _samples(found: Found) -> str:
    plan, comparison = found.plan, found.comparison
    alone = (
        f"{found.models[0].processes} fresh processes{' of each' if comparison else ''}, {plan.calls} calls in a row"
    )
    if not comparison:
        return alone
    return (
        f"{alone}; {comparison.pairs} with both, {plan.blocks} blocks of {plan.calls_per_block} calls of each in turn"
    )


def _unknown(found: Found) -> list[str]:
    """What would make unknown percentiles and bounds known."""
    plan, lines = found.plan, []
    for name, share in SHARES.items():
        if plan.calls < (least := min_samples(share)):
            lines.append(f"{name} of one process takes {least} calls, here {plan.calls}; --calls {least}")
    if plan.processes < MIN_PROCESSES:
        lines.append(f"p50 to p99 have bounds from {MIN_PROCESSES} processes on; --processes {MIN_PROCESSES}")
    return lines
