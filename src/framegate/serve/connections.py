"""What stands between uvicorn and the application: requests in work, their outcomes, and an end to their headers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from framegate.serve.errors import Stopping
from framegate.serve.guard import Guard
from framegate.serve.metrics import Metrics
from framegate.serve.rest import error_response

HEAD_BYTES = 1 << 16  # of a request, once more than one piece of it came


class InFlight:
    """Counts the HTTP requests in work and their outcomes; when `closing` is set, each answer closes its connection."""

    def __init__(self, metrics: Metrics) -> None:
        self.count, self.closing, self._metrics = 0, False, metrics

    def around(self, app: ASGIApp, outcomes: bool) -> ASGIApp:
        """The application, counted; `outcomes`: also its answers, which another worker counts otherwise."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
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

    def _note(self, scope: Scope, message: Message) -> None:
        route = getattr(scope.get("route"), "path", "none")  # the pattern, not the path: bounded
        if route != Guard.path:  # the guard counts what it refuses, WebSockets as well
            self._metrics.request(route, str(message["status"]))
        if self.closing:
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]


class BoundedHttp(HttpToolsProtocol):
    """Uvicorn's protocol with an end to the headers of a request: it parses what grows without end ever more slowly."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Close the connection on endless headers."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > len(data) and self._head_bytes > HEAD_BYTES:
                self.send_400_response("Headers too long.")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The body comes."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next request may come."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()
