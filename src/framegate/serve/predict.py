"""`POST /v1/predict`: an uploaded video or image, labels per span of time; the answers of `framegate predict`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from framegate.contract import MediaError, MediaTooLarge
from framegate.media import ClipFrame, TimedFrame, read_frames, to_clip
from framegate.serve.engine import Engine, Stream
from framegate.serve.errors import BadRequest, Overloaded, TooLarge
from framegate.serve.websocket import ranked
from framegate.timeline import Span, Spans, softmax

CHUNK = 16  # frames
LOOK_UP_S = 0.25  # while a chunk is decoded, which may take long: a tick can have thousands of the file's frames
ADMITTED = 4  # files that are here at once, for each that is in work: the others are received, or wait
Gone = Callable[[], Awaitable[bool]]


class Uploads:
    """The files in work: `max_uploads` at once, others wait for the deadline."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._here = 0
        self._turn = asyncio.Semaphore(engine.limits.max_uploads)
        # not the engine's pool: a slow video there would hold up live frames
        self._pool = ThreadPoolExecutor(engine.limits.max_uploads, thread_name_prefix="upload")

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One more file to receive and answer. Overloaded when too many are here: each fills up to `max_upload`."""
        if self._here >= ADMITTED * self._engine.limits.max_uploads:
            raise Overloaded(f"{self._here} files are being received or answered; come back later", 5.0)
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    async def answers(self, path: Path, top: int, gone: Gone) -> AsyncGenerator[str | dict[str, Any], None]:
        """The version that answers, then `{start_s, end_s, labels}` of each span as soon as it ends.

        `gone` says whether the client left: then nothing more comes. BadRequest for what cannot be decoded, TooLarge
        beyond the limits, Overloaded when no turn came in time.
        """
        engine = self._engine
        try:
            async with asyncio.timeout(engine.limits.deadline_ms / 1000):
                await self._turn.acquire()
        except TimeoutError:
            raise Overloaded(f"{engine.limits.max_uploads} files are in work; come back later", 2.0) from None
        stream = None
        try:
            stream = engine.open_stream("upload")
            yield stream.model.version
            async with aclosing(self._spans(stream, path, gone)) as found:
                async for span in found:
                    labels = ranked(span.shares, stream.model.labels, top)
                    yield {"start_s": span.start_s, "end_s": span.end_s, "labels": labels}
        finally:
            self._turn.release()
            if stream:
                stream.close()

    async def _spans(self, stream: Stream, path: Path, gone: Gone) -> AsyncGenerator[Span, None]:
        spans = Spans(1 / stream.model.clip.fps)
        async with aclosing(self._frames(stream, path, gone)) as frames:
            async for frame in frames:
                if frame.cut:
                    stream.reset()
                    if ended := spans.end():
                        yield ended
                logits = await stream.step(frame.pixels, patient=True)
                if ended := spans.add(frame.time_s, softmax(logits)):
                    yield ended
        if last := spans.end():
            yield last

    async def _frames(self, stream: Stream, path: Path, gone: Gone) -> AsyncGenerator[ClipFrame, None]:
        """The file's ticks, decoded in a thread, a chunk at a time; it stops as soon as nobody takes them any more."""
        over = threading.Event()
        source = _until(over, read_frames(path, self._engine.limits.media))
        ticks = to_clip(source, stream.model.clip)
        try:
            while chunk := await self._taken(ticks, gone):
                for frame in chunk:
                    yield frame
        except MediaError as error:
            kind = TooLarge if isinstance(error, MediaTooLarge) else BadRequest
            raise kind(f"the file: {error.reason}") from None
        finally:
            over.set()

    async def _taken(self, ticks: Iterator[ClipFrame], gone: Gone) -> list[ClipFrame]:
        """The next ticks; none at the end of the file, or when the client left."""
        work = asyncio.get_running_loop().run_in_executor(self._pool, _take, ticks)
        try:
            while not (await asyncio.wait({work}, timeout=LOOK_UP_S))[0]:
                if await gone():
                    return []
            chunk = await work
            return [] if await gone() else chunk
        finally:
            if not work.cancel():
                work.exception()  # else asyncio would log what it was, if this was cancelled just then


def _until(over: threading.Event, frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
    for frame in frames:
        if over.is_set():
            return
        yield frame


def _take(ticks: Iterator[ClipFrame]) -> list[ClipFrame]:
    return list(islice(ticks, CHUNK))
