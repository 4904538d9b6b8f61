"""Caps: what is beyond them is refused in words of its protocol, and there is room again afterwards."""

import contextlib
import socket
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import websockets.exceptions

from tests.running import PREDICT, Live, asked, eventually, logits_of, message, offline, pictures
from tests.served import color

FRAMES = [color(k % 3, seed=k) for k in range(4)]


def test_too_many_streams_are_refused_over_every_protocol(start, bundle: Path) -> None:
    server = start(bundle, "--max-streams", "2", "--sequence-idle-s", "600")
    with ExitStack() as stack:
        live = [stack.enter_context(server.live()) for _ in range(2)]
        with server.socket() as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
            Live(socket)
        assert socket.protocol.close_rcvd.code == 1013
        refused = server.infer(FRAMES[0], sequence_id=1, sequence_start=True)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "2 streams are open, the limit" in refused.json()["error"]
        with server.stub() as stub, pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message(FRAMES[0][None], sequence_id=1, sequence_start=True), timeout=30)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert server.infer(FRAMES[0]).status_code == 200, "single frames need no stream"
        assert [one.ask(pictures(1)[0])["seq"] for one in live] == [0, 0], "those that are open go on"
    eventually(lambda: server.metric("framegate_streams") == 0, "they are closed")
    for number in (1, 2):
        assert server.infer(FRAMES[0], sequence_id=number, sequence_start=True).status_code == 200
    with server.socket() as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
        Live(socket)
    assert socket.protocol.close_rcvd.code == 1013
    assert server.post(PREDICT, content=pictures(1)[0]).status_code == 200, "files have a limit of their own"
    assert server.infer(FRAMES[1], sequence_id=1, sequence_end=True).status_code == 200
    with server.live() as one:
        assert one.ask(pictures(1)[0])["seq"] == 0


def test_a_sequence_that_is_idle_is_forgotten(start, bundle: Path) -> None:
    server = start(bundle, "--sequence-idle-s", "0.5")
    server.infer(FRAMES[0], sequence_id=1, sequence_start=True)
    eventually(lambda: server.metric("framegate_streams", kind="sequence") == 0, "it is forgotten")
    assert "must specify the START flag" in server.infer(FRAMES[1], sequence_id=1).json()["error"]
    assert server.infer(FRAMES[0], sequence_id=1, sequence_start=True).status_code == 200


def test_what_comes_too_late_is_told_so_counted_and_not_answered(start, slow_bundle: Path) -> None:
    """A hundred requests of whole batches at once, for a model that answers a few within their deadline.

    Which of the others are refused up front, and which are let in and come too late, is the load's business.
    """
    server = start(slow_bundle, "--deadline-ms", "60")
    codes, right = list[str](), np.stack([offline(slow_bundle, [frame])[0] for frame in FRAMES * 4])
    with server.stub() as stub:
        calls = [stub.ModelInfer.future(message(np.stack(FRAMES * 4)), timeout=60) for _ in range(100)]
        for call in calls:
            error = call.exception(60)
            codes.append(error.code().name if error else "OK")
            if not error:
                assert abs(logits_of(call.result()).reshape(16, 3) - right).max() < 1e-4
    assert {"OK"} < set(codes) <= {"OK", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    missed = codes.count("DEADLINE_EXCEEDED")
    assert (server.metric("framegate_deadline_missed_total") or 0) <= missed
    assert server.metric("framegate_answers_total") == 16 * codes.count("OK")
    for code in set(codes):
        assert server.metric("framegate_requests_total", route="grpc", outcome=code) == codes.count(code)
    assert logits_of(server.infer(FRAMES[0])).shape == (3,)


def test_a_batch_beyond_the_limit_is_refused(start, bundle: Path) -> None:
    server = start(bundle, "--max-batch", "2")
    post = "/v2/models/framegate/infer"
    assert server.post(post, json=asked(np.stack(FRAMES[:2]))).status_code == 200
    refused = server.post(post, json=asked(np.stack(FRAMES[:3])))
    assert refused.status_code == 400
    assert "batch-size must be <= 2" in refused.json()["error"]
    assert server.metric("framegate_batch_rows_sum") == 2


def test_endless_headers_are_cut_off(start, bundle: Path) -> None:
    """What is parsed grows with them, before any key is asked for."""
    server = start(bundle)
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                client.sendall(b"a" * 65536)
        with contextlib.suppress(ConnectionError):
            client.recv(100)
        with pytest.raises(OSError):
            for _ in range(200):
                client.sendall(b"a" * 65536)
    assert server.get("/v2/health/live").status_code == 200
