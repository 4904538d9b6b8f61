"""A server under test: a process tree of its own, pinned to one core, stopped while another is measured.

Imports nothing but the standard library: the clients' processes read their server's CPU time from here too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def two_cores() -> tuple[int, int]:
    """(the client's, the server's); SystemExit on a machine with one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit(
            "this benchmark needs two cores, one for the server and one for its client; --no-pin goes without"
        )
    return cores[0], cores[1]


def pinned(core: int | None) -> Callable[[], None] | None:
    """For Popen's `preexec_fn`: the process, and all that it starts, on one core."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def tree(session: int) -> list[tuple[int, list[str]]]:
    """(pid, fields of /proc/PID/stat from the state on) of every process of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:  # it has just ended
                continue
            fields = text.rpartition(")")[2].split()
            if int(fields[3]) == session:
                found.append((int(entry.name), fields))
    return found


def cpu_seconds(session: int) -> float:
    """User and system time of a session's processes, in ticks of 10 ms each."""
    return sum(int(fields[11]) + int(fields[12]) for _, fields in tree(session)) * TICK_S


class ServerProcess:
    """A command in a session of its own. A context manager: it is ended on the way out."""

    def __init__(self, name: str, command: Sequence[str], core: int | None, log: Path) -> None:
        self.name, self._log = name, log
        with log.open("w") as out:
            self._process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=pinned(core),
            )
        self.session = self._process.pid

    def wait_until(self, ready: Callable[[], bool], seconds: float = 120) -> None:
        """Until it answers; SystemExit with the end of its log when it does not."""
        end = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise SystemExit(f"{self.name} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    @property
    def processes(self) -> int:
        """How many are running."""
        return len(tree(self.session))

    @property
    def cpu_s(self) -> float:
        """See `cpu_seconds`."""
        return cpu_seconds(self.session)

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the whole tree; what its processes share counts more than once."""
        return sum(int(fields[21]) for _, fields in tree(self.session)) * PAGE_BYTES

    @property
    def open_files(self) -> int:
        """File descriptors of the whole tree."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid, _ in tree(self.session))

    def pause(self) -> None:
        """Not a cycle more, until `resume`: another server is being measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM, later SIGKILL; the exit code."""
        self.resume()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(40)
        self._signal(signal.SIGKILL)  # also what it left behind
        return self._process.wait()

    def _signal(self, number: int) -> None:
        for pid, _ in tree(self.session):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()


def framegate_serve(
    bundle: Path, scratch: Path, core: int | None, options: Sequence[str] = (), name: str = "framegate"
) -> tuple[ServerProcess, dict[str, int]]:
    """`framegate serve` on free ports of loopback, when it is ready; its ports by protocol."""
    ports = scratch / f"{name}.ports.json"
    ports.unlink(missing_ok=True)
    words = ["serve", "--bundle", str(bundle), "--port", "0", "--grpc-port", "0", "--ports-file", str(ports)]
    command = [sys.executable, "-m", "framegate.cli", *words, *options]
    server = ServerProcess(name, command, core, scratch / f"{name}.log")
    server.wait_until(ports.is_file)
    time.sleep(0.2)
    return server, json.loads(ports.read_text())
