"""The rim of the HTTP server: keys, origin, sizes, compression, load shedding; before the application sees a request.

Pure ASGI, because it stands before every request. Order: Host, Origin, key, Content-Length, Content-Encoding, load.
Nothing is logged here: neither keys nor query strings nor bodies.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from framegate.serve.body import DRAIN_BYTES, WINDOWS, Body, Inflate
from framegate.serve.errors import Overloaded, ServeError, TooLarge, Unauthenticated, Unsupported
from framegate.serve.keys import Keys

PREDICT = "/v1/predict"
OPEN = frozenset({"/", "/page.css", "/page.js", "/favicon.ico", "/v2/health/live", "/v2/health/ready"})
SUBPROTOCOL, KEY_PREFIX = "framegate", "key."
WANTED = frozenset(
    {b"host", b"origin", b"authorization", b"x-api-key", b"content-length", b"content-encoding", b"transfer-encoding"}
    | {b"expect"}
)
PORTS = {b"http": b":80", b"https": b":443"}
REASON_BYTES = 120  # of a WebSocket's close frame: at most 123

Found = dict[bytes, bytes]


class Forbidden(ServeError):
    """Asked by a page of another site."""

    status, grpc = 403, "PERMISSION_DENIED"


class Misdirected(ServeError):
    """Asked under a name that is not this server's."""

    status, grpc = 421, "INVALID_ARGUMENT"


def _never() -> float | None:
    return None


def _nothing(error: ServeError) -> None:
    pass


def _nobody() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Rules:
    """What the guard lets through."""

    body_bytes: int  # of a request, decompressed too
    upload_bytes: int  # the same for /v1/predict
    keys: Keys | None = None  # None: everything is open
    hosts: frozenset[str] | None = None  # the names in Host, without port; None: any
    overloaded: Callable[[], float | None] = _never  # seconds after which to come back, or None
    closed: Callable[[], None] = _nobody  # raises what new work is refused with while the server stops
    refused: Callable[[ServeError], None] = _nothing  # called for each refusal: to count them
    random: random.Random = field(default_factory=random.Random)
    delay_s: tuple[float, float] = (0.7, 1.0)  # before a 503: clients that never back off would come back at once
    max_delayed: int = 1024  # beyond it a 503 is answered at once; each holds its connection and up to 64 KiB of body


