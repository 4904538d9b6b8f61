"""The rim refuses early, cheaply and visibly: keys, origins, sizes, compression bombs, overload."""

import asyncio
import gzip
import json
import logging
import random
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
import websockets.exceptions
import websockets.sync.client
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.websockets import WebSocket

from framegate.serve.body import DRAIN_BYTES
from framegate.serve.errors import BadRequest, ServeError
from framegate.serve.guard import Guard, Rules
from framegate.serve.keys import Keys, new_key

LIMIT, UPLOADS = 100_000, 4_000_000


class Seen:
    """What the application got to see."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.errors: list[BaseException] = []
        self.headers: dict[str, str] = {}
        self.key: str | None = None
        self.subprotocols: list[str] = []
        self.refused: list[ServeError] = []


def application(seen: Seen) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    @app.get("/metrics")
    @app.get("/page.js")
    @app.get("/v2/health/live")
    @app.get("/v2/health/ready")
    async def get(request: Request) -> PlainTextResponse:
        seen.requests.append(request.url.path)
        seen.key = request.state.key if hasattr(request.state, "key") else None
        return PlainTextResponse("here")

    @app.post("/")
    @app.post("/v1/predict")
    @app.post("/v2/models/m/infer")
    async def size(request: Request) -> JSONResponse:
        """Bytes of the body, without keeping them."""
        seen.requests.append(request.url.path)
        seen.headers = dict(request.headers)
        length, total = 0, 0
        try:
            async for chunk in request.stream():
                length, total = max(length, len(chunk)), total + len(chunk)
        except BaseException as error:
            seen.errors.append(error)
            raise
        return JSONResponse({"bytes": total, "longest": length})

    @app.post("/parsed")
    async def parsed(value: dict) -> dict:
        return {"keys": len(value)}

    @app.post("/caught")
    async def caught(request: Request) -> PlainTextResponse:
        try:
            await request.body()
        except ServeError:
            return PlainTextResponse("all is well")
        return PlainTextResponse("read")

    @app.post("/early")
    async def early() -> PlainTextResponse:
        return PlainTextResponse("no thanks", 415)

    async def halfway(scope, receive, send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.body", "body": b"last"})

    app.mount("/halfway", halfway)

    @app.post("/broken")
    async def broken(request: Request) -> None:
        await request.body()
        raise RuntimeError("a bug of the application")

    @app.websocket("/v1/streams/m")
    async def stream(socket: WebSocket) -> None:
        seen.subprotocols = list(socket.scope["subprotocols"])
        await socket.accept()
        await socket.send_text("ready")
        await socket.close()

    return app


class Answer:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1]) if raw else 0
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}

    @property
    def error(self) -> str:
        return json.loads(self.body)["error"]


class Served:
    """A real server on a loopback port, asked through raw sockets."""

    def __init__(self, port: int, seen: Seen) -> None:
        self.port, self.seen = port, seen

    def connect(self) -> socket.socket:
        """A client that holds little back: what it has sent, the server has read or buffers."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        return sock

    def ask(self, path: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """One request on its own connection, the whole body sent before the answer is read."""
        with self.connect() as sock:
            sock.sendall(head(path, method, body, **headers) + body)
            return read_answer(sock)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.ask(path, "POST", body, **headers)

    def websocket(self, **options) -> websockets.sync.client.ClientConnection:
        return websockets.sync.client.connect(f"ws://127.0.0.1:{self.port}/v1/streams/m", proxy=None, **options)


def head(path: str, method: str, body: bytes = b"", **headers: str) -> bytes:
    given = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if "transfer-encoding" not in given and (body or method == "POST"):
        given.setdefault("content-length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items() if v)]
    return "\r\n".join([*lines, "", ""]).encode()


def read_answer(sock: socket.socket) -> Answer:
    """Up to the end of the answer (Content-Length or close); a reset connection is an error."""
    raw = b""
    while True:
        data = sock.recv(65536)
        raw += data
        answer = Answer(raw) if b"\r\n\r\n" in raw else None
        if not data:
            assert answer is not None, f"closed without an answer: {raw!r}"
            return answer
        if answer and len(answer.body) >= int(answer.headers.get("content-length", 1 << 60)):
            return answer


def wait_until(true: Callable[[], bool], at_most_s: float = 5) -> None:
    end_s = time.monotonic() + at_most_s
    while not true():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.01)


def chunked(body: bytes, size: int = 16384) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


Start = Callable[..., Served]


@contextmanager
def starting() -> Iterator[Start]:
    """start(http="httptools", **rules): a server in a thread, stopped at the end."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(http: str = "httptools", **rules) -> Served:
        seen = Seen()
        defaults = {"body_bytes": LIMIT, "upload_bytes": UPLOADS, "refused": lambda error: seen.refused.append(error)}
        guard = Guard(application(seen), Rules(**{**defaults, **rules}))
        config = uvicorn.Config(guard, "127.0.0.1", 0, http=http, log_level="warning", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return Served(server.servers[0].sockets[0].getsockname()[1], seen)

    try:
        yield start
    finally:
        for server, _ in running:
            server.should_exit = server.force_exit = True
        for _, thread in running:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Start]:
    with starting() as start:
        yield start


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[str, Served]]:
    with starting() as start:
        yield {http: start(http) for http in ("httptools", "h11")}


@pytest.fixture(params=["httptools", "h11"])
def served(request: pytest.FixtureRequest, plain: dict[str, Served]) -> Served:
    """No keys, any host, on either of uvicorn's HTTP parsers."""
    plain[request.param].seen.__init__()
    return plain[request.param]


@pytest.fixture(scope="module")
def one_keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    key, line = new_key("robot")
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(line)
    file.chmod(0o600)
    with starting() as start:
        yield start(keys=Keys(file)), key


@pytest.fixture
def keyed(one_keyed: tuple[Served, str]) -> tuple[Served, str]:
    """A server and its key."""
    one_keyed[0].seen.__init__()
    return one_keyed


@pytest.fixture(scope="module")
def one_local() -> Iterator[Served]:
    with starting() as start:
        yield start(hosts=frozenset({"localhost", "127.0.0.1", "[::1]"}))


@pytest.fixture
def local(one_local: Served) -> Served:
    """Bound to loopback: answers under its own names only."""
    one_local.seen.__init__()
    return one_local


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["authorization: Bearer {}", "authorization: bearer  {}", "x-api-key: {}"])
def test_a_key_is_taken_from_either_header(keyed: tuple[Served, str], header: str) -> None:
    served, key = keyed
    name, value = header.format(key).split(": ")
    answer = served.ask("/metrics", **{name: value})
    assert (answer.status, answer.body, served.seen.key) == (200, b"here", "robot")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic {key}"},
        {"x-api-key": "{key}x"},
        {"cookie": "{key}"},
    ],
)
def test_without_a_valid_key_nothing_is_served(keyed: tuple[Served, str], headers: dict[str, str]) -> None:
    served, key = keyed
    answer = served.post("/v2/models/m/infer", b"x" * 50_000, **{k: v.format(key=key) for k, v in headers.items()})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="framegate"'
    assert "Authorization: Bearer KEY" in answer.error and key not in answer.error
    assert served.seen.requests == []
    assert [type(error).__name__ for error in served.seen.refused] == ["Unauthenticated"]


