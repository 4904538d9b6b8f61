"""Clients that read nothing, leave in the middle, or are a thousand: others go on, and everything is given back."""

import asyncio
import json
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from tests.bundles import LABELS, make_bundle
from tests.running import (
    INFER,
    PREDICT,
    Server,
    asked,
    binary,
    eventually,
    handshake,
    logits_of,
    message,
    offline,
    pictures,
    running,
    video,
)
from tests.served import color

FRAMES = [color(k % 3, seed=k) for k in range(8)]
IDLE, BUSY = 900, 100


@pytest.fixture(scope="module")
def slow(slow_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose steps take so long that there is a middle to leave in."""
    options = ("--accept-host", "--sequence-idle-s", "1", "--max-uploads", "2")
    with running(Server(slow_bundle, tmp_path_factory.mktemp("slow-server"), *options)) as one:
        yield one


def reset(connection: socket.socket) -> None:
    """Hang up without a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def wordy(folder: Path) -> Path:
    """A bundle whose labels are so long that few answers fill a connection's buffers."""
    made = make_bundle(folder)
    info = made.info.model_copy(update={"labels": tuple(label * 1000 for label in LABELS)})
    (made.path / "bundle.json").write_text(info.sealed().to_json())
    return made.path


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_not_waited_for_and_costs_little(start, tmp_path: Path) -> None:
    """It sends frames until its answers have filled every buffer, then 300 MB more."""
    server = start(wordy(tmp_path), "--drain-s", "1")
    image, large = binary(pictures(1)[0]), binary(pictures(1)[0] + bytes(1_000_000))
    with handshake(server) as connection, server.live() as other:
        still = 0
        while still < 3:
            answered = server.metric("framegate_answers_total")
            for _ in range(50):
                connection.sendall(image)
                time.sleep(0.002)
            still = still + 1 if server.metric("framegate_answers_total") == answered else 0
        assert answered > 20
        assert server.metric("framegate_dropped_frames_total") > 0
        memory = server.rss_bytes
        for _ in range(300):
            connection.sendall(large)
        assert server.rss_bytes < memory + 60e6
        frames = pictures(10)
        assert [other.ask(one)["seq"] for one in frames] == list(range(10))
        assert "Traceback" not in server.text
        server.terminate()
        assert server.exit_code() == 0, "nor is it waited for at the end"


def test_clients_that_leave_in_the_middle_leave_nothing_behind(slow: Server, slow_bundle: Path, tmp_path: Path) -> None:
    frames = pictures(8)
    files = slow.files
    body = json.dumps(asked(FRAMES[0][None])).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    clip = video(tmp_path / "clip.mp4", [0] * 300).read_bytes()
    upload = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(clip)}\r\n\r\n".encode() + clip
    said: list[Any] = []
    with ExitStack() as stack:
        stub = stack.enter_context(slow.stub())
        for k, frame in enumerate(FRAMES):  # a sequence that goes on among all that follows
            for sent in (head + body, head + body[:500], upload, upload[:1000], b"POST "):
                connection = socket.create_connection(("localhost", slow.port))
                connection.sendall(sent)
                reset(connection)
            leaving = [
                stub.ModelInfer.future(message(frame[None], sequence_id=100 + number, sequence_start=True))
                for number in range(5)
            ]
            with handshake(slow) as live:
                live.sendall(binary(frames[k]) * 20)
                reset(live)
            said.append(slow.infer(frame, sequence_id=1, sequence_start=k == 0, sequence_end=k == len(FRAMES) - 1))
            for one in leaving:
                one.cancel()
    logits = np.stack([logits_of(one) for one in said])
    assert abs(logits - offline(slow_bundle, FRAMES)).max() < 1e-4
    eventually(lambda: slow.metric("framegate_streams") == 0, "every stream is given back")
    eventually(lambda: slow.files <= files + 2, "every connection is given back")
    eventually(lambda: not list(slow.scratch.glob("framegate-serve-*/*.mp4")), "every file is removed")
    assert "Traceback" not in slow.text
    whole = slow.post(PREDICT, files={"file": video(tmp_path / "short.mp4", [2] * 5).read_bytes()})
    assert whole.status_code == 200, "both turns of uploads are free again"


