"""A request's body at the rim: counted, decompressed piece by piece, and drained when the answer comes before its end.

Only bodies that are compressed, chunked or long go through here: of the others the HTTP parser never gives more than
their Content-Length, and the server throws away what nobody read.
"""

from __future__ import annotations

import asyncio
import json
import math
import zlib

from starlette.types import Message, Receive, Send

from framegate.serve.errors import BadRequest, Overloaded, ServeError, TooLarge, Unauthenticated, Unsupported

PIECE_BYTES = 1 << 16
DRAIN_BYTES = 1 << 20
DRAIN_S = 1.0
WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # zlib's wbits; deflate is the zlib format (RFC 9110, 8.4.1.2)

Headers = list[tuple[bytes, bytes]]


class Inflate:
    """One gzip or zlib stream, at most 64 KB of its content at a time; BadRequest when it is damaged."""

    def __init__(self, encoding: bytes) -> None:
        self.encoding = encoding.decode("latin-1")
        self._stream = zlib.decompressobj(WINDOWS[encoding])
        self._full = False

    @property
    def pending(self) -> bool:
        """More content can be had without more input."""
        return bool(self._stream.unconsumed_tail) or self._full

    @property
    def ended(self) -> bool:
        """The stream was whole."""
        return self._stream.eof

    def feed(self, data: bytes) -> bytes:
        """The next piece: of what was left over, or of `data` when nothing is pending."""
        try:
            piece = self._stream.decompress(self._stream.unconsumed_tail or data, PIECE_BYTES)
        except zlib.error as error:
            raise BadRequest(f"body: not {self.encoding} as Content-Encoding says ({error})") from None
        if self._stream.unused_data:
            raise BadRequest(f"body: bytes follow the end of the {self.encoding} stream; send one stream")
        self._full = len(piece) == PIECE_BYTES and not self._stream.eof
        return piece


class Body:
    """`receive` and `send` of one request.

    `receive` raises what is wrong with the body and keeps it in `failure`; until then nothing has been answered, so
    whoever called the application answers with it. `send` says `Connection: close` when it answers before a long
    body's end, and reads on for at most 1 MB and one second: closing over unread bytes resets the connection, and the
    client would report a broken pipe instead of the status.
    """

    def __init__(
        self, receive: Receive, send: Send, length: int | None, limit: int, inflate: Inflate | None, waits: bool
    ) -> None:
        """`length` None: not known; `waits`: the client sent `Expect: 100-continue`."""
        self._receive, self._send = receive, send
        self._length, self._limit, self._inflate, self._waits = length, limit, inflate, waits
        self.failure: ServeError | None = None
        self.started = False  # the response
        self._more = length != 0
        self._read = self._size = 0  # bytes as sent, and decompressed
        self._closing = False

    # --- the request ------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next message; with at most 64 KB of content where it is compressed."""
        if self.failure is not None:
            raise self.failure
        try:
            return await (self._pull() if self._inflate is None else self._piece(self._inflate))
        except ServeError as error:
            self.failure = error
            raise

    async def _pull(self) -> Message:
        message = await self._receive()
        self._waits = False
        self._more = bool(message.get("more_body", False))
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise TooLarge(f"body: more than the limit of {self._limit} bytes")
        return message

    async def _piece(self, inflate: Inflate) -> Message:
        while True:
            data = b""
            if inflate.pending:
                await asyncio.sleep(0)  # else one chunk of a bomb would keep the loop busy
            else:
                message = await self._pull()
                if message["type"] != "http.request":
                    return message
                data = message.get("body", b"")
            piece = inflate.feed(data)
            self._size += len(piece)
            if self._size > self._limit:
                raise TooLarge(f"body: decompresses to more than the limit of {self._limit} bytes")
            more = self._more or inflate.pending
            if not more and not inflate.ended:
                raise BadRequest(f"body: the {inflate.encoding} stream is truncated")
            if piece or not more:
                return {"type": "http.request", "body": piece, "more_body": more}

    # --- the response -----------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """What the application answers; dropped when the body was refused before."""
        if self.failure is None or self.started:
            await self._forward(message)

    async def answer(self, error: ServeError) -> None:
        """Answer with an error, as JSON."""
        body = json.dumps({"error": str(error)}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        start = {"type": "http.response.start", "status": error.status, "headers": headers + _extra(error)}
        await self._forward(start)
        await self._forward({"type": "http.response.body", "body": body, "more_body": False})

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._closing = self._more and (self._waits or self._rest() > DRAIN_BYTES)
            if self._closing:
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        elif self._closing and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def _rest(self) -> float:
        return math.inf if self._length is None else self._length - self._read

    async def _drain(self) -> None:
        if self._waits:  # to ask for the body now would say "continue"
            return
        left = DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_S):
                while self._more and left > 0:
                    message = await self._receive()
                    self._more = bool(message.get("more_body", False))
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return


def _extra(error: ServeError) -> Headers:
    """The headers that belong to a status."""
    if isinstance(error, Unauthenticated):
        return [(b"www-authenticate", b'Bearer realm="framegate"')]
    if isinstance(error, Overloaded):
        return [(b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode())]
    if isinstance(error, Unsupported):
        return [(b"accept-encoding", b"gzip, deflate")]
    return []
