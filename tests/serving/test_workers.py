"""Several processes: a sequence lives in one of them, whichever it is asked through; one may die."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from tests.running import INFER, Server, asked, eventually, logits_of, message, offline, pictures, running, sum_of
from tests.served import color

FRAMES = [color(k % 3, seed=k) for k in range(6)]
CONNECTIONS = 8  # so many that both workers accept some


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(Server(bundle, tmp_path_factory.mktemp("workers"), "--accept-host", "--workers", "2")) as one:
        yield one


def test_a_sequence_reaches_its_worker_through_any_connection(server: Server, bundle: Path) -> None:
    right = offline(bundle, FRAMES)
    for number in range(1, 7):
        said = [
            server.infer(frame, sequence_id=number, sequence_start=k == 0, sequence_end=k == len(FRAMES) - 1)
            if (k + number) % 2
            else over_grpc(server, frame, sequence_id=number, sequence_start=k == 0, sequence_end=k == len(FRAMES) - 1)
            for k, frame in enumerate(FRAMES)
        ]
        assert abs(np.stack([logits_of(one) for one in said]) - right).max() < 1e-4
    refused = server.infer(FRAMES[0], sequence_id=3)
    assert refused.status_code == 400
    assert "must specify the START flag" in refused.json()["error"]
    with pytest.raises(grpc.RpcError, match="must specify the START flag"):
        over_grpc(server, FRAMES[0], sequence_id=4)


def over_grpc(server: Server, frame: np.ndarray, **parameters: Any) -> Any:
    """One call on a channel of its own."""
    with server.stub() as stub:
        return stub.ModelInfer(message(frame[None], **parameters), timeout=30)


def test_metrics_are_those_of_all_workers(server: Server) -> None:
    """Whichever of them is asked; what the others counted is told once a second."""
    with httpx.Client(base_url=server.url, trust_env=False) as client, ExitStack() as stack:

        def answers() -> float:  # as one and the same worker sees them
            return sum_of(client.get("/metrics").text, "framegate_answers_total")

        before, again = -1.0, answers()
        while before != again:  # until what was asked before this test is told
            time.sleep(2)
            before, again = again, answers()
        for _ in range(CONNECTIONS):
            live = stack.enter_context(server.live())
            assert live.ask(pictures(1)[0])["seq"] == 0
        assert client.post(INFER, json=asked(FRAMES[0][None])).status_code == 200
        for _ in range(4):
            eventually(lambda: server.metric("framegate_streams", kind="live") == CONNECTIONS, "all streams are told")
            eventually(lambda: answers() == before + CONNECTIONS + 1, "all answers are told")
            assert server.metric("framegate_model_info") == 1
    eventually(lambda: server.metric("framegate_streams", kind="live") == 0, "none is left")


def test_a_worker_that_is_killed_is_replaced_and_the_other_goes_on(server: Server, bundle: Path) -> None:
    ids = [1, 2]  # one lives in each worker
    right = offline(bundle, FRAMES)
    for number in ids:
        server.infer(FRAMES[0], sequence_id=number, sequence_start=True)
    victim, other = server.children
    lives_on = owner_of(server, ids, other)
    os.kill(victim, signal.SIGKILL)
    survivor, lost = lives_on, next(number for number in ids if number != lives_on)

    def answered(number: int, frame: np.ndarray, **more: Any) -> httpx.Response | None:
        """None while a connection goes to the worker that died."""
        try:
            return server.infer(frame, sequence_id=number, **more)
        except httpx.TransportError:
            return None

    first = eventually(lambda: answered(survivor, FRAMES[1]), "the other goes on")
    assert abs(logits_of(first) - right[1]).max() < 1e-4
    gone = eventually(lambda: answered(lost, FRAMES[1]), "the lost one is refused")
    assert gone.status_code in (400, 503)
    assert "START" in gone.json()["error"]
    eventually(lambda: len(server.children) == 2, "another worker is there")
    eventually(
        lambda: (found := answered(lost, FRAMES[0], sequence_start=True)) and found.status_code == 200, "it starts anew"
    )
    assert abs(logits_of(server.infer(FRAMES[1], sequence_id=lost)) - right[1]).max() < 1e-4
    assert abs(logits_of(server.infer(FRAMES[2], sequence_id=survivor)) - right[2]).max() < 1e-4
    assert victim not in server.children
    assert other in server.children
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        alone = list(pool.map(lambda _: server.infer(FRAMES[0]), range(4 * CONNECTIONS)))
    assert {one.status_code for one in alone} == {200}
    assert abs(np.stack([logits_of(one) for one in alone]) - right[0]).max() < 1e-4
    assert "its streams are lost; another starts" in server.text


def owner_of(server: Server, ids: list[int], worker: int) -> int:
    """Which of two sequences lives in a worker: pinned by its id, workers in the order of their start."""
    index = server.children.index(worker)
    return next(number for number in ids if number % 2 == index)


def test_when_no_worker_can_start_the_reason_is_given(bundle: Path, tmp_path: Path) -> None:
    one = Server(tmp_path / "nowhere", tmp_path / "server", "--workers", "2")
    try:
        assert one.exit_code() == 1
        assert "no such folder" in one.text
        assert "Traceback" not in one.text
    finally:
        one.close()
