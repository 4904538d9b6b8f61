"""The micro-batcher: whatever waits is answered by one step, and nothing waits for company.

One thread owns a session and steps it. While it is busy jobs gather; then it takes them all, up to `max_batch` rows.
There is no timer: an idle server answers one frame at once, a busy one in batches as large as its backlog.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from framegate.runtime.session import Floats, Frames, Session
from framegate.serve.errors import DeadlineExceeded, StepFailed

Answer = tuple[Floats, Floats]
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    """Rows that belong together: frames u8 [n,H,W,3], state f32 [n,S]; times in seconds of time.monotonic()."""

    frames: Frames
    state: Floats
    at: float
    deadline: float
    future: asyncio.Future[Answer]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step was: for the metrics."""

    rows: int
    jobs: int
    waited_s: float  # of the job that waited longest
    infer_s: float
    expired: int  # jobs that were not answered for their deadline
    logits: Floats | None  # f32 [rows,K]; None when nothing was stepped


class Batcher:
    """Steps a session in a thread of its own; `submit` and `close` belong to the event loop's thread."""

    def __init__(
        self, session: Session, max_batch: int, loop: asyncio.AbstractEventLoop, seen: Callable[[Batch], None]
    ) -> None:
        self._session, self._max_batch, self._loop, self._seen = session, max_batch, loop, seen
        self._coming: list[Job] = []
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._batch_s = 0.0  # moving average of a step
        self._batch_jobs = 1.0  # and of how many jobs it answered
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="infer", daemon=True)
        self._thread.start()

    def submit(self, frames: Frames, state: Floats, deadline_s: float) -> asyncio.Future[Answer]:
        """A future of (logits [n,K], next_state [n,S]); DeadlineExceeded when its turn is later than in `deadline_s`.

        A future that was cancelled before its turn is not computed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        now = time.monotonic()
        job = Job(frames, state, now, now + deadline_s, self._loop.create_future())
        if not self._coming:
            self._loop.call_soon(self._hand_over)
        self._coming.append(job)
        return job.future

    def _hand_over(self) -> None:
        """All that one turn of the event loop brought: else the first of them would be answered alone."""
        for job in self._coming:
            self._queue.put(job)
        self._coming = []

    @property
    def wait_s(self) -> float:
        """How long a job that came now would wait, by what waits and by what steps have taken lately."""
        return (self._queue.qsize() + len(self._coming)) / self._batch_jobs * self._batch_s

    async def close(self) -> None:
        """Answer what waits, then end the thread; a second close does nothing."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._session.close()

    # --- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        waiting: deque[Job] = deque()
        open_ = True
        while open_ or waiting:
            if not waiting:
                open_ = self._add(waiting, self._queue.get())
            while open_ and self._queue.qsize() and len(waiting) < self._max_batch:
                open_ = self._add(waiting, self._queue.get())
            self._answer(*self._take(waiting))

    @staticmethod
    def _add(waiting: deque[Job], job: Job | None) -> bool:
        if job is None:
            return False
        waiting.append(job)
        return True

    def _take(self, waiting: deque[Job]) -> tuple[list[Job], list[Job]]:
        """The next batch in order of arrival, and those whose deadline is over."""
        batch: list[Job] = []
        expired: list[Job] = []
        rows, now = 0, time.monotonic()
        while waiting:
            job = waiting[0]
            late = job.deadline < now
            if not late and rows and rows + len(job.frames) > self._max_batch:
                break
            waiting.popleft()
            if job.future.cancelled():
                continue
            if late:
                expired.append(job)
            else:
                batch.append(job)
                rows += len(job.frames)
        return batch, expired

    def _answer(self, batch: list[Job], expired: list[Job]) -> None:
        start = time.monotonic()
        outcomes: list[tuple[Job, Any]] = [(job, _too_late(job, start)) for job in expired]
        rows, logits, took_s = sum(len(job.frames) for job in batch), None, 0.0
        if batch:
            try:
                logits, after = self._step(batch)
                outcomes += _shared_out(batch, logits, after)
            except Exception:  # runtimes share no base class; those who waited for this step are told
                log.exception("a step of %d frames failed", rows)
                failed = StepFailed("the model failed on this frame; the server's log says why")
                outcomes += [(job, failed) for job in batch]
            took_s = time.monotonic() - start
            self._batch_s += 0.1 * (took_s - self._batch_s)
            self._batch_jobs += 0.1 * (len(batch) - self._batch_jobs)
        if outcomes:
            waited_s = start - batch[0].at if batch else 0.0
            seen = Batch(rows, len(batch), waited_s, took_s, len(expired), logits)
            self._loop.call_soon_threadsafe(self._deliver, outcomes, seen)

    def _step(self, batch: list[Job]) -> Answer:
        if len(batch) == 1:
            return self._session.step(batch[0].frames, batch[0].state)
        frames = np.concatenate([job.frames for job in batch])
        return self._session.step(frames, np.concatenate([job.state for job in batch]))

    def _deliver(self, outcomes: list[tuple[Job, Any]], seen: Batch) -> None:
        """On the event loop: one wake-up for a whole batch."""
        self._seen(seen)
        for job, outcome in outcomes:
            if job.future.done():
                continue
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)


def _shared_out(batch: list[Job], logits: Floats, after: Floats) -> list[tuple[Job, Answer]]:
    """Each job's rows of what a step gave."""
    outcomes, row = [], 0
    for job in batch:
        end = row + len(job.frames)
        outcomes.append((job, (logits[row:end], after[row:end])))
        row = end
    return outcomes


def _too_late(job: Job, now: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"waited {1000 * (now - job.at):.0f} ms, its deadline was {1000 * (job.deadline - job.at):.0f} ms; "
        "the server is busy: send less, or raise the deadline"
    )
