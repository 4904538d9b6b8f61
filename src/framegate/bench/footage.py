"""Encoded video as cameras send it: packets in memory, decoded and resized while the streams run.

What a network would add is not here: packets come from memory, in order, and none is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from framegate.bench.clock import Clock
from framegate.contract import ClipSpec, MediaError
from framegate.media import TimedFrame, resize
from framegate.runtime.session import Frames
from framegate.video import first_video


@dataclass(frozen=True, slots=True)
class Footage:
    """One video in its encoded form; the first packet is a key frame, so it can be played round and round."""

    codec: str
    extradata: bytes | None
    packets: tuple[bytes, ...]
    keys: tuple[int, ...]  # numbers of the packets that need no other
    fps: float
    width: int
    height: int


def read_footage(path: Path) -> Footage:
    """All packets of the first video stream. MediaError when there is none, or it holds frames back (B-frames)."""
    try:
        return _read(path)
    except av.error.FFmpegError as error:
        raise MediaError(path, f"not a video: {error.strerror}") from None


def _read(path: Path) -> Footage:
    with av.open(str(path)) as container:
        stream = first_video(container)
        if stream is None:
            raise MediaError(path, "no video stream")
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = [packet.pts for packet in packets]
        if not packets or not packets[0].is_keyframe or times != sorted(t for t in times if t is not None):
            raise MediaError(path, "frames are not stored in the order of time; encode without B-frames")
        return Footage(
            codec=stream.codec_context.name,
            extradata=stream.codec_context.extradata,
            packets=tuple(bytes(packet) for packet in packets),
            keys=tuple(number for number, packet in enumerate(packets) if packet.is_keyframe),
            fps=float(stream.average_rate or 0),
            width=stream.width,
            height=stream.height,
        )


class VideoSource:
    """A `scenario.Source` that decodes: every stream has a decoder of its own and plays the footage round and round.

    A frame that was dropped must still be decoded, for the next one refers to it; it is not converted or resized.
    Streams start at different places, so that their key frames do not fall together.
    """

    def __init__(self, footage: Footage, spec: ClipSpec, streams: int, clock: Clock) -> None:
        self._spec, self._clock = spec, clock
        self._decoders = [_Decoder(footage, stream, spec.fps) for stream in range(streams)]
        self.spent_ns = {"decode": 0, "resize": 0}

    def take(self, streams: Sequence[int], numbers: Sequence[int]) -> Frames:
        out = np.empty((len(streams), self._spec.height, self._spec.width, 3), np.uint8)
        for row, (stream, number) in enumerate(zip(streams, numbers, strict=True)):
            start = self._clock.now()
            frame = self._decoders[stream].frame(number)
            decoded = self._clock.now()
            out[row] = resize(TimedFrame(0.0, frame).rgb(), self._spec)
            self.spent_ns["decode"] += decoded - start
            self.spent_ns["resize"] += self._clock.now() - decoded
        return out


class _Decoder:
    """One stream's decoder, fed packet by packet."""

    def __init__(self, footage: Footage, stream: int, fps: float) -> None:
        self._footage, self._packets_per_frame = footage, footage.fps / fps
        context = av.CodecContext.create(footage.codec, "r")
        assert isinstance(context, VideoCodecContext)
        self._context = context
        self._context.extradata = footage.extradata
        self._context.thread_count = 1
        self._start = stream * 7919 % len(footage.packets)  # a prime: starts are spread over the footage
        self._fed = max(key for key in footage.keys if key <= self._start)
        self._newest: av.VideoFrame | None = None
        self._decode_before(self._start)  # a camera has been running for a while: this is no part of the first frame

    def frame(self, number: int) -> av.VideoFrame:
        """The frame at tick `number` after this stream's start; decodes all up to it."""
        self._decode_before(self._start + int(number * self._packets_per_frame + 1e-9) + 1)
        assert self._newest is not None
        return self._newest

    def _decode_before(self, end: int) -> None:
        while self._fed < end:
            data = self._footage.packets[self._fed % len(self._footage.packets)]
            frames = self._context.decode(av.Packet(data))
            if len(frames) != 1:
                raise MediaError("footage", f"packet {self._fed} gave {len(frames)} frames; encode without B-frames")
            self._newest, self._fed = frames[0], self._fed + 1
