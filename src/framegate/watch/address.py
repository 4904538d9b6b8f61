"""What a source's text means: a file, a device, or a network stream; and how it may be shown to anybody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from framegate.contract import ConfigError, nearest

Kind = Literal["file", "device", "network"]

# what FFmpeg may open behind each scheme; a stream cannot lead it to files or anywhere else
PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tcp,tls",
    "http": "http,tcp",
    "https": "https,tls,tcp",
}
HTTP_FORMATS = "mpjpeg,mjpeg,mpegts,matroska"  # never playlists: they name other places
SURROGATES = re.compile("[\ud800-\udfff]")  # bytes that are not UTF-8, as Python keeps them
FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "http": HTTP_FORMATS, "https": HTTP_FORMATS}


@dataclass(frozen=True, slots=True)
class Address:
    """Where frames come from; `target` may hold a password, `shown` never does."""

    kind: Kind
    target: str
    shown: str
    scheme: str = ""

    @property
    def live(self) -> bool:
        """Whether it goes on for ever, and is worth another try when it stops."""
        return self.kind != "file"

    @property
    def path(self) -> Path:
        """Of a file."""
        return Path(self.target)


def parse_address(text: str) -> Address:
    """ConfigError for an unknown scheme, no host, or a wrong port; whether the place exists is seen on opening."""
    scheme, separator, rest = text.partition("://")
    if separator:
        return _network(scheme.lower(), rest, text)
    if device := re.fullmatch(r"device:(\d+)", text):
        text = f"/dev/video{device[1]}"
    if not text:
        raise ConfigError("source is empty; expected a file, a folder, device:0 or a URL")
    return Address("device" if text.startswith("/dev/") else "file", text, text)


def _network(scheme: str, rest: str, text: str) -> Address:
    if scheme not in PROTOCOLS:
        known = ", ".join(f"{one}://" for one in PROTOCOLS)
        raise ConfigError(
            f"source {mask(text)!r}: {scheme}:// is not known{nearest(scheme, PROTOCOLS)}; known: {known}"
        )
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        raise ConfigError(f"source {mask(text)!r}: no host; expected {scheme}://HOST[:PORT]/PATH")
    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ConfigError(f"source {mask(text)!r}: the port is wrong; expected a number up to 65535") from None
    return Address("network", f"{scheme}://{rest}", mask(text), scheme)


def readable(text: str) -> str:
    """Without what no UTF-8 says: a file's name may be any bytes."""
    return SURROGATES.sub("\ufffd", text)


def mask(url: str) -> str:
    """A URL without its user, password and query, and without a path that holds `=`: those may be secrets."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    user, at, place = rest.rpartition("@")  # from the right: a password may hold anything
    if "?" in user or ("/" in user and "=" in user):  # of the password, or of what follows? None of it is shown
        return f"{scheme}://***"
    place, query, _ = place.partition("?")
    if "=" in place or "%3d" in place.lower():
        place = re.split(r"[/#;&=%]", place)[0] + "/***"
    return f"{scheme}://{'***@' if at else ''}{place}{'?***' if query else ''}"
