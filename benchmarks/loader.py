"""Loading training clips: our decoded shards against decoding each window again.

Renders 320 x 240 H.264 clips, then draws random windows of 16 frames, batches of u8 [B,T,112,112,3], on one
pinned core, one thread, in interleaved rounds. Throughput is clips per second of CPU time, so that other
processes on the machine do not count. Run it with `python -m benchmarks.loader`.

Paths: `shards` (ours, raw), `jpeg` (ours, above the size limit), `videoclips` (torchvision's VideoClips, which
decodes through torchcodec) and `torchcodec` (its window table, but the fastest decoder settings we know). The
headline `ratio` is over the faster of the last two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from framegate.contract import ClipSpec
from framegate.index import IndexSettings, ShardReader, build

WIDTH, HEIGHT, FPS = 320, 240, 25
FRAMES, SIDE, BATCH = 16, 112, 8
GOP = 50  # a key frame every two seconds; x264's default, 250, would be kinder to us
WARM_BATCHES = 2
SPLITS = ("train", "val", "test")
SPEC = ClipSpec(frames=FRAMES, height=SIDE, width=SIDE, fps=FPS)

Loader = Callable[[np.random.Generator], torch.Tensor]  # gives one batch, u8 [B,T,S,S,3] or [B,T,3,S,S]


@dataclass(frozen=True, slots=True)
class Built:
    """One store: its reader, the seconds of CPU it took and its bytes on disk."""

    reader: ShardReader
    cold_s: float
    size_bytes: int


# --- clips ------------------------------------------------------------------------------------


def render(root: Path, clips: int, seconds: float) -> list[Path]:
    """Textured background that pans, a square that moves, sensor noise; two classes."""
    paths = []
    for number in range(clips):
        path = root / ("right" if number % 2 else "left") / f"{number:03}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        _render_clip(path, np.random.default_rng(number), round(seconds * FPS))
        paths.append(path)
    splits = [f"{path.parent.name}/{path.name},{SPLITS[n // 2 % 3]}" for n, path in enumerate(paths)]
    (root / "splits.csv").write_text("\n".join(["path,split", *splits]) + "\n", "utf-8")
    return paths


def _render_clip(path: Path, random: np.random.Generator, frames: int) -> None:
    grain = random.integers(0, 255, (40, 60, 3), np.uint8)
    texture = np.asarray(cv2.resize(grain, (2 * WIDTH, 2 * HEIGHT)), np.uint8)
    speed, noise = int(random.integers(-2, 3)), random.normal(0, 4, (8, HEIGHT, WIDTH, 3)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": str(GOP)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            pixels = _frame(texture, speed * number, number) + noise[number % 8]
            frame = av.VideoFrame.from_ndarray(pixels.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _frame(texture: NDArray[np.uint8], pan: int, number: int) -> NDArray[np.int16]:
    left = WIDTH // 2 + pan % (WIDTH // 2)
    frame = texture[HEIGHT // 2 : HEIGHT // 2 + HEIGHT, left : left + WIDTH].astype(np.int16)
    x = 4 * number % (WIDTH - 40)
    frame[100:140, x : x + 40] = (240, 220, 40)
    return frame


# --- paths ------------------------------------------------------------------------------------


def build_store(root: Path, folder: Path, raw: bool) -> Built:
    """Decode every clip once, in this process."""
    settings = IndexSettings(shard_bytes_limit=1 << 40 if raw else 0)
    start = time.process_time()
    build(root, folder / "index.json", folder / "shards", SPEC, settings, workers=0)
    cold_s = time.process_time() - start
    size = sum(path.stat().st_size for path in (folder / "shards").iterdir())
    return Built(ShardReader(folder / "index.json", folder / "shards"), cold_s, size)


def ours(reader: ShardReader) -> Loader:
    """Random windows out of a store, straight into a batch."""
    lengths = [clip.frames for clip in reader.index.clips]

    def batch(random: np.random.Generator) -> torch.Tensor:
        out = torch.empty((BATCH, FRAMES, SIDE, SIDE, 3), dtype=torch.uint8)
        rows = out.numpy()
        for row, position in enumerate(random.integers(0, len(reader), BATCH).tolist()):
            start = int(random.integers(0, lengths[position] - FRAMES + 1))
            rows[row] = reader.window(position, start, FRAMES)
        return out

    return batch


def video_clips(paths: list[Path]) -> Loader:
    """torchvision's VideoClips as it is, its clips resized."""
    table = _window_table(paths)

    def batch(random: np.random.Generator) -> torch.Tensor:
        chosen = random.integers(0, table.num_clips(), BATCH).tolist()
        return torch.stack([_resized(table.get_clip(n)[0]) for n in chosen])

    return batch


