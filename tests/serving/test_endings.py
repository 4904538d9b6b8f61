"""How a server ends: not ready first, then no new work, then the last answers; nothing that it accepted is lost."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from benchmarks.swap_clients import Count
from benchmarks.swap_oracle import Oracle
from benchmarks.swaps import Result, Served, load, stop_under_load
from tests.bundles import WEIGHTS, make_bundle
from tests.running import INFER, PREDICT, Server, asked, eventually, logits_of, message, offline, pictures, video
from tests.served import color

FRAMES = [color(k % 3, seed=k) for k in range(6)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_under_load_loses_nothing_that_was_accepted(start, bundle: Path, workers: str) -> None:
    server, result = start(bundle, "--workers", workers, "--lag-s", "0.5"), Result()
    oracle = Oracle({server.version: bundle})
    asyncio.run(stop_under_load(Served(server.process, server.ports), oracle, 1.0, 4, result))
    assert {kind: dict(one.failed) for kind, one in result.counts.items() if one.failed} == {}
    assert all(one.accepted > 50 for one in result.counts.values()), result.counts
    assert result.exit_codes == [0]
    assert not {word for word in ("Traceback", "cut off", "never retrieved") if word in server.text}, server.text


def test_the_load_of_these_tests_sees_wrong_answers(start, bundle: Path, tmp_path: Path) -> None:
    """Measured by another bundle's answers nothing is right."""
    server, counts = start(bundle), dict[str, Count]()
    other = make_bundle(tmp_path, "tiny-pruned-fp32", weights=np.roll(WEIGHTS, 1, axis=1)).path

    async def play() -> None:
        oracle = Oracle({server.version: other})
        async with load(Served(server.process, server.ports), oracle, 1, counts):
            await asyncio.sleep(0.5)

    asyncio.run(play())
    for one in counts.values():
        assert one.failed[f"wrong answer of version {server.version}"] > 5
        assert one.answered < one.failed.total()


def test_readiness_says_no_while_everything_is_still_answered(start, bundle: Path) -> None:
    server = start(bundle, "--lag-s", "3")
    with server.live() as live, server.stub() as stub:
        frames = pictures(3)
        live.ask(frames[0])
        server.terminate()
        eventually(lambda: server.get("/v2/health/ready").status_code == 503, "not ready")
        assert server.get("/v2/health/ready").json()["ready"] is False
        assert server.get("/v2/health/live").status_code == 200
        assert server.get("/v2/models/framegate/ready").status_code == 503
        answer = server.infer(FRAMES[0])
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        assert len(logits_of(stub.ModelInfer(message(FRAMES[0][None]), timeout=20))) == 3
        assert live.ask(frames[1])["seq"] == 1
        with server.live() as late:
            assert late.ask(frames[0])["seq"] == 0
            assert [one.get("event") for one in late.rest()] == ["end"]
            assert late.code == 1012
        assert live.rest()[-1] == {"event": "end", "frames": 2, "dropped": 0}
        assert live.code == 1012
    assert server.exit_code() == 0
    with pytest.raises(httpx.ConnectError):
        server.get("/v2/health/ready")


def test_new_work_is_refused_in_words_before_the_listeners_close(start, slow_bundle: Path, tmp_path: Path) -> None:
    """An upload in work keeps the server for a while; whoever comes meanwhile is told where he stands."""
    server = start(slow_bundle)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        file = video(tmp_path / "long.mp4", [2] * 10 + [0] * 190).read_bytes()
        with client.stream("POST", PREDICT, content=file, headers={"accept": "application/x-ndjson"}) as answer:
            lines = answer.iter_lines()
            first = json.loads(next(lines))
            server.terminate()
            told = list(_until_closed(server))
            spans = [first, *map(json.loads, lines)]
    assert (
        {"503 the server is shutting down; connect again, to another one"}
        <= set(told)
        <= {
            "200",
            "503 the server is shutting down; connect again, to another one",
        }
    )
    assert told == sorted(told)
    assert spans[-1]["end_s"] == 20.0
    assert server.exit_code() == 0


def _until_closed(server: Server) -> Iterator[str]:
    while True:
        try:
            answer = server.infer(FRAMES[0])
        except httpx.TransportError:
            return
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
        yield "200" if answer.status_code == 200 else f"{answer.status_code} {answer.json()['error']}"


