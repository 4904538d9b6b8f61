"""Requests of the protocol that cannot be meant: refused alike over HTTP and gRPC; the sequence is as it was."""

import asyncio
import gzip
import json
import socket
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import uvicorn

from framegate.serve.connections import BoundedHttp
from tests.running import INFER, PREDICT, Server, asked, logits_of, message, offline
from tests.served import color, jpeg

FRAMES = [color(k % 3, seed=k) for k in range(5)]
ONE = FRAMES[0][None]


def over_http(server: Server, change: dict[str, Any], parameters: dict[str, Any]) -> tuple[str, str]:
    """What a request is refused with: a status as gRPC calls it, and the text."""
    body = asked(ONE, **parameters)
    body["inputs"][0] |= change
    answer = server.post(INFER, json=body)
    names = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 504: "DEADLINE_EXCEEDED", 200: "OK"}
    return names[answer.status_code], answer.json().get("error", "")


def over_grpc(server: Server, change: dict[str, Any], parameters: dict[str, Any]) -> tuple[str, str]:
    """The same."""
    made = message(ONE, **parameters)
    if "name" in change:
        made.inputs[0].name = change["name"]
    if "datatype" in change:
        made.inputs[0].datatype = change["datatype"]
    if "shape" in change:
        made.inputs[0].ClearField("shape")
        made.inputs[0].shape.extend(change["shape"])
    if "data" in change:
        made.raw_input_contents[0] = bytes(change["data"])
    with server.stub() as stub:
        try:
            stub.ModelInfer(made, timeout=30)
        except grpc.RpcError as error:
            return error.code().name, error.details()
    return "OK", ""


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"shape": [1, 16, 12, 4]}, "unexpected shape for input 'frame'"),
    "rank": ({"shape": [16, 16, 3]}, "unexpected shape for input 'frame'"),
    "bytes and shape": ({"shape": [2, 16, 16, 3]}, "size|Shape"),
    "negative shape": ({"shape": [-1, 16, 16, 3]}, "shape"),
    "huge shape": ({"shape": [2**40, 2**20, 1, 1], "data": []}, "shape"),
    "type": ({"datatype": "FP32"}, "data-type is 'FP32', but model"),
    "no type": ({"datatype": "FLOAT"}, "invalid datatype"),
    "name": ({"name": "image"}, "unexpected inference input 'image'"),
}


@pytest.mark.parametrize("over", [over_http, over_grpc])
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_tensor_is_refused_by_what_is_wrong(server: Server, what: str, over: Any) -> None:
    change, words = WRONG[what]
    for parameters in ({}, {"sequence_id": 77, "sequence_start": True}):
        status, told = over(server, change, parameters)
        assert status == "INVALID_ARGUMENT", told
        assert any(word in told for word in words.split("|")), told
    assert "must specify the START flag" in over(server, {}, {"sequence_id": 77})[1], "a refused START starts nothing"


@pytest.mark.parametrize("over", [over_http, over_grpc])
def test_faults_of_a_sequence_leave_it_as_it_was(server: Server, bundle: Path, over: Any) -> None:
    number = {over_http: 501, over_grpc: 502}[over]
    said = [server.infer(FRAMES[0], sequence_id=number, sequence_start=True)]
    for frame in FRAMES[1:]:
        assert over(server, {"shape": [1, 8, 8, 3]}, {"sequence_id": number})[0] == "INVALID_ARGUMENT"
        assert over(server, {}, {"sequence_id": number, "timeout": 1})[0] == "DEADLINE_EXCEEDED"
        said.append(server.infer(frame, sequence_id=number))
    assert abs(np.stack([logits_of(one) for one in said]) - offline(bundle, FRAMES)).max() < 1e-4
    assert over(server, {}, {"sequence_id": number, "sequence_start": True})[0] == "OK", "a second START starts anew"
    again = server.infer(FRAMES[1], sequence_id=number, sequence_end=True)
    assert abs(logits_of(again) - offline(bundle, FRAMES[:2])[1]).max() < 1e-4
    status, told = over(server, {}, {"sequence_id": number})
    assert (status, "must specify the START flag" in told) == ("INVALID_ARGUMENT", True)


def test_an_expired_deadline_is_told_over_both_protocols_and_not_stepped(server: Server) -> None:
    answered = server.metric("framegate_answers_total")
    for _ in range(3):
        assert over_http(server, {}, {"timeout": 1})[0] == "DEADLINE_EXCEEDED"
        assert over_grpc(server, {}, {"timeout": 1})[0] == "DEADLINE_EXCEEDED"
    assert server.metric("framegate_answers_total") == answered


BODIES: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no JSON": (b"frame", {}, 400, "failed to parse the request JSON"),
    "nothing": (b"", {}, 400, "failed to parse the request JSON"),
    "no inputs": (b"{}", {}, 400, "inputs"),
    "deep": (b"[" * 100_000, {}, 400, "failed to parse the request JSON"),
    "header beyond the body": (b"{}", {"inference-header-content-length": "99"}, 400, "inference header size"),
    "header that is no number": (b"{}", {"inference-header-content-length": "x"}, 400, "inference header size"),
    "a bomb": (gzip.compress(bytes(100_000_000), 1), {"content-encoding": "gzip"}, 413, "decompresses to more"),
    "too long": (bytes(4_100_000), {}, 413, "limit"),
}