def test_a_key_in_the_query_string_is_none(keyed: tuple[Served, str]) -> None:
    served, key = keyed
    assert served.ask(f"/metrics?key={key}").status == 401


@pytest.mark.parametrize("path", ["/", "/page.js", "/v2/health/live", "/v2/health/ready"])
def test_page_and_health_are_open_without_a_key(keyed: tuple[Served, str], path: str) -> None:
    served, _ = keyed
    assert served.ask(path).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/v2"),
        ("GET", "//"),
        ("GET", "/static"),
        ("GET", "/v2/health/live/"),
        ("POST", "/"),
        ("POST", "/page.js"),
        ("DELETE", "/v2/health/ready"),
    ],
)
def test_everything_else_needs_a_key(keyed: tuple[Served, str], method: str, path: str) -> None:
    served, _ = keyed
    assert served.ask(path, method).status == 401


def test_without_keys_everything_is_open(served: Served) -> None:
    assert served.ask("/metrics").status == 200


def test_a_connection_goes_on_after_a_401_whose_body_was_not_read(keyed: tuple[Served, str]) -> None:
    served, key = keyed
    with served.connect() as sock:
        sock.sendall(head("/v1/predict", "POST", b"x" * 90_000) + b"x" * 90_000)
        assert read_answer(sock).status == 401
        sock.sendall(head("/v1/predict", "POST", b"abc", x_api_key=key) + b"abc")
        assert json.loads(read_answer(sock).body)["bytes"] == 3


