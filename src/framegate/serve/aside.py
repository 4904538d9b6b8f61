"""Calls in threads that nobody has to wait for: a runtime or a file system may take for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


def _nothing(result: Any) -> None:
    pass


class Aside:
    """One call at a time; the process may end while it lasts."""

    def __init__(self) -> None:
        self._thread: Thread | None = None

    async def call(self, function: Callable[..., T], *given: Any, unwanted: Callable[[T], None] = _nothing) -> T:
        """What it returns or raises; after a cancel `unwanted` gets the result, in the thread, as soon as it is."""
        coming: Future[T] = Future()
        coming.set_running_or_notify_cancel()
        self._thread = Thread(target=_work, args=(coming, function, given), name="aside", daemon=True)
        self._thread.start()
        try:
            return await asyncio.wrap_future(coming)
        except asyncio.CancelledError:
            coming.add_done_callback(lambda done: None if done.exception() else unwanted(done.result()))
            raise

    async def idle(self, within_s: float) -> None:
        """Return when nothing is called any more, or after so long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while self._thread and self._thread.is_alive() and loop.time() < until:
            await asyncio.sleep(0.02)


def _work(coming: Future[T], function: Callable[..., T], given: tuple[Any, ...]) -> None:
    try:
        result = function(*given)
    except BaseException as error:  # as of a call
        coming.set_exception(error)
    else:
        coming.set_result(result)