@pytest.mark.parametrize("what", BODIES)
def test_a_body_that_is_no_request_is_refused(server: Server, what: str) -> None:
    content, headers, status, words = BODIES[what]
    memory = server.rss_bytes
    answer = server.post(INFER, content=content, headers=headers)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert server.rss_bytes < memory + 60e6


def test_a_message_over_grpc_beyond_the_limit_is_refused(server: Server) -> None:
    with server.stub() as stub, pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message(np.zeros((6000, 16, 16, 3), np.uint8)), timeout=30)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.infer(FRAMES[0]).status_code == 200


def test_paths_and_methods_that_are_not_there_say_so(server: Server) -> None:
    assert server.get("/v2/nothing").status_code == 404
    assert server.get(INFER).status_code == 405
    assert server.post("/v2/models/another/infer", json=asked(ONE)).status_code == 404
    assert server.get("/v2/models/framegate/versions/99").status_code == 404
    assert server.get("/../../etc/passwd").status_code == 404
    assert json.loads(server.get("/v2").content)["name"] == "framegate"


@pytest.mark.parametrize("path", ["/v2/nothing", "/nothing", "/v1/nothing", "/v2/models/framegate/nothing"])
def test_a_path_that_is_not_there_is_refused_as_everything_else(server: Server, path: str) -> None:
    answer = server.get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": f"GET {path}: Not Found"})