def test_a_websocket_without_a_key_is_closed_with_4401(keyed: tuple[Served, str]) -> None:
    served, _ = keyed
    with served.websocket() as sock, pytest.raises(websockets.exceptions.ConnectionClosed) as raised:
        sock.recv(timeout=5)
    assert raised.value.rcvd.code == 4401
    assert "no key" in raised.value.rcvd.reason


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer {}"}, {"X-API-Key": "{}"}])
def test_a_websocket_may_send_its_key_in_a_header(keyed: tuple[Served, str], headers: dict[str, str]) -> None:
    served, key = keyed
    given = {name: value.format(key) for name, value in headers.items()}
    with served.websocket(additional_headers=given) as sock:
        assert sock.recv(timeout=5) == "ready"


def test_a_browser_sends_its_key_as_a_subprotocol_which_goes_no_further(keyed: tuple[Served, str]) -> None:
    served, key = keyed
    with served.websocket(subprotocols=["framegate", f"key.{key}"]) as sock:
        assert sock.recv(timeout=5) == "ready"
        assert sock.subprotocol == "framegate"
    assert served.seen.subprotocols == ["framegate"]


def test_a_browser_with_a_wrong_key_sees_4401_and_not_a_failed_handshake(keyed: tuple[Served, str]) -> None:
    served, _ = keyed
    with (
        served.websocket(subprotocols=["framegate", "key.wrong"]) as sock,
        pytest.raises(websockets.exceptions.ConnectionClosed) as raised,
    ):
        sock.recv(timeout=5)
    assert (sock.subprotocol, raised.value.rcvd.code) == ("framegate", 4401)


def test_no_key_query_or_body_is_logged(keyed: tuple[Served, str], caplog: pytest.LogCaptureFixture) -> None:
    served, key = keyed
    caplog.set_level(logging.INFO)
    served.ask("/metrics?who=me", x_api_key=key)
    served.ask("/metrics?who=me", x_api_key="wrong" + key)
    served.post("/v1/predict?who=me", b"secret body", x_api_key=key, content_encoding="gzip")
    with served.websocket(subprotocols=["framegate", f"key.{key}"]) as sock:
        sock.recv(timeout=5)
    # pytest hangs its own handler on the access logger, which has none in the server
    logged = " ".join(record.getMessage() for record in caplog.records if record.name != "uvicorn.access")
    assert key not in logged and "who=me" not in logged and "secret body" not in logged


# --- Host and Origin ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8000", "localhost:8000"),
        ("https://cams.example", "cams.example"),
        ("https://cams.example", "cams.example:443"),
        ("http://Cams.Example:80", "cams.example"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("", "whatever"),
    ],
)
def test_the_servers_own_pages_may_ask(served: Served, origin: str, host: str) -> None:
    assert served.ask("/metrics", host=host, origin=origin).status == 200


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "localhost:8000"),
        ("http://localhost:3000", "localhost:8000"),
        ("http://localhost:8000.evil.example", "localhost:8000"),
        ("https://cams.example:8443", "cams.example"),
        ("null", "localhost"),
        ("file://", "localhost"),
        ("http://", "localhost"),
    ],
)
def test_pages_of_other_sites_may_not(served: Served, origin: str, host: str) -> None:
    answer = served.ask("/metrics", host=host, origin=origin)
    assert answer.status == 403 and "Origin" in answer.error
    assert "access-control-allow-origin" not in answer.headers
    assert served.seen.requests == []


def test_a_preflight_of_another_site_is_refused(served: Served) -> None:
    answer = served.ask("/v1/predict", "OPTIONS", origin="http://evil.example", access_control_request_method="POST")
    assert answer.status == 403


def test_a_websocket_of_another_site_is_closed_with_1008_even_with_a_key(keyed: tuple[Served, str]) -> None:
    served, key = keyed
    with (
        served.websocket(origin="http://evil.example", subprotocols=["framegate", f"key.{key}"]) as sock,
        pytest.raises(websockets.exceptions.ConnectionClosed) as raised,
    ):
        sock.recv(timeout=5)
    assert raised.value.rcvd.code == 1008


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:8000", ""])
def test_a_loopback_server_answers_under_its_names(local: Served, host: str) -> None:
    assert local.ask("/metrics", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "[::1", "[::2]:80", "127.0.0.1.nip.example"]
)
def test_a_rebound_name_is_refused_on_loopback(local: Served, host: str) -> None:
    answer = local.ask("/v2/health/ready", host=host)
    assert answer.status == 421 and "loopback" in answer.error
    assert local.seen.requests == []


# --- size -----------------------------------------------------------------------------------------


