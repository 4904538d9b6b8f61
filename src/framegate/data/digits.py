"""Moving digits: the default dataset, rendered from scikit-learn's real handwritten digits.

Nine classes of short H.264 clips: four pairs that are each other's time reversal (`right`/`left`,
`up`/`down`, `clockwise`/`counterclockwise`, `grow`/`shrink`) and `nothing` (digits that stand
still, tremble, or are absent). A twin is drawn from the same paths, run backwards, so a bag of
frames cannot tell it from its pair: a model blind to the order of time is right in at most 5 of 9
clips (55.6 %).

Each clip belongs to one of 41 virtual cameras (its group), which stands in one split only; the
splits share no source digit either. A seed fixes every byte, whatever the number of workers.

What does not live here: reading clips, and everything that trains on them.
"""

import argparse
import csv
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.bitstream import BitStreamFilterContext
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from tqdm import tqdm

from framegate.contract import DataError, Split

Floats = NDArray[np.floating[Any]]
Frames = NDArray[np.uint8]  # u8 [T,H,W,3] RGB, 0..255
Track = NDArray[np.float64]  # f64 [T,3]: centre x, centre y, side of the digit, in pixels

SIZE = 64  # H = W, pixels
SECONDS = 1.5  # a path runs over 16 ticks of 10 fps; the last frame comes a little later
FPS = (10.0, 12.0, 12.5, 14.0, 15.0, 16.0, 18.0, 20.0, 24.0, 25.0, 30.0)
TWINS = {"left": "right", "down": "up", "counterclockwise": "clockwise", "shrink": "grow"}
LABELS = (*TWINS, *TWINS.values(), "nothing")
FLIPS = {"left": "right", "clockwise": "counterclockwise"}
FLIPS |= {flipped: label for label, flipped in FLIPS.items()}
X264 = {"crf": "25", "preset": "medium", "threads": "1", "x264-params": "keyint=infinite:bframes=0"}

SIDE = (15.0, 24.0)  # pixels
TRAVEL = (20.0, 38.0)  # pixels from the first tick to the last
RADIUS = (10.0, 16.0)  # pixels
GROWN_SIDE = (15.0, 18.0)  # pixels, half way
GROWTH = (1.1, 1.6)  # logarithm of the last side over the first
DISTRACTORS = (0, 2)  # low, high + 1
FAINT = 0.6  # contrast of a distractor over that of the digit that counts
NOISE = (0.5, 5.0)  # grey levels
CONTRAST = (60.0, 140.0)  # grey levels between a digit's ink and what lies below it
TEXTURE = {3: 12.0, 9: 3.0, 24: 2.0}  # cells per side of the background: standard deviation


class Share(NamedTuple):
    """What a split gets: cameras, clips per camera and class, and its part of the digits."""

    cameras: int
    clips: int
    digits: float


SHARES: dict[Split, Share] = {
    "train": Share(23, 12, 0.5),
    "val": Share(6, 11, 0.17),
    "test": Share(12, 25, 0.33),
}
TOTAL_CAMERAS = sum(share.cameras for share in SHARES.values())


@dataclass(frozen=True, slots=True)
class Camera:
    """One virtual camera: where it stands and how it sees."""

    name: str
    split: Split
    texture: int  # seed of its background
    fps: float
    jitter: float  # largest shift of a frame's time, in frame intervals
    tilt: float  # radians
    gain: float
    cast: tuple[float, float, float]  # gain of R, G, B
    noise: float  # standard deviation, grey levels
    blur: float  # standard deviation, pixels


@dataclass(frozen=True, slots=True)
class Clip:
    """The plan of one clip: all it takes to render it."""

    path: str  # below the dataset's folder, POSIX
    label: str
    camera: Camera
    seed: tuple[int, ...]


