"""One process or several. With several, a sequence lives in the one that its id is pinned to.

All workers accept from one listening socket, so what the kernel has accepted survives a worker's death. A request for
a sequence that lives elsewhere is handed on over a Unix socket in a private folder, as it came (`peers`). A worker that
dies is started again; its streams are gone, and their clients are told so by the lost connection, or by "START".
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from framegate.contract import ConfigError, FramegateError, write_json
from framegate.serve.binding import check_binding, tls_of, warn_of
from framegate.serve.keys import Keys, warn_if_open
from framegate.serve.peers import Place
from framegate.serve.settings import Settings
from framegate.signals import Asked, noted

PAUSE_S = (0.5, 10.0)  # before a dead worker is started again: at first, at most
UNIX_NAME_BYTES = 103  # of sun_path, without its end; Linux has four more
UNREAD_S = 60  # a client that reads nothing for so long is hung up on: it may hold an upload's turn
STEADY_S = 60.0  # a worker that lived so long starts again without a longer pause
log = logging.getLogger(__name__)


def supervise(settings: Settings, stopped: Asked) -> None:
    """Serve until SIGTERM or Ctrl-C, of which `stopped` knows; without workers the process ends here.

    FramegateError when it cannot.
    """
    if settings.workers < 1:
        raise ConfigError(f"--workers is {settings.workers}; expected 1 or more")
    keys, tls = Keys(settings.keys) if settings.keys else None, tls_of(settings.tls_cert, settings.tls_key)
    if settings.keys:
        warn_if_open(settings.keys)
    if tls:
        warn_of(tls)
    check_binding(settings.host, keys, tls, settings.insecure)
    raise_file_limit()
    with TemporaryDirectory(prefix="framegate-serve-") as private, kept(Path(private)):  # 0700: sockets, uploads
        if settings.workers > 1:
            check_sockets(Path(private))
        with listen(settings.host, settings.port) as sock:
            sock.listen(2048)
            if settings.grpc_port:  # told now, and in our words; two servers that share it would mix their clients
                listen(settings.host, settings.grpc_port, "--grpc-port").close()
            if settings.workers == 1:
                place = Place(0, 1, Path(private))
                serve_in_this_process(settings, sock, place, lambda ports: ready(settings, ports), stopped)
            else:
                _Supervisor(settings, sock, Path(private), stopped).run()
    if settings.workers == 1:
        leave()


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """A lock on a temporary folder: systemd-tmpfiles leaves it, and all that is in it, however old it becomes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def check_sockets(private: Path) -> None:
    """ConfigError where workers could not find each other: a Unix socket's name has a narrow limit."""
    name = str(Place(0, 1, private).socket_of("http", 999))
    if len(os.fsencode(name)) > UNIX_NAME_BYTES:
        raise ConfigError(
            f"{name}: longer than the {UNIX_NAME_BYTES} bytes of a Unix socket's name; set a shorter TMPDIR"
        )


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A bound TCP socket; ConfigError when the address cannot be had, `option` being what chose the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; every accepted connection inherits it
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_S)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or {option}"
        ) from None
    return found


def ready(settings: Settings, ports: dict[str, int]) -> None:
    """Say where it serves."""
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    grpc = f", gRPC on {host}:{ports['grpc']}" if "grpc" in ports else ""
    log.info("serving on %s://%s:%d%s; Ctrl-C ends it", scheme, host, ports["http"], grpc)
    if settings.ports_file:
        write_json(settings.ports_file, ports)


def serve_in_this_process(
    settings: Settings, sock: socket.socket, place: Place, started: Callable[[dict[str, int]], None], stopped: Asked
) -> None:
    """One server on an event loop of its own, until it is told to stop."""
    import uvloop

    from framegate.serve.server import run

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, sock, place, started, stopped))


