"""Videos -> timed frames: hostile files decoded once, in order, within limits.

Only local files, only known containers, sizes checked before memory is taken. What does not live here: images,
the frame rate and size that a model wants (`media`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import av
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange
from numpy.typing import NDArray
from pydantic import Field

from framegate.contract import MediaError, MediaTooLarge, Record

Pixels = NDArray[np.uint8]  # u8 [h,w,3] RGB, 0..255

CONTAINERS = "mov,matroska,avi,mpegts"  # never playlists: they can name other files
TRUNCATED_BELOW = 0.9  # decoded share of the declared frames or seconds
UNKNOWN_FRAME_S = 0.04  # when neither header nor times say
JPEG_MAGIC = b"\xff\xd8\xff"
JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")  # those that libjpeg neither skips nor stops at
JPEG_SCAN, JPEG_END = b"\xda", b"\xd9"
JPEG_CODECS = ("mjpeg", "amv", "sp5x")  # with markers in their frames
SCANS = 100  # of a JPEG, as libtiff limits them; encoders make a dozen at most, and each decodes every pixel once more
MARKERS = 10_000  # before the first scan, or between scans that are many
SPARE_PIXELS = 1 << 20  # decoders hold their own scratch memory against the limit as well

_FAILURES = (av.error.FFmpegError, ValueError, OverflowError, MemoryError)  # of a decoder on a bad file


class MediaLimits(Record):
    """What a file may ask of the decoder; beyond it the file is refused with MediaError."""

    max_pixels: Annotated[int, Field(ge=64)] = 64_000_000  # width * height of one frame
    max_frames: Annotated[int, Field(ge=1)] = 1_000_000
    max_seconds: Annotated[float, Field(gt=0)] = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """One decoded frame, `time_s` seconds after the first; converted to RGB only when asked."""

    time_s: float
    source: av.VideoFrame | Pixels

    def rgb(self) -> Pixels:
        """u8 [h,w,3] RGB, 0..255, upright: rotation metadata applied."""
        if isinstance(self.source, np.ndarray):
            return self.source
        return _upright(_video_rgb(self.source), self.source.rotation)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of `rgb`, known without converting."""
        if isinstance(self.source, np.ndarray):
            return self.source.shape[0], self.source.shape[1]
        height, width = self.source.height, self.source.width
        return (width, height) if _turns(self.source.rotation) % 2 else (height, width)


def check_file(path: Path) -> None:
    """MediaError when there is no file, or nothing in it."""
    if not path.is_file():
        raise MediaError(path, "not a file, but a folder or a device" if path.exists() else "no such file")
    if path.stat().st_size == 0:
        raise MediaError(path, "empty file")


def check_size(path: Path | str, width: int, height: int, limits: MediaLimits) -> None:
    """MediaError when a frame is larger than the limits allow."""
    if width * height > limits.max_pixels:
        raise MediaTooLarge(path, f"frames of {width} x {height} pixels; the limit is {limits.max_pixels:,} pixels")


def check_scans(name: Path | str, data: bytes) -> None:
    """MediaError for a JPEG of absurdly many parts: one of 100 kB can hold thousands of scans, minutes of a decoder."""
    if not data.startswith(JPEG_MAGIC):
        return
    many, scans, position = data.count(b"\xff" + JPEG_SCAN) > SCANS, 0, len(JPEG_MAGIC) - 1
    for _ in range(MARKERS):  # one by one: a thumbnail or what a camera appends may have scans as well
        found = JPEG_MARKER.search(data, position)
        if not found or found[1] == JPEG_END or (found[1] == JPEG_SCAN and not many):
            return
        scans += found[1] == JPEG_SCAN
        if scans > SCANS:
            raise MediaError(name, f"a JPEG of more than {SCANS} scans, the limit")
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    raise MediaError(name, f"a JPEG of more than {MARKERS:,} parts, the limit")


# --- decoding ---------------------------------------------------------------------------------


def read_video(path: Path, limits: MediaLimits) -> Iterator[TimedFrame]:
    """Every frame of the first video stream, once, in presentation order, by one decode thread.

    MediaError, possibly after some frames: not a video, no video stream, no frames, beyond the limits, corrupt,
    or truncated (fewer than 90 % of the frames or seconds that the header declares).
    """
    check_file(path)
    with _open(path, limits) as container:
        try:
            yield from _decode(path, container, limits)
        except _FAILURES as error:
            stream = first_video(container)
            if isinstance(error, av.error.ArgumentError) and stream and not stream.codec_context.width:
                far = f"far larger than {limits.max_pixels:,} pixels, the limit"
                raise MediaTooLarge(path, f"a frame is {far}, or of no size that can be") from None
            raise MediaError(path, f"corrupt video: {_why(error)}") from None


def decoder_options(limits: MediaLimits) -> dict[str, str]:
    """What keeps a decoder from taking memory for a frame that `check_size` would refuse afterwards.

    It counts whole blocks of up to 64 x 64 pixels, so that it gets more than the limit says.
    """
    return {"max_pixels": str(2 * limits.max_pixels + SPARE_PIXELS)}


