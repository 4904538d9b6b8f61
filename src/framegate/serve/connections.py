"""What stands between uvicorn and the application: requests in work, their outcomes, and what asks for no good end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from httptools import HttpParserUpgrade, HttpRequestParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from framegate.serve.errors import Stopping
from framegate.serve.guard import Guard
from framegate.serve.metrics import Metrics
from framegate.serve.rest import error_response

FRAGMENTS = 4096  # of a WebSocket's message
HEAD_BYTES = 1 << 16  # of a request before its body, and after any piece of it; beyond it no more is read
# How a WebSocket is counted: a client may send any code from 3000 to 4999
CLOSINGS = frozenset({"403", "1000", "1001", "1005", "1006", "1008", "1009", "1011", "1012", "1013", "4404"})
# What uvicorn logs of a request that is none: its sender's to know, who would else fill the log
SENDERS_FAULTS = frozenset(
    {
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
        "Invalid UTF-8 sequence received from client.",  # with a traceback
    }
)


def worth_logging(record: logging.LogRecord) -> bool:
    """A filter for uvicorn's log."""
    return record.msg not in SENDERS_FAULTS


class InFlight:
    """Counts HTTP requests in work, and outcomes of all; when `closing` is set, each answer closes its connection."""

    def __init__(self, metrics: Metrics) -> None:
        self.count, self.closing, self._metrics = 0, False, metrics

    def around(self, app: ASGIApp, outcomes: bool) -> ASGIApp:
        """The application, counted; `outcomes`: also how it answered, unless another worker counts that."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket" and outcomes:
                return await self._until_closed(app, scope, receive, send)
            if scope["type"] != "http":
                return await app(scope, receive, send)

            started = False

            def noting(message: Message) -> Awaitable[None]:
                nonlocal started
                if message["type"] == "http.response.start":
                    started = True
                    if outcomes:
                        self._note(scope, message)
                return send(message)

            self.count += 1
            try:
                await app(scope, receive, noting)
            except asyncio.CancelledError:
                if not self.closing:
                    raise
                if not started:  # the time for what was accepted is over
                    await error_response(Stopping())(scope, receive, noting)
            finally:
                self.count -= 1

        return counted

    async def _until_closed(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket, counted once by how it was closed: by whoever closed it first."""
        accepted, closed = False, "1006"  # no goodbye

        async def receiving() -> Message:
            nonlocal closed
            message = await receive()
            if message["type"] == "websocket.disconnect" and closed == "1006":
                closed = str(message.get("code") or 1005)
            return message

        async def sending(message: Message) -> None:
            nonlocal accepted, closed
            accepted = accepted or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and closed == "1006":
                closed = str(message.get("code") or 1000) if accepted else "403"  # so uvicorn refuses a handshake
            await send(message)

        try:
            await app(scope, receiving, sending)
        except (WebSocketDisconnect, OSError):
            raise  # the client is gone
        except Exception:
            closed = "1011"  # uvicorn tells the client
            raise
        finally:
            self._count(scope, closed if closed in CLOSINGS else "other")

    def _count(self, scope: Scope, outcome: str) -> None:
        route = getattr(scope.get("route"), "path", "none")  # the pattern, not the path: bounded
        if route != Guard.path:  # the guard counts what it refuses, WebSockets as well
            self._metrics.request(route, outcome)

    def _note(self, scope: Scope, message: Message) -> None:
        self._count(scope, str(message["status"]))
        if self.closing:
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]


class _Parser(HttpRequestParser):
    """A parser that goes on where an upgrade was asked for that is not made.

    httptools takes whatever follows such a head for the other protocol: the body of the request would be lost.
    """

    def __init__(self, protocol: BoundedHttp) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        """Feed bytes as they come."""
        parser: HttpRequestParser = self
        while True:
            try:
                return HttpRequestParser.feed_data(parser, data)
            except HttpParserUpgrade as upgrade:
                if not self._protocol.declines:
                    raise
                data = memoryview(data)[upgrade.args[0] :]
                parser = self._protocol.begin_again()


class BoundedHttp(HttpToolsProtocol):
    """Uvicorn's protocol with an end to all that is no body: headers, trailers, and what stands around chunks.

    It parses what grows without end ever more slowly, and keeps it. `Upgrade` but to WebSocket is ignored, as a server
    may (RFC 9110, 7.8): the HTTP clients of Java ask for h2c with every first request.
    """

    _bare_bytes = 0  # since the request began, or since the last piece of its body
    _patience: asyncio.TimerHandle | None = None  # with a head that does not come, or not whole

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.parser = _Parser(self)

    @property
    def declines(self) -> bool:
        """The head asks for an upgrade that is not made."""
        asked = self.parser.should_upgrade() and not self._should_upgrade()
        return asked and any(name == b"upgrade" for name, _ in self.headers)  # CONNECT needs none

    def begin_again(self) -> HttpRequestParser:
        """The parser that has read the same head without `Upgrade`."""
        head = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        head += [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = _Parser(self)
        self.parser.feed_data(b"\r\n".join([*head, b"", b""]))
        return self.parser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A head has as long to come as the next one of a kept connection."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._head_came()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._patience = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _head_came(self) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience = None

    @property
    def _idle(self) -> bool:
        """Nothing is in work, and it is no WebSocket."""
        return (self.cycle is None or self.cycle.response_complete) and self in self.connections

    def data_received(self, data: bytes) -> None:
        """Close the connection on endless headers."""
        if self._bare_bytes > HEAD_BYTES:
            self.send_400_response("Too much that is no body.")
            return
        self._bare_bytes += len(data)
        super().data_received(data)
        if self._idle and not self._patience:  # uvicorn's own patience ends with any byte
            self._await_head()

    def on_headers_complete(self) -> None:
        """The body comes."""
        self._head_came()
        self._bare_bytes = 0
        if not self.declines:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request may come."""
        self._bare_bytes = 0
        if not self.declines:
            super().on_message_complete()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Uvicorn's protocol with an end to fragments and pongs, and an answer to a POST that asks for it."""

    def data_received(self, data: bytes) -> None:
        """Refuse it; uvicorn would leave the client waiting on an open connection."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            said = b"".join(self.conn.data_to_send())
            self.transport.write(said or b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()

    def handle_ping(self) -> None:
        """Answer, unless the client reads nothing: a later pong answers for all before it (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """Close what comes in crumbs: each costs fifty bytes of memory."""
        if len(self.frames) < FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1009, f"a message in more than {FRAGMENTS:,} fragments")
            self.handle_parser_exception()