def leave() -> NoReturn:
    """End this process now, with exit code 0: Python would wait for a thread that is busy with a client's file."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(0)


def raise_file_limit() -> None:
    """As many connections as the system allows: the usual soft limit of 1024 files is for programs that use select."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Supervisor:
    def __init__(self, settings: Settings, sock: socket.socket, private: Path, stopped: Asked) -> None:
        self._settings, self._sock, self._private, self._stopped = settings, sock, private, stopped
        self._context = multiprocessing.get_context("spawn")
        self._ports = self._context.SimpleQueue()
        self._workers: dict[int, BaseProcess] = {}
        self._born: dict[int, float] = {}
        self._pause_s = dict.fromkeys(range(settings.workers), PAUSE_S[0])
        self._again_at: dict[int, float] = {}
        self._grpc_holder: socket.socket | None = None

    def run(self) -> None:
        metrics = self._private / "metrics"
        metrics.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        if self._settings.grpc_port is not None:  # every worker binds it by SO_REUSEPORT; held so that 0 is one port
            self._hold_grpc_port()
        for index in range(self._settings.workers):
            self._start(index)
        self._wait_until_ready()
        while self._workers and not self._stopped():
            self._mend()
        self._end()

    def _hold_grpc_port(self) -> None:
        port = self._settings.grpc_port or 0
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        self._grpc_holder = socket.socket(family, socket.SOCK_STREAM)
        self._grpc_holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._grpc_holder.bind((self._settings.host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {self._settings.host}:{port} for gRPC: {error.strerror}") from None
        from dataclasses import replace

        self._settings = replace(self._settings, grpc_port=self._grpc_holder.getsockname()[1])

    def _start(self, index: int) -> None:
        place = Place(index, self._settings.workers, self._private)
        process = self._context.Process(
            target=_work, args=(self._settings, self._sock, place, self._ports), name=f"worker {index}"
        )
        process.start()
        self._workers[index], self._born[index] = process, time.monotonic()

    def _wait_until_ready(self) -> None:
        ports: dict[str, int] = {}
        for _ in range(self._settings.workers):
            while self._ports.empty():
                if self._stopped():
                    return
                dead = [one for one in self._workers.values() if not one.is_alive()]
                if dead:
                    self._end()
                    raise FramegateError(f"{dead[0].name} ended before it served; its reason stands above")
                time.sleep(0.02)
            ports = self._ports.get()
        ready(self._settings, ports)

    def _mend(self) -> None:
        """Wait a moment for a worker's death; start another in its place when its pause is over."""
        if alive := [one.sentinel for one in self._workers.values() if one.is_alive()]:
            wait(alive, timeout=0.2)
        else:
            time.sleep(0.2)
        while not self._ports.empty():  # of those that started again: a full pipe would hold them up
            self._ports.get()
        for index, process in list(self._workers.items()):
            if process.is_alive() or self._stopped():
                continue
            if index not in self._again_at:
                self._again_at[index] = time.monotonic() + self._bury(index, process)
            elif time.monotonic() >= self._again_at[index]:
                del self._again_at[index]
                self._start(index)

    def _bury(self, index: int, process: BaseProcess) -> float:
        """Seconds until another may start in its place; longer each time that one died soon."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(process.pid, str(self._private / "metrics"))  # type: ignore[no-untyped-call]
        steady = time.monotonic() - self._born[index] > STEADY_S
        pause_s = PAUSE_S[0] if steady else self._pause_s[index]
        self._pause_s[index] = min(2 * pause_s, PAUSE_S[1])
        log.error("worker %d died (exit code %s); its streams are lost; another starts", index, process.exitcode)
        return 0.0 if steady else pause_s

    def _end(self) -> None:
        """Every worker ends as a single server does; one that does not is killed."""
        for process in self._workers.values():
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGTERM)
        self._sock.close()  # else it would still listen when nobody accepts any more
        limits = self._settings.limits
        deadline = time.monotonic() + limits.lag_s + 2 * limits.drain_s + 5
        for process in self._workers.values():
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                log.error("%s did not end in time and is killed", process.name)
                process.kill()
                process.join()


def _work(settings: Settings, sock: socket.socket, place: Place, ports: Any) -> None:
    """A worker process."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {place.index}: %(message)s", stream=sys.stderr
    )
    for noisy in ("httpx", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    with noted() as stopped:
        try:
            serve_in_this_process(settings, sock, place, ports.put, stopped)
        except FramegateError as error:
            log.error("%s", error)
            sys.exit(1)
        leave()


def _end_with_the_supervisor() -> None:
    """A supervisor that was killed cannot tell its workers to end."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)
