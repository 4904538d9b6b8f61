"""A client process of `benchmarks.live_serving`: many WebSocket streams, each sending frames at its own pace.

Reads its orders as JSON from standard input, writes what it saw as JSON, and what became of every frame that the model
should see to a file. A frame is answered in time when its answer is here `deadline_s` after the frame left, by this
process's clock. Every stream has a phase and jitter of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.processes import cpu_seconds
from benchmarks.websocket_client import WebSocketClient, masked

ANSWERED, MISSED, DROPPED = 0, 1, 2  # as framegate.bench.camera has them
LAST_ANSWERS_S = 1.0  # after the last frame
TICK_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Orders:
    """`frames`: an .npz of encoded images; `outcomes`: the .npy file to write, u8 [stream, tick]."""

    port: int
    path: str
    session: int  # of the server, for its CPU time
    frames: str
    outcomes: str
    streams: int
    seconds: float
    fps: float  # that the streams send at
    clip_fps: float  # that the model sees
    deadline_s: float = 0.1
    jitter_s: float = 0.005
    warm_s: float = 1.0
    seed: int = 0


class PacedStream:
    """Sends frame i at start + phase + i / fps, give or take the jitter."""

    def __init__(self, orders: Orders, frames: list[bytes], number: int) -> None:
        self._orders, self._frames = orders, frames
        self._random = random.Random(f"{orders.seed}/{number}")
        self._loop = asyncio.get_running_loop()
        self._first = self._random.randrange(len(frames))
        self.sent_at: list[float] = []
        self.latency_s: dict[int, float] = {}  # of the answer to frame seq
        self.dropped = 0
        self.errors: list[str] = []
        self.lag_s: list[float] = []
        self.client: WebSocketClient
        self.ready = asyncio.Event()

    async def open(self) -> None:
        """Connected, and told so by the server."""
        path = f"{self._orders.path}?fps={self._orders.fps:g}&top=1"
        self.client = await WebSocketClient.connect(self._orders.port, path, self._said)
        async with asyncio.timeout(30):
            await self.ready.wait()

    def _said(self, text: bytes) -> None:
        now = time.monotonic()
        if text.startswith(b'{"seq":'):
            seq = int(text[7 : text.index(b",", 7)])
            self.latency_s[seq] = now - self.sent_at[seq]
            at = text.index(b'"dropped":') + 10
            self.dropped = int(text[at : text.index(b",", at)])
        elif text.startswith(b'{"event":"ready"'):
            self.ready.set()
        else:
            self.errors.append(text.decode())

    def start(self, at: float, until: float) -> None:
        """Begin to send; no frame later than `until` (times of the loop)."""
        self._until = until
        self._next = at + self._random.uniform(0, 1 / self._orders.fps)
        self._plan()

    def _plan(self) -> None:
        self._due = self._next + self._random.uniform(0, self._orders.jitter_s)
        if self._next < self._until:
            self._loop.call_at(self._due, self._send)

    def _send(self) -> None:
        self.lag_s.append(self._loop.time() - self._due)
        number = len(self.sent_at)
        self.sent_at.append(time.monotonic())
        self.client.send(self._frames[(self._first + number) % len(self._frames)])
        self._next += 1 / self._orders.fps
        self._plan()

    def outcomes(self, since: float, until: float, ticks: int) -> tuple[list[int], list[float]]:
        """Of the frames for the model that left in a window of time.monotonic(); latencies in seconds."""
        found: list[int] = []
        latencies: list[float] = []
        for tick in range(int(len(self.sent_at) * self._orders.clip_fps / self._orders.fps) + 1):
            seq = int(tick * self._orders.fps / self._orders.clip_fps + TICK_TOLERANCE)
            if seq >= len(self.sent_at) or not since <= self.sent_at[seq] < until:
                continue
            latency_s = self.latency_s.get(seq)
            if latency_s is None:
                found.append(DROPPED)
            else:
                found.append(ANSWERED if latency_s <= self._orders.deadline_s else MISSED)
                latencies.append(latency_s)
        return found[:ticks], latencies


async def run(orders: Orders) -> dict[str, Any]:
    """All streams, then what became of their frames."""
    with np.load(orders.frames) as arrays:
        frames = [masked(arrays[name].tobytes()) for name in arrays.files]
    streams = [PacedStream(orders, frames, number) for number in range(orders.streams)]
    for stream in streams:
        await stream.open()
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.05
    for stream in streams:
        stream.start(start, start + orders.warm_s + orders.seconds)
    await asyncio.sleep(orders.warm_s + 0.05)
    since, server_s, own_s = time.monotonic(), cpu_seconds(orders.session), time.process_time()
    await asyncio.sleep(orders.seconds)
    until = time.monotonic()
    server_s, own_s = cpu_seconds(orders.session) - server_s, time.process_time() - own_s
    await asyncio.sleep(LAST_ANSWERS_S)
    for stream in streams:
        stream.client.close()
    return report(orders, streams, since, until) | {
        "server_cores": server_s / (until - since),
        "client_cores": own_s / (until - since),
    }


def report(orders: Orders, streams: list[PacedStream], since: float, until: float) -> dict[str, Any]:
    """Counts over all streams; latencies of what was answered."""
    ticks = int((until - since) * min(orders.clip_fps, orders.fps)) - 1  # as many for every stream
    outcomes: list[list[int]] = []
    latencies: list[float] = []
    for stream in streams:
        found, its = stream.outcomes(since, until, ticks)
        outcomes.append(found + [DROPPED] * (ticks - len(found)))
        latencies += its
    array = np.array(outcomes, np.uint8)
    np.save(Path(orders.outcomes), array)
    lag_s = np.concatenate([stream.lag_s for stream in streams])
    p50, p99 = (1000 * float(np.quantile(latencies, q)) if latencies else None for q in (0.5, 0.99))
    return {
        "scheduled": int(array.size),
        "missed": int((array == MISSED).sum()),
        "unanswered": int((array == DROPPED).sum()),
        "dropped": sum(stream.dropped for stream in streams),  # as the server says it, warm-up included
        "errors": [error for stream in streams for error in stream.errors][:5],
        "failed_share": float((array != ANSWERED).mean()),
        "p50_ms": p50,
        "p99_ms": p99,
        "lag_p99_ms": 1000 * float(np.quantile(lag_s, 0.99)),
        "lag_max_ms": 1000 * float(lag_s.max()),
    }


def main() -> None:
    """Orders in, report out."""
    orders = Orders(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run(orders))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
