"""What waits is answered together; what is too late is told so; a failure hits only those who shared the step."""

import asyncio
from typing import Any

import numpy as np
import pytest

from framegate.runtime.session import FakeSession, Floats, Frames
from framegate.serve.batcher import Answer, Batch, Batcher
from framegate.serve.errors import DeadlineExceeded, StepFailed
from tests.bundles import LABELS, SPEC
from tests.served import Gated, color, run


def batcher(session: FakeSession, max_batch: int = 4) -> tuple[Batcher, list[Batch]]:
    seen: list[Batch] = []
    return Batcher(session, max_batch, asyncio.get_running_loop(), seen.append), seen


def row(label: int) -> tuple[Frames, Floats]:
    return color(label)[None], np.zeros((1, 4), np.float32)


async def busy() -> tuple[Gated, Batcher, list[Batch], asyncio.Future[Answer]]:
    """A batcher whose session is in the middle of a step of row(0), until its gate is set."""
    session = Gated()
    session.gate.clear()
    found, seen = batcher(session)
    first = found.submit(*row(0), 9)
    await asyncio.to_thread(session.entered.wait, 9)
    return session, found, seen, first


def test_what_waits_is_answered_by_as_few_steps_as_fit() -> None:
    async def play() -> None:
        session, found, seen, first = await busy()
        others = [found.submit(*row(k % 3), 9) for k in range(6)]
        session.gate.set()
        answers = await asyncio.gather(first, *others)
        assert session.rows == [1, 4, 2]
        assert [int(logits[0].argmax()) for logits, _ in answers] == [0, 0, 1, 2, 0, 1, 2]
        assert [batch.rows for batch in seen] == [1, 4, 2] and seen[1].waited_s > 0
        await found.close()

    run(play())


def test_rows_of_one_request_stay_together() -> None:
    async def play() -> None:
        session, found, _, first = await busy()
        three = [found.submit(np.stack([color(k)] * 3), np.zeros((3, 4), np.float32), 9) for k in (1, 2)]
        session.gate.set()
        await first
        answers = [await future for future in three]
        assert session.rows == [1, 3, 3]
        assert [logits.argmax(axis=1).tolist() for logits, _ in answers] == [[1, 1, 1], [2, 2, 2]]
        await found.close()

    run(play())


def test_a_job_whose_turn_is_too_late_is_not_computed() -> None:
    async def play() -> None:
        session, found, seen, first = await busy()
        late, cancelled, good = found.submit(*row(1), 0.0), found.submit(*row(1), 9), found.submit(*row(2), 9)
        cancelled.cancel()
        session.gate.set()
        with pytest.raises(DeadlineExceeded, match="its deadline was 0 ms"):
            await late
        await asyncio.gather(first, good)
        assert session.rows == [1, 1]
        assert sum(batch.expired for batch in seen) == 1
        await found.close()

    run(play())


class Broken(FakeSession):
    """Fails while `broken`."""

    broken = True

    def step(self, frames: Frames, state: Floats) -> Any:
        if self.broken:
            raise RuntimeError("no such kernel")
        return super().step(frames, state)


def test_a_step_that_fails_is_told_and_the_next_one_works() -> None:
    async def play() -> None:
        session = Broken(LABELS, SPEC)
        found, _ = batcher(session)
        with pytest.raises(StepFailed, match="the server's log says why"):
            await found.submit(*row(0), 9)
        session.broken = False
        assert (await found.submit(*row(0), 9))[0].shape == (1, 3)
        await found.close()

    run(play())


def test_closing_answers_what_waits_and_frees_the_session() -> None:
    async def play() -> None:
        session = Gated()
        session.gate.clear()
        found, _ = batcher(session)
        waiting = [found.submit(*row(0), 9) for _ in range(6)]
        closing = asyncio.create_task(found.close())
        await asyncio.sleep(0)
        session.gate.set()
        await asyncio.gather(closing, *waiting)
        assert sum(session.rows) == 6 and session.closed
        with pytest.raises(RuntimeError, match="closed"):
            found.submit(*row(0), 9)
        await found.close()

    run(play())