def plan_cameras(counts: dict[Split, int], seed: int) -> list[Camera]:
    """Cameras of all splits; each split's properties are spread evenly over the same ranges."""
    rng = default_rng([seed, 0])
    names = iter(rng.permutation(sum(counts.values())))
    return [
        Camera(f"{next(names):02d}", split, *properties)
        for split, count in counts.items()
        for properties in _camera_properties(rng, count)
    ]


def _camera_properties(rng: Generator, count: int) -> Iterator[tuple[Any, ...]]:
    def spread(low: float, high: float) -> list[float]:
        quantiles = (rng.permutation(count) + rng.random(count)) / count
        return [float(low + (high - low) * quantile) for quantile in quantiles]

    fps = [FPS[int(i)] for i in spread(0, len(FPS))]
    casts = zip(spread(0.8, 1.2), spread(0.85, 1.15), spread(0.8, 1.2), strict=True)
    return zip(
        rng.integers(2**31, size=count).tolist(),
        fps,
        spread(0.0, 0.15),
        spread(-0.14, 0.14),
        spread(0.75, 1.25),
        casts,
        spread(*NOISE),
        spread(0.3, 1.0),
        strict=True,
    )


def plan_clips(cameras: Sequence[Camera], counts: dict[Split, int], seed: int) -> list[Clip]:
    """`counts[split]` clips of every class for every camera."""
    return [
        Clip(f"{label}/{camera.name}{i:02d}.mkv", label, camera, (seed, 1, int(camera.name), k, i))
        for camera in cameras
        for k, label in enumerate(LABELS)
        for i in range(counts[camera.split])
    ]


def source_digits(split: Split, seed: int) -> NDArray[np.intp]:
    """Indices of the handwritten digits that one split may use; no two splits share one."""
    order = default_rng([seed, 2]).permutation(len(_digits()))
    shares = np.cumsum([share.digits for share in SHARES.values()])
    parts = np.split(order, np.round(shares[:-1] * len(order)).astype(int))
    return parts[list(SHARES).index(split)]


@cache
def _digits() -> NDArray[np.float32]:
    """f32 [N,40,40], 0..1: ink of scikit-learn's handwritten digits, with an empty margin."""
    from sklearn.datasets import load_digits

    padded = np.pad(load_digits().images.astype(np.float32) / 16, ((0, 0), (1, 1), (1, 1)))
    large = np.stack([cv2.resize(d, (40, 40), interpolation=cv2.INTER_CUBIC) for d in padded])
    return np.clip(large * 1.6 - 0.3, 0, 1)


def draw_track(label: str, rng: Generator, u: NDArray[np.float64]) -> Track:
    """Track of the moving digit at times `u` (0 is the first tick, 1 the last).

    A twin draws as its pair does and runs backwards: track(left, u) = track(right, 1 - u).
    """
    if label in TWINS:
        return draw_track(TWINS[label], rng, 1 - u)
    side = rng.uniform(*SIDE)
    if label == "nothing":
        return _tremble(rng, u, side)
    ease = rng.uniform(-0.5, 0.5)
    s = u - 0.5 + ease * np.sin(2 * np.pi * u) / (2 * np.pi)  # monotone, -0.5..0.5
    if label == "clockwise":
        return _circle(rng, s, side)
    if label == "grow":
        log_side = np.log(rng.uniform(*GROWN_SIDE)) + s * rng.uniform(*GROWTH)
        return _stack(*_place(rng, 28, 28), np.exp(log_side))
    amplitude = rng.uniform(*TRAVEL)
    along, across = s * amplitude, s * amplitude * rng.uniform(-0.2, 0.2)
    if label == "right":
        x, y = _place(rng, amplitude, amplitude * 0.2)
        return _stack(x + along, y + across, side)
    x, y = _place(rng, amplitude * 0.2, amplitude)
    return _stack(x + across, y - along, side)


