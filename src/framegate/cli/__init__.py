"""`framegate ...`: the command line of the serving side. One file per command, imported when it is called.

A command module has `arguments(parser)` and `run(parsed) -> int`, the exit code.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from framegate.contract import FramegateError, Status, nearest

COMMANDS: dict[str, str] = {
    "predict": "labels over time, from the shipped model",
    "serve": "the shipped model on live streams: HTTP, gRPC, WebSocket",
    "watch": "cameras, files and folders: alerts as JSON lines or by webhook, and how each camera fares",
    "promotions": "what shipped, and back: list, show, rollback, release",
    "ship": "a challenger: what passes when a rule is waived",
    "report": "the verdict as a page, or as Markdown for a pull request",
    "verify": "recompute the verdict from its raw samples, follow every digest; offline",
    "collect": "bring what another machine measured into work/hosts",
    "agree": "how often a candidate and the reference disagree on clips that nobody labelled",
    "aa": "one model against itself: false alarms and power of the comparison on this machine",
    "bench": "latency, memory and size of any ONNX file, or which of two is faster",
    "triton-repo": "what ships, as a model repository of Triton Inference Server",
    "doctor": "runtimes, providers, GPU, TensorRT here, each with a reason",
}
EXIT_CODES: dict[Status, int] = {"PASS": 0, "FAIL": 2, "INCONCLUSIVE": 3}


class Command(Protocol):
    """What a command's module offers."""

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, parsed: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """Exits 1 on a wrong command line: 2 is the answer "fail"."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `framegate`; exits 1 with one readable line for anything that the user can act on."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _fill_descriptors()
    _print_utf8()
    top = Parser(prog="framegate", description="Measure, prove and use video models.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        sys.exit(f"error: no command {words[0]!r}{nearest(words[0], COMMANDS)} known: {', '.join(COMMANDS)}")
    for name, words_of_help in COMMANDS.items():
        one = commands.add_parser(name, help=words_of_help, description=words_of_help)
        if words and words[0] == name:
            module(name).arguments(one)
    parsed = top.parse_args(words)
    try:
        code = module(parsed.command).run(parsed)
    except FramegateError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # `framegate ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; what was finished is kept, run it again to go on")
    if code:
        sys.exit(code)


def _fill_descriptors() -> None:
    """Of the standard streams, where they are closed: a socket in such a place would get what is printed."""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)


def _print_utf8() -> None:
    """JSON is UTF-8, and so is a name of a file or a label, whatever the locale says (as of Python 3.15, PEP 686)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors=sys.stdout.errors)


def module(name: str) -> Command:
    """The module of a command."""
    return cast(Command, importlib.import_module(f"framegate.cli.{name.replace('-', '_')}"))