def torch_codec(paths: list[Path]) -> Loader:
    """The same windows through torchcodec: no scan of the file, one FFmpeg thread, no sound."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

    table = _window_table(paths)

    def window(number: int) -> torch.Tensor:
        video, clip = table.get_clip_location(number)
        start = int(table.clips[video][clip][0])
        decoder = VideoDecoder(paths[video], num_ffmpeg_threads=1, seek_mode="approximate")
        return _resized(decoder.get_frames_in_range(start, start + FRAMES).data)

    def batch(random: np.random.Generator) -> torch.Tensor:
        return torch.stack([window(n) for n in random.integers(0, table.num_clips(), BATCH).tolist()])

    return batch


def _window_table(paths: list[Path]) -> Any:
    from torchvision.datasets.video_utils import VideoClips

    return VideoClips([str(path) for path in paths], FRAMES, 1, output_format="TCHW")


def _resized(clip: torch.Tensor) -> torch.Tensor:
    """u8 [T,3,h,w] -> u8 [T,3,S,S], as torchvision resizes: the short side, then the centre."""
    from torchvision.transforms.v2 import functional

    crop: torch.Tensor = functional.center_crop(functional.resize(clip, [SIDE]), [SIDE, SIDE])
    return crop


# --- measuring --------------------------------------------------------------------------------


def clips_per_second(path: Loader, random: np.random.Generator, seconds: float) -> float:
    """Clips per second of CPU time, over at least `seconds` of it."""
    start, clips = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds or not clips:
        path(random)
        clips += BATCH
    return clips / spent


def measure(paths: dict[str, Loader], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Clips/s/core of each path in each round; rounds are interleaved after warm-up batches."""
    rates: dict[str, list[float]] = {name: [] for name in paths}
    random = np.random.default_rng(0)
    for path in paths.values():
        for _ in range(WARM_BATCHES):
            path(random)
    for _ in range(rounds):
        for name, path in paths.items():
            rates[name].append(clips_per_second(path, random, seconds))
    return rates


def ratio(rates: dict[str, list[float]], over: list[str]) -> float:
    """Median over the rounds of ours / the fastest of the others."""
    best = [max(others) for others in zip(*(rates[name] for name in over), strict=True)]
    ratios = [own / other for own, other in zip(rates["shards"], best, strict=True)]
    return float(statistics.median(ratios))


def run(folder: Path, clips: int, seconds: float, rounds: int, round_s: float) -> dict[str, Any]:
    """Render, build, measure; gives what the last line says."""
    root = folder / "data"
    sources = render(root, clips, seconds)
    raw, jpeg = (build_store(root, folder / name, name == "raw") for name in ("raw", "jpeg"))
    paths = {
        "shards": ours(raw.reader),
        "jpeg": ours(jpeg.reader),
        "videoclips": video_clips(sources),
        "torchcodec": torch_codec(sources),
    }
    rates = measure(paths, rounds, round_s)
    return {
        "ratio": round(ratio(rates, ["videoclips", "torchcodec"]), 1),
        "ratio_videoclips": round(ratio(rates, ["videoclips"]), 1),
        "ratio_jpeg": round(ratio(rates, ["jpeg"]), 1),
        "clips_per_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "cold_build_s": {"raw": round(raw.cold_s, 2), "jpeg": round(jpeg.cold_s, 2)},
        "bytes": {
            "source": sum(path.stat().st_size for path in sources),
            "raw": raw.size_bytes,
            "jpeg": jpeg.size_bytes,
        },
        "clips": clips,
        "rounds": rounds,
    }


def report(facts: dict[str, Any]) -> str:
    """A table to read, then the JSON line."""
    lines = [f"{'path':<12}{'clips/s/core':>14}"]
    lines += [f"{name:<12}{rate:>14,.1f}" for name, rate in facts["clips_per_s"].items()]
    size = {name: value / 1e6 for name, value in facts["bytes"].items()}
    cold = facts["cold_build_s"]
    lines += [
        f"cold build of {facts['clips']} clips on one core: raw {cold['raw']:.2f} s, JPEG {cold['jpeg']:.2f} s",
        f"on disk: source {size['source']:.1f} MB, raw {size['raw']:.1f} MB, JPEG {size['jpeg']:.1f} MB",
        f"CPU time, one pinned core, {FRAMES} frames of {SIDE} x {SIDE} from {WIDTH} x {HEIGHT} H.264, "
        f"a key frame every {GOP} frames, median of {facts['rounds']} interleaved rounds",
    ]
    return "\n".join([*lines, json.dumps(facts)])


def missing(folder: Path) -> str:
    """What to install when the peer cannot run here, or the empty string; the proof is one decoded frame."""
    try:
        torch_codec(render(folder, clips=1, seconds=1))(np.random.default_rng(0))
    except (ImportError, OSError, RuntimeError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        return (
            "this benchmark compares with torchvision and torchcodec, which cannot decode here; install "
            f"'framegate[train,dev]' and FFmpeg's shared libraries (apt-get install ffmpeg): {cause}"
        )
    return ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=4, help="length of a clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-s", type=float, default=1.0, help="CPU seconds per path and round")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if text := missing(Path(folder) / "trial"):
            print(text, file=sys.stderr)
            return 2
        print(report(run(Path(folder), options.clips, options.seconds, options.rounds, options.round_s)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
