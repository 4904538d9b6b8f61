"""`POST /v1/predict`: an uploaded video or image, labels per span of time; the answers of `framegate predict`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
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
        stream, decoding = None, _Decoding(self._pool)
        try:
            stream = engine.open_stream("upload")
            yield stream.model.version
            ticks = to_clip(decoding.until_ended(read_frames(path, engine.limits.media)), stream.model.clip)
            async with aclosing(_spans(stream, decoding.chunks(ticks, gone))) as found:
                async for span in found:
                    labels = ranked(span.shares, stream.model.labels, top)
                    yield {"start_s": span.start_s, "end_s": span.end_s, "labels": labels}
        except MediaError as error:
            kind = TooLarge if isinstance(error, MediaTooLarge) else BadRequest
            raise kind(f"the file: {error.reason}") from None
        finally:
            decoding.end(self._turn.release)
            if stream:
                stream.close()


async def _spans(stream: Stream, chunks: AsyncGenerator[list[ClipFrame], None]) -> AsyncGenerator[Span, None]:
    spans = Spans(1 / stream.model.clip.fps)
    async with aclosing(chunks):
        async for chunk in chunks:
            for frame in chunk:
                if frame.cut:
                    stream.reset()
                    if ended := spans.end():
                        yield ended
                logits = await stream.step(frame.pixels, patient=True)
                if ended := spans.add(frame.time_s, softmax(logits)):
                    yield ended
    if last := spans.end():
        yield last


class _Decoding:
    """A file's way through a thread of the pool, a chunk at a time, until it is ended.

    The thread looks up at every frame of the file, but nothing interrupts it within one: it keeps its turn until then.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool, self._over = pool, threading.Event()
        self._work: Future[list[ClipFrame]] | None = None

    def until_ended(self, frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
        """The file's frames, no more after the end."""
        for frame in frames:
            if self._over.is_set():
                return
            yield frame

    async def chunks(self, ticks: Iterator[ClipFrame], gone: Gone) -> AsyncGenerator[list[ClipFrame], None]:
        """The ticks; no more when the client left."""
        while chunk := await self._take(ticks, gone):
            yield chunk

    async def _take(self, ticks: Iterator[ClipFrame], gone: Gone) -> list[ClipFrame]:
        self._work = self._pool.submit(lambda: list(islice(ticks, CHUNK)))
        coming = asyncio.wrap_future(self._work)
        try:
            while not (await asyncio.wait({coming}, timeout=LOOK_UP_S))[0]:
                if await gone():
                    return []
            chunk = await coming
            return [] if await gone() else chunk
        finally:
            if not coming.cancel():
                coming.exception()  # else asyncio would log what it was, if this was cancelled just then
            if self._work.done():
                self._work = None
            del coming  # both keep an error, and by its traceback this call and the file: a circle

    def end(self, then: Callable[[], Any]) -> None:
        """Nothing is taken any more; `then` is called on the loop, when the thread has noticed."""
        self._over.set()
        loop = asyncio.get_running_loop()

        def ended(_: Future[list[ClipFrame]]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody has a turn any more
                loop.call_soon_threadsafe(then)

        if self._work is None or self._work.done():
            then()
        else:
            self._work.add_done_callback(ended)