def _tremble(rng: Generator, u: NDArray[np.float64], side: float) -> Track:
    x, y = _place(rng, 4, 4)
    strength = rng.choice([0.0, 1.0]) * rng.uniform(0.5, 1.5, size=2)
    phase, cycles = rng.uniform(0, 2 * np.pi, size=4), rng.uniform(2, 6, size=4)
    waves = np.sin(phase + 2 * np.pi * cycles * u[:, None])  # [T,4]
    dx, dy = waves[:, :2].sum(1), waves[:, 2:].sum(1)
    return _stack(x + strength[0] * dx, y + strength[1] * dy, side)


def _circle(rng: Generator, s: NDArray[np.float64], side: float) -> Track:
    radius, sweep = rng.uniform(*RADIUS), rng.uniform(1.1, 1.9) * np.pi
    angle = rng.uniform(0, 2 * np.pi) + s * sweep  # y points down: a growing angle is clockwise
    x, y = _place(rng, 2 * radius, 2 * radius)
    return _stack(x + radius * np.cos(angle), y + radius * np.sin(angle), side)


def _place(rng: Generator, width: float, height: float) -> tuple[float, float]:
    """A centre that keeps a path of this extent (pixels) in sight."""
    room = np.maximum(SIZE / 2 - 9 - np.array([width, height]) / 2, 1)
    x, y = SIZE / 2 + rng.uniform(-room, room)
    return float(x), float(y)


def _stack(x: Floats | float, y: Floats | float, side: Floats | float) -> Track:
    return np.stack(np.broadcast_arrays(x, y, side), axis=-1).astype(np.float64)


def frame_times(camera: Camera, rng: Generator) -> NDArray[np.int64]:
    """Presentation times in ms, from 0, strictly rising; the last lies after the 16th tick."""
    count = int(np.ceil((SECONDS + 0.02) * camera.fps + camera.jitter)) + 1
    intervals = np.arange(count) + rng.uniform(-camera.jitter, camera.jitter, count)
    intervals[0] = 0
    return np.round(intervals * 1000 / camera.fps).astype(np.int64)


def render_frames(clip: Clip, digits: NDArray[np.intp]) -> tuple[Frames, NDArray[np.int64]]:
    """Frames u8 [T,H,W,3] of one clip and their times in ms; `digits` are those of its split."""
    rng, camera = default_rng(clip.seed), clip.camera
    times = frame_times(camera, rng)
    u = times / (1000 * SECONDS)
    actors = [("nothing", FAINT)] * int(rng.integers(*DISTRACTORS))
    if clip.label != "nothing" or rng.random() < 0.7:
        actors.append((clip.label, 1.0))
    scene = np.repeat(_background(camera.texture)[None], len(u), axis=0)
    for label, strength in actors:
        digit = _digits()[rng.choice(digits)]
        contrast = strength * rng.choice([-1, 1]) * rng.uniform(*CONTRAST)
        ink = (contrast * rng.uniform(0.7, 1.3, 3)).astype(np.float32)
        track = _tilted(draw_track(label, rng, u), camera.tilt)
        angle = camera.tilt + rng.uniform(-0.3, 0.3)
        for frame, place in zip(scene, track, strict=True):
            frame += _stamp(digit, place, angle)[:, :, None] * ink
    return _expose(scene, camera, rng), times


def _background(texture: int) -> NDArray[np.float32]:
    rng = default_rng(texture)
    scene = np.full((SIZE, SIZE, 3), rng.uniform(95, 150), np.float32)
    for cells, strength in TEXTURE.items():
        coarse = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        coarse = 0.7 * coarse.mean(axis=2, keepdims=True) * 3**0.5 + 0.3 * coarse
        scene += cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return scene


def _tilted(track: Track, tilt: float) -> Track:
    x, y, side = track.T
    x, y = x - SIZE / 2, y - SIZE / 2
    cos, sin = np.cos(tilt), np.sin(tilt)
    return _stack(SIZE / 2 + cos * x - sin * y, SIZE / 2 + sin * x + cos * y, side)


