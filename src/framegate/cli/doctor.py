"""`framegate doctor`: what runs here, and for what does not, the reason."""

from __future__ import annotations

import argparse
import json

from framegate.bench.host import host_class
from framegate.contract import Skipped
from framegate.engine import choose_target
from framegate.runtime.session import available_runtimes


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(parsed: argparse.Namespace) -> int:
    """Print it."""
    facts = host_class()
    for key, value in facts.items():
        print(f"{key:15} {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")
    print()
    gpus = ", ".join(facts["gpus"]) or Skipped("nvidia-smi finds none")
    target = choose_target(None)
    plans = target if isinstance(target, Skipped) else f"{target.library} builds plans for {target.capability}"
    for name, found in {**available_runtimes(), "GPU": gpus, "TensorRT plans": plans}.items():
        reason = found.reason.removeprefix("skipped: ") if isinstance(found, Skipped) else found
        print(f"{name:15} {'no' if isinstance(found, Skipped) else 'yes'}: {reason}")
    return 0
