"""Frames of one connection: a file, a device or a network stream, opened within limits, with a time on each frame."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import av

from framegate.contract import MediaError
from framegate.media import is_video, read_frames
from framegate.video import MediaLimits, TimedFrame, check_file, check_size, frames_of, probe_fps, video_stream
from framegate.watch.address import FORMATS, PROTOCOLS, Address

WITHOUT_TIMES = ("mpjpeg", "mjpeg")  # their times are made up: that of arrival is better
PLAUSIBLE_FPS = (1.0, 120.0)
JUMP_S = 10.0  # a stream's clock that goes on by more was set anew
STEP_S = 0.001
NO_STREAM = (errno.EIO, errno.EINVAL)  # all that FFmpeg says of a page, a snapshot or a playlist
EXPECTED = "a host that can be found, and from it MJPEG (multipart/x-mixed-replace), MPEG-TS or Matroska"  # of http
FAILURES = (av.error.FFmpegError, OSError, ValueError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a source is opened."""

    timeout_s: float = 10.0  # without a frame
    transport: Literal["tcp", "udp"] = "tcp"  # of rtsp
    limits: MediaLimits = field(default_factory=MediaLimits)


class Feed:
    """Iterate for frames, once. MediaError: it cannot be opened, broke off, or gave no frame within the timeout.

    A network stream or device that ends is no error. `nominal_fps`: what it says of itself, known with the first frame.
    """

    def __init__(self, address: Address, opening: Opening, clock: Callable[[], float] = time.monotonic) -> None:
        self.nominal_fps: float | None = None
        self._address, self._opening, self._clock = address, opening, clock

    def __iter__(self) -> Iterator[TimedFrame]:
        if self._address.kind == "file":
            return self._read_file()
        return self._read_live()

    def _read_file(self) -> Iterator[TimedFrame]:
        check_file(path := self._address.path)  # first of all: a pipe is opened when somebody writes to it
        self.nominal_fps = _plausible(probe_fps(path)) if is_video(path) else None
        yield from read_frames(path, self._opening.limits)

    def _read_live(self) -> Iterator[TimedFrame]:
        shown = self._address.shown
        try:
            with self._open() as container:
                yield from self._decode(container)
        except MediaError:
            raise
        except av.error.ExitError:
            raise self._silent() from None
        except FAILURES as error:
            raise MediaError(shown, why(error)) from None

    def _open(self) -> av.container.InputContainer:
        address, seconds = self._address, self._opening.timeout_s
        if address.kind == "device":
            return av.open(address.target, format="v4l2", timeout=(seconds, seconds))
        options = {"protocol_whitelist": PROTOCOLS[address.scheme], "format_whitelist": FORMATS[address.scheme]}
        if address.scheme.startswith("rtsp"):
            options["rtsp_transport"] = self._opening.transport
        try:
            return av.open(address.target, options=options, timeout=(seconds, seconds), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            if not address.scheme.startswith("http") or not _is_no_stream(error):
                raise
            raise MediaError(address.shown, f"{why(error)}; expected {EXPECTED}") from None

    def _decode(self, container: av.container.InputContainer) -> Iterator[TimedFrame]:
        shown, limits = self._address.shown, self._opening.limits
        stream = video_stream(shown, container, limits)
        self.nominal_fps = _plausible(stream.average_rate)
        timed, times = container.format.name not in WITHOUT_TIMES, Times()
        last_at = self._clock()
        for packet in container.demux(stream):
            for frame in _frames(packet, shown):
                last_at = self._clock()
                check_size(shown, frame.width, frame.height, limits)
                pts_s = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None
                yield TimedFrame(times.place(pts_s if timed else None, last_at), frame)
            if self._clock() - last_at > self._opening.timeout_s:  # something comes, but no picture
                raise self._silent()

    def _silent(self) -> MediaError:
        return MediaError(self._address.shown, f"no frame for {self._opening.timeout_s:g} s")


class Times:
    """Seconds since the first frame, rising: by the stream's clock, or by ours where it has none or was set anew."""

    def __init__(self) -> None:
        self._first_at: float | None = None
        self._last_s = -math.inf
        self._last_pts: float | None = None
        self._offset = 0.0  # time = pts - offset

    def place(self, pts_s: float | None, at: float) -> float:
        """The time of a frame with the stream's time `pts_s`, which came `at` by our clock."""
        self._first_at = at if self._first_at is None else self._first_at
        arrival = max(at - self._first_at, self._last_s + STEP_S)
        if pts_s is None:
            time_s = arrival
        else:
            if self._last_pts is None or not 0 < pts_s - self._last_pts <= JUMP_S:
                self._offset = pts_s - arrival
            time_s = max(pts_s - self._offset, self._last_s + STEP_S)
        self._last_s, self._last_pts = time_s, pts_s
        return time_s


def _frames(packet: av.Packet[av.VideoStream], shown: str) -> list[av.VideoFrame]:
    """A damaged packet of a live stream is a picture less; the next one may be whole."""
    try:
        return frames_of(packet, shown)
    except (av.error.InvalidDataError, av.error.EOFError, MediaError):
        return []


def _plausible(rate: object) -> float | None:
    """Frames per second as a stream declares them; many declare nonsense."""
    fps = float(rate) if rate else 0.0  # type: ignore[arg-type]
    return fps if PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1] else None


def _is_no_stream(error: BaseException) -> bool:
    """Whether something answered, perhaps, but nothing that can be watched."""
    return isinstance(error, av.error.InvalidDataError) or getattr(error, "errno", None) in NO_STREAM


def why(error: BaseException) -> str:
    """The reason without the address, which may hold a password."""
    return getattr(error, "strerror", None) or type(error).__name__
