"""`framegate verify`: recompute the verdict from its raw samples and follow every digest, offline."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from framegate.verify import Check, verify
from framegate.verify.check import SHOWN

REFUSED, UNKNOWN = 2, 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate verify`."""
    parser.add_argument("exports", type=Path, nargs="?", default=Path("exports"), help="default: exports")
    parser.add_argument("--key", type=Path, metavar="PUBLIC.pem", help="also: who signed what ships")
    parser.add_argument("--lock", type=Path, metavar="dvc.lock", help="default: dvc.lock beside the folder, if any")
    parser.add_argument("--json", action="store_true", help="print a JSON list of checks")


def run(parsed: argparse.Namespace) -> int:
    """Print every check; 0 verified, 2 refused, 3 something could not be checked."""
    found = verify(parsed.exports, parsed.lock, parsed.key)
    if parsed.json:
        print(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            print(written(one))
        print(sentence(found, parsed.exports, parsed.key is not None))
    return exit_code(found)


def exit_code(found: Sequence[Check]) -> int:
    """One failure outweighs all that could not be checked."""
    statuses = {one.status for one in found}
    return REFUSED if "FAILED" in statuses else UNKNOWN if "not checked" in statuses else 0


def written(one: Check) -> str:
    """`ok       name`, and below it every problem."""
    hidden = len(one.problems) - SHOWN
    lines = [f"{one.status:12}{one.name}", *(f"              {text}" for text in one.problems[:SHOWN])]
    return "\n".join(lines + ([f"              and {hidden} more"] if hidden > 0 else []))


def sentence(found: Sequence[Check], exports: Path, signed: bool) -> str:
    """What it comes to."""
    count = Counter(one.status for one in found)
    problems = sum(len(one.problems) for one in found if one.status == "FAILED")
    match exit_code(found):
        case 0:
            who = "" if signed else " Who made it, only a signature shows (--key)."
            return f"Verified: {exports} is what its evidence gives, {count['ok']} checks.{who}"
        case 2:
            return f"Refused: {count['FAILED']} of {len(found)} checks failed, {problems} problems."
        case _:
            return (
                f"Not verified: {count['not checked']} of {len(found)} checks lack what they need; the others are ok."
            )
