"""`framegate predict`: labels over time, from the shipped model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from framegate.bench.host import host_class
from framegate.contract import Bundle
from framegate.media import MediaLimits, read_clip
from framegate.promotion.record import FILE, read_record
from framegate.promotion.serving import check_host, check_there, remarks
from framegate.runtime.session import RUNTIMES, Session, open_session
from framegate.timeline import Span, Spans, softmax


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time under one label; `probability` is the mean of the label's softmax over its steps."""

    start_s: float
    end_s: float
    label: str
    probability: float


def predict(session: Session, path: Path) -> Iterator[Segment]:
    """Maximal runs of the top label of the step's softmax, from a video or an image. Raises MediaError."""
    spans, state = Spans(1 / session.clip.fps), session.init_state(1)
    for frame in read_clip(path, session.clip, MediaLimits()):
        if frame.cut:
            state = session.init_state(1)
            if ended := spans.end():
                yield _segment(ended, session)
        logits, state = session.step(frame.pixels[None], state)
        if ended := spans.add(frame.time_s, softmax(logits[0])):
            yield _segment(ended, session)
    if last := spans.end():
        yield _segment(last, session)


def _segment(span: Span, session: Session) -> Segment:
    return Segment(span.start_s, span.end_s, session.labels[span.top], round(float(span.shares[span.top]), 4))


def open_shipped(folder: Path, runtime: str | None, threads: int | None, accept_host: bool = False) -> Session:
    """A session over a bundle, on the runtime and threads that it was promoted with unless told otherwise.

    Errors as of `check_host`, unless the host is accepted whatever it is.
    """
    check_there(folder)
    if accept_host:
        promotion = read_record(folder / FILE)
        notes = remarks(promotion, runtime) if promotion else ()
    else:
        promotion, notes = check_host(folder, host_class(), runtime)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    runtime = runtime or (promotion.runtime if promotion else "ort-cpu")
    return open_session(Bundle.load(folder), runtime, threads or (promotion.threads if promotion else 1))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate predict`."""
    parser.add_argument("clip", type=Path, help="a video or an image")
    parser.add_argument("--bundle", type=Path, default=Path("exports/shipped"), help="default: exports/shipped")
    parser.add_argument("--runtime", choices=list(RUNTIMES), help="default: the one that the model shipped with")
    parser.add_argument("--threads", type=int, choices=range(1, 257), metavar="N", help="default: as shipped")
    parser.add_argument("--accept-host", action="store_true", help="also without a verdict for this host class")
    parser.add_argument("--json", action="store_true", help="print a JSON list of segments")


def run(parsed: argparse.Namespace) -> int:
    """Print the segments of one file."""
    session = open_shipped(parsed.bundle, parsed.runtime, parsed.threads, parsed.accept_host)
    segments = list(predict(session, parsed.clip))
    if parsed.json:
        print(json.dumps([asdict(segment) for segment in segments], ensure_ascii=False))
        return 0
    for one in segments:
        print(f"{one.start_s:8.2f} - {one.end_s:8.2f} s  {one.probability:6.1%}  {one.label}")
    return 0
