"""One step of step.onnx against recomputing clip.onnx over the last 16 frames, for every new frame of a stream.

    python -m benchmarks.step_vs_window [--bundle exports/cnn_gru-dense-fp32] [--index work/index]

Interleaved in one process, ONNX Runtime, one thread. Without a bundle: the default net with random weights, for the
speed alone. With an index: the accuracy of both at the end of each clip on streams of 40 test clips in a row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.contract import Bundle, BundleError, ClipSpec, Lineage
from framegate.index import ShardReader, centre_window
from framegate.runtime.session import Session, open_session

Frames = NDArray[np.uint8]
WINDOW = 16
BLOCK = 20  # calls of one kind before the other has its turn
STREAM_CLIPS = 40


def main() -> None:
    """Print what was measured, last one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("exports/cnn_gru-dense-fp32"))
    parser.add_argument("--index", type=Path, default=Path("work/index"), help="folder of index.json and shards/")
    parser.add_argument("--calls", type=int, default=400, help="timed calls of each kind")
    parser.add_argument("--streams", type=int, default=67, help="streams of 40 test clips, for the accuracy")
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        bundle = trained_or_random(arguments.bundle, Path(scratch))
        result = {"bundle": bundle.info.name, "weights": bundle.info.lineage.weights[:12], "window": WINDOW}
        step, window = open_session(bundle), open_window(bundle)
        clips = golden_clips(bundle)
        result |= speed(step, window, clips, arguments.calls) | {"last_frame_max_abs": difference(step, window, clips)}
        if bundle.info.lineage.weights != "random" and (arguments.index / "index.json").is_file():
            result |= accuracy(step, window, arguments.index, arguments.streams)
        else:
            print("no accuracy: it needs a trained bundle and an index; run `dvc repro`")
    print(json.dumps(result))


def trained_or_random(path: Path, scratch: Path) -> Bundle:
    """The bundle at `path`, or the default net with random weights where there is none."""
    try:
        return Bundle.load(path)
    except BundleError as error:
        if path.exists():
            raise
        print(f"{error}; taking the default net with random weights")
    import torch

    from framegate.export import ExportClips, ExportSettings, Source, export_bundle
    from framegate.models.recurrent import RecurrentNet
    from framegate.models.store import NetCard

    torch.manual_seed(0)
    labels, spec = tuple(f"class {i}" for i in range(9)), ClipSpec(frames=WINDOW, height=64, width=64, fps=10)
    net = RecurrentNet(len(labels), spec.height, spec.width).eval()
    card = NetCard(model="cnn_gru", variant="random", config={}, labels=labels, clip=spec, dataset="random", metrics={})
    few = moving_clips(spec, 4)
    source = Source(net, card, Lineage(dataset="random", config="random", weights="random"))
    return export_bundle(source, "fp32", ExportClips(few, few, few), scratch / "random", ExportSettings())


def golden_clips(bundle: Bundle) -> Frames:
    """u8 [n,16,H,W,3]: the real clips that travel with the bundle, or drawn ones where those are shorter."""
    with np.load(bundle.path / "golden.npz") as golden:
        frames: Frames = golden["frames"][:, :WINDOW]
    return frames if frames.shape[1] == WINDOW else moving_clips(bundle.info.clip, 4)


def moving_clips(spec: ClipSpec, count: int) -> Frames:
    """u8 [n,16,H,W,3]: a bright square that moves over noise."""
    random = np.random.default_rng(0)
    clips = random.integers(0, 120, (count, WINDOW, spec.height, spec.width, 3)).astype(np.uint8)
    for t in range(WINDOW):
        left = t * (spec.width - 8) // WINDOW
        clips[:, t, spec.height // 3 :, left : left + 8] = 255
    return clips


def open_window(bundle: Bundle) -> Callable[[Frames], NDArray[np.float32]]:
    """frames u8 [1,T,H,W,3] -> logits f32 [1,K] by clip.onnx, one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(bundle.path / "clip.onnx"), options, providers=["CPUExecutionProvider"])

    def run(frames: Frames) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], {"frames": frames})[0]
        return logits

    return run


def speed(step: Session, window: Callable[[Frames], Any], clips: Frames, calls: int) -> dict[str, Any]:
    """Milliseconds per new frame, p50, blocks of both kinds in turn; ratio = window / step."""
    clip, state = np.ascontiguousarray(clips[:1]), step.init_state(1)
    steps: list[int] = []
    windows: list[int] = []
    for _ in range(1 + max(1, calls // BLOCK)):
        for i in range(BLOCK):
            frame = np.ascontiguousarray(clip[:, i % WINDOW])
            started = time.perf_counter_ns()
            _, state = step.step(frame, state)
            steps.append(time.perf_counter_ns() - started)
        for _ in range(BLOCK):
            started = time.perf_counter_ns()
            window(clip)
            windows.append(time.perf_counter_ns() - started)
    step_ms, window_ms = (float(np.median(found[BLOCK:])) / 1e6 for found in (steps, windows))  # the first are warm-up
    return {"ratio": round(window_ms / step_ms, 2), "step_ms": round(step_ms, 4), "window_ms": round(window_ms, 4)}


def difference(step: Session, window: Callable[[Frames], Any], clips: Frames) -> float:
    """Largest difference of the logits after the last of 16 frames; SystemExit beyond 1e-5."""
    state = step.init_state(len(clips))
    for t in range(WINDOW):
        logits, state = step.step(np.ascontiguousarray(clips[:, t]), state)
    found = float(np.abs(logits - window(clips)).max())
    if not found <= 1e-5:
        raise SystemExit(f"step and window differ by {found:.2g} after the last frame, at most 1e-5 is allowed")
    return found


def accuracy(step: Session, window: Callable[[Frames], Any], folder: Path, streams: int) -> dict[str, Any]:
    """Accuracy at the end of each clip, 40 test clips in a row: state carried on, the last 16 frames, clips alone."""
    reader = ShardReader(folder / "index.json", folder / "shards")
    index, random = reader.index, np.random.default_rng(0)
    test = random.permutation(index.split("test"))
    streams = max(1, min(streams, len(test) // STREAM_CLIPS))
    names = ("stream_step_accuracy", "stream_window_accuracy", "single_clip_accuracy")
    hits: dict[str, list[bool]] = {name: [] for name in names}
    for stream in np.array_split(test[: streams * STREAM_CLIPS], streams):
        state, last = step.init_state(1), deque[Frames](maxlen=WINDOW)
        for position in stream:
            clip, frames = index.clips[position], index.spec.frames
            pixels = reader.window(int(position), centre_window(clip.frames, frames), frames)
            for frame in pixels:
                logits, state = step.step(np.ascontiguousarray(frame[None]), state)
                last.append(frame)
            truth, whole = index.labels.index(clip.label), np.ascontiguousarray(pixels[None])
            found = (logits, window(np.stack(last)[None]), window(whole))
            for key, one in zip(hits, found, strict=True):
                hits[key].append(bool(one.argmax() == truth))
    frames_each = STREAM_CLIPS * index.spec.frames
    print(f"accuracy on {streams} streams of {frames_each} frames, {len(hits['single_clip_accuracy'])} clips")
    return {key: round(float(np.mean(found)), 4) for key, found in hits.items()} | {"streams": streams}


if __name__ == "__main__":
    main()
