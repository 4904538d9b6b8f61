"""The other worker processes: which sequence lives where, and how a request gets there.

Workers know each other by Unix sockets in a folder that only this user may enter, so nothing is checked twice there.
"""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from starlette.requests import Request
from starlette.responses import Response
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from framegate.serve.errors import Overloaded, ServeError
from framegate.serve.infer import sequence_id

THERE = ("inference-header-content-length", "content-type")  # headers that go with a request
PUSHBACK = "grpc-retry-pushback-ms"  # of an answer: when to come back
RECONNECT = (  # a worker that died is back within seconds; gRPC would look for it after two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
BACK = ("inference-header-content-length", "content-type", "retry-after")


@dataclass(frozen=True, slots=True)
class Place:
    """Worker `index` of `count`; `private`: the folder of their sockets."""

    index: int
    count: int
    private: Path

    def owner(self, sequence: int | str) -> int:
        """The worker that a sequence is pinned to."""
        return (sequence if isinstance(sequence, int) else zlib.crc32(sequence.encode())) % self.count

    def socket_of(self, kind: str, index: int) -> Path:
        """Unix socket of a worker; `kind`: http or grpc."""
        return self.private / f"{kind}-{index}.sock"

    def over(self, index: int) -> Path:
        """The file that says that a worker which ends has answered all that it accepted."""
        return self.private / f"over-{index}"


class Peers:
    """Hands requests on, as they came, and their answers back; `timeout_s`: a little more than the owner's deadline."""

    def __init__(self, place: Place, timeout_s: float) -> None:
        self.place, self._timeout_s = place, timeout_s
        self._http: dict[int, httpx.AsyncClient] = {}
        self._grpc: dict[int, Any] = {}
        self._channels: list[Any] = []

    async def close(self) -> None:
        """Hang up."""
        for client in self._http.values():
            await client.aclose()
        for channel in self._channels:
            await channel.close()

    async def over(self) -> None:
        """Say that all that was accepted here is answered; return when that is so everywhere."""
        self.place.over(self.place.index).touch()
        while any(not self._is_over(index) for index in range(self.place.count)):
            await asyncio.sleep(0.05)

    def _is_over(self, index: int) -> bool:
        return self.place.over(index).exists() or not _listens(self.place.socket_of("http", index))

    def elsewhere(self, parameters: Mapping[str, Any]) -> int | None:
        """The worker that a request with these parameters belongs to, if it is not this one."""
        if self.place.count == 1 or (sequence := sequence_id(parameters)) is None:
            return None
        owner = self.place.owner(sequence)
        return None if owner == self.place.index else owner

    async def post(self, index: int, request: Request, body: bytes) -> Response:
        """The answer of another worker's HTTP server. Overloaded while that one is being started again."""
        headers = {name: request.headers[name] for name in THERE if name in request.headers}
        try:
            answer = await self._client(index).post(
                request.url.path, content=body, headers=headers | {"accept-encoding": "identity"}
            )
        except httpx.TransportError:
            raise _gone() from None
        passed = {name: answer.headers[name] for name in BACK if name in answer.headers}
        return Response(answer.content, answer.status_code, passed)

    def _client(self, index: int) -> httpx.AsyncClient:
        if index not in self._http:
            anybody = httpx.Limits(max_connections=None)  # who waits for a connection waits outside any deadline
            transport = httpx.AsyncHTTPTransport(uds=str(self.place.socket_of("http", index)), limits=anybody)
            self._http[index] = httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=self._timeout_s
            )
        return self._http[index]

    async def infer(self, index: int, message: Any, left_s: float | None) -> Any:
        """The answer of another worker's gRPC server to a ModelInferRequest. ServeError as that one gave it.

        Overloaded while that one is being started again.
        """
        if index not in self._grpc:
            channel = grpc.aio.insecure_channel(f"unix:{self.place.socket_of('grpc', index)}", RECONNECT)
            self._channels.append(channel)
            self._grpc[index] = GRPCInferenceServiceStub(channel)
        try:
            return await self._grpc[index].ModelInfer(message, timeout=left_s)
        except grpc.aio.AioRpcError as error:
            raise _as_told(error) from None


def _as_told(error: grpc.aio.AioRpcError) -> ServeError:
    """What the owner answered; where it answered nothing, that it has died."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        pushback = dict(error.trailing_metadata() or ()).get(PUSHBACK)
        return _gone() if pushback is None else Overloaded(error.details() or "", int(pushback) / 1000)
    failed = ServeError(error.details())
    failed.grpc = error.code().name
    return failed


def _listens(path: Path) -> bool:
    """Whether a process still accepts on a Unix socket: not one that has died, or that has not begun to."""
    with socket.socket(socket.AF_UNIX) as one:
        one.setblocking(False)
        try:
            one.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its queue is full
            return True
    return True


def _gone() -> Overloaded:
    return Overloaded("the process that holds this sequence has died and starts again; START the sequence anew", 1.0)
