"""Opening folders in threads that nobody has to wait for: a runtime or a file system may take for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

from framegate.serve.model import Opened, Source, open_folder

Open = Callable[[Source, int], Opened]


class Opener:
    """Opens one folder at a time; the process may end while it does."""

    def __init__(self, opening: Open = open_folder) -> None:
        self._opening = opening
        self._thread: Thread | None = None

    async def open(self, source: Source, max_batch: int) -> Opened:
        """What `opening` gives or raises; after a cancel its session is closed as soon as it is there."""
        coming: Future[Opened] = Future()
        coming.set_running_or_notify_cancel()
        self._thread = Thread(target=self._work, args=(coming, source, max_batch), name="open", daemon=True)
        self._thread.start()
        try:
            return await asyncio.wrap_future(coming)
        except asyncio.CancelledError:
            coming.add_done_callback(_close)
            raise

    def _work(self, coming: Future[Opened], source: Source, max_batch: int) -> None:
        try:
            opened = self._opening(source, max_batch)
        except BaseException as error:  # as of a call
            coming.set_exception(error)
        else:
            coming.set_result(opened)

    async def idle(self) -> None:
        """Return when nothing is being opened."""
        while self._thread and self._thread.is_alive():
            await asyncio.sleep(0.02)


def _close(coming: Future[Opened]) -> None:
    if coming.exception() is None:
        coming.result().session.close()
