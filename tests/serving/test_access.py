"""Who may ask: keys over every protocol, their rotation, other sites' pages, TLS; and where the server may listen."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import websockets.exceptions
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from framegate.serve.keys import new_key
from tests.running import INFER, PREDICT, Live, Server, asked, eventually, logits_of, message, pictures, running
from tests.served import color, jpeg
from tests.unit.test_serve_binding import pair

ONE = color(0)[None]
FIRST, FIRST_LINE = new_key("camera")
SECOND, SECOND_LINE = new_key("camera")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# who may ask\n{FIRST_LINE}\n")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def keyed(bundle: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key."""
    with running(Server(bundle, tmp_path_factory.mktemp("keyed"), "--accept-host", "--keys", str(keys))) as one:
        yield one


@pytest.mark.parametrize("path", ["/v2", "/v2/models/framegate", "/metrics", "/openapi.json", "/docs", "/nothing"])
def test_without_a_key_nothing_is_told(keyed: Server, path: str) -> None:
    for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer"}):
        answer = keyed.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "framegate_" not in answer.text


def test_health_and_the_page_need_no_key(keyed: Server) -> None:
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert keyed.get(path).status_code == 200
    with keyed.stub() as stub:
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert stub.ServerReady(pb.ServerReadyRequest()).ready


@pytest.mark.parametrize("headers", [{"X-API-Key": FIRST}, {"Authorization": f"Bearer {FIRST}"}])
def test_a_key_opens_http(keyed: Server, headers: dict[str, str]) -> None:
    assert keyed.post(INFER, json=asked(ONE), headers=headers).status_code == 200
    assert keyed.post(PREDICT, content=jpeg(ONE[0]), headers=headers).status_code == 200
    assert keyed.get("/metrics", headers=headers).status_code == 200


def test_work_without_a_key_is_refused_before_its_body_is_read(keyed: Server) -> None:
    for path in (INFER, PREDICT):
        assert keyed.post(path, content=bytes(3_000_000)).status_code == 401
    with keyed.stub() as stub:
        for metadata in ([], [("x-api-key", "wrong")], [("authorization", "Bearer wrong")]):
            assert refused(stub, metadata) == grpc.StatusCode.UNAUTHENTICATED
            answers = stub.ModelStreamInfer(iter([message(ONE)]), metadata=metadata, timeout=30)
            with pytest.raises(grpc.RpcError) as caught:
                next(answers)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        for metadata in ([("x-api-key", FIRST)], [("authorization", f"Bearer {FIRST}")]):
            assert refused(stub, metadata) is None


def refused(stub: Any, metadata: list[tuple[str, str]]) -> grpc.StatusCode | None:
    """The code that a call is refused with, None when it is answered."""
    try:
        stub.ModelInfer(message(ONE), metadata=metadata, timeout=30)
    except grpc.RpcError as error:
        return error.code()
    return None


@contextmanager
def opened(server: Server, key: str, way: str) -> Iterator[Any]:
    """A WebSocket with a key as a header or, as a browser must, as a subprotocol."""
    more: dict[str, Any] = {"headers": {"X-API-Key": key}} if way == "header" else {}
    if way == "subprotocol":
        more = {"subprotocols": ["framegate", f"key.{key}"]}
    with server.socket(**more) as socket:
        yield socket


@pytest.mark.parametrize("way", ["header", "subprotocol"])
def test_a_live_stream_wants_a_key(keyed: Server, way: str) -> None:
    with opened(keyed, FIRST, way) as socket:
        live = Live(socket)
        assert live.ask(pictures(1)[0])["seq"] == 0
        assert socket.subprotocol == ("framegate" if way == "subprotocol" else None)
    with opened(keyed, "wrong", way) as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
        Live(socket)
    assert socket.protocol.close_rcvd.code == 4401


def test_a_live_stream_without_a_key_is_4401(keyed: Server) -> None:
    with keyed.socket() as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
        Live(socket)
    assert socket.protocol.close_rcvd.code == 4401