def test_a_cancelled_step_of_a_sequence_counts_once_or_not_at_all(slow: Server, slow_bundle: Path) -> None:
    """Over gRPC, each frame is sent once more and cancelled: the sequence is one of the two orders, never torn."""
    with slow.stub() as stub:
        first = stub.ModelInfer(message(FRAMES[0][None], sequence_id=9, sequence_start=True), timeout=30)
        cancelled = stub.ModelInfer.future(message(FRAMES[1][None], sequence_id=9))
        cancelled.cancel()
        last = stub.ModelInfer(message(FRAMES[2][None], sequence_id=9, sequence_end=True), timeout=30)
    assert abs(logits_of(first) - offline(slow_bundle, FRAMES[:1])[0]).max() < 1e-4
    orders = [[FRAMES[0], FRAMES[2]], FRAMES[:3]]
    assert min(abs(logits_of(last) - offline(slow_bundle, order)[-1]).max() for order in orders) < 1e-4


def test_a_hundred_are_served_while_nine_hundred_idle(start, bundle: Path) -> None:
    server = start(bundle)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    files, memory = server.files, server.rss_bytes
    right = offline(bundle, FRAMES[:5])
    with ExitStack() as stack:
        for number in range(IDLE):
            one = stack.enter_context(socket.create_connection(("localhost", server.port)))
            if number % 3 == 1:
                one.sendall(b"POST /v2/models/framegate/infer HT")
            elif number % 3 == 2:
                one.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: server.files >= files + IDLE, "all are accepted")
        said = asyncio.run(hundred(server))
        assert abs(said - right).max() < 1e-4
        assert said.shape == (BUSY, 5, 3)
        assert server.files >= files + IDLE
    eventually(lambda: server.files <= files + 2, "every connection is given back")
    eventually(lambda: server.metric("framegate_streams") == 0, "every stream is given back")
    assert server.rss_bytes < memory + 60e6


async def hundred(server: Server) -> np.ndarray:
    """Logits [BUSY,5,K] of as many clients at once, each a sequence on a connection of its own."""

    async def one(number: int) -> np.ndarray:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            said = []
            for k in range(5):
                flags = {"sequence_id": number, "sequence_start": k == 0, "sequence_end": k == 4}
                said.append(logits_of(await client.post(INFER, json=asked(FRAMES[k][None], **flags))))
            return np.stack(said)

    return np.stack(await asyncio.gather(*(one(number) for number in range(1, BUSY + 1))))


def test_pongs_that_nobody_reads_are_not_kept(start, bundle: Path) -> None:
    server = start(bundle)
    with handshake(server) as connection:
        memory = server.rss_bytes
        for _ in range(300):
            connection.sendall(1000 * (b"\x89\xfd" + bytes(4 + 125)))
        assert server.get("/v2/health/live").status_code == 200
        assert server.rss_bytes < memory + 15e6


def test_of_a_burst_over_grpc_each_call_is_answered_or_refused_with_a_reason(start, bundle: Path) -> None:
    with start(bundle).stub() as stub:
        calls = [stub.ModelInfer.future(message(FRAMES[0][None])) for _ in range(4000)]
        codes = {call.code() for call in calls}
    assert grpc.StatusCode.OK in codes
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def test_a_client_over_grpc_that_reads_nothing_holds_up_nobody(slow: Server) -> None:
    """Sixty-four of its requests are in work at most; the others wait in its own process."""
    sent = 0

    def requests() -> Iterator[Any]:
        nonlocal sent
        for _ in range(3000):
            sent += 1
            yield message(FRAMES[0][None])

    with slow.stub() as stub:
        answers = stub.ModelStreamInfer(requests())
        eventually(lambda: sent > 64, "it sends")
        eventually(
            lambda: slow.infer(FRAMES[0]).status_code == 200, "somebody else is answered"
        )  # a 503 is one too soon
        answers.cancel()
    with slow.stub() as stub:
        assert len(logits_of(stub.ModelInfer(message(FRAMES[0][None]), timeout=30))) == 3
    with pytest.raises(grpc.RpcError):
        next(answers)
