"""`framegate collect`: bring what another machine measured to where the gate looks for it."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.bench.collected import HOSTS, collect
from framegate.bench.host import host_class, host_digest


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate collect`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `framegate bench exports/* -o DIR` wrote")
    parser.add_argument("--into", type=Path, default=HOSTS, metavar="DIR", help=f"default: {HOSTS}")


def run(parsed: argparse.Namespace) -> int:
    """Check, copy, say where."""
    target, count = collect(parsed.folder, parsed.into)
    print(f"{count} measurements of host class {target.name} in {target}; `dvc repro` judges them")
    if host_digest(host_class()).startswith(target.name):
        print("they are of this very host class: where `dvc repro` measures on a host like this, they are not judged")
    return 0
