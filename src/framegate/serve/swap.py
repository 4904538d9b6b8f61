"""Following a folder: another model that lies there is checked, warmed and takes over, or stays out with a reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from framegate.contract import FramegateError
from framegate.serve.engine import Engine
from framegate.serve.model import Opened, Source, open_folder

Fingerprint = tuple[tuple[str, int, int], ...]
log = logging.getLogger(__name__)


class Follower:
    """Looks at the served folder every `every_s` seconds; `seen`: its fingerprint from before it was opened."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        every_s: float = 1.0,
        opening: Callable[[Source, int], Opened] = open_folder,
        seen: Fingerprint | None = None,
    ) -> None:
        self._engine, self._source, self._every_s, self._opening = engine, source, every_s, opening
        self._seen = fingerprint(source.folder) if seen is None else seen

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()
            await self._engine.tidy()

    async def look(self) -> None:
        """Swap in what lies in the folder now, if it changed since the last look."""
        found = await asyncio.to_thread(fingerprint, self._source.folder)
        if found == self._seen:
            return
        self._seen = found
        engine = self._engine
        try:
            opened = await asyncio.to_thread(self._opening, self._source, engine.limits.max_batch)
        except Exception as error:  # whatever a damaged file does to a parser: the version that serves goes on
            log.error(
                "%s stays out, version %s goes on: %s",
                self._source.folder,
                engine.current.version,
                error,
                exc_info=None if isinstance(error, FramegateError) else error,
            )
            engine.reject(error)
            return
        if self._is_current(opened):
            engine.accept()
            opened.session.close()
            return
        before = engine.current.version
        engine.swap(opened)
        log.info("version %s took over from %s: %s on %s", opened.version, before, opened.info.name, opened.runtime)

    def _is_current(self, opened: Opened) -> bool:
        current = self._engine.current
        return (opened.version, opened.info.digest, opened.runtime) == (
            current.version,
            current.digest,
            current.runtime,
        )


def fingerprint(folder: Path) -> Fingerprint:
    """What changes when a file of the folder does: name, size and time of each."""
    try:
        files = [(one.name, one.stat()) for one in folder.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files))