def test_a_body_of_exactly_the_limit_is_taken(served: Served) -> None:
    assert json.loads(served.post("/", b"x" * LIMIT).body)["bytes"] == LIMIT
    answer = served.post("/", chunked(b"x" * LIMIT), transfer_encoding="chunked")
    assert json.loads(answer.body)["bytes"] == LIMIT


def test_uploads_have_a_limit_of_their_own(served: Served) -> None:
    body = b"x" * (UPLOADS - 1)
    assert json.loads(served.post("/v1/predict", body).body)["bytes"] == len(body)
    assert served.post("/v2/models/m/infer", body[: LIMIT + 1]).status == 413


def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head("/", "POST", content_length=str(1 << 40)))
        answer = read_answer(sock)
    assert answer.status == 413 and str(LIMIT) in answer.error and str(1 << 40) in answer.error
    assert answer.headers["connection"] == "close"
    assert served.seen.requests == []


@pytest.mark.parametrize("over", [1, 500_000, DRAIN_BYTES - LIMIT - 1, DRAIN_BYTES - 65536])
def test_a_client_that_sends_it_all_first_sees_413_and_no_broken_pipe(served: Served, over: int) -> None:
    body = b"x" * (LIMIT + over)
    for _ in range(5):
        answer = served.post("/", body)
        assert answer.status == 413 and "limit" in answer.error


