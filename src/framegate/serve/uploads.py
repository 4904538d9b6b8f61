"""One uploaded file, streamed into a private folder under a name of our own, and removed afterwards.

The content decides what a file is: a client's file name is never looked at, its media type only says whether the body
is a form. A known first byte also keeps text formats that name other files (playlists) away from the decoder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from framegate.media import SENT_FORMATS
from framegate.serve.errors import BadRequest, Overloaded, TooLarge, Unsupported

logger = logging.getLogger(__name__)
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what is wrong with a form is its sender's to know

HEAD_BYTES = 64
ON_LOOP_BYTES = 1 << 16  # of one write to the disk; more goes to a thread
FLUSH_BYTES = 1 << 18
STALLED_S = 30.0  # of an upload: then its client is given up
KNOWN = ", ".join((*SENT_FORMATS, "MP4", "MOV", "Matroska", "WebM", "AVI"))
IMAGE_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")  # ISO files that are no video


def suffix_of(head: bytes) -> str | None:
    """The suffix that the first 64 bytes of a file ask for; None when they are of no kind that is read here."""
    if head.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if head.startswith(b"RIFF"):
        return {b"WEBP": ".webp", b"AVI ": ".avi"}.get(head[8:12])
    if head.startswith(b"\x1aE\xdf\xa3"):  # EBML
        return ".webm" if b"webm" in head else ".mkv"
    if head[4:8] == b"ftyp" and head[8:12] not in IMAGE_BRANDS:
        return ".mov" if head[8:12] == b"qt  " else ".mp4"
    return None


@asynccontextmanager
async def received(request: Request, folder: Path, limit_bytes: int) -> AsyncIterator[Path]:
    """The file that a request holds, as the form field `file` or as the raw body; removed when the context ends.

    `folder` is one that only this user may enter (0700).

    BadRequest: no file, two, an empty or a truncated one; Unsupported: content of no known kind; TooLarge; Overloaded:
    the disk takes no more.
    """
    sink = _Sink(folder, limit_bytes)
    try:
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind == b"multipart/form-data":
            await _read_form(request, sink, options.get(b"boundary"))
        elif kind.startswith(b"multipart/"):
            raise Unsupported(f"upload: {kind.decode('latin-1')}; send multipart/form-data or the raw file")
        else:
            await _read_raw(request, sink)
        yield await sink.finish()
    finally:  # in a thread: freeing a long file takes a while; submitted even when this task is being cancelled
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, sink.remove))


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. BadRequest when nothing does for a while: what is here holds a place and disk."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALLED_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise BadRequest(f"upload: nothing came for {STALLED_S:g} s") from None
        if chunk is None:
            return
        yield chunk


async def _read_raw(request: Request, sink: _Sink) -> None:
    async for chunk in _chunks(request):
        sink.add(chunk)
        await sink.flush()


async def _read_form(request: Request, sink: _Sink, boundary: bytes | None) -> None:
    if not boundary:
        raise BadRequest("multipart: the Content-Type names no boundary")
    form = _Form(sink)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in _chunks(request):
            for start in range(0, len(chunk), ON_LOOP_BYTES):
                parser.write(chunk[start : start + ON_LOOP_BYTES])
                await sink.flush()
    except FormParserError as error:
        raise BadRequest(f"multipart: {error}") from None
    if not form.ended:
        raise BadRequest("multipart: truncated, the closing boundary did not come")
    if not form.files:
        raise BadRequest("multipart: no field `file`")


class _Form:
    """Callbacks of the streaming parser; hands on what the one field `file` holds."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._header, self._value, self._disposition = b"", b"", b""
        self.files = 0
        self.ended = False

    def callbacks(self) -> dict[str, object]:
        """By the names that python-multipart gives them."""
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self) -> None:
        self._disposition = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != "file":
            raise BadRequest(f"multipart: field {name[:80]!r}; send one field `file`, and options in the query string")
        self.files += 1
        if self.files > 1:
            raise BadRequest("multipart: two fields `file`; send one file per request")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._sink.add(data[start:end])

    def end(self) -> None:
        self.ended = True


class _Sink:
    """Bytes on their way into one file."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._pending = bytearray()
        self._size = 0
        self._path: Path | None = None
        self._file: int | None = None
        self._removed = False
        self._lock = threading.Lock()  # a cancelled request may end before its last write, which is in a thread

    def add(self, data: bytes) -> None:
        """Take more content; TooLarge, or Unsupported as soon as the first bytes are there."""
        self._size += len(data)
        if self._size > self._limit:
            raise TooLarge(f"upload: the file is longer than the limit of {self._limit} bytes")
        self._pending += data
        if self._path is None and len(self._pending) >= HEAD_BYTES:
            self._name()

    async def flush(self, at_least: int = FLUSH_BYTES) -> None:
        """Write what is pending once it is so many bytes."""
        if self._path is None or len(self._pending) < at_least:
            return
        data, self._pending = self._pending, bytearray()
        try:
            if len(data) <= ON_LOOP_BYTES:
                self._write(data)
            else:
                await asyncio.to_thread(self._write, data)
        except OSError as error:
            logger.error("%s: cannot store an upload (%s)", self._folder, error.strerror)
            raise Overloaded("upload: the server cannot store files now", 10) from None

    async def finish(self) -> Path:
        """The whole file, closed."""
        if not self._size:
            raise BadRequest("upload: the file is empty")
        path = self._path or self._name()
        await self.flush(at_least=1)
        self._close()
        return path

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self._removed = True
        self._close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _name(self) -> Path:
        head = bytes(self._pending[:HEAD_BYTES])
        suffix = suffix_of(head)
        if suffix is None:
            raise Unsupported(f"upload: starts with {head[:12]!r}, which is none of {KNOWN}")
        self._path = self._folder / (secrets.token_hex(16) + suffix)
        return self._path

    def _write(self, data: bytearray) -> None:
        with self._lock:
            if self._removed or self._path is None:
                return
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def _close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
