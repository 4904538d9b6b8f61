"""One finding, and how problems become one: every problem is reported, and what cannot be read is a problem too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from framegate.contract import FramegateError

Status = Literal["ok", "FAILED", "not checked"]

RELATIVE, ABSOLUTE = 1e-9, 1e-12  # of recomputed numbers: another CPU adds up in another order
SHOWN = 20  # problems of one check that are written out
NAMED_BY = ("candidate", "rule")  # keys that name an item of a list


class NotThere(FramegateError):
    """What a check needs is not in the folder: the check says so instead of failing."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, and every problem that was found; `not checked` has a reason instead."""

    name: str
    status: Status
    problems: tuple[str, ...] = ()


def check(name: str, problems: Iterable[str]) -> Check:
    """Run one check to its end."""
    found: list[str] = []
    try:
        found.extend(guarded(problems))
    except NotThere as error:
        return Check(name, "FAILED" if found else "not checked", (*found, str(error)))
    return Check(name, "FAILED" if found else "ok", tuple(found))


def guarded(problems: Iterable[str], where: str = "") -> Iterator[str]:
    """The problems, each with its place; whatever goes wrong while they are looked for is the last one.

    Everything that is verified may have been made to break what reads it: no error of any kind means "verified".
    """
    prefix = f"{where}: " if where else ""
    try:
        for problem in problems:
            yield prefix + problem
    except NotThere:
        raise
    except FramegateError as error:
        yield prefix + str(error)
    except Exception as error:
        yield f"{prefix}cannot be read as what framegate writes ({type(error).__name__}: {error})"


def differences(got: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Every place where two JSON values differ; numbers may differ in the last digits. Items go by their names."""
    if isinstance(got, Mapping) and isinstance(expected, Mapping):
        for key in dict.fromkeys((*expected, *got)):
            yield from differences(got.get(key), expected.get(key), f"{where}: {key}" if where else str(key))
    elif _is_list(got) and _is_list(expected):
        yield from _list_differences(list(got), list(expected), where)
    elif not _same(got, expected):
        yield f"{where}: got {_short(got)}, expected {_short(expected)}"


def _list_differences(got: list[Any], expected: list[Any], where: str) -> Iterator[str]:
    for key in NAMED_BY:
        mine, theirs = _by_name(got, key), _by_name(expected, key)
        if mine is not None and theirs is not None and (mine or theirs):
            for name in dict.fromkeys((*theirs, *mine)):
                place = f"{key} {name!r}"
                yield from differences(mine.get(name), theirs.get(name), f"{where}: {place}" if where else place)
            return
    if len(got) != len(expected):
        yield f"{where}: got {_short(got)}, expected {_short(expected)}"
        return
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        yield from differences(one, other, f"{where}[{number}]")


def _by_name(items: list[Any], key: str) -> dict[str, Any] | None:
    """Items by name; None unless each has one of its own."""
    if not all(isinstance(item, Mapping) and key in item for item in items):
        return None
    named = {str(item[key]): item for item in items}
    return named if len(named) == len(items) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _same(got: Any, expected: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (got, expected))
    if not numbers:
        return bool(got == expected)
    if math.isnan(got) or math.isnan(expected):
        return math.isnan(got) and math.isnan(expected)
    return math.isclose(got, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 160 else f"{text[:160]}…"
