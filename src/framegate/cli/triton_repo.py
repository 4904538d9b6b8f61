"""`framegate triton-repo exports/shipped -o repo`: what ships, as a model repository of Triton Inference Server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from framegate.contract import Bundle
from framegate.promotion.archive import check_promotion
from framegate.promotion.record import Promotion
from framegate.promotion.serving import remarks
from framegate.triton import Kind, write_repository

SAME: dict[Kind, str] = {"cpu": "ort-cpu", "gpu": "ort-cuda"}  # what Triton's onnxruntime backend is in our words


def arguments(parser: argparse.ArgumentParser) -> None:
    """Of `framegate triton-repo`."""
    parser.add_argument("bundle", type=Path, metavar="DIR", help="a folder that was shipped, like exports/shipped")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="the repository to write")
    parser.add_argument("--name", default="framegate", help="model of single frames; clips: NAME_clip (%(default)s)")
    parser.add_argument("--kind", choices=("cpu", "gpu"), help="default: as the runtime that the model shipped with")


def run(parsed: argparse.Namespace) -> int:
    """Check the promotion, write, say how to serve it."""
    promotion = check_promotion(parsed.bundle)
    kind: Kind = parsed.kind or kind_of(promotion.runtime)
    write_repository(Bundle.load(parsed.bundle), parsed.out, parsed.name, kind, promotion.threads)
    for note in notes(promotion, kind):
        print(f"note: {note}", file=sys.stderr)
    print(f"{parsed.out}: models {parsed.name} (frames, sequences) and {parsed.name}_clip, from {promotion.candidate}")
    print(f"serve them: tritonserver --model-repository={parsed.out}")
    return 0


def kind_of(runtime: str) -> Kind:
    """Where a runtime of ours computes."""
    return "gpu" if runtime in ("ort-cuda", "ort-tensorrt", "tensorrt") else "cpu"


def notes(promotion: Promotion, kind: Kind) -> tuple[str, ...]:
    """What a user of the repository should know of what was judged, and was not."""
    lines = remarks(promotion, None)
    if promotion.runtime != SAME[kind]:
        lines += (
            f"judged on {promotion.runtime}: Triton's onnxruntime backend runs the same graph as {SAME[kind]} does, "
            "and no verdict is about the speed or the last digits of that",
        )
    return lines
