"""Following a folder: another model that lies there is checked, warmed and takes over, or stays out with a reason."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path

from framegate.contract import FramegateError
from framegate.serve.aside import Aside
from framegate.serve.engine import Engine
from framegate.serve.model import Opened, Source, open_folder

AGAIN_S = 10.0  # a folder stays out for so long after no memory, a full disk, a file that cannot be read
Fingerprint = tuple[tuple[str, int, int, int], ...]
log = logging.getLogger(__name__)


class Follower:
    """Looks at the served folder every `every_s` seconds; `seen`: its fingerprint from before it was opened."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        seen: Fingerprint,
        every_s: float = 1.0,
        opening: Callable[[Source, int], Opened] = open_folder,
    ) -> None:
        self._engine, self._source, self._every_s, self._opening = engine, source, every_s, opening
        self._seen = seen
        self._again_at = math.inf  # seconds of the engine's clock
        self._rejected: tuple[Fingerprint, str] | None = None  # what the log was told of last
        self._complaint = ""
        self._aside = Aside()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
                await self._engine.tidy()
                self._complaint = ""
            except Exception as error:  # else nobody would follow the folder any more
                if repr(error) != self._complaint:
                    log.exception("following %s goes on after an unforeseen error", self._source.folder)
                self._complaint = repr(error)

    async def idle(self, within_s: float) -> None:
        """After `follow` was cancelled: return when the folder is not being looked at any more, or after so long."""
        await self._aside.idle(within_s)

    async def look(self) -> None:
        """Swap in what lies in the folder now, if it changed since the last look or is to be tried again."""
        found = await self._aside.call(fingerprint, self._source.folder)
        if found == self._seen and self._engine.clock() < self._again_at:
            return
        self._seen, self._again_at = found, math.inf
        try:
            limit = self._engine.limits.max_batch
            self._take(await self._aside.call(self._opening, self._source, limit, unwanted=Opened.close))
        except Exception as error:  # whatever a damaged file does to a parser: the version that serves goes on
            self._reject(found, error)

    def _take(self, opened: Opened) -> None:
        engine, before = self._engine, self._engine.current.version
        self._rejected = None
        if self._is_current(opened):
            if engine.rejected:
                log.info("%s is good again: version %s, which serves", self._source.folder, before)
            engine.accept()
            opened.close()
            return
        try:
            engine.swap(opened)
        except BaseException:
            opened.close()
            raise
        log.info("version %s took over from %s: %s on %s", opened.version, before, opened.info.name, opened.runtime)

    def _reject(self, found: Fingerprint, error: Exception) -> None:
        """Say so once; what may pass by itself is tried again."""
        if isinstance(error, OSError | MemoryError) or isinstance(error.__cause__, OSError):
            self._again_at = self._engine.clock() + AGAIN_S
        rejected = (found, type(error).__name__)  # not its text: that may name a temporary folder
        if rejected == self._rejected:
            return
        self._rejected = rejected
        log.error(
            "%s stays out, version %s goes on: %s",
            self._source.folder,
            self._engine.current.version,
            error,
            exc_info=None if isinstance(error, FramegateError) else error,
        )
        self._engine.reject(error)

    def _is_current(self, opened: Opened) -> bool:
        current = self._engine.current
        return (opened.version, opened.info.digest, opened.runtime) == (
            current.version,
            current.digest,
            current.runtime,
        )


def fingerprint(folder: Path) -> Fingerprint:
    """What changes when a file of the folder does: name, size and both times of each.

    The time of the content alone is a claim: `cp -p`, archives and images give files of another version the same.
    """
    try:
        files = [(one.name, one.stat()) for one in folder.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in files))
