"""What is wrong with processes and sockets is said before anything starts; a connection that nobody reads ends.

Workers wait for each other in the end, and not for the dead.
"""

import asyncio
import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from framegate.contract import ConfigError
from framegate.serve import workers
from framegate.serve.errors import Overloaded, ServeError
from framegate.serve.model import Source
from framegate.serve.peers import PUSHBACK, Peers, Place
from framegate.serve.settings import Settings
from framegate.serve.workers import UNIX_NAME_BYTES, check_sockets, listen
from tests.served import run


def test_a_folder_whose_sockets_would_have_too_long_a_name_is_refused(tmp_path: Path) -> None:
    longest = "x" * (UNIX_NAME_BYTES - len(str(tmp_path)) - len("//http-999.sock"))
    check_sockets(tmp_path / longest)
    with pytest.raises(ConfigError, match="set a shorter TMPDIR"):
        check_sockets(tmp_path / f"{longest}x")


def test_a_client_that_reads_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does it, whatever the application waits for; without it `sendall` would wait for ever."""
    monkeypatch.setattr(workers, "UNREAD_S", 1)
    with listen("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted, pytest.raises(OSError, match="Connection timed out"):
                accepted.settimeout(60)
                accepted.sendall(bytes(100_000_000))


def test_a_worker_ends_when_all_have_finished_or_are_gone(tmp_path: Path) -> None:
    """Of four: this one, one that works, one that died and left its socket, one that never came so far."""

    async def play() -> None:
        places = [Place(index, 4, tmp_path) for index in range(4)]
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for index, one in enumerate(sockets, 1):
            one.bind(str(places[index].socket_of("http", index)))
            one.listen()
        sockets[1].close()
        waiting = asyncio.create_task(Peers(places[0], 1.0).over())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        places[1].over(1).touch()
        await asyncio.wait_for(waiting, 5)
        sockets[0].close()

    run(play())


class Owner(pb_grpc.GRPCInferenceServiceServicer):
    """Refuses as a worker does, with the time after which to come back, or without an answer of its own."""

    def __init__(self, code: grpc.StatusCode, pushback: tuple[tuple[str, str], ...]) -> None:
        self._code, self._pushback = code, pushback

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        await context.abort(self._code, "said", self._pushback)


@pytest.mark.parametrize(
    ("code", "pushback", "kind", "said"),
    [
        ("UNAVAILABLE", ((PUSHBACK, "7000"),), Overloaded, "said"),
        ("UNAVAILABLE", (), Overloaded, "has died"),
        ("NOT_FOUND", (), ServeError, "said"),
    ],
)
def test_an_owner_is_quoted_over_grpc(tmp_path: Path, code: str, pushback: Any, kind: type, said: str) -> None:
    async def play() -> None:
        place = Place(0, 2, tmp_path)
        peers, server = Peers(place, 1.0), await owner(place, grpc.StatusCode[code], pushback)
        with pytest.raises(ServeError, match=said) as caught:
            await peers.infer(1, pb.ModelInferRequest(), 5.0)
        assert type(caught.value) is kind and caught.value.grpc == code
        if pushback:
            assert caught.value.retry_after_s == 7
        await peers.close()
        await server.stop(None)

    run(play())


async def owner(place: Place, *words: Any) -> Any:
    """Worker 1."""
    server = grpc.aio.server()
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(Owner(*words), server)
    server.add_insecure_port(f"unix:{place.socket_of('grpc', 1)}")
    await server.start()
    return server


def test_an_owner_that_is_back_is_soon_found_over_grpc(tmp_path: Path) -> None:
    """After four seconds of attempts gRPC's own pause would be more than four."""

    async def play() -> None:
        place = Place(0, 2, tmp_path)
        peers, loop = Peers(place, 1.0), asyncio.get_running_loop()

        async def told() -> str:
            with pytest.raises(ServeError) as caught:
                await peers.infer(1, pb.ModelInferRequest(), 5.0)
            return str(caught.value)

        gone_s = loop.time() + 4
        while loop.time() < gone_s:
            assert "has died" in await told()
            await asyncio.sleep(0.05)
        server, back_s = await owner(place, grpc.StatusCode.NOT_FOUND, ()), loop.time()
        while await told() != "said":
            await asyncio.sleep(0.05)
        assert loop.time() - back_s < 1.5
        await peers.close()
        await server.stop(None)

    run(play())


@pytest.mark.parametrize("count", [1, 2])
def test_a_grpc_port_that_is_taken_is_told_as_such(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Before the model is opened: it is a file that is not there."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # so that it is as before afterwards
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(Source(Path("nowhere")), port=0, grpc_port=taken.getsockname()[1], workers=count)
        with pytest.raises(ConfigError, match="choose another --host or --grpc-port"):
            workers.supervise(settings, Unasked())


def test_nobody_tidies_the_private_folder_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten quiet days systemd-tmpfiles would: uploads, and the metrics of several workers, have no place then."""
    served = []

    def serving(settings: Settings, sock: socket.socket, place: Place, *_: object) -> None:
        descriptor = os.open(place.private, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as it asks
        os.close(descriptor)
        served.append(place.private)

    monkeypatch.setattr(workers, "serve_in_this_process", serving)
    monkeypatch.setattr(workers, "leave", lambda: None)
    workers.supervise(Settings(Source(Path("nowhere")), port=0, grpc_port=None), Unasked())
    assert len(served) == 1 and not served[0].exists()


def test_workers_that_start_again_and_again_find_room_to_tell_their_ports(tmp_path: Path) -> None:
    """The pipe has room for some 1600 of them; one that cannot tell would never take a request."""
    with socket.socket() as sock:
        one = workers._Supervisor(Settings(Source(tmp_path), workers=2), sock, tmp_path, Unasked())
        for _ in range(3):
            for _ in range(1000):
                one._ports.put({"http": 65535, "grpc": 65535})
            one._mend()
        assert one._ports.empty()


class Unasked:
    """Nobody tells the server to end."""

    asked = False
