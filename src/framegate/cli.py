"""`framegate predict` and `framegate doctor`: the command line of the serving side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from framegate.contract import Bundle, BundleError, FramegateError, Skipped
from framegate.engine import choose_target
from framegate.media import MediaLimits, read_clip
from framegate.promotion import Promotion
from framegate.runtime.session import RUNTIMES, Session, available_runtimes, open_session


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time under one label; `probability` is the mean of the label's softmax over its steps."""

    start_s: float
    end_s: float
    label: str
    probability: float


def predict(session: Session, path: Path) -> Iterator[Segment]:
    """Maximal runs of the top label of the step's softmax, from a video or an image. Raises MediaError."""
    seconds, state = 1 / session.clip.fps, session.init_state(1)
    steps = []
    for frame in read_clip(path, session.clip, MediaLimits()):
        logits, state = session.step(frame.pixels[None], state)
        shares = np.exp(logits[0] - logits[0].max())
        steps.append((frame.time_s, int(logits[0].argmax()), float(shares.max() / shares.sum())))
    for top, run in groupby(steps, key=lambda step: step[1]):
        times, _, shares_of_top = zip(*run, strict=True)
        probability = round(float(np.mean(shares_of_top)), 4)
        yield Segment(round(times[0], 3), round(times[-1] + seconds, 3), session.labels[top], probability)


def open_shipped(folder: Path, runtime: str | None, threads: int | None) -> Session:
    """A session over a bundle, on the runtime and threads that it was promoted with unless told otherwise."""
    if not folder.is_dir():
        raise BundleError(
            f"{folder}: no such folder; run `dvc repro -f -s ship` to ship a model, or name one with --bundle"
        )
    note = folder / "promotion.json"
    promotion = Promotion.read(note) if note.is_file() else None
    runtime = runtime or (promotion.runtime if promotion else "ort-cpu")
    return open_session(Bundle.load(folder), runtime, threads or (promotion.threads if promotion else 1))


def run_predict(arguments: argparse.Namespace) -> None:
    """Print the segments of one file."""
    session = open_shipped(arguments.bundle, arguments.runtime, arguments.threads)
    segments = list(predict(session, arguments.clip))
    if arguments.json:
        print(json.dumps([asdict(segment) for segment in segments], ensure_ascii=False))
        return
    for one in segments:
        print(f"{one.start_s:8.2f} - {one.end_s:8.2f} s  {one.probability:6.1%}  {one.label}")


def run_doctor(arguments: argparse.Namespace) -> None:
    """Print what runs here, and for what does not, the reason."""
    from framegate.bench.host import host_class

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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="framegate", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("predict", help="labels over time, from the shipped model")
    one.add_argument("clip", type=Path, help="a video or an image")
    one.add_argument("--bundle", type=Path, default=Path("exports/shipped"), help="default: exports/shipped")
    one.add_argument("--runtime", choices=list(RUNTIMES), help="default: the one that the model shipped with")
    one.add_argument("--threads", type=int, choices=range(1, 257), metavar="N", help="default: as shipped")
    one.add_argument("--json", action="store_true", help="print a JSON list of segments")
    one.set_defaults(run=run_predict)
    two = commands.add_parser("doctor", help="runtimes, providers, GPU, TensorRT here, each with a reason")
    two.set_defaults(run=run_doctor)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `framegate`; exits 1 with one readable line for anything that the user can act on."""
    parsed = parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except FramegateError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
