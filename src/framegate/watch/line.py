"""The line to one camera: a connection, and after it broke the next one, on one time axis."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from framegate.contract import MediaError
from framegate.video import TimedFrame
from framegate.watch.backoff import Backoff
from framegate.watch.cameras import Camera
from framegate.watch.feed import Feed
from framegate.watch.reader import Mailbox, Reader, patient

LOOK_S = 0.5  # how often a connection is looked after
HANGS = 3  # timeouts: of opening, of finding the stream, of its first frame
ASSUMED_FPS = 25.0  # of a file in a loop, and between connections


@dataclass(frozen=True, slots=True)
class Pace:
    """How files are played: at their own speed, or `fast`: as soon as the model can; once, or again and again."""

    fast: bool = False
    loop: bool = False


class Taker(Protocol):
    """Who gets the frames, on the event loop."""

    def connected(self, frame: TimedFrame, nominal_fps: float | None) -> None:
        """A connection gives its first frame; `take` follows."""
        ...

    def disconnected(self, error: Exception, retry_s: float) -> None:
        """It broke off; the next try comes in so many seconds."""
        ...

    def again(self) -> None:
        """A file begins anew."""
        ...

    def take(self, time_s: float, frame: TimedFrame, received: int) -> None:
        """A frame at `time_s` since the camera's first one; times never decrease. `received`: frames so far."""
        ...

    async def room(self) -> None:
        """Until a frame can be taken without another being dropped."""
        ...


class Line:
    """Reads one camera until it ends, fails for good, or `stop` is set."""

    def __init__(self, camera: Camera, pace: Pace, stop: asyncio.Event, taker: Taker) -> None:
        self._camera, self._pace, self._stop, self._taker = camera, pace, stop, taker
        self._address = camera.address
        self._connection: Feed | None = None  # the one whose frames count
        self._begun = False
        self._received = 0
        self._base_s = self._last_s = 0.0
        self._first_at: float | None = None
        self._began_at = self._seen_at = 0.0  # the first and the last frame of the connection

    async def run(self) -> Exception | None:
        """The error that it failed for good with, or None."""
        backoff, failures = Backoff(), 0
        while not self._stop.is_set():
            before = self._received
            error = await self._connect()
            received = self._received > before
            if self._stop.is_set():
                break
            if not self._address.live:
                if error or not (self._pace.loop and received):
                    return error
                self._taker.again()
                await self._pause(1 / (self._camera.fps or ASSUMED_FPS))  # so long its last frame lasts
                continue
            error = error or MediaError(self._address.shown, "the stream ended")
            failures = 0 if received else failures + 1
            if failures == self._camera.attempts:
                return error
            retry_s = backoff.next(self._seen_at - self._began_at if received else 0.0)
            self._taker.disconnected(error, retry_s)
            await self._pause(retry_s)
        return None

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _connect(self) -> Exception | None:
        """One connection to its end: None, or what it broke off with."""
        loop, feed = asyncio.get_running_loop(), Feed(self._address, self._camera.opening)
        self._connection, self._begun = feed, False
        fast = self._pace.fast and not self._address.live

        def take(frame: TimedFrame) -> None:
            if self._connection is feed:
                self._take(frame, feed)

        async def take_patiently(frame: TimedFrame) -> None:
            await self._taker.room()
            take(frame)

        give = patient(loop, take_patiently) if fast else Mailbox(loop, take).put
        reader = Reader(self._camera.name, feed, give, paced=not (fast or self._address.live))
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        try:
            while not reader.done.done() and not stopped.done() and not self._hangs(reader):
                await asyncio.wait({reader.done, stopped}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            reader.stop()
            self._connection = None
        if reader.done.done():
            return reader.done.result()
        return None if self._stop.is_set() else MediaError(self._address.shown, "it hangs and is left alone")

    def _hangs(self, reader: Reader) -> bool:
        return self._address.live and time.monotonic() - reader.seen_at > HANGS * self._camera.timeout_s

    def _take(self, frame: TimedFrame, feed: Feed) -> None:
        now = time.monotonic()
        self._first_at = now if self._first_at is None else self._first_at
        if not self._begun:
            self._begun, self._began_at = True, now
            self._base_s = self._next_base(now)
            self._taker.connected(frame, feed.nominal_fps)
        self._received, self._seen_at = self._received + 1, now
        self._last_s = max(self._base_s + frame.time_s, self._last_s)
        self._taker.take(self._last_s, frame, self._received)

    def _next_base(self, now: float) -> float:
        """When a connection's first frame is: of a file right after the last one, else as our clock says."""
        assert self._first_at is not None
        if not self._received:
            return 0.0
        after_s = self._last_s + 1 / (self._camera.fps or ASSUMED_FPS)
        return max(now - self._first_at, after_s) if self._address.live else after_s