def test_keys_are_changed_while_the_server_runs(keyed: Server, keys: Path) -> None:
    def works(key: str) -> bool:
        return keyed.post(INFER, json=asked(ONE), headers={"x-api-key": key}).status_code == 200

    assert works(FIRST)
    assert not works(SECOND)
    keys.write_text(f"{FIRST_LINE}\n{SECOND_LINE}\n")
    eventually(lambda: works(SECOND), "the new key works")
    assert works(FIRST), "both are valid"
    keys.write_text("not a key file\n")
    time.sleep(1.1)  # the file is looked at once a second
    assert works(FIRST) and works(SECOND), "a broken file changes nothing"
    keys.write_text(f"{SECOND_LINE}\n")
    eventually(lambda: not works(FIRST), "the old key is out")
    assert works(SECOND)
    with keyed.stub() as stub:
        assert refused(stub, [("x-api-key", FIRST)]) == grpc.StatusCode.UNAUTHENTICATED
        assert refused(stub, [("x-api-key", SECOND)]) is None
    keys.write_text(f"{FIRST_LINE}\n")
    eventually(lambda: works(FIRST), "and in again")


def test_neither_keys_nor_frames_stand_in_the_log(keyed: Server) -> None:
    keyed.get("/metrics", headers={"x-api-key": "a-wrong-key"})
    keyed.get(f"/v2?key={FIRST}")
    for word in (FIRST, SECOND, "a-wrong-key", FIRST_LINE.partition(":")[2]):
        assert word not in keyed.text


# --- other sites --------------------------------------------------------------------------------


def test_a_page_of_another_site_is_refused(server: Server) -> None:
    for origin in ("https://elsewhere.example", "null", f"http://localhost.elsewhere.example:{server.port}"):
        assert server.post(INFER, json=asked(ONE), headers={"origin": origin}).status_code == 403
        with server.socket(headers={"origin": origin}) as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
            Live(socket)
        assert socket.protocol.close_rcvd.code == 1008
    own = {"origin": f"http://localhost:{server.port}"}
    answer = server.post(INFER, json=asked(ONE), headers=own)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    with server.live(headers=own) as live:
        assert live.ask(pictures(1)[0])["seq"] == 0


def test_a_name_that_was_bound_to_loopback_is_refused(server: Server) -> None:
    assert server.get("/v2", headers={"host": "elsewhere.example"}).status_code == 421
    assert server.get("/v2", headers={"host": f"127.0.0.1:{server.port}"}).status_code == 200


# --- TLS, and where it may listen ---------------------------------------------------------------


def test_tls_over_every_protocol(start, bundle: Path, tmp_path: Path) -> None:
    made = pair(tmp_path, "server")
    server = start(bundle, "--tls-cert", str(made.cert), "--tls-key", str(made.key))
    context = ssl.create_default_context(cafile=made.cert)
    answer = server.post(INFER, json=asked(ONE), verify=context)
    assert answer.status_code == 200
    with server.live(ssl=context) as live:
        assert live.ask(pictures(1)[0])["seq"] == 0
    credentials = grpc.ssl_channel_credentials(made.cert.read_bytes())
    with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
        said = GRPCInferenceServiceStub(channel).ModelInfer(message(ONE), timeout=30)
    assert abs(logits_of(said) - logits_of(answer)).max() < 1e-6
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get(f"http://localhost:{server.port}/v2")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        server.get("/v2")
    with server.stub() as stub, pytest.raises(grpc.RpcError):
        stub.ModelInfer(message(ONE), timeout=5)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_unsafe_is_warned_of_once(start, bundle: Path, tmp_path: Path, workers: str) -> None:
    made, keys = pair(tmp_path, "server", end=timedelta(days=3)), tmp_path / "keys"
    keys.write_text(f"{FIRST_LINE}\n")
    for file in (keys, made.key):
        file.chmod(0o644)
    more = ("--tls-cert", str(made.cert), "--tls-key", str(made.key), "--workers", workers)
    server = start(bundle, "--keys", str(keys), *more)
    for warning in ("valid until", "may read or write it", "may read or write this private key"):
        assert server.text.count(warning) == 1, warning


def test_beyond_loopback_a_server_without_keys_does_not_start(bundle: Path, keys: Path, tmp_path: Path) -> None:
    one = Server(bundle, tmp_path / "open", "--accept-host", "--host", "0.0.0.0")
    try:
        assert one.exit_code() == 1
        assert "--keys" in one.text and "--insecure" in one.text
        assert "Traceback" not in one.text
    finally:
        one.close()
    options = ("--accept-host", "--host", "0.0.0.0", "--keys", str(keys))
    with running(Server(bundle, tmp_path / "keyed", *options)) as server:
        assert server.get("/v2").status_code == 401
        assert server.get("/v2", headers={"x-api-key": FIRST, "host": "any.example"}).status_code == 200