@pytest.mark.parametrize(
    ("path", "allowed"),
    [(INFER, "POST"), (PREDICT, "POST"), ("/metrics", "GET, HEAD"), ("/v2", "GET, HEAD"), ("/", "GET, HEAD")],
)
def test_a_method_that_is_not_there_is_told_which_one_is(server: Server, path: str, allowed: str) -> None:
    answer = server.ask("DELETE", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json() == {"error": f"DELETE {path}: Method Not Allowed"}


@pytest.mark.parametrize("top", ["abc", "0", "-1", "1001", "1.5", "", "9" * 5000])
def test_a_wrong_number_of_labels_is_400(server: Server, top: str) -> None:
    answer = server.post(PREDICT, params={"top": top}, content=jpeg(color(0)))
    assert answer.status_code == 400
    assert answer.json() == {"error": f"top: {top[:40]!r}; expected an integer from 1 to 1000"}


@pytest.mark.parametrize(("top", "count"), [("1", 1), ("2", 2), ("1000", 3), (None, 3)])
def test_as_many_labels_as_are_asked_for(server: Server, top: str | None, count: int) -> None:
    answer = server.post(PREDICT, params={"top": top} if top else {}, content=jpeg(color(0)))
    assert [len(span["labels"]) for span in answer.json()] == [count]


CHUNKED = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a header": "GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
    "a trailer": f"{CHUNKED}2\r\n{{}}\r\n0\r\nX: ",
    "a chunk's extension": f"{CHUNKED}2;x=",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_is_no_body_has_an_end(server: Server, what: str) -> None:
    memory = server.rss_bytes
    with socket.create_connection(("localhost", server.port), timeout=30) as one:
        one.sendall(ENDLESS[what].encode())
        with pytest.raises(OSError):  # the server hangs up
            for _ in range(300):
                one.sendall(b"a" * 100_000)
    assert server.rss_bytes < memory + 10e6


def test_a_body_in_very_small_chunks_is_one(server: Server) -> None:
    """All around its bytes is more than a head may have."""
    body = json.dumps(asked(ONE)).encode()
    body += b" " * (100_000 - len(body))
    with socket.create_connection(("localhost", server.port), timeout=30) as one:
        one.sendall(CHUNKED.encode())
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        for start in range(0, len(pieces), 10_007):
            one.sendall(pieces[start : start + 10_007])
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")


UPGRADE = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("framing", ["a length", "chunks", "small packets"])
def test_a_client_that_asks_for_http2_as_well_is_answered_over_http1(server: Server, framing: str) -> None:
    """As Java's HttpClient and `curl --http2` do; and the requests behind it on the connection."""
    body = json.dumps(asked(ONE)).encode()
    sized = f"Content-Length: {len(body)}" if framing != "chunks" else "Transfer-Encoding: chunked"
    coded = body if framing != "chunks" else b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    one = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{sized}\r\n\r\n".encode() + coded
    got = f"GET /v2 HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode()
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    sent = one + got + one + 100 * got + last
    with socket.create_connection(("localhost", server.port), timeout=30) as connection:
        step = 997 if framing == "small packets" else len(sent)
        for start in range(0, len(sent), step):
            connection.sendall(sent[start : start + step])
        with connection.makefile("rb") as answers:
            answered = answers.read()
    assert answered.count(b"HTTP/1.1 200 OK") == 104
    assert answered.count(b'"logits"') == 2
    assert answered.endswith(b'{"live":true}')


def that_upgrades(protocol: str, line: str = "GET {} HTTP/1.1", more: str = "") -> bytes:
    """A request's head: to a stream, if the protocol is websocket."""
    return (
        f"{line.format('/v1/streams/framegate')}\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n{more}\r\n"
    ).encode()


MANY = "".join(f"X-{number}: 1\r\n" for number in range(200))


@pytest.mark.parametrize(
    ("line", "more", "status"),
    [("POST {} HTTP/1.1", "Content-Length: 2\r\n", 400), ("GET {} HTTP/1.1", MANY, 431)],
)
def test_what_asks_for_a_websocket_in_a_wrong_way_is_answered(
    server: Server, line: str, more: str, status: int
) -> None:
    asking = that_upgrades("websocket", line, more)
    with socket.create_connection(("localhost", server.port), timeout=30) as one:
        one.sendall(asking)
        with one.makefile("rb") as answer:
            assert answer.read().startswith(f"HTTP/1.1 {status} ".encode())


def test_a_message_in_crumbs_is_refused(server: Server) -> None:
    first, more = b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"
    with socket.create_connection(("localhost", server.port), timeout=30) as one:
        one.sendall(that_upgrades("websocket"))
        with one.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
            one.sendall(first + 5000 * more)
            assert b"a message in more than 4,096 fragments" in answer.read()


def test_a_head_that_does_not_come_is_not_waited_for() -> None:
    """Nor one that comes by half, nor what is none; an answer that takes longer than a head may is."""

    async def late(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/early":
            await asyncio.sleep(1.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"late"})

    async def play() -> list[bytes]:
        config = uvicorn.Config(
            late, http=BoundedHttp, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1
        )
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(server.serve([listening]))

            async def said(sent: bytes, behind: bytes = b"") -> bytes:
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                writer.write(sent)
                found = await reader.readuntil(b"late") if behind else b""
                writer.write(behind)
                found += await asyncio.wait_for(reader.read(), 30)
                writer.close()
                return found

            whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            early = b"POST /early HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
            cases = (b"",), (whole[:20],), (whole,), (whole + whole[:20],), (whole, b"\r\n"), (early, b"x")
            found = await asyncio.gather(*(said(*pieces) for pieces in cases))
            server.should_exit = True
            await serving
            return found

    nothing, half, *answered = asyncio.run(play())
    assert nothing == half == b""
    assert all(one.endswith(b"late") and one.count(b"HTTP/1.1 200") == 1 for one in answered)


def test_an_upgrade_of_a_connect_is_no_request(server: Server) -> None:
    with socket.create_connection(("localhost", server.port), timeout=30) as connection:
        connection.sendall(f"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


NO_REQUESTS = {  # what is sent, and what comes
    "no HTTP": [(b"\x16\x03\x01\r\n\r\n", b"400 Bad Request")],
    "another protocol": [(that_upgrades("h2c"), b"404 Not Found")],
    "no text": [
        (that_upgrades("websocket"), b"ready"),
        (b"\x81\x82\0\0\0\0\xff\xfe", b"\x88\x02\x03\xef"),
    ],  # 1007
}


@pytest.mark.parametrize("what", NO_REQUESTS)
def test_what_is_no_request_leaves_nothing_in_the_log(server: Server, what: str) -> None:
    """Whoever reaches the port could fill the disk, or the pipe that the log goes to, and the server would wait."""
    before = server.text
    with socket.create_connection(("localhost", server.port), timeout=10) as one:
        for sent, expected in NO_REQUESTS[what]:
            one.sendall(sent)
            got = b""
            while expected not in got:
                more = one.recv(1 << 16)
                assert more, got
                got += more
    assert server.get("/v2/health/live").status_code == 200
    assert server.text == before


@pytest.mark.parametrize(("route", "most"), [("unary", 60e6), ("stream", 60e6), ("upload", 60e6), ("live", 28e6)])
def test_what_is_refused_leaves_no_memory(server: Server, route: str, most: float) -> None:
    """Not even until the collector comes: its last generation is a minute late."""
    many, image = 30, b"\xff\xd8\xff" + bytes(3_900_000)
    wrong = message(np.zeros((1, 1000, 1300, 3), np.uint8))
    memory = server.rss_bytes
    with server.stub() as stub:
        if route == "stream":
            answers = [one.error_message for one in stub.ModelStreamInfer(iter(many * [wrong]))]
            assert len(answers) == many and all("unexpected shape" in one for one in answers)
        for _ in range(many if route == "unary" else 0):
            with pytest.raises(grpc.RpcError, match="unexpected shape"):
                stub.ModelInfer(wrong)
    for _ in range(many if route == "upload" else 0):
        assert server.post(PREDICT, content=image).status_code == 400
    for _ in range(many if route == "live" else 0):
        with server.live() as live:
            assert live.ask(image)["event"] == "error"
    assert server.rss_bytes < memory + most