def _stamp(digit: NDArray[np.float32], place: Floats, angle: float) -> NDArray[np.float32]:
    """Ink f32 [H,W], 0..1, of one digit turned by `angle` at (x, y, side)."""
    x, y, side = place
    scale, middle = side / len(digit), (len(digit) - 1) / 2
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[a, -b, x - (a - b) * middle], [b, a, y - (a + b) * middle]])
    ink = cv2.warpAffine(digit, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    return ink.astype(np.float32, copy=False)


def _expose(scene: NDArray[np.float32], camera: Camera, rng: Generator) -> Frames:
    """What the camera makes of the scene: blur, colour cast, gain, noise."""
    gain = camera.gain * np.array(camera.cast, np.float32)
    noise = rng.standard_normal((*scene.shape[:3], 1), dtype=np.float32) * camera.noise
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), camera.blur) for frame in scene])
    seen: Floats = np.clip(blurred * gain + noise, 0, 255)
    return seen.round().astype(np.uint8)


def encode_clip(path: Path, frames: Frames, times: NDArray[np.int64], fps: float) -> None:
    """Write H.264 in Matroska, the frames at their own times (ms); the same bytes every time."""
    with av.open(path, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=X264)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        without_sei = BitStreamFilterContext("filter_units=remove_types=6", stream)
        for image, time in zip([*frames, None], [*times, 0], strict=True):
            frame = None if image is None else av.VideoFrame.from_ndarray(image, format="rgb24")
            if frame is not None:
                frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(without_sei.filter(packet))


def _render_clip(out: Path, digits: dict[Split, NDArray[np.intp]], clip: Clip) -> None:
    cv2.setNumThreads(1)
    frames, times = render_frames(clip, digits[clip.camera.split])
    encode_clip(out / clip.path, frames, times, clip.camera.fps)


def render(
    out: Path,
    cameras: dict[Split, int],
    clips: dict[Split, int],
    seed: int = 0,
    workers: int = 2,
) -> int:
    """Render the whole dataset into `out` and return its number of clips; DataError if it exists.

    `cameras` per split, `clips` per split, camera and class.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"folder '{out}' is not empty; remove it or choose another one")
    staging = out.with_name(out.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    for label in LABELS:
        (staging / label).mkdir(parents=True)
    plan = plan_clips(plan_cameras(cameras, seed), clips, seed)
    task = partial(_render_clip, staging, {s: source_digits(s, seed) for s in SHARES})
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        done = pool.map(task, plan, chunksize=16)
        for _ in tqdm(done, "rendering", len(plan), unit="clip", disable=not sys.stderr.isatty()):
            pass
    groups = [(clip.path, clip.camera.name) for clip in plan]
    splits = [(clip.path, clip.camera.split) for clip in plan]
    _write_csv(staging / "groups.csv", ("path", "group"), groups)
    _write_csv(staging / "splits.csv", ("path", "split"), splits)
    flips = [(label, FLIPS.get(label, label)) for label in LABELS]
    _write_csv(staging / "flips.csv", ("label", "flipped"), flips)
    staging.replace(out)
    return len(plan)


def _write_csv(path: Path, header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main(argv: Sequence[str] | None = None) -> None:
    """Entry of `python -m framegate.data.digits`."""
    parser = argparse.ArgumentParser(description="Render the moving digits.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of clips")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--clips-per-class", type=int, help="per camera, in every split")
    parser.add_argument("--cameras", type=int, help="in all; at least one stands in each split")
    args = parser.parse_args(argv)
    part = (args.cameras or TOTAL_CAMERAS) / TOTAL_CAMERAS
    cameras = {s: max(1, round(share.cameras * part)) for s, share in SHARES.items()}
    clips = {s: max(1, round(share.clips * args.scale)) for s, share in SHARES.items()}
    if args.clips_per_class:
        clips = dict.fromkeys(clips, args.clips_per_class)
    count = render(args.out, cameras, clips, args.seed, args.workers)
    print(f"{count} clips of {sum(cameras.values())} cameras in {args.out}")


if __name__ == "__main__":
    main()
