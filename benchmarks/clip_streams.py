"""Live streams that play labelled clips in a row and compare every answer: the load of `benchmarks.soak`."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.websocket_client import TEXT, WebSocketClient, masked
from framegate.runtime.session import GOLDEN_MARGIN

RESET = masked(b'{"reset":true}', TEXT)
END = masked(b'{"end":true}', TEXT)
LAST_ANSWERS_S = 2.0  # for those of a clip, before the next begins
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Played:
    """A clip, and what an offline replay of its very frames says: probabilities f64 [T,K] after each."""

    label: int
    frames: tuple[bytes, ...]  # JPEG, as WebSocket messages
    pixels: NDArray[np.uint8]  # [T,H,W,3], as the model sees them
    shares: Floats
    leads: Floats  # [T]: of the top logit over the next


@dataclass(slots=True)
class Compared:
    """Answers against the replay's. Where that one hardly leads, rounding in a batch may turn the top label."""

    answers: int = 0
    wrong: int = 0
    unsure: int = 0
    worst: float = 0.0  # difference of a probability

    def add(self, got: Floats, clip: Played, number: int) -> None:
        """The answer to one frame of a clip."""
        expected = clip.shares[number]
        self.answers += 1
        self.worst = max(self.worst, float(np.abs(got - expected).max()))
        if got.argmax() != expected.argmax():
            sure = clip.leads[number] > GOLDEN_MARGIN
            self.wrong += sure
            self.unsure += not sure


@dataclass(slots=True)
class Partial:
    """A clip of which frames were dropped: the state never saw those, so a replay of the others must agree."""

    clip: Played
    first: int  # seq of its first frame
    shares: dict[int, Floats]  # what was answered, by number of the frame


@dataclass(slots=True)
class Found:
    """What all streams saw."""

    compared: Compared = field(default_factory=Compared)
    clips: int = 0
    frames: int = 0  # of those
    dropped: int = 0  # of those
    partial: list[Partial] = field(default_factory=list)
    hits: list[tuple[float, bool]] = field(default_factory=list)  # (time, whether the last answer is the label)
    errors: list[str] = field(default_factory=list)


class ClipStream:
    """One stream; all clips over and over, each time in an order of its own."""

    def __init__(self, clips: list[Played], labels: tuple[str, ...], found: Found, seed: int) -> None:
        self._clips, self._found, self._random = clips, found, random.Random(seed)
        self._position = {label: i for i, label in enumerate(labels)}
        self._sent = 0
        self._seen: dict[int, Floats] = {}  # of the clip that plays, by seq
        self._before: Partial | None = None  # the clip before, if it was one: its answers may still come
        self._answered = asyncio.Event()
        self._client: WebSocketClient

    async def play(self, port: int, fps: float, rate: float, until: float) -> None:
        """Until a time of time.monotonic(): frames `rate` times a second, which were taken `fps` times a second."""
        path = f"/v1/streams/framegate?fps={fps:g}&top={len(self._position)}"
        self._client = await WebSocketClient.connect(port, path, self._said)
        await asyncio.sleep(self._random.uniform(0, 1))
        order: list[Played] = []
        while time.monotonic() < until and not self._client.ended.done():
            order = order or self._random.sample(self._clips, len(self._clips))
            await self._play(order.pop(), 1 / rate)
        self._client.send(END)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._client.ended), 10)
        if self._client.code != 1000:
            self._found.errors.append(f"a stream ended with code {self._client.code}")

    def _said(self, text: bytes) -> None:
        message = json.loads(text)
        if "latency_ms" in message:
            shares = np.zeros(len(self._position))
            for one in message["labels"]:
                shares[self._position[one["name"]]] = one["probability"]
            self._seen[message["seq"]] = shares
            self._answered.set()
        elif message.get("event") not in ("ready", "end") and message.get("reason") != "client":
            self._found.errors.append(text.decode()[:200])

    async def _play(self, clip: Played, period_s: float) -> None:
        first, due = self._sent, time.monotonic()
        for frame in clip.frames:
            self._client.send(frame)
            self._sent += 1
            due = max(due + period_s, time.monotonic())  # a camera that stumbled sends no burst
            await asyncio.sleep(due - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_ANSWERS_S):
                while self._sent - 1 not in self._seen:
                    self._answered.clear()
                    await self._answered.wait()
        seen, self._seen = self._seen, {}
        self._take_late({seq: seen.pop(seq) for seq in list(seen) if seq < first})
        self._found.clips += 1
        self._found.frames += len(clip.frames)
        if sorted(seen) == list(range(first, self._sent)):
            for seq, shares in seen.items():
                self._found.compared.add(shares, clip, seq - first)
            self._found.hits.append((time.monotonic(), bool(seen[self._sent - 1].argmax() == clip.label)))
            self._before = None
        else:
            self._before = Partial(clip, first, {seq - first: shares for seq, shares in seen.items()})
            self._found.partial.append(self._before)
            self._found.dropped += len(clip.frames) - len(seen)
        self._client.send(RESET)

    def _take_late(self, seen: dict[int, Floats]) -> None:
        """Answers that came after their clip was given up: none of its frames was dropped there."""
        for seq, shares in seen.items():
            if self._before is None or seq < self._before.first:
                self._found.errors.append(f"an answer came for frame {seq}, two clips late or twice")
            else:
                self._before.shares[seq - self._before.first] = shares
                self._found.dropped -= 1