def test_chunks_are_counted_while_they_stream(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(
            head("/", "POST", transfer_encoding="chunked") + b"%x\r\n" % LIMIT + b"x" * LIMIT + b"\r\n1\r\nx\r\n"
        )
        answer = read_answer(sock)
        assert sock.recv(1) == b"", "no end of the body came, and a second passed"
    assert answer.status == 413 and str(LIMIT) in answer.error
    assert answer.headers["connection"] == "close"
    assert served.seen.requests == ["/"] and len(served.seen.errors) == 1


@pytest.mark.parametrize("over", [200_000, 900_000])
def test_a_chunking_client_that_sends_it_all_first_sees_413(served: Served, over: int) -> None:
    body = chunked(b"x" * (LIMIT + over))
    for _ in range(5):
        assert served.post("/", body, transfer_encoding="chunked").status == 413


def test_an_endless_body_is_cut_after_a_bounded_amount(served: Served) -> None:
    sent, chunk = 0, b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with served.connect() as sock:
        sock.sendall(head("/", "POST", transfer_encoding="chunked"))
        with pytest.raises(ConnectionError):
            while sent < 1 << 28:
                sock.sendall(chunk)
                sent += len(chunk)
    assert LIMIT < sent < 1 << 26  # what the kernel buffers is added to what is drained


def test_a_client_that_stalls_after_413_is_closed(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head("/", "POST", content_length=str(LIMIT + 10)) + b"x")
        answer = read_answer(sock)
        assert answer.status == 413
        if answer.headers.get("connection") == "close":
            assert sock.recv(1) == b""


def test_a_client_that_stalls_in_a_long_body_after_413_is_closed(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head("/", "POST", content_length=str(1 << 30)) + b"x")
        assert read_answer(sock).status == 413
        assert sock.recv(1) == b""


def test_a_client_that_waits_for_100_continue_gets_413_instead(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head("/", "POST", content_length=str(LIMIT + 1), expect="100-continue"))
        answer = read_answer(sock)
    assert answer.status == 413 and answer.headers["connection"] == "close"


def test_a_client_that_waits_for_100_continue_gets_it_when_all_is_well(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head("/", "POST", content_length="3", expect="100-continue"))
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abc")
        assert json.loads(read_answer(sock).body)["bytes"] == 3


def test_the_connection_is_kept_where_the_rest_is_short(served: Served) -> None:
    with served.connect() as sock:
        for body, status in ((b"x" * (LIMIT + 5), 413), (b"abc", 200), (b"x" * (LIMIT + 5), 413), (b"", 200)):
            sock.sendall(head("/", "POST", body) + body)
            assert read_answer(sock).status == status


def test_a_framework_that_turns_body_errors_into_400_does_not_hide_413(served: Served) -> None:
    body = chunked(json.dumps({"a": "x" * LIMIT}).encode())
    answer = served.post("/parsed", body, transfer_encoding="chunked", content_type="application/json")
    assert answer.status == 413


def test_an_application_that_swallows_the_error_cannot_answer_200(served: Served) -> None:
    assert served.post("/caught", chunked(b"x" * (LIMIT + 1)), transfer_encoding="chunked").status == 413


def test_an_early_answer_of_the_application_to_a_long_body_reaches_the_client(served: Served) -> None:
    body = chunked(b"x" * 700_000)
    for _ in range(5):
        answer = served.post("/early", body, transfer_encoding="chunked")
        assert (answer.status, answer.body) == (415, b"no thanks")


def test_a_body_that_grows_too_long_after_the_answer_began_breaks_the_connection(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head("/halfway/", "POST", transfer_encoding="chunked") + b"1\r\nx\r\n")
        raw = b""
        while b"first" not in raw:
            raw += sock.recv(65536)
        sock.sendall(chunked(b"x" * LIMIT))
        while data := sock.recv(65536):
            raw += data
    assert raw.startswith(b"HTTP/1.1 200") and b"last" not in raw
    assert not raw.endswith(b"0\r\n\r\n"), "the answer looks whole"


def test_a_bug_of_the_application_stays_visible(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    assert served.post("/broken", chunked(b"abc"), transfer_encoding="chunked").status == 500
    wait_until(lambda: "a bug of the application" in caplog.text)


def test_a_client_that_leaves_in_the_middle_is_no_413(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head("/", "POST", transfer_encoding="chunked") + b"5\r\nhello\r\n")
    wait_until(lambda: bool(served.seen.errors))
    assert [type(error).__name__ for error in served.seen.errors] == ["ClientDisconnect"]
    assert served.seen.refused == []


# --- compression ----------------------------------------------------------------------------------


def packed(encoding: str, data: bytes) -> bytes:
    return zlib.compress(data) if encoding == "deflate" else gzip.compress(data)


NOISE = random.Random(0).randbytes(LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate"])
@pytest.mark.parametrize("data", [b"", b"a", b"\0" * LIMIT, b"\0" * 65536, NOISE[:90_000]])
def test_a_compressed_body_arrives_decompressed(served: Served, encoding: str, data: bytes) -> None:
    answer = served.post("/", packed(encoding, data), content_encoding=encoding)
    found = json.loads(answer.body)
    assert found["bytes"] == len(data) and found["longest"] <= 65536
    assert not {"content-encoding", "content-length"} & served.seen.headers.keys()


def test_a_compressed_body_arrives_whatever_the_chunks(served: Served) -> None:
    body = chunked(gzip.compress(NOISE[:50_000]), 7)
    answer = served.post("/", body, content_encoding="gzip", transfer_encoding="chunked")
    assert json.loads(answer.body)["bytes"] == 50_000


def test_identity_is_no_compression(served: Served) -> None:
    assert json.loads(served.post("/", b"abc", content_encoding="identity").body)["bytes"] == 3


def test_the_limit_counts_decompressed_bytes(served: Served) -> None:
    assert served.post("/", gzip.compress(b"\0" * LIMIT), content_encoding="gzip").status == 200
    answer = served.post("/", gzip.compress(b"\0" * (LIMIT + 1)), content_encoding="gzip")
    assert answer.status == 413 and "decompresses" in answer.error


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"", "truncated"),
        (lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:], "not"),
        (lambda data: b"plain words", "not"),
        (lambda data: data + b"x", "follow"),
        (lambda data: data + data, "follow"),
    ],
)
def test_a_damaged_stream_is_a_bad_request(served: Served, encoding: str, spoil: Callable, reason: str) -> None:
    answer = served.post("/", spoil(packed(encoding, NOISE[:40_000])), content_encoding=encoding)
    assert answer.status == 400 and reason in answer.error
    assert [type(error) for error in served.seen.refused] == [BadRequest]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip, deflate", "compress"])
def test_an_unknown_encoding_is_refused_with_the_known_ones(served: Served, encoding: str) -> None:
    answer = served.post("/", b"abc", content_encoding=encoding)
    assert answer.status == 415 and answer.headers["accept-encoding"] == "gzip, deflate"
    assert served.seen.requests == []


def bomb(mega_bytes: int) -> bytes:
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), b"\0" * (1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(mega_bytes)) + packer.flush()


@pytest.mark.parametrize("length", ["declared", "chunked"])
def test_a_gzip_bomb_is_refused_without_being_held(serve: Start, length: str) -> None:
    served, body = serve(body_bytes=1 << 20), bomb(256)
    assert len(body) < 300_000
    how = {"transfer_encoding": "chunked"} if length == "chunked" else {}
    sent = chunked(body) if length == "chunked" else body
    served.post("/", sent, content_encoding="gzip", **how)  # imports and caches are paid
    tracemalloc.start()
    try:
        answer = served.post("/", sent, content_encoding="gzip", **how)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status == 413
    assert peak < 3 * len(body) + 1_000_000, "the compressed bytes twice, two pieces of 64 KB, and the server"


