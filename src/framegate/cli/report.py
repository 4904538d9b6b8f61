"""`framegate report`: the verdict as a page, or as Markdown for a pull request; the exit code says its status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from framegate.cli import EXIT_CODES
from framegate.contract import Verdict, write_text
from framegate.gate.case import read_judged
from framegate.gate.evidence import Evidence
from framegate.index import ShardReader
from framegate.report import Thumbnail, render, summary, thumbnails, worst_clips

INDEX = Path("work/index")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate report`."""
    parser.add_argument("exports", type=Path, nargs="?", default=Path("exports"), help="default: exports")
    parser.add_argument("--format", choices=["html", "md"], default="html", help="default: html")
    parser.add_argument("-o", "--output", type=Path, help="default: report.html in EXPORTS; md is printed")
    parser.add_argument("--index", type=Path, help="for pictures of the worst clips; default: work/index")


def run(parsed: argparse.Namespace) -> int:
    """Write one page or print one text. 0: something ships, 2: harm is proven of all, 3: inconclusive."""
    verdict, case = read_judged(parsed.exports)
    if parsed.format == "md":
        text, output = summary(verdict, case.evidence, case.confirmation), parsed.output
    else:
        pictures = _pictures(verdict, case.evidence, parsed.index)
        text = render(verdict, case.evidence, case.confirmation, pictures, _hosts(parsed.exports))
        output = parsed.output or parsed.exports / "report.html"
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)
        print(f"{output}: {verdict.status}, {len(text.encode()) / 1e3:.0f} kB", file=sys.stderr)
    return EXIT_CODES[verdict.status]


def _pictures(verdict: Verdict, evidence: Sequence[Evidence], index: Path | None) -> list[Thumbnail]:
    """Of the worst clips of what ships, or of the reference; none where nobody named an index and none is here."""
    if index is None and not (INDEX / "shards").is_dir():
        return []
    index = index or INDEX
    by_name = {str(one.name): one for one in evidence}
    reference = by_name.get(verdict.reference)
    winner = by_name.get(verdict.shipped or verdict.reference)
    if reference is None or winner is None:
        return []
    return thumbnails(worst_clips(winner, reference), ShardReader(index / "index.json", index / "shards"))


def _hosts(exports: Path) -> list[Verdict]:
    """Verdicts of other host classes, which lie beside this one."""
    return [Verdict.read(path) for path in sorted(exports.glob("hosts/*/verdict.json"))]
