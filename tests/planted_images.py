"""Images that are small and ask for much: a JPEG of many scans, a TIFF of large tiles, a film of JPEGs."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SOS, EOI = b"\xff\xda", b"\xff\xd9"


def scanned(scans: int, side: int = 16) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(out, "JPEG", progressive=True, quality=50)
    data = out.getvalue()
    last = data[data.rindex(SOS) : -len(EOI)]
    return data[: -len(EOI)] + last * (scans - data.count(SOS)) + EOI


def tiff(tile_width: int, tile_height: int) -> bytes:
    """A black grey TIFF of 64 x 64, in one tile."""
    packer = zlib.compressobj(9)
    pixels = b"".join([packer.compress(bytes(tile_width)) for _ in range(tile_height)]) + packer.flush()
    tags = {
        256: 64,
        257: 64,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: tile_width,
        323: tile_height,
        324: 0,
        325: len(pixels),
    }
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def jpegs(path: Path, frames: list[bytes]) -> Path:
    """MJPEG, 10 frames a second, whose header promises 64x64, whatever its frames are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for number, frame in enumerate(frames):
            packet = av.Packet(frame)
            packet.pts = packet.dts = 100 * number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, True
            container.mux(packet)
    return path