def test_a_bomb_does_not_stop_the_loop(serve: Start) -> None:
    """While one connection's bomb is unpacked, another's request is answered."""
    served, done = serve(body_bytes=1 << 28), threading.Event()
    body = bomb(255)

    def throw() -> None:
        served.post("/", body, content_encoding="gzip")
        done.set()

    thread = threading.Thread(target=throw)
    thread.start()
    between = 0
    while not done.is_set():
        served.ask("/v2/health/live")
        between += not done.is_set() and "/" in served.seen.requests
    thread.join()
    assert between >= 3


# --- overload -------------------------------------------------------------------------------------


class Recorded(random.Random):
    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return super().uniform(a, b)


def test_overload_is_answered_after_a_delay_without_reading_the_body(serve: Start) -> None:
    source = Recorded()
    served = serve(overloaded=lambda: 2.2, random=source)
    with served.connect() as sock:
        sock.sendall(head("/v2/models/m/infer", "POST", content_length="90000"))  # and no body at all
        answer = read_answer(sock)
    assert answer.status == 503 and answer.headers["retry-after"] == "3" and "2.2 s" in answer.error
    assert source.asked == [(0.7, 1.0)]
    assert served.seen.requests == []


def test_a_refused_request_keeps_its_connection(serve: Start) -> None:
    load = iter([0.5, None])
    served = serve(overloaded=lambda: next(load))
    with served.connect() as sock:
        for status in (503, 200):
            sock.sendall(head("/v2/models/m/infer", "POST", b"x" * 90_000) + b"x" * 90_000)
            answer = read_answer(sock)
            assert answer.status == status
    assert json.loads(answer.body)["bytes"] == 90_000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/predict", 503),
        ("POST", "/v2/models/m/versions/2/infer", 503),
        ("POST", "/", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/models/m/infer", 405),
    ],
)
def test_only_work_is_shed(serve: Start, method: str, path: str, status: int) -> None:
    assert serve(overloaded=lambda: 1.0, delay_s=(0, 0)).ask(path, method).status == status


def test_nobody_learns_of_the_load_without_a_key(tmp_path: Path, serve: Start) -> None:
    file = tmp_path / "keys"
    file.write_text(new_key("a")[1])
    file.chmod(0o600)
    served = serve(keys=Keys(file), overloaded=lambda: pytest.fail("asked"))
    assert served.post("/v2/models/m/infer", b"x").status == 401


def test_the_number_of_delayed_answers_is_bounded() -> None:
    """Beyond it a 503 is answered at once: delays must not become the queue."""
    order: list[str] = []

    async def ask(guard: Guard, name: str) -> None:
        async def send(message) -> None:
            if message["type"] == "http.response.start":
                order.append(f"{name} {message['status']}")

        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": [(b"content-length", b"9")]}
        await guard(scope, lambda: pytest.fail("the body was read"), send)

    async def main() -> None:
        async def app(scope, receive, send) -> None:
            pytest.fail("it was served")

        rules = Rules(10, 10, overloaded=lambda: 1.0, delay_s=(0.05, 0.05), max_delayed=2)
        guard = Guard(app, rules)
        await asyncio.gather(*(ask(guard, name) for name in "abc"))
        await ask(guard, "d")

    asyncio.run(main())
    assert order[0] == "c 503" and sorted(order) == ["a 503", "b 503", "c 503", "d 503"]


# --- what it leaves alone -------------------------------------------------------------------------


def test_other_scopes_pass_through() -> None:
    seen = []

    async def app(scope, receive, send) -> None:
        seen.append(scope["type"])

    asyncio.run(Guard(app, Rules(1, 1))({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


def test_a_short_plain_body_goes_straight_to_the_application() -> None:
    """The hot path: the server's own receive and send, nothing around them."""
    got = []

    async def app(scope, receive, send) -> None:
        got.append((receive, send))

    async def receive() -> None: ...

    async def send(message) -> None: ...

    scope = {"type": "http", "method": "POST", "path": "/v2/models/m/infer", "headers": [(b"content-length", b"9")]}
    asyncio.run(Guard(app, Rules(10, 10))(scope, receive, send))
    assert got == [(receive, send)]


def test_an_origin_without_a_host_is_another_site(plain: dict[str, Served]) -> None:
    assert plain["httptools"].ask("/metrics", host="", origin="http://localhost").status == 403