def test_an_open_stream_over_grpc_does_not_keep_the_server(start, bundle: Path) -> None:
    """What came before the end is answered, then the stream ends; --drain-s is longer than the test waits."""
    server, over = start(bundle, "--drain-s", "600"), Event()
    parameters = [{"sequence_id": 7, "sequence_start": k == 0} for k in range(len(FRAMES))]

    def requests() -> Iterator[Any]:
        for frame, one in zip(FRAMES, parameters, strict=True):
            yield message(frame[None], **one)
        over.wait(60)

    with server.stub() as stub:
        answers = stub.ModelStreamInfer(requests())
        said = [logits_of(next(answers).infer_response) for _ in FRAMES]
        server.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        over.set()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in caught.value.details()
    assert abs(said - offline(bundle, FRAMES)).max() < 1e-4
    assert server.exit_code() == 0


def test_a_client_that_stalls_is_cut_off_at_the_deadline_of_the_end(start, bundle: Path) -> None:
    server = start(bundle, "--drain-s", "1")
    body = json.dumps(asked(FRAMES[0][None])).encode()
    with (
        socket.create_connection(("localhost", server.port)) as stalled,
        socket.create_connection(("localhost", server.port)) as idle,
    ):
        head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        stalled.sendall(head.encode() + body[:100])
        eventually(lambda: server.metric("framegate_requests_total") > 0, "it answers")
        server.terminate()
        assert server.exit_code() == 0
        assert "1 requests are cut off" in server.text
        assert idle.recv(100) == b""
        assert stalled.recv(1000).split(b"\r\n")[0] == b"HTTP/1.1 503 Service Unavailable"
        assert "Traceback" not in server.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_keeps_its_decoder_busy_does_not_keep_the_server(
    start, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """A minute in one call of the decoder, which nothing can interrupt."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time, framegate.video as video\nvideo.frames_of = lambda packet, name: time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    server = start(bundle, "--workers", workers, "--drain-s", "1")
    file = video(tmp_path / "slow.mp4", [0, 1]).read_bytes()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, PREDICT, content=file)
        eventually(lambda: server.metric("framegate_streams", kind="upload") == 1, "it is in work")
        started = time.monotonic()
        server.terminate()
        assert server.exit_code() == 0
        assert time.monotonic() - started < 10
        assert answer.result().status_code == 503
    assert "1 requests are cut off" in server.text and server.text.rstrip().endswith("stopped")
    assert "killed" not in server.text and "Traceback" not in server.text
    assert list(server.scratch.glob("framegate*")) == []


def test_a_worker_that_ends_still_answers_what_another_one_accepted(start, bundle: Path) -> None:
    """Bodies that come late, of sequences of both workers: each connection may lie with either."""
    server = start(bundle, "--workers", "2")
    late: list[tuple[socket.socket, bytes]] = []
    with ExitStack() as stack:
        for number in range(1, 13):
            body = json.dumps(asked(FRAMES[0][None], sequence_id=number, sequence_start=True)).encode()
            one = stack.enter_context(socket.create_connection(("localhost", server.port), timeout=30))
            head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            one.sendall(head.encode() + body[:100])
            late.append((one, body[100:]))
        time.sleep(0.5)  # until all are read
        server.terminate()
        time.sleep(2)  # a worker without work would end at once
        for one, rest in late:
            one.sendall(rest)
        answers = [one.recv(1 << 16).split(b"\r\n")[0] for one, _ in late]
    assert answers == [b"HTTP/1.1 200 OK"] * len(late)
    assert server.exit_code() == 0
    assert "Traceback" not in server.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_told_to_end_while_it_starts_does(bundle: Path, tmp_path: Path, workers: str) -> None:
    """As soon as its folder is there: the modules that serve are not even imported then."""
    one = Server(bundle, tmp_path, "--accept-host", "--workers", workers)
    try:
        eventually(lambda: list(one.scratch.iterdir()), "it begins")
        one.terminate()
        assert one.exit_code() == 0
        assert list(one.scratch.iterdir()) == []
        assert "serving on" not in one.text and "Traceback" not in one.text
    finally:
        one.close()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_server_that_was_given_no_standard_streams_ends_as_any_other(
    bundle: Path, tmp_path: Path, closed: str
) -> None:
    """As some who start daemons do; sockets in their place would end libuv."""
    one = Server(bundle, tmp_path, "--accept-host", closed=closed)
    try:
        assert one.wait_until_ready().get("/v2/health/ready").status_code == 200
        one.terminate()
        assert one.exit_code() == 0
        assert "Traceback" not in one.text
    finally:
        one.close()


@pytest.mark.parametrize(("number", "count"), [(signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_an_idle_server_ends_at_once_and_leaves_nothing(
    start, bundle: Path, number: signal.Signals, count: int
) -> None:
    server = start(bundle, "--workers", str(count))
    workers = server.children
    assert len(workers) == (count if count > 1 else 0)
    os.kill(server.process.pid, number)
    assert server.exit_code() == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert list(server.scratch.glob("framegate*")) == []
