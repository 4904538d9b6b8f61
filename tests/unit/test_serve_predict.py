"""An upload's decoder stops when nobody takes its answers any more, however much of the file a tick holds."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.contract import MediaError
from framegate.media import TimedFrame
from framegate.serve import predict
from framegate.serve.errors import Overloaded
from framegate.serve.predict import Uploads
from tests.bundles import SPEC
from tests.served import engine_of, run

PICTURE = np.zeros((SPEC.height, SPEC.width, 3), np.uint8)


class Dense:
    """A file of 20 seconds' work whose frames all lie within one tick."""

    def __init__(self) -> None:
        self.read = 0
        self.ended = False

    def __call__(self, *_: Any) -> Iterator[TimedFrame]:
        try:
            for number in range(10_000):
                self.read += 1
                time.sleep(0.002)
                yield TimedFrame(number * 1e-6, PICTURE)
        finally:
            self.ended = True

    async def stopped(self) -> bool:
        """Whether it ends before it is through."""
        for _ in range(100):
            if self.ended:
                return self.read < 10_000
            await asyncio.sleep(0.02)
        return False


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> Dense:
    file = Dense()
    monkeypatch.setattr(predict, "read_frames", file)
    return file


async def said(uploads: Uploads, gone_after: int) -> list[Any]:
    """The answers to a client that is there the first few times that it is looked for."""
    left = iter([False] * gone_after)

    async def gone() -> bool:
        return next(left, True)

    return [answer async for answer in uploads.answers(Path("a.mp4"), 1, gone)]


def test_a_client_that_left_is_noticed_within_a_tick(dense: Dense) -> None:
    async def main() -> None:
        async with engine_of() as engine:
            assert await said(Uploads(engine), 2) == [engine.current.version]
            assert await dense.stopped()

    run(main())


def test_a_request_that_is_cancelled_stops_its_decoder(dense: Dense, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with engine_of() as engine:
            work = asyncio.create_task(said(Uploads(engine), 10_000))
            while not dense.read:
                await asyncio.sleep(0.01)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert await dense.stopped()
            assert engine.open_streams == 0

    run(main())
    assert caplog.records == []


def test_a_decoder_that_nothing_interrupts_keeps_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def stuck(*_: Any) -> Iterator[TimedFrame]:
        assert gate.wait(60)
        yield TimedFrame(0.0, PICTURE)

    monkeypatch.setattr(predict, "read_frames", stuck)

    async def main() -> None:
        async with engine_of(max_uploads=1, deadline_ms=200) as engine:
            uploads = Uploads(engine)
            assert await said(uploads, 0) == [engine.current.version]
            with pytest.raises(Overloaded, match="1 files are in work"):
                await said(uploads, 0)
            gate.set()
            assert len(await said(uploads, 10)) == 2

    run(main())


def test_a_file_that_turns_out_to_be_damaged_after_its_client_left_is_nobodys_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(*_: Any) -> Iterator[TimedFrame]:
        yield TimedFrame(0.0, PICTURE)
        time.sleep(2 * predict.LOOK_UP_S)
        raise MediaError("a.mp4", "truncated")

    monkeypatch.setattr(predict, "read_frames", damaged)

    async def main() -> None:
        async with engine_of() as engine:
            assert await said(Uploads(engine), 0) == [engine.current.version]
            await asyncio.sleep(2 * predict.LOOK_UP_S)

    run(main())
    assert caplog.records == []
