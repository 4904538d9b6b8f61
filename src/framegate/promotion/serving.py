"""Whether what is to be served was judged on a host like this one. Speed is a claim about a host class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framegate.bench.host import CPU, serving_class
from framegate.contract import BundleError, RuntimeUnavailable, Verdict
from framegate.promotion.archive import VERDICT
from framegate.promotion.record import FILE, SHIPPED, Promotion, read_record

ACCEPT = "--accept-host"


def check_host(folder: Path, here: Mapping[str, Any], runtime: str | None) -> tuple[Promotion, tuple[str, ...]]:
    """The promotion of a bundle that was judged on this host class, and what to say of it.

    `here`: this host's `host_class()`; `runtime`: another than the promoted one, whose own speed nobody judged: then
    only the CPU is compared. BundleError without a promotion; RuntimeUnavailable on another host, naming what differs.
    """
    promotion = read_record(folder / FILE)
    if promotion is None:
        raise BundleError(
            f"{folder}: no {FILE}, so no verdict says how it runs on any host; name a folder that was shipped, or say "
            f"{ACCEPT}"
        )
    wrong = differences(promotion, here, runtime or promotion.runtime)
    if wrong:
        raise RuntimeUnavailable(f"{folder}: shipped for {'; '.join(wrong)}. {_way_out(folder, here)}")
    return promotion, remarks(promotion, runtime)


def differences(promotion: Promotion, here: Mapping[str, Any], runtime: str) -> list[str]:
    """`cpu 'X', this is 'Y'` for everything that matters to the runtime and is not as it was measured."""
    shipped, mine = serving_class(promotion.host, runtime), serving_class(here, runtime)
    keys = CPU if runtime != promotion.runtime else sorted(shipped | mine, key=[*CPU, *shipped, *mine].index)
    return [
        f"{key} {shipped.get(key)!r}, this is {mine.get(key)!r}" for key in keys if shipped.get(key) != mine.get(key)
    ]


def remarks(promotion: Promotion, runtime: str | None) -> tuple[str, ...]:
    """What a user of the model should know: another runtime than was judged, rules that were waived."""
    lines = [f"a challenger: {waiver.rule!r} was waived: {waiver.reason}" for waiver in promotion.waived]
    if runtime not in (None, promotion.runtime):
        lines.append(f"the verdict was about {promotion.runtime}, not {runtime}: it proves nothing of this speed")
    return tuple(lines)


def check_there(folder: Path) -> None:
    """BundleError when there is no such folder: why nothing shipped, and what to do."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such folder; {_why_not_there(folder)}name a bundle with --bundle")


def _why_not_there(folder: Path) -> str:
    path = folder.parent / VERDICT
    if not path.is_file():
        return "run `dvc repro` to ship a model, or "
    verdict = Verdict.read(path)
    if verdict.shipped is None:
        return f"{path} ships nothing: {verdict.sentence} To use another, "
    return f"`dvc repro -f -s ship` ships {verdict.shipped} again, or "


def _way_out(folder: Path, here: Mapping[str, Any]) -> str:
    """Another host class's shipped folder that fits, or how to come by one."""
    for other in sorted(folder.parent.glob(f"hosts/*/{SHIPPED}")):
        promotion = read_record(other / FILE)
        if promotion and not differences(promotion, here, promotion.runtime):
            return f"{other} was shipped for a host like this one: --bundle {other}"
    return f"Measure here with `framegate bench {folder.parent}/* -o DIR` and gate it, or say {ACCEPT}"
