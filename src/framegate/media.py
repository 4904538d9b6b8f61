"""Files -> the frames a model sees: videos and images, the one resize rule.

Everything that looks at pixels (index, bench, predict, serve) gets them from here, so that no two of them can
disagree. What does not live here: how a video is decoded (`video`, whose names are given on), which files make
a data set (`folder`, `index`), and storing decoded frames (`shards`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from framegate.contract import ClipSpec, MediaError, MediaTooLarge
from framegate.resampling import resample
from framegate.video import (
    JPEG_MAGIC,
    MediaLimits,
    Pixels,
    TimedFrame,
    check_file,
    check_scans,
    check_size,
    probe_seconds,
    read_video,
)

__all__ = [
    "IMAGE_FORMATS",
    "IMAGE_SUFFIXES",
    "SENT_FORMATS",
    "VIDEO_SUFFIXES",
    "ClipFrame",
    "MediaLimits",
    "Pixels",
    "TimedFrame",
    "decode_image",
    "is_image",
    "is_video",
    "probe_seconds",
    "read_clip",
    "read_frames",
    "read_image",
    "read_video",
    "resample",
    "resize",
    "to_clip",
]

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mkv", ".avi", ".mov", ".webm"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
ORIENTED = (b"Exif\0", b"tiff:Orientation")  # a picture that may have to be turned
SENT_FORMATS = ("JPEG", "PNG", "WebP")  # what clients may send
IMAGE_FORMATS = (*SENT_FORMATS, "BMP", "GIF", "TIFF")
TILE_TAGS = (322, 323)  # width and height of a TIFF's tiles


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One frame of a clip on the grid of its spec: `time_s` is the tick, `pixels` u8 [H,W,3] RGB.

    `cut`: a silence was before it; a state starts anew.
    """

    time_s: float
    pixels: Pixels
    cut: bool = False


def is_video(path: Path) -> bool:
    """Whether the suffix, in any case, is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether the suffix, in any case, is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


# --- composition ------------------------------------------------------------------------------


def read_clip(path: Path, spec: ClipSpec, limits: MediaLimits) -> Iterator[ClipFrame]:
    """A video or an image as a model sees it: every tick of `spec.fps`, every frame H x W RGB.

    All ticks of the file, not only `spec.frames`; an image is one frame. MediaError may come late, when a
    video turns out to be corrupt or truncated after some frames.
    """
    return to_clip(read_frames(path, limits), spec)


def read_frames(path: Path, limits: MediaLimits) -> Iterator[TimedFrame]:
    """The frames of a video, or the one frame of an image, by suffix. MediaError for any other suffix."""
    check_file(path)
    if is_image(path):
        yield TimedFrame(0.0, read_image(path, limits))
    elif is_video(path):
        yield from read_video(path, limits)
    else:
        known = " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        raise MediaError(path, f"unknown suffix {path.suffix!r}; expected one of {known}")


def to_clip(frames: Iterable[TimedFrame], spec: ClipSpec) -> Iterator[ClipFrame]:
    """Resample, convert and resize; a frame that no tick picks is never converted."""
    picked: TimedFrame | None = None
    for time_s, frame, cut in resample(frames, spec.fps):
        if frame is not picked:
            picked, pixels = frame, resize(frame.rgb(), spec)
        yield ClipFrame(time_s, pixels, cut)


# --- the one resize rule ----------------------------------------------------------------------


def resize(frame: Pixels, spec: ClipSpec) -> Pixels:
    """u8 [h,w,3] -> u8 [H,W,3]: scaled until it just covers H x W, the centre kept.

    Equivalent to scaling the short side and cropping the centre, but crops first: an 8,000,000 x 1 image never
    becomes a large one. Averages areas when it shrinks, interpolates when it grows.
    """
    height, width = frame.shape[:2]
    scale = max(spec.height / height, spec.width / width)
    crop_h = min(height, max(1, round(spec.height / scale)))
    crop_w = min(width, max(1, round(spec.width / scale)))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    crop = frame[top : top + crop_h, left : left + crop_w]
    rule = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (spec.width, spec.height), interpolation=rule), np.uint8)


# --- images -----------------------------------------------------------------------------------


def read_image(path: Path, limits: MediaLimits) -> Pixels:
    """u8 [h,w,3] RGB of a file; see `decode_image`."""
    check_file(path)
    if path.stat().st_size > (largest := 8 * limits.max_pixels + 1_000_000):  # 16-bit RGBA, and a header
        raise MediaTooLarge(path, f"{path.stat().st_size:,} bytes; an image within the limits has at most {largest:,}")
    return decode_image(path.read_bytes(), limits, path)


def decode_image(
    data: bytes, limits: MediaLimits, name: Path | str, formats: tuple[str, ...] = IMAGE_FORMATS
) -> Pixels:
    """u8 [h,w,3] RGB, upright by EXIF; the first frame of an animation. `name` stands in the errors.

    MediaError when it is none of the formats, truncated, larger than the limits (the size is read before any pixel),
    or a JPEG of absurdly many scans. JPEG takes a short cut through libjpeg-turbo that gives the very pixels of Pillow,
    in two thirds of the time.
    """
    check_scans(name, data)
    plain = _plain_jpeg(data, limits, name)
    return plain if plain is not None else _decode_by_pillow(data, limits, name, formats)


def _plain_jpeg(data: bytes, limits: MediaLimits, name: Path | str) -> Pixels | None:
    """None for what is left to Pillow: other formats and colour spaces, rotated by EXIF, damaged."""
    if not data.startswith(JPEG_MAGIC) or any(mark in data for mark in ORIENTED):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        check_size(name, width, height, limits)
        if space not in ("YCbCr", "Gray"):
            return None
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8)
    except ValueError:
        return None


def _decode_by_pillow(data: bytes, limits: MediaLimits, name: Path | str, formats: tuple[str, ...]) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=formats) as image:
                check_size(name, *image.size, limits)
                if isinstance(image, TiffImageFile):
                    _check_tiles(name, image, limits)
                return np.asarray(_eight_bit(ImageOps.exif_transpose(image)).convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise MediaError(name, f"not an image; expected {', '.join(formats)}") from None
    except Image.DecompressionBombError as error:
        raise MediaTooLarge(name, f"absurd size: {error}") from None
    except MediaError:
        raise
    except Exception as error:  # damaged metadata makes Pillow raise almost anything: TypeError, KeyError, struct.error
        raise MediaError(name, f"cannot be decoded as an image: {error}") from None


def _check_tiles(name: Path | str, image: TiffImageFile, limits: MediaLimits) -> None:
    """MediaTooLarge when a tile, which is decoded as a whole, is larger than a picture may be."""
    width, height = (int(image.tag_v2.get(tag, 0)) for tag in TILE_TAGS)
    if width * height > limits.max_pixels:
        raise MediaTooLarge(name, f"tiles of {width} x {height} pixels; the limit is {limits.max_pixels:,} pixels")


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit: Pillow's own conversion would clip it to white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