def _open(path: Path, limits: MediaLimits) -> av.container.InputContainer:
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", **decoder_options(limits)}
    try:
        return av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except _FAILURES as error:
        raise MediaError(path, f"not a video, or one whose header is missing: {_why(error)}") from None


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def first_video(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first video stream; the cover of a song or a film is none."""
    return next((one for one in container.streams.video if not one.disposition & Disposition.attached_pic), None)


def video_stream(name: Path | str, container: av.container.InputContainer, limits: MediaLimits) -> av.VideoStream:
    """The first video stream, to be decoded by one thread. MediaError: none, of an unknown codec, or too large."""
    stream = first_video(container)
    if stream is None:
        raise MediaError(name, "no video stream")
    if getattr(stream, "codec_context", None) is None:  # its size, too, is the codec's to know
        raise MediaError(name, "a video stream of a codec that is not known here")
    check_size(name, stream.width, stream.height, limits)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = decoder_options(limits)
    return stream


def frames_of(packet: av.Packet[av.VideoStream], name: Path | str) -> list[av.VideoFrame]:
    """What a packet of a video stream gives. MediaError: a JPEG that no image may be; FFmpeg's errors as they are."""
    if packet.stream.codec_context.name in JPEG_CODECS and bytes(packet).count(b"\xff" + JPEG_SCAN) > SCANS:
        raise MediaError(name, f"a frame is a JPEG of more than {SCANS} scans, the limit")
    return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]


def _decode(path: Path, container: av.container.InputContainer, limits: MediaLimits) -> Iterator[TimedFrame]:
    stream = video_stream(path, container, limits)
    clock = _Clock(float(1 / stream.average_rate) if stream.average_rate else UNKNOWN_FRAME_S)
    count, end_s = 0, 0.0
    for frame in (frame for packet in container.demux(stream) for frame in frames_of(packet, path)):
        time_s = clock.place(None if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base))
        # its own length where it says one: a recorder that writes changes only lets the last picture stand for long
        lasts_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        end_s = max(end_s, time_s + max(clock.nominal_s, lasts_s))
        count += 1
        check_size(path, frame.width, frame.height, limits)
        _check_length(path, count, time_s, limits)
        yield TimedFrame(time_s, frame)
    if count == 0:
        raise MediaError(path, "no frame in its video stream")
    _check_complete(path, container, stream, count, end_s)


class _Clock:
    """Seconds since the first frame, never decreasing.

    A missing time, or one that does not go forward, is taken as one nominal frame after the last.
    """

    def __init__(self, nominal_s: float) -> None:
        self.nominal_s = nominal_s
        self.first_s: float | None = None
        self.last_s = -nominal_s

    def place(self, pts_s: float | None) -> float:
        if self.first_s is None and pts_s is not None:
            self.first_s = pts_s - (self.last_s + self.nominal_s)
        time_s = self.last_s if pts_s is None or self.first_s is None else pts_s - self.first_s
        self.last_s = time_s if time_s > self.last_s else self.last_s + self.nominal_s
        return self.last_s


def _check_length(path: Path, count: int, time_s: float, limits: MediaLimits) -> None:
    if count > limits.max_frames:
        raise MediaTooLarge(path, f"more than {limits.max_frames:,} frames, the limit")
    if time_s > limits.max_seconds:
        raise MediaTooLarge(path, f"a frame at {time_s:.1f} s; the limit is {limits.max_seconds:.1f} s")


def _check_complete(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    count: int,
    seconds: float,
) -> None:
    declared = _declared_seconds(container, stream)
    if seconds < TRUNCATED_BELOW * declared:
        raise MediaError(path, f"truncated: decoded {seconds:.2f} s of the {declared:.2f} s its header declares")
    if not declared and count < TRUNCATED_BELOW * stream.frames:  # an edit list may hide frames on purpose
        raise MediaError(path, f"truncated: decoded {count} of the {stream.frames} frames its header declares")


def _declared_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Length of the video by the header, or 0: a container's length counts only when nothing else fills it."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        start = container.start_time or 0  # what Matroska declares is its end, also where a recorder cut it
        return (container.duration - start if 0 < start < container.duration else container.duration) / av.time_base
    return 0.0


def probe_seconds(path: Path) -> float:
    """Length by the header alone; 0 when the header does not say or cannot be read."""
    try:
        with _open(path, MediaLimits()) as container:
            video = first_video(container)
            whole = (container.duration or 0) / av.time_base  # good enough for an estimate, whatever sound there is
            return (_declared_seconds(container, video) or whole) if video else 0.0
    except (MediaError, *_FAILURES):
        return 0.0


def probe_fps(path: Path) -> float | None:
    """Frames per second by the header alone; None when it does not say or cannot be read."""
    try:
        with _open(path, MediaLimits()) as container:
            video = first_video(container)
            return float(video.average_rate) if video and video.average_rate else None
    except (MediaError, *_FAILURES):
        return None


# --- pixels -----------------------------------------------------------------------------------


def _video_rgb(frame: av.VideoFrame) -> Pixels:
    """u8 [h,w,3]. OpenCV converts the most common layout 2.6 times as fast as swscale, within a grey level or two."""
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    if frame.format.name == "yuv420p" and frame.color_range != ColorRange.JPEG and even:
        return np.asarray(cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420), np.uint8)
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _upright(frame: Pixels, degrees: int) -> Pixels:
    """Rotate counterclockwise by the nearest multiple of 90 degrees."""
    turns = _turns(degrees)
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


def _turns(degrees: int) -> int:
    return round(degrees / 90) % 4
