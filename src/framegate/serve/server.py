"""One server process: uvicorn and gRPC on one event loop, and how it ends.

The end, after SIGTERM or Ctrl-C: readiness says no and every answer closes its connection, while everything is still
answered (`lag_s`, for load balancers to notice). Then live streams get their last answers and 1012, and new work is
refused in words (503, UNAVAILABLE) for a moment: a listener that closes resets whatever waits in its queue, so nobody
should be there any more. Then the listeners close, what was accepted is finished (`drain_s` at most), and the exit code
is 0. Of several workers each answers the others until all have finished.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from framegate.serve.app import create_app
from framegate.serve.aside import Aside
from framegate.serve.binding import grpc_credentials, names_to_answer, tls_of, uvicorn_options
from framegate.serve.connections import BoundedHttp, BoundedWebSocket, InFlight, worth_logging
from framegate.serve.engine import Engine
from framegate.serve.grpc_server import make_server
from framegate.serve.guard import Guard, Rules
from framegate.serve.infer import Inference
from framegate.serve.keys import Keys
from framegate.serve.metrics import Metrics
from framegate.serve.model import Model, Opened, open_folder
from framegate.serve.peers import Peers, Place
from framegate.serve.rest import Express
from framegate.serve.settings import Settings
from framegate.serve.shadow import Shadow, check_shadow
from framegate.serve.swap import Fingerprint, Follower, fingerprint
from framegate.signals import Asked, setting

IDLE_CONNECTION_S = 75
QUIET_S = 0.3  # between the refusals and the close of the listeners, and after that: a request may be on its way
TIDY_EVERY_S = 1.0
log = logging.getLogger(__name__)


async def run(
    settings: Settings, sock: socket.socket, place: Place, started: Callable[[dict[str, int]], None], stopped: Asked
) -> None:
    """Serve until SIGTERM or Ctrl-C; `started` gets the ports when requests are answered. FramegateError: it cannot.

    `stopped`: whether one of those signals came before.
    """
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(setting(stop))
        if stopped():
            stop.set()
        opened = await _engine_unless(stop, settings)
        if opened is None:
            log.info("stopped before it served")
            return
        engine, seen = opened
        stack.push_async_callback(engine.close)
        server = _Server(settings, engine, place, seen)
        stack.push_async_callback(server.cancel)
        await server.start(sock)
        started(server.ports)
        await stop.wait()
        await server.end()


async def _engine_unless(stop: asyncio.Event, settings: Settings) -> tuple[Engine, Fingerprint] | None:
    """With what lay in the folder before; None when it is to stop before the engine is open.

    What is being opened then is waited for, `drain_s` at most.
    """
    if stop.is_set():
        return None
    aside = Aside()
    opening = asyncio.create_task(_open_engine(settings, aside))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if opening.done():
        return await opening
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await aside.idle(settings.limits.drain_s)
    return None


async def _open_engine(settings: Settings, aside: Aside) -> tuple[Engine, Fingerprint]:
    limits = settings.limits
    seen = await aside.call(fingerprint, settings.source.folder)
    opened = await aside.call(open_folder, settings.source, limits.max_batch, unwanted=Opened.close)
    for remark in opened.remarks:
        log.warning("%s", remark)
    engine = Engine(opened, limits, Metrics(settings.low_confidence), settings.name)
    if settings.shadow:
        try:
            source = settings.shadow.source
            candidate = await aside.call(open_folder, source, limits.max_batch, unwanted=Opened.close)
            model = Model(candidate, limits.max_batch, asyncio.get_running_loop(), lambda batch: None)
            check_shadow(model, engine.current, settings.shadow.share)
        except BaseException:
            await engine.close()
            raise
        engine.shadow = Shadow(model, settings.shadow.share, engine.metrics, random.Random())
    return engine, seen


def _empty_folder(path: Path) -> Path:
    """A folder of our own, without what a worker that died left there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    return path


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us."""

    def capture_signals(self) -> Any:
        return nullcontext()


class _Server:
    """All that listens for one engine."""

    def __init__(self, settings: Settings, engine: Engine, place: Place, seen: Fingerprint) -> None:
        self._settings, self._engine, self._place = settings, engine, place
        self._tls = tls_of(settings.tls_cert, settings.tls_key)
        self._peers = Peers(place, engine.limits.deadline_ms / 1000 + 5)
        place.over(place.index).unlink(missing_ok=True)  # of a worker that was here before
        self._requests = InFlight(engine.metrics)
        self._http: list[_Uvicorn] = []  # for clients, for the other workers
        self._grpc: list[Any] = []  # the same
        self._tasks: list[asyncio.Task[Any]] = []
        self._follower = Follower(engine, settings.source, seen, settings.follow_every_s)
        self.ports: dict[str, int] = {}

    async def start(self, sock: socket.socket) -> None:
        """Answer on the socket, and on the worker's own ones when there are several."""
        settings, engine, place = self._settings, self._engine, self._place
        keys = Keys(settings.keys) if settings.keys else None
        inference = Inference(engine)
        app = create_app(engine, inference, self._peers, _empty_folder(place.private / f"uploads-{place.index}"))
        rules = Rules(
            engine.limits.max_request,
            engine.limits.max_upload,
            keys,
            None if keys else names_to_answer(settings.host),  # a page that rebinds a name to loopback has no key
            overloaded=engine.overloaded,
            closed=engine.refuse_when_stopping,
            refused=lambda error: engine.metrics.request(Guard.path, str(error.status)),
        )
        express = Express(app, inference, self._peers)
        await self._serve_http(Guard(express, rules), [sock], **uvicorn_options(self._tls))
        self.ports["http"] = sock.getsockname()[1]
        if place.count > 1:
            await self._serve_http(
                app, None, counted=False, uds=str(place.socket_of("http", place.index)), **uvicorn_options(None)
            )
        await self._start_grpc(inference, keys)
        self._tasks += map(asyncio.create_task, (self._follower.follow(), _tidy(inference), _collect_garbage()))

    async def _serve_http(
        self, app: ASGIApp, sockets: list[socket.socket] | None, counted: bool = True, **more: Any
    ) -> None:
        limits = self._settings.limits
        logging.getLogger("uvicorn.error").addFilter(worth_logging)
        config = uvicorn.Config(
            self._requests.around(app, counted),
            http=BoundedHttp,
            proxy_headers=False,
            ws=BoundedWebSocket,
            ws_max_size=limits.max_request,
            ws_per_message_deflate=False,
            timeout_keep_alive=IDLE_CONNECTION_S,
            timeout_graceful_shutdown=max(1, round(limits.drain_s)),
            log_config=None,
            lifespan="off",
            **more,
        )
        server = _Uvicorn(config)
        task = asyncio.create_task(server.serve(sockets))
        while not server.started:
            await asyncio.sleep(0.005)
            if task.done():
                await task
        self._http.append(server)
        self._tasks.append(task)

    async def _start_grpc(self, inference: Inference, keys: Keys | None) -> None:
        settings, place = self._settings, self._place
        if settings.grpc_port is None:
            return
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        server, self.ports["grpc"] = make_server(
            inference,
            f"{host}:{settings.grpc_port}",
            check=partial(self._knows, keys) if keys else None,
            credentials=grpc_credentials(self._tls) if self._tls else None,
            reuse_port=place.count > 1,
            peers=self._peers,
        )
        self._grpc.append(server)
        if place.count > 1:
            inner = f"unix:{place.socket_of('grpc', place.index)}"
            self._grpc.append(make_server(inference, inner, counted=False)[0])
        for one in self._grpc:
            await one.start()

    def _knows(self, keys: Keys, key: str | None) -> bool:
        known = keys.check(key) is not None
        if not known:
            self._engine.metrics.request(Guard.path, "UNAUTHENTICATED")
        return known

    async def end(self) -> None:
        """See the module."""
        engine, limits = self._engine, self._settings.limits
        log.info("stopping: not ready any more; %d streams, %d requests", engine.open_streams, self._requests.count)
        engine.draining = self._requests.closing = True
        await asyncio.sleep(limits.lag_s)
        engine.stopping.set()
        for task in self._tasks[len(self._http) :]:
            task.cancel()
        await asyncio.sleep(QUIET_S)
        for listener in self._http[0].servers:
            listener.close()
        calls = asyncio.gather(*(one.stop(limits.drain_s) for one in self._grpc[:1]))
        whole = True
        try:
            async with asyncio.timeout(limits.drain_s):
                await asyncio.sleep(QUIET_S)
                await self._finish()
                await asyncio.shield(calls)
                if self._place.count > 1:
                    await self._peers.over()
                    await self._finish()
                await self._follower.idle(limits.drain_s)
        except TimeoutError:
            whole = False
            if self._requests.count or engine.live_streams:
                log.error("%g s were over: %d requests are cut off", limits.drain_s, self._requests.count)
        await calls
        await asyncio.gather(*(one.stop(None) for one in self._grpc[1:]))
        for http in self._http:
            http.should_exit, http.force_exit = True, not whole  # uvicorn would wait as long once more
        await asyncio.gather(*self._tasks[: len(self._http)])
        log.info("stopped")

    async def _finish(self) -> None:
        while self._requests.count or self._engine.live_streams:
            await asyncio.sleep(0.02)

    async def cancel(self) -> None:
        """End what is left in the background."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._peers.close()


async def _collect_garbage() -> None:
    """The collector at set times instead of after so many allocations, and never over what lives as long as the server.

    Under load every request survives a young collection or two, so that full ones came often: a sixth of the CPU time
    at three times the load that can be answered, one percent this way.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    for second in itertools.count(1):
        await asyncio.sleep(1)
        gc.collect(1 if second % 60 else 2)


async def _tidy(inference: Inference) -> None:
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        inference.sequences.evict()
        inference.engine.metrics.flush()  # for the other workers' /metrics
