"""A thread that reads one connection, and how its frames come to the event loop without ever piling up there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from framegate.video import TimedFrame

WAITING = 4  # frames between thread and loop; when one more comes the oldest is lost
Give = Callable[[TimedFrame], None]


class Mailbox:
    """Live frames on their way to the loop: the thread never waits, and at most WAITING of them wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Give) -> None:
        self._loop, self._take = loop, take
        self._frames: deque[TimedFrame] = deque(maxlen=WAITING)
        self._called = False

    def put(self, frame: TimedFrame) -> None:
        """From the thread."""
        self._frames.append(frame)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._called = False
        while self._frames:
            self._take(self._frames.popleft())


def patient(loop: asyncio.AbstractEventLoop, take: Callable[[TimedFrame], Coroutine[Any, Any, None]]) -> Give:
    """The thread waits until the loop has taken the frame: none is lost."""
    return lambda frame: asyncio.run_coroutine_threadsafe(take(frame), loop).result()


class Reader:
    """One connection's thread. `done` gives None at its end, or the MediaError that it broke off with.

    `paced`: a frame is given at its own time after the first one. A thread that hangs in a driver or in a look-up of
    a name cannot be ended: it is left alone, and whatever it still gives is thrown away.
    """

    def __init__(self, name: str, frames: Iterable[TimedFrame], give: Give, paced: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Exception | None] = self._loop.create_future()
        self.seen_at = time.monotonic()  # when it last gave a frame
        self.received = 0
        self._frames, self._give, self._paced = frames, give, paced
        self._stop = threading.Event()
        threading.Thread(target=self._work, name=f"read {name}", daemon=True).start()

    def stop(self) -> None:
        """Give no more frames."""
        self._stop.set()

    def _work(self) -> None:
        outcome: Exception | None = None
        try:
            self._read()
        except Exception as error:  # whatever it is, the camera ends with it, and does not fall silent for ever
            outcome = error
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._finish, outcome)

    def _finish(self, outcome: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(outcome)

    def _read(self) -> None:
        start: float | None = None
        for frame in self._frames:
            now = time.monotonic()
            start = now - frame.time_s if start is None else start
            if self._paced and start + frame.time_s > now:
                self._stop.wait(start + frame.time_s - now)
            if self._stop.is_set():
                return
            self.seen_at = time.monotonic()
            self.received += 1
            self._give(frame)
