"""Clients that keep count: what a server accepted, what of it was answered, and whether the answers are right.

Each client sends one request after the other and waits for its answer. `accepted` is a request that the server took:
not one whose connection was refused, or closed before the request was sent, and not one that it refused politely (503
with Retry-After, UNAVAILABLE that says so, close 1012 or 1013). Every answer is compared with the same frames offline.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import websockets.asyncio.client
import websockets.exceptions
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from benchmarks.swap_oracle import LENGTH, Logits, Oracle

PAUSE_S = 0.002  # between two requests of a client
AFTER_REFUSAL_S = 0.05
ANSWER_S = 60.0  # later is never


class Refused(Exception):
    """The server did not take the request; `retry_s`: when it said to come back."""

    def __init__(self, words: str, retry_s: float = AFTER_REFUSAL_S) -> None:
        super().__init__(words)
        self.retry_s = retry_s


class Lost(Exception):
    """The server took the request, or may have, and gave no answer."""


@dataclass
class Count:
    """What became of one client's, or one protocol's, requests."""

    answered: int = 0
    resets: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)

    @property
    def accepted(self) -> int:
        """Requests that the server took."""
        return self.answered + self.failed.total()

    def __iadd__(self, other: Count) -> Count:
        self.answered += other.answered
        self.resets += other.resets
        for name in ("failed", "refused", "versions"):
            getattr(self, name).update(getattr(other, name))
        return self


@dataclass
class Client:
    """What the clients of all protocols have in common; `id` is a number of its own, `over` ends it."""

    oracle: Oracle
    host: str
    port: int
    id: int
    over: asyncio.Event
    count: Count = field(default_factory=Count)
    sequences: int = 0
    done: int = 0  # requests of single frames

    async def run(self) -> None:
        """Until it is over; a stream that is in work is given up."""
        while not self.over.is_set():
            try:
                await self.turn()
            except Refused as error:
                self.count.refused[str(error)] += 1
                await self._pause(error.retry_s)
            except Lost as error:
                self.count.failed[str(error)] += 1
                await self._pause(AFTER_REFUSAL_S)
            await asyncio.sleep(PAUSE_S)
        await self.close()

    async def _pause(self, seconds: float) -> None:
        """So long, unless it is over before."""
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            return

    async def turn(self) -> None:
        """Some requests: a sequence, or one frame. Refused, Lost end it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Hang up."""

    def answer(self, right: bool, version: str, moved: bool = False) -> None:
        """Count one answer."""
        self.count.resets += moved
        if right:
            self.count.answered += 1
            self.count.versions[version] += 1
        else:
            self.count.failed[f"wrong answer of version {version}"] += 1


class SequenceClient(Client):
    """Turns of a sequence of LENGTH frames and, between them, single frames, by `infer`."""

    async def infer(self, frame: NDArray[np.uint8], parameters: dict[str, Any]) -> tuple[Logits, str, bool]:
        """Logits, version, whether the sequence began again on another version."""
        raise NotImplementedError

    async def turn(self) -> None:
        """One sequence; its last frame also alone."""
        start, self.sequences = 0, self.sequences + 1
        id_ = 1000 * self.id + self.sequences
        for at in range(LENGTH):
            if self.over.is_set():
                return
            parameters = {"sequence_id": id_, "sequence_start": at == 0, "sequence_end": at == LENGTH - 1}
            logits, version, moved = await self.infer(self.oracle.frames[at], parameters)
            start = at if moved else start
            self.answer(self.oracle.check(version, start, at, logits), version, moved)
            await asyncio.sleep(PAUSE_S)
        at = self.done = (self.done + 1) % LENGTH
        logits, version, _ = await self.infer(self.oracle.frames[at], {})
        self.answer(self.oracle.check(version, at, at, logits), version)


class HttpClient(SequenceClient):
    """The protocol over HTTP/1.1 by hand, so that it is known whether a request was sent on a connection."""

    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def infer(self, frame: NDArray[np.uint8], parameters: dict[str, Any]) -> tuple[Logits, str, bool]:
        """One POST, binary tensors both ways."""
        tensor = {"name": "frame", "shape": [1, *frame.shape], "datatype": "UINT8"}
        tensor["parameters"] = {"binary_data_size": frame.nbytes}
        asked = {"inputs": [tensor], "parameters": {**parameters, "binary_data_output": True}}
        asked["outputs"] = [{"name": "logits"}]
        head = json.dumps(asked).encode()
        try:
            async with asyncio.timeout(ANSWER_S):
                status, headers, body = await self._post(head, frame.tobytes())
        except TimeoutError:
            raise Lost(f"no answer within {ANSWER_S:g} s") from None
        if status == 503 and "retry-after" in headers:
            raise Refused(f"503 {json.loads(body)['error'][:40]}", float(headers["retry-after"]))
        if status != 200:
            raise Lost(f"{status} {body[:80]!r}")
        size = int(headers["inference-header-content-length"])
        document = json.loads(body[:size])
        moved = document.get("parameters", {}).get("reset") == "version"
        return np.frombuffer(body[size:], np.float32), document["model_version"], moved

    async def _post(self, head: bytes, tail: bytes) -> tuple[int, dict[str, str], bytes]:
        reader, writer, new = await self._connected()
        words = (
            "POST /v2/models/framegate/infer HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Content-Length: {len(head) + len(tail)}",
            f"Inference-Header-Content-Length: {len(head)}",
            "\r\n",
        )
        try:
            writer.write("\r\n".join(words).encode() + head + tail)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise Lost(f"closed without an answer ({'first' if new else 'later'} request of a connection)") from error
        if headers.get("connection") == "close":
            await self.close()
        return int(lines[0].split()[1]), headers, body

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
        """An open connection, and whether it is a new one."""
        if self._reader and self._writer:
            await asyncio.sleep(0)  # lets a close by the server arrive
            if not self._reader.at_eof() and not self._writer.is_closing():
                return self._reader, self._writer, False
            await self.close()
        try:
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            raise Refused("connection refused") from None
        return self._reader, self._writer, True

    async def close(self) -> None:
        """Hang up."""
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None


class GrpcClient(SequenceClient):
    """The protocol over gRPC."""

    _channel: Any = None
    _stub: Any = None

    async def infer(self, frame: NDArray[np.uint8], parameters: dict[str, Any]) -> tuple[Logits, str, bool]:
        """One ModelInfer."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"{self.host}:{self.port}", options=[("grpc.enable_retries", 0)])
            self._stub = GRPCInferenceServiceStub(self._channel)
        message = pb.ModelInferRequest(model_name="framegate", raw_input_contents=[frame.tobytes()])
        message.inputs.add(name="frame", datatype="UINT8", shape=[1, *frame.shape])
        message.outputs.add(name="logits")
        for key, value in parameters.items():
            setattr(message.parameters[key], "bool_param" if isinstance(value, bool) else "int64_param", value)
        try:
            answer = await self._stub.ModelInfer(message, timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            words = f"{error.code().name} {(error.details() or '')[:40]}"
            if not _not_taken(error):
                raise Lost(words) from None
            pushback = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
            raise Refused(words, float(pushback) / 1000 if pushback else AFTER_REFUSAL_S) from None
        moved = answer.parameters["reset"].string_param == "version" if "reset" in answer.parameters else False
        return np.frombuffer(answer.raw_output_contents[0], np.float32), answer.model_version, moved

    async def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            await self._channel.close()


def _not_taken(error: grpc.aio.AioRpcError) -> bool:
    """Whether a call never reached a handler: by what gRPC's core says of it."""
    words = (error.details() or "").lower()
    told = ("failed to connect", "connection refused", "goaway", "shutting down", "overloaded", "starts again")
    return error.code() == grpc.StatusCode.UNAVAILABLE and any(word in words for word in told)


class LiveClient(Client):
    """Live streams over WebSocket: a frame, its answer, the next frame."""

    async def turn(self) -> None:
        """One stream of LENGTH frames."""
        url = f"ws://{self.host}:{self.port}/v1/streams/framegate?fps={self.oracle.fps}&top={len(self.oracle.labels)}"
        try:
            connection = await websockets.asyncio.client.connect(url, compression=None, open_timeout=ANSWER_S)
        except (OSError, websockets.exceptions.InvalidHandshake, websockets.exceptions.InvalidMessage, EOFError):
            raise Refused("connection refused") from None
        async with connection:
            await self._stream(connection)

    async def _stream(self, connection: websockets.asyncio.client.ClientConnection) -> None:
        start = sent = answered = 0
        taken = None  # frames that the server says it took, when it ends a stream
        try:
            for at in range(-1, LENGTH):  # -1: the greeting
                if at >= 0:
                    await connection.send(self.oracle.pngs[at])
                    sent = at + 1
                while True:
                    async with asyncio.timeout(ANSWER_S):
                        said = json.loads(await connection.recv())
                    if said.get("event") == "reset":
                        start = at
                        self.count.resets += 1
                    elif said.get("event") == "end":
                        taken = said["frames"]
                    else:
                        break
                if at >= 0:
                    self._take(said, start, at)
                    answered = at + 1
                await asyncio.sleep(PAUSE_S)
            await connection.send('{"end": true}')
        except websockets.exceptions.ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd else None
            if code not in (1012, 1013):
                raise Lost(f"closed with {code}") from None
            if answered < sent and (taken is None or taken >= sent):
                raise Lost(f"closed with {code}, {taken} of {sent} frames taken, {answered} answered") from None
            raise Refused(f"closed with {code}", 1.0) from None
        except TimeoutError:
            raise Lost(f"no answer within {ANSWER_S:g} s") from None

    def _take(self, said: dict[str, Any], start: int, at: int) -> None:
        if said.get("seq") != at or "labels" not in said:
            self.count.failed[f"not the answer to the frame: {str(said)[:80]}"] += 1
            return
        self.answer(self.oracle.check_labels(said["version"], start, at, said["labels"]), said["version"])


KINDS: dict[str, type[Client]] = {"HTTP": HttpClient, "gRPC": GrpcClient, "WebSocket": LiveClient}
