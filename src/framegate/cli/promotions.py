"""`framegate promotions list | show [N] | rollback [--to N] | release`: what shipped, and the way back."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from framegate.contract import DataError, FramegateError, Skipped
from framegate.promotion.archive import check_archive
from framegate.promotion.origin import utc_now
from framegate.promotion.record import (
    CHALLENGER,
    FILE,
    SHIPPED,
    Promotion,
    alias_of,
    archive_of,
    archived,
    digest_in,
    read_hold,
    read_record,
)
from framegate.promotion.registry import Registry, installed, moved
from framegate.promotion.ship import release, rollback


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate promotions`."""
    parser.add_argument("--exports", type=Path, default=Path("exports"), help="or exports/hosts/<class>")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    actions.add_parser("list", help="every promotion, the newest first")
    show = actions.add_parser("show", help="the whole record of one, and whether its files are as they were")
    show.add_argument("number", nargs="?", type=int, metavar="N", help="default: the one that ships")
    back = actions.add_parser("rollback", help="put an earlier champion back, and hold it")
    back.add_argument("--to", type=int, metavar="N", help="default: the champion before the present one")
    back.add_argument("--reason", default="", metavar="TEXT", help="recorded in exports/hold.json")
    actions.add_parser("release", help="end a hold: the next `dvc repro` ships the verdict's model")
    for action in actions.choices.values():  # also after the action; where it is not said, what stood before counts
        action.add_argument("--exports", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(parsed: argparse.Namespace) -> int:
    """One action."""
    lines = {"list": _list, "show": _show, "rollback": _rollback, "release": _release}[parsed.action](parsed)
    for line in lines:
        print(line)
    return 0


def _list(parsed: argparse.Namespace) -> Iterator[str]:
    exports: Path = parsed.exports
    current, hold = digest_in(exports / SHIPPED), read_hold(exports)
    yield f"{'N':>5}  {'candidate':40} {'bundle':12}  {'host class':12}  {'when (UTC)':25}"
    for number, folder in reversed(archived(exports).items()):
        marks = ["champion"] if digest_in(folder) == current else []
        marks += ["held"] if hold and hold.promotion == number else []
        yield f"{number:5}  {_row(folder)}  {', '.join(marks)}".rstrip()
    if hold:
        yield f"{hold}; `framegate promotions release` ends it"
    if challenger := read_record(exports / CHALLENGER / FILE):
        waived = ", ".join(waiver.rule for waiver in challenger.waived)
        yield f"challenger: {challenger.candidate}, by waiving {waived} ({challenger.time})"
    yield _alias(installed(), alias_of(exports), read_record(exports / FILE))


def _row(folder: Path) -> str:
    try:
        one = Promotion.read(folder / FILE)
    except DataError as error:
        return str(error)
    return f"{one.candidate:40} {one.bundle[:12]:12}  {one.host_class[:12]:12}  {one.time:25}"


def _alias(registry: Registry | Skipped, alias: str, promotion: Promotion | None) -> str:
    """Where the registry's alias is, and whether that is where it was put."""
    if isinstance(registry, Skipped):
        return f"alias {alias}: unknown: {registry.reason}"
    version = registry.alias_version(alias)
    if promotion is None or promotion.version is None:
        return f"alias {alias}: version {version or 'none'}; exports/{FILE} records none; `dvc repro` moves it"
    note = moved(registry, alias, promotion.version)
    return f"{note}; `dvc repro -f -s ship` puts it back" if note else f"alias {alias}: version {version}, as shipped"


def _show(parsed: argparse.Namespace) -> Iterator[str]:
    exports: Path = parsed.exports
    folder = exports / SHIPPED if parsed.number is None else archive_of(exports, parsed.number)
    promotion = read_record(folder / FILE)
    if promotion is None:
        raise DataError(f"{folder / FILE}: nothing ships; run `dvc repro`")
    yield promotion.sentence
    yield from (f"waived: {waiver.rule}: {waiver.reason}" for waiver in promotion.waived)
    yield promotion.to_json().rstrip()
    if promotion.number is None:
        return
    try:
        check_archive(exports, promotion.number)
        yield f"files of promotion {promotion.number}: as they were kept"
    except FramegateError as error:
        yield f"files: {error}"


def _rollback(parsed: argparse.Namespace) -> Iterator[str]:
    done = rollback(parsed.exports, parsed.to, parsed.reason, utc_now(), installed())
    yield f"promotion {done.promotion.number} ships: {done.promotion.candidate}, bundle {done.promotion.bundle[:12]}"
    yield from done.notes
    yield "`dvc repro` leaves it so and says so, until `framegate promotions release`"


def _release(parsed: argparse.Namespace) -> Iterator[str]:
    hold = release(parsed.exports)
    yield f"no longer {hold}" if hold else f"{parsed.exports}: nothing is held"
    if hold:
        again = "the next `dvc repro`" if alias_of(parsed.exports) == "champion" else "`dvc repro -f -s ship`"
        yield f"{again} ships what the verdict names"
