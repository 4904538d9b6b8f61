"""Starts a worker process, feeds it and reads what it wrote. A crash, a kill or a hang becomes a reason."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np

from framegate.contract import FramegateError, RuntimeUnavailable, write_json

WORKER = (sys.executable, "-m", "framegate.bench.worker")


class WorkerStopped(FramegateError):
    """A worker that brought no result: skipped (not possible here) or failed."""

    def __init__(self, status: Literal["skipped", "failed"], reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Job(Protocol):
    """What a process is told to do."""

    @property
    def kind(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    def write(self, path: Path) -> None: ...


def launch(
    job: Job,
    out: Path,
    timeout_s: float,
    feed: Iterable[bytes] = (),
    command: Sequence[str] = WORKER,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one job in a fresh process: its arrays (also left in `out`) and what it says of its session.

    Raises WorkerStopped with the reason when there is no result.
    """
    job_path, told = out.with_suffix(".job.json"), out.with_suffix(".json")
    for before in (out, told):  # what another job left is no result of this one
        before.unlink(missing_ok=True)
    job.write(job_path)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([*command, str(job_path), str(out)], stdin=subprocess.PIPE, stderr=errors)
        late = threading.Event()
        watchdog = threading.Timer(timeout_s, _stop, (process, late))
        watchdog.start()
        try:
            _feed(process, feed)
            code = process.wait()
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
        outcome = _outcome(told)
        if outcome is None or code != 0 or late.is_set():
            reason = f"ran longer than bench.timeout_s, {timeout_s:g} s" if late.is_set() else _why(code, errors)
            raise WorkerStopped("failed", f"the {job.kind} process of {job.runtime} {reason}")
    if outcome["status"] != "done":
        raise WorkerStopped(outcome["status"], outcome["reason"])
    with np.load(out, allow_pickle=False) as arrays:
        return dict(arrays), outcome["session"]


def answer(out: Path, work: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """The other end of `launch`, in the worker: do the work, leave its arrays in `out`, and last what came of it.

    `work` gives arrays and what it says of its session. What is not possible here is skipped, what goes wrong failed.
    """
    try:
        arrays, session = work()
    except FramegateError as error:
        status = "skipped" if isinstance(error, RuntimeUnavailable) else "failed"
        outcome: dict[str, Any] = {"status": status, "reason": str(error)}
    else:
        with out.open("wb") as file:
            np.savez(file, **arrays)
        outcome = {"status": "done", "reason": "", "session": session}
    write_json(out.with_suffix(".json"), outcome)


def _feed(process: subprocess.Popen[bytes], feed: Iterable[bytes]) -> None:
    """Write all pieces; a worker that is gone says why by its exit, not here."""
    assert process.stdin
    try:
        with process.stdin as pipe:
            for piece in feed:
                pipe.write(piece)
    except BrokenPipeError:
        return


def _stop(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _outcome(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _why(code: int, errors: BinaryIO) -> str:
    """How a process ended, with the last line that it wrote to stderr."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{ended}: {lines[-1]}" if lines else ended
