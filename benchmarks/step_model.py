"""The model of `benchmarks.serving`: a CNN + GRU of 10 MB whose step takes about 0.6 ms, with random weights."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.step_vs_window import WINDOW, moving_clips
from framegate.contract import Bundle, ClipSpec, Lineage
from framegate.runtime.session import Session

SIDE = 112
CHANNELS, PROJECTION = (16, 24, 48, 128), 384  # most of its bytes are one dense layer: batches share reading it


def random_step_model(folder: Path) -> Bundle:
    """Exported by the project's own code. Nine labels, frames of 112x112."""
    import torch

    from framegate.export import ExportClips, ExportSettings, Source, export_bundle
    from framegate.models.recurrent import RecurrentNet
    from framegate.models.store import NetCard

    torch.manual_seed(0)
    labels, spec = tuple(f"class {i}" for i in range(9)), ClipSpec(frames=WINDOW, height=SIDE, width=SIDE, fps=10)
    net = RecurrentNet(len(labels), SIDE, SIDE, channels=CHANNELS, projection=PROJECTION).eval()
    card = NetCard(model="cnn_gru", variant="random", config={}, labels=labels, clip=spec, dataset="random", metrics={})
    few = moving_clips(spec, 4)
    source = Source(net, card, Lineage(dataset="random", config="random", weights="random"))
    return export_bundle(source, "fp32", ExportClips(few, few, few), folder, ExportSettings())


def step_cpu_ms(session: Session, rows: int, seconds: float = 1.0) -> float:
    """CPU milliseconds of a step of that many rows, mean over a loop in this process."""
    clip = session.clip
    frames = np.random.default_rng(0).integers(0, 256, (rows, clip.height, clip.width, 3), np.uint8)
    state = session.init_state(rows)
    for _ in range(5):
        session.step(frames, state)
    steps, cpu_s, end = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        session.step(frames, state)
        steps += 1
    return 1000 * (time.process_time() - cpu_s) / steps
