"""Many streams at once, over all protocols, in any order: each answers as if it were alone."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import websockets.asyncio.client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from framegate.contract import Bundle
from framegate.runtime.session import open_session
from framegate.timeline import softmax
from tests.bundles import LABELS
from tests.running import INFER, Server, asked, logits_of, message, pictures, seen, shares_of

KINDS = ("live", "HTTP", "gRPC", "gRPC stream")
IDS = count(10_000)
FRAMES = [pictures(12, seed=k) for k in range(9)]  # of stream k
PIXELS = [[seen(one) for one in frames] for frames in FRAMES]


class Player:
    """One stream, one frame at a time; `said` are its shares [K]."""

    def __init__(self, number: int, connections: Any) -> None:
        self.number, self.kind = number, KINDS[number % len(KINDS)]
        self.connections, self.at = connections, 0
        self.id = next(IDS)
        self.said: list[Any] = []

    async def step(self) -> None:
        frame, self.at = self.at, self.at + 1
        parameters = {"sequence_id": self.id, "sequence_start": frame == 0}
        pixels = PIXELS[self.number][frame][None]
        if self.kind == "live":
            socket = self.connections.sockets[self.number]
            await socket.send(FRAMES[self.number][frame])
            self.said.append(shares_of(httpx.Response(200, text=await socket.recv()).json(), LABELS))
        elif self.kind == "HTTP":
            answer = await self.connections.http.post(INFER, json=asked(pixels, **parameters))
            self.said.append(softmax(logits_of(answer)))
        elif self.kind == "gRPC":
            self.said.append(softmax(logits_of(await self.connections.stub.ModelInfer(message(pixels, **parameters)))))
        else:
            call = self.connections.calls[self.number]
            await call.write(message(pixels, **parameters))
            self.said.append(softmax(logits_of((await call.read()).infer_response)))


class Connections:
    """Of all players of one example."""

    def __init__(self, server: Server, players: int) -> None:
        self._server, self._players = server, players

    async def __aenter__(self) -> "Connections":
        self.http = httpx.AsyncClient(base_url=self._server.url, timeout=30, trust_env=False)
        self._channel = grpc.aio.insecure_channel(f"localhost:{self._server.grpc_port}")
        self.stub = GRPCInferenceServiceStub(self._channel)
        self.sockets, self.calls = {}, {}
        for number in range(self._players):
            if KINDS[number % len(KINDS)] == "live":
                url = f"ws://localhost:{self._server.port}/v1/streams/framegate?fps=10"
                self.sockets[number] = await websockets.asyncio.client.connect(url, compression=None, proxy=None)
                await self.sockets[number].recv()
            elif KINDS[number % len(KINDS)] == "gRPC stream":
                self.calls[number] = self.stub.ModelStreamInfer()
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self.sockets.values():
            await socket.close()
        for call in self.calls.values():
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        await self.http.aclose()
        await self._channel.close()


async def play(server: Server, rounds: list[list[int]]) -> dict[int, list[Any]]:
    """In each round these streams each send a frame, all at once."""
    players = {number: Player(number, None) for number in range(len(FRAMES))}
    async with Connections(server, len(FRAMES)) as connections:
        for player in players.values():
            player.connections = connections
        for chosen in rounds:
            steps: list[Awaitable[None]] = [players[number].step() for number in chosen]
            async with asyncio.timeout(60):
                await asyncio.gather(*steps)
    return {number: player.said for number, player in players.items()}


ROUNDS = st.lists(st.lists(st.sampled_from(range(len(FRAMES))), min_size=1, unique=True), min_size=1, max_size=12)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=ROUNDS)
def test_streams_that_interleave_answer_as_if_each_were_alone(server: Server, bundle: Path, rounds: Any) -> None:
    said = asyncio.run(play(server, rounds))
    session = open_session(Bundle.load(bundle))
    asked_for: dict[int, int] = defaultdict(int)
    for number in [one for chosen in rounds for one in chosen]:
        asked_for[number] += 1
    for number, frames in asked_for.items():
        state, right = session.init_state(1), []
        for pixels in PIXELS[number][:frames]:
            logits, state = session.step(pixels[None], state)
            right.append(softmax(logits[0]))
        assert abs(np.stack(said[number]) - np.stack(right)).max() < 1e-3, KINDS[number % len(KINDS)]


def test_streams_side_by_side_are_batched_and_still_alone(server: Server, bundle: Path) -> None:
    steps = server.metric("framegate_batch_rows_count")
    rows = server.metric("framegate_batch_rows_sum")
    said = asyncio.run(play(server, [list(range(len(FRAMES)))] * 12))
    session = open_session(Bundle.load(bundle))
    for number, shares in said.items():
        state, right = session.init_state(1), []
        for pixels in PIXELS[number]:
            logits, state = session.step(pixels[None], state)
            right.append(softmax(logits[0]))
        assert abs(np.stack(shares) - np.stack(right)).max() < 1e-3
    assert server.metric("framegate_batch_rows_sum") - rows == 12 * len(FRAMES), "every frame is stepped once"
    assert server.metric("framegate_batch_rows_count") - steps <= 12 * len(FRAMES)