class Guard:
    """An ASGI application around another."""

    path = "refused"

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules
        self._delayed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await (self._websocket if scope["type"] == "websocket" else self.app)(scope, receive, send)
            return
        # --- HTTP, in line: every call more is paid for by every request
        found = {name: value for name, value in scope["headers"] if name in WANTED}
        length = _length(scope, found)
        limit = self.rules.upload_bytes if scope["path"] == PREDICT else self.rules.body_bytes
        waits = b"expect" in found
        try:
            self._admit(scope, found, None if self.rules.keys is None else _bearer(found))
            if length is not None and length > limit:
                raise TooLarge(f"body: {length} bytes, the limit is {limit}")
            inflate = _inflate(found)
            if (retry_s := self._overloaded(scope)) is not None:
                await self._pause()
                raise Overloaded(f"overloaded: come back in {retry_s:g} s", retry_s)
        except ServeError as error:
            await self._refuse(scope, Body(receive, send, length, limit, None, waits), error)
            return
        if inflate is None and length is not None and length <= DRAIN_BYTES and not waits:
            await self.app(scope, receive, send)
            return
        if inflate is not None:
            scope["headers"] = [(n, v) for n, v in scope["headers"] if n not in _OF_THE_CODED]
        await self._guarded(scope, Body(receive, send, length, limit, inflate, waits))

    async def _guarded(self, scope: Scope, body: Body) -> None:
        """Run the application on a body that may turn out wrong while it is read."""
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if body.failure is None or body.started:
                raise
        if body.failure is not None and not body.started:
            await self._refuse(scope, body, body.failure)

    async def _refuse(self, scope: Scope, body: Body, error: ServeError) -> None:
        scope["route"] = self  # what counters call it
        self.rules.refused(error)
        await body.answer(error)

    def _overloaded(self, scope: Scope) -> float | None:
        """Seconds after which to come back, for work that would not make it; its body stays unread.

        Raises what new work is refused with while the server stops.
        """
        path: str = scope["path"]
        if scope["method"] != "POST" or not (path == PREDICT or path.endswith("/infer")):
            return None
        self.rules.closed()
        return self.rules.overloaded()

    async def _pause(self) -> None:
        """Before the refusal, unless too many wait already."""
        if self._delayed < self.rules.max_delayed:
            self._delayed += 1
            try:
                await asyncio.sleep(self.rules.random.uniform(*self.rules.delay_s))
            finally:
                self._delayed -= 1

    # --- WebSocket --------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = {name: value for name, value in scope["headers"] if name in WANTED}
        offered: list[str] = scope.get("subprotocols", [])
        keys = [word.removeprefix(KEY_PREFIX) for word in offered if word.startswith(KEY_PREFIX)]
        chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
        try:
            self._admit(scope, found, _bearer(found) or (keys[0] if keys else None))
        except ServeError as error:
            scope["route"] = self  # what counters call it
            self.rules.refused(error)
            await _close(receive, send, chosen, error)
            return
        if not offered:
            await self.app(scope, receive, send)
            return

        async def accepting(message: Message) -> None:
            if message["type"] == "websocket.accept":
                message = {**message, "subprotocol": chosen}
            await send(message)

        scope["subprotocols"] = [word for word in offered if not word.startswith(KEY_PREFIX)]
        await self.app(scope, receive, accepting)

    # --- both -------------------------------------------------------------------------------------

    def _admit(self, scope: Scope, found: Found, key: str | None) -> None:
        """Check Host, Origin and key; `request.state.key` is the key's name."""
        host = found.get(b"host", b"")
        if self.rules.hosts is not None and host and _name(host) not in self.rules.hosts:
            raise Misdirected(f"Host {_shown(host)}: this server answers on loopback only, as localhost or 127.0.0.1")
        origin = found.get(b"origin")
        if origin is not None and not _same(origin, host):
            raise Forbidden(f"Origin {_shown(origin)} is another site than Host {_shown(host)}")
        if self.rules.keys is None:
            return
        name = self.rules.keys.check(key)
        if name is None and not _is_open(scope):
            wrong = "no key" if key is None else "this key is not valid"
            raise Unauthenticated(f"{wrong}; send `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        scope.setdefault("state", {})["key"] = name


_OF_THE_CODED = frozenset({b"content-encoding", b"content-length"})


def _is_open(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path: str = scope["path"]
    return path in OPEN


def _bearer(found: Found) -> str | None:
    """The key of the headers."""
    scheme, _, key = found.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return key.strip().decode("latin-1")
    given = found.get(b"x-api-key")
    return None if given is None else given.decode("latin-1")


def _length(scope: Scope, found: Found) -> int | None:
    """Bytes of the body; 0 without one, None when nobody said."""
    given = found.get(b"content-length")
    if given is not None and b"transfer-encoding" not in found and given.isdigit():
        return int(given)
    if given is None and b"transfer-encoding" not in found and scope["method"] in ("GET", "HEAD"):
        return 0
    return None


def _inflate(found: Found) -> Inflate | None:
    encoding = found.get(b"content-encoding", b"identity").strip().lower()
    if encoding in WINDOWS:
        return Inflate(encoding)
    if encoding not in (b"identity", b""):
        raise Unsupported(f"Content-Encoding {_shown(encoding)}: send gzip, deflate or none")
    return None


def _same(origin: bytes, host: bytes) -> bool:
    """Whether an Origin names the host and port that the request was sent to; `null` never does."""
    scheme, _, authority = origin.lower().partition(b"://")
    default = PORTS.get(scheme)
    return default is not None and authority.removesuffix(default) == host.lower().removesuffix(default)


def _name(host: bytes) -> str:
    """The name in a Host header, without port, in lower case."""
    end = host.find(b"]") + 1 if host.startswith(b"[") else host.find(b":")
    return (host if end < 0 else host[:end]).decode("latin-1").lower()


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))


async def _close(receive: Receive, send: Send, subprotocol: str | None, error: ServeError) -> None:
    """Accept and close: a browser's page sees the code of a close, never the status of a refused handshake."""
    message = await receive()
    if message["type"] != "websocket.connect":
        return
    code = 4401 if isinstance(error, Unauthenticated) else 1008
    reason = str(error).encode()[:REASON_BYTES].decode(errors="ignore")
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    await send({"type": "websocket.close", "code": code, "reason": reason})
