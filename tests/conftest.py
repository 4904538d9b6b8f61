"""Small real clips, rendered where a test needs them."""

import signal
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import framegate  # noqa: F401  # before a test imports onnxruntime: it keeps it from reporting

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background: Ctrl-C's tests would hang
    signal.signal(signal.SIGINT, signal.default_int_handler)

Frame = NDArray[np.uint8]  # u8 [H,W,3] RGB
Pattern = Literal["moving", "levels", "halves", "noise"]

CODECS = {".mp4": "libx264", ".mkv": "libx264", ".mov": "libx264", ".avi": "mpeg4", ".webm": "libvpx"}
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise, as QuickTime stores them


def draw(pattern: Pattern, number: int, size: tuple[int, int], seed: int = 0) -> Frame:
    """moving: a white square on texture; levels: plain grey 8 * number; halves: red left, blue right; noise."""
    width, height = size
    if pattern == "levels":
        return np.full((height, width, 3), 8 * number % 256, np.uint8)
    frame = np.zeros((height, width, 3), np.uint8)
    if pattern == "halves":
        frame[:, : width // 2, 0] = 255
        frame[:, width // 2 :, 2] = 255
        return frame
    if pattern == "noise":
        return np.random.default_rng((seed, number)).integers(0, 255, frame.shape, np.uint8)
    frame[:] = np.random.default_rng(seed).integers(0, 120, (height, width, 1))
    left = (3 * number) % max(width - 8, 1)
    frame[height // 3 : height // 3 + 8, left : left + 8] = 255
    return frame


def render(
    path: Path,
    frames: int = 16,
    fps: float = 10,
    size: tuple[int, int] = (64, 48),
    codec: str | None = None,
    rotation: int = 0,
    pattern: Pattern = "moving",
    times_s: Sequence[float] | None = None,
    seed: int = 0,
) -> Path:
    """Write a clip; `rotation` (MP4 only) = degrees clockwise that a player must turn it by."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix.lower()], rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if times_s is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(pattern, number, size, seed), format="rgb24")
            frame.pts = number if times_s is None else round(times_s[number] * 1000)
            frame.time_base = 1 / rate if times_s is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if rotation:
        path.write_bytes(_turned(path.read_bytes(), rotation))
    return path


def _turned(data: bytes, degrees: int) -> bytes:
    """The same MP4 with a rotation in its track header (ISO 14496-12, tkhd version 0)."""
    a, b, c, d = MATRICES[degrees]
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    start = data.index(b"tkhd") + 4 + 40
    return data[:start] + matrix + data[start + len(matrix) :]


def dataset(
    root: Path,
    classes: Sequence[str] = ("left", "right"),
    per_class: int = 6,
    groups: int | None = 6,
    suffix: str = ".mp4",
    frames: int = 16,
    fps: float = 10,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Distinct clips (or images, by suffix) in a folder per class; clip k of each is in group k % groups."""
    rows = ["path,group"]
    for number, label in enumerate(classes):
        for k in range(per_class):
            name = f"{label}/{k:03}{suffix}"
            _write(root / name, suffix, 1000 * number + k, frames, fps, size)
            rows.append(f"{name},g{k % groups if groups else k}")
    if groups:
        (root / "groups.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return root


def _write(path: Path, suffix: str, seed: int, frames: int, fps: float, size: tuple[int, int]) -> None:
    if suffix in CODECS:
        render(path, frames, fps, size, seed=seed)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw("moving", seed % 7, size, seed)).save(path)


@pytest.fixture
def make_clip() -> Callable[..., Path]:
    """make_clip(path, frames=16, fps=10, size=(64, 48), codec=None, rotation=0, pattern='moving', ...)."""
    return render


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    """make_dataset(root, classes=('left', 'right'), per_class=6, groups=6, suffix='.mp4', frames=16, ...)."""
    return dataset


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A sealed bundle whose label is the mean colour of the frames so far; see tests/bundles.py."""
    from tests.bundles import make_bundle

    return make_bundle(tmp_path / "bundles").path
