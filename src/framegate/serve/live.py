"""One live source: which frames a model sees, when its state starts anew, and what is dropped when it comes too fast.

The same for cameras that the server pulls and for streams that clients send. Frames are resampled to the model's rate
by their times (`resampling`); a frame that no tick picks is never decoded. What a tick picked waits in one slot: where
it still waits when the next comes, it is dropped, for a live answer about an old frame is worth nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from framegate.contract import MediaError
from framegate.resampling import TICK_TOLERANCE_S, Grid, cut_after_s
from framegate.runtime.session import Frames
from framegate.serve.engine import Engine, Stream
from framegate.serve.errors import ServeError
from framegate.serve.model import Model
from framegate.timeline import Shares, softmax

ResetReason = Literal["version", "gap", "client"]
Load = Callable[[], Frames]  # decode and resize: u8 [H,W,3]; runs in a thread; raises MediaError


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says after the frame `seq` (from 0), seen at tick `time_s` since the first frame."""

    seq: int
    time_s: float
    shares: Shares
    dropped: int  # ticks of this source so far
    version: str
    latency_s: float  # since the frame was offered that showed the tick to be due


@dataclass(frozen=True, slots=True)
class Reset:
    """The state started anew."""

    reason: ResetReason
    version: str
    time_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame that could not be answered; the source goes on."""

    seq: int
    error: Exception


Event = Answer | Reset | Refused


@dataclass(slots=True, eq=False)
class _Frame:
    seq: int
    load: Load
    pixels: Frames | None = None  # as `model` sees it
    model: Model | None = None


@dataclass(slots=True)
class _Unit:
    """What waits for the model: frames with their ticks (seconds), and whether the state starts anew before them.

    It waits from `at` on, in seconds of time.monotonic(): a tick in a silence sees a frame that came long before.
    """

    at: float = field(default_factory=time.monotonic)
    ticks: list[tuple[_Frame, list[float]]] = field(default_factory=list)
    reset: ResetReason | None = None

    @property
    def count(self) -> int:
        return sum(len(times) for _, times in self.ticks)


class Live:
    """A live source on a stream of an engine: `offer` frames as they come, iterate over `events`."""

    def __init__(self, engine: Engine, stream: Stream) -> None:
        self.received = self.dropped = 0
        self._engine, self._stream = engine, stream
        self._loop = asyncio.get_running_loop()
        self._start_s = self._last_s = 0.0
        self._base_s = 0.0  # where the grid starts, since the first frame
        self._grid: Grid | None = None
        self._newest: _Frame | None = None
        self._slot: _Unit | None = None
        self._reset: ResetReason | None = None
        self._ended = False
        self._wake, self._taken = asyncio.Event(), asyncio.Event()

    # --- what comes ---------------------------------------------------------------------------

    def offer(self, time_s: float, load: Load, exact: bool = True) -> None:
        """The next frame, taken at `time_s` by its source's clock. Never waits. ValueError when time goes back.

        `exact`: times as a file has them; else they jitter, and a frame takes the tick that it is nearest to.
        """
        frame = _Frame(self.received, load)
        self.received += 1
        if self._newest is None:
            self._start_s = self._last_s = time_s
        fps = self._stream.model.clip.fps
        if self._grid is not None and time_s - self._last_s > cut_after_s(fps):
            self.restart("gap")
        if self._grid is None:
            self._grid = Grid(fps, TICK_TOLERANCE_S if exact else 0.5 / fps)
            self._base_s = time_s - self._start_s
        before, now = self._grid.push(time_s)
        unit = _Unit()
        for picked, ticks in ((self._newest, before), (frame, now)):
            if picked and ticks:
                unit.ticks.append((picked, self._seconds(ticks)))
        self._newest, self._last_s = frame, time_s
        if unit.ticks:
            self._put(unit)

    async def room(self) -> None:
        """Until nothing waits for the model: a source that can wait for it before each `offer` has nothing dropped."""
        while self._slot is not None:
            self._taken.clear()
            await self._taken.wait()

    def restart(self, reason: ResetReason) -> None:
        """The next frame starts anew: another scene, or too long a silence."""
        self._grid, self._reset = None, reason

    def finish(self) -> None:
        """No more frames: what waits is answered, then the ticks that the last frame still lasts, then `events` end."""
        if self._grid and self._newest and (ticks := self._grid.finish()):
            self._slot = self._slot or _Unit()
            self._slot.ticks.append((self._newest, self._seconds(ticks)))
        self._ended = True
        self._wake.set()

    def _seconds(self, ticks: range) -> list[float]:
        assert self._grid is not None
        return [self._base_s + tick / self._grid.fps for tick in ticks]

    def _put(self, unit: _Unit) -> None:
        unit.reset, self._reset = self._reset, None
        if self._slot:
            self._drop(self._slot.count)
            unit.reset = unit.reset or self._slot.reset
        self._slot = unit
        self._wake.set()

    def _drop(self, ticks: int) -> None:
        self.dropped += ticks
        self._engine.metrics.dropped(ticks)

    # --- what is answered ---------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[Event, None]:
        """Answers in order of time, resets and refusals between them; ends after `finish`."""
        while True:
            while self._slot is None:
                if self._ended:
                    return
                self._wake.clear()
                await self._wake.wait()
            unit, self._slot = self._slot, None
            self._taken.set()
            if unit.reset:
                self._stream.reset()
                yield Reset(unit.reset, self._stream.model.version, unit.ticks[0][1][0])
            for frame, times in unit.ticks:
                async for event in self._answer(frame, times, unit.at):
                    yield event

    async def _answer(self, frame: _Frame, times: list[float], at: float) -> AsyncGenerator[Event, None]:
        try:
            for time_s in times:
                pixels = await self._pixels(frame)
                while self._stream.renew():
                    self._grid = None  # another version may have another rate, and another size
                    yield Reset("version", self._stream.model.version, time_s)
                    pixels = await self._pixels(frame)
                left_s = self._engine.deadline(None) - (time.monotonic() - at)
                logits = await self._stream.step(pixels, max(left_s, 0.0))
                latency_s = time.monotonic() - at
                self._engine.metrics.observe("total", latency_s)
                version = self._stream.model.version
                yield Answer(frame.seq, time_s, softmax(logits), self.dropped, version, latency_s)
        except (MediaError, ServeError) as error:
            yield Refused(frame.seq, error)

    async def _pixels(self, frame: _Frame) -> Frames:
        model = self._stream.model
        if frame.pixels is None or frame.model is not model:
            start, frame.model = time.monotonic(), model
            frame.pixels = await self._loop.run_in_executor(self._engine.pool, frame.load)
            self._engine.metrics.observe("decode", time.monotonic() - start)
        return np.asarray(frame.pixels)
