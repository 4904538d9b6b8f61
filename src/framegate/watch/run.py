"""All cameras on one model: opened, watched, told of, closed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from framegate.media import is_video, probe_seconds
from framegate.serve.engine import Engine
from framegate.serve.limits import Limits
from framegate.serve.metrics import Metrics
from framegate.serve.model import Source, open_folder
from framegate.serve.swap import Follower, fingerprint
from framegate.signals import setting
from framegate.watch.annotate import Annotation, annotation_paths
from framegate.watch.camera import Watched
from framegate.watch.cameras import Camera, check_labels
from framegate.watch.line import Pace
from framegate.watch.output import Output
from framegate.watch.picture import Screen
from framegate.watch.webhook import check_url
from framegate.watch.window import Window

PATIENT_MS = 3_600_000.0  # deadline of a frame that nobody waits for
PROGRESS_S = 0.5

OPENING_S = 20.0  # of a model that is being opened when the watching ends


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `framegate watch` was told."""

    source: Source
    cameras: tuple[Camera, ...]
    pace: Pace = field(default_factory=Pace)
    answers: bool = False
    webhook: str | None = None
    annotate: Path | None = None
    show: bool = False
    status_every_s: float | None = None


async def watch(
    settings: Settings, stream: TextIO | None = None, stopped_before: Callable[[], bool] = lambda: False
) -> int:
    """Until every camera has ended, or SIGTERM or Ctrl-C; 1 when every camera failed for good, else 0.

    `stopped_before`: whether a signal came before this could see to it.
    FramegateError: the model cannot be opened, or what was told cannot be meant. OSError: nobody reads the output.
    """
    if settings.webhook:
        check_url(settings.webhook)
    videos = _videos(settings)
    stop = asyncio.Event()
    output = Output(stream or sys.stdout, settings.answers, stop)
    with setting(stop):
        if stopped_before():
            stop.set()
        async with _engine(settings) as (engine, follower):
            watched, good = await _run_all(settings, engine, follower, videos, output, stop)
            counts = await output.close()
        output.tell("summary", failed=good.count(False), **counts, cameras=_tallies(watched))
    output.check()
    return 0 if any(good) else 1


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[tuple[Engine, Follower]]:
    limits = Limits(max_streams=max(1, len(settings.cameras)))
    if settings.pace.fast:
        limits = limits.model_copy(update={"deadline_ms": PATIENT_MS})
    seen = await asyncio.to_thread(fingerprint, settings.source.folder)
    opened = await asyncio.to_thread(open_folder, settings.source, limits.max_batch)
    for remark in opened.remarks:
        print(f"note: {remark}", file=sys.stderr)
    engine = Engine(opened, limits, Metrics(), decoders=max(2, min(8, os.cpu_count() or 2)))
    try:
        yield engine, Follower(engine, settings.source, seen)
    finally:
        await engine.close()


async def _run_all(
    settings: Settings, engine: Engine, follower: Follower, videos: list[Path], output: Output, stop: asyncio.Event
) -> tuple[list[Watched], list[bool]]:
    """The cameras, and whether each ended well."""
    check_labels(settings.cameras, engine.current.labels)
    with _window(settings) as window:
        if settings.webhook:
            output.post_to(settings.webhook)
        watched = [
            Watched(engine, camera, settings.pace, partial(output.tell, camera=camera.name), stop, screens)
            for camera, screens in zip(settings.cameras, _screens(settings, videos, window, engine), strict=True)
        ]
        beside: list[Coroutine[Any, Any, None]] = [_progress(settings, watched)]
        beside += [_status(output, watched, settings.status_every_s)] if settings.status_every_s else []
        beside += [window.run(stop)] if window else []
        beside += [] if settings.pace.fast else [follower.follow()]
        good = await _run(watched, beside)
        await follower.idle(OPENING_S)
        return watched, good


async def _run(watched: Sequence[Watched], beside: Sequence[Coroutine[Any, Any, None]]) -> list[bool]:
    """Whether each camera ended well, when all have; what runs beside them ends with them."""
    tasks = [asyncio.create_task(one) for one in beside]
    try:
        return list(await asyncio.gather(*(one.run() for one in watched)))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- pictures ---------------------------------------------------------------------------------


@contextmanager
def _window(settings: Settings) -> Iterator[Window | None]:
    """Closed whatever happens, in this thread: Tk is of one thread only."""
    window = Window([camera.name for camera in settings.cameras]) if settings.show else None
    try:
        yield window
    finally:
        if window:
            window.close()


def _videos(settings: Settings) -> list[Path]:
    """Where each camera is annotated, if they are."""
    if settings.annotate is None:
        return []
    sources = [camera.address.path for camera in settings.cameras if camera.address.kind == "file"]
    return annotation_paths(settings.annotate, [camera.name for camera in settings.cameras], sources)


def _screens(settings: Settings, videos: list[Path], window: Window | None, engine: Engine) -> list[list[Screen]]:
    screens: list[list[Screen]] = [[] for _ in settings.cameras]
    for own, path in zip(screens, videos, strict=False):
        own.append(Annotation(path, engine.current.clip.fps))
    for own, pane in zip(screens, window.panes if window else [], strict=False):
        own.append(pane)
    return screens


# --- how it stands ----------------------------------------------------------------------------


def _tallies(watched: Sequence[Watched]) -> dict[str, Any]:
    return {one.camera.name: asdict(one.tally) for one in watched}


async def _status(output: Output, watched: Sequence[Watched], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        output.tell("status", cameras=_tallies(watched))


async def _progress(settings: Settings, watched: Sequence[Watched]) -> None:
    """A bar of the seconds of all files, where a person looks at stderr and the events go elsewhere."""
    addresses = [camera.address for camera in settings.cameras]
    endless = settings.pace.loop or any(address.live for address in addresses)
    if endless or not sys.stderr.isatty() or sys.stdout.isatty():
        return
    paths = [address.path for address in addresses if is_video(address.path) and address.path.is_file()]
    total = sum([await asyncio.to_thread(probe_seconds, path) for path in paths])
    with tqdm(total=round(total, 1), unit="s", desc="watch") as bar:
        while True:
            bar.n = round(min(sum(one.time_s for one in watched), total), 1)
            bar.refresh()
            await asyncio.sleep(PROGRESS_S)
