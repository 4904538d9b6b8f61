"""`framegate bench`: any ONNX file, or two compared; bundles, as another host measures them."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.contract import ConfigError
from framegate.runtime.session import RUNTIMES


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate bench`. None where the default is the route's own."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="MODEL.onnx [OTHER.onnx], or bundles")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="keep the figures and the raw samples here")
    parser.add_argument("--runtime", metavar="NAME", help=f"{', '.join(RUNTIMES)}; default for ONNX files: ort-cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="of the runtime; default: 1")
    parser.add_argument("--pairs", type=int, metavar="N", help="fresh processes that hold both; default: 10")
    parser.add_argument("--seed", type=int, metavar="N", help="of made-up inputs and of the order; default: 0")
    parser.add_argument("--timeout", type=float, dest="timeout_s", metavar="S", help="of one process; default: 600")
    parser.add_argument("--json", action="store_true", help="print JSON")
    bundles = parser.add_argument_group("bundles")
    bundles.add_argument("--index", type=Path, metavar="DIR", help="default: work/index")
    onnx = parser.add_argument_group("ONNX files", "exit codes of two: 0 faster, 2 slower, 3 cannot tell")
    onnx.add_argument("--input", type=Path, action="append", default=[], metavar="NPZ", help="arrays by input name")
    onnx.add_argument("--shape", action="append", default=[], metavar="NAME=1,3,224,224", help="of a dynamic input")
    onnx.add_argument("--margin", type=float, metavar="SHARE", help="a difference that counts; default: 0.02")
    onnx.add_argument("--processes", type=int, metavar="N", help="fresh ones with one model alone; default: 10")
    onnx.add_argument("--calls", type=int, metavar="N", help="timed calls of each; default: what 3 s allow, 11 to 700")


def run(parsed: argparse.Namespace) -> int:
    """By what the paths are."""
    if all(path.suffix.lower() == ".onnx" or path.is_file() for path in parsed.paths):
        from framegate.bench.foreign import command

        if parsed.index:
            raise ConfigError("bench of ONNX files: --index is for bundles")
        return command.run(parsed)
    from framegate.cli import _bundles

    return _bundles.run(parsed)
