"""All that answers: the open versions, the streams on them, and the rule which version a stream is on."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from framegate.runtime.session import Floats, Frames, check_inputs
from framegate.serve.batcher import Answer
from framegate.serve.errors import BadRequest, Overloaded, Stopping, UnknownModel
from framegate.serve.limits import Limits
from framegate.serve.metrics import Metrics
from framegate.serve.model import Model, Opened
from framegate.serve.shadow import Shadow, ShadowLane
from framegate.serve.tensors import shown

SHED_AT = 0.5  # of the deadline, already waiting: what is let in and then expires was work for nothing


class Engine:
    """Answers frames. Everything here runs on one event loop; steps and decoding run in threads."""

    def __init__(
        self,
        opened: Opened,
        limits: Limits,
        metrics: Metrics,
        name: str = "framegate",
        clock: Callable[[], float] = time.monotonic,
        decoders: int = 2,
    ) -> None:
        self.name, self.limits, self.metrics, self.clock = name, limits, metrics, clock
        self.pool = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._loop = asyncio.get_running_loop()
        self._streams: set[Stream] = set()
        self.versions: tuple[Model, ...] = ()
        self.rejected: str | None = None  # why what lies in the folder stays out
        self.shadow: Shadow | None = None
        self.draining = False
        self.stopping = asyncio.Event()  # live streams end, new work is refused
        self.swap(opened)

    # --- versions -----------------------------------------------------------------------------

    @property
    def current(self) -> Model:
        """The version for new work."""
        return self.versions[-1]

    @property
    def ready(self) -> bool:
        """Whether new work is welcome."""
        return not self.draining

    def find(self, name: str, version: str = "") -> Model:
        """A version that is open. UnknownModel says which there are."""
        if name != self.name:
            raise UnknownModel(f"Request for unknown model: '{shown(name)}' is not found")
        for model in reversed(self.versions):
            if version in ("", model.version):
                return model
        known = ", ".join(model.version for model in self.versions)
        raise UnknownModel(
            f"Request for unknown model: '{name}' version {shown(version)} is not found; versions here: {known}"
        )

    def swap(self, opened: Opened) -> None:
        """Make it the version for new work. Streams stay where they are, for `version_s` at most."""
        seen = partial(self.metrics.observe_batch, opened.info.labels)
        model = Model(opened, self.limits.max_batch, self._loop, seen)
        self.metrics.show_version(opened.info, opened.version, opened.runtime)
        if self.versions:
            self.current.replaced_at = self.clock()
        self.versions += (model,)
        self.accept()

    def reject(self, error: Exception) -> None:
        """Remember why what lies in the folder stays out."""
        self.rejected = str(error)
        self.metrics.show_rejected(type(error).__name__)

    def accept(self) -> None:
        """What lies in the folder is what serves."""
        self.rejected = None
        self.metrics.show_accepted()

    async def tidy(self) -> None:
        """Move streams whose time on a replaced version is over, and close versions that nobody is on."""
        for stream in self._streams:
            stream.move_if_due()
        unused = [m for m in self.versions[:-1] if not m.held and self.due(m, after_s=1.0)]
        self.versions = tuple(m for m in self.versions if m not in unused)
        for model in unused:
            await model.batcher.close()

    def due(self, model: Model, after_s: float) -> bool:
        """Whether a version was replaced that long ago."""
        return model.replaced_at is not None and self.clock() - model.replaced_at >= after_s

    # --- work ---------------------------------------------------------------------------------

    def open_stream(self, kind: str) -> Stream:
        """A stream on the current version. Overloaded when there are too many; uploads have a limit of their own."""
        if kind != "upload" and len(self._streams) >= (most := self.limits.max_streams):
            open_ = sum(stream.kind != "upload" for stream in self._streams)
            if open_ >= most:
                raise Overloaded(f"{open_} streams are open, the limit; close one, or come back later", 5.0)
        stream = Stream(self, kind)
        self._streams.add(stream)
        self.metrics.streams(kind, 1)
        return stream

    def closed(self, stream: Stream) -> None:
        """Forget a stream; called by its `close`."""
        self._streams.discard(stream)
        self.metrics.streams(stream.kind, -1)

    @property
    def open_streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    @property
    def live_streams(self) -> int:
        """How many of them end only with their connection."""
        return sum(stream.kind == "live" for stream in self._streams)

    def step(
        self, model: Model, frames: Frames, state: Floats, deadline_s: float | None = None
    ) -> asyncio.Future[Answer]:
        """frames u8 [N,H,W,3], state f32 [N,S] -> logits f32 [N,K], next_state f32 [N,S], batched with what else waits.

        BadRequest for other shapes, more than `max_batch` rows; the future's DeadlineExceeded, `deadline_s` from now.
        """
        check_rows(model, frames, state, self.limits.max_batch)
        return model.batcher.submit(frames, state, self.deadline(deadline_s))

    def deadline(self, wanted_s: float | None) -> float:
        """Seconds from now: what was asked for, at most the server's."""
        limit = self.limits.deadline_ms / 1000
        return limit if wanted_s is None else min(wanted_s, limit)

    def refuse_when_stopping(self) -> None:
        """Stopping, when the server is: asked at the rim only, for what passed it before is finished."""
        if self.stopping.is_set():
            raise Stopping

    def overloaded(self) -> float | None:
        """Seconds after which to come back, when what came now would hardly make its deadline; else None."""
        wait_s = sum(model.batcher.wait_s for model in self.versions)
        return max(1.0, wait_s) if wait_s > SHED_AT * self.limits.deadline_ms / 1000 else None

    def refuse_when_overloaded(self) -> None:
        """Overloaded, when what came now would hardly make its deadline."""
        retry_s = self.overloaded()
        if retry_s is not None:
            raise Overloaded(f"overloaded: come back in {retry_s:g} s", retry_s)

    async def close(self) -> None:
        """Answer what waits, then free everything."""
        self.draining = True
        models = [*self.versions, *([self.shadow.model] if self.shadow else [])]
        for model in models:
            await model.batcher.close()
        self.pool.shutdown(wait=False, cancel_futures=True)


class Stream:
    """One video: its state, on one version. One step at a time; the state advances only with an answer."""

    def __init__(self, engine: Engine, kind: str) -> None:
        self.kind, self._engine = kind, engine
        self._open, self._moved, self._stepping = True, False, False
        self._enter(engine.current)

    def _enter(self, model: Model) -> None:
        self.model = model
        model.held += 1
        self.reset()

    def reset(self) -> None:
        """The state is back at the start."""
        self._state = np.zeros((1, self.model.state_size), np.float32)
        shadow = self._engine.shadow
        # an upload steps as fast as it can: a shadow would skip most of it
        self._lane: ShadowLane | None = shadow.lane(self.model) if shadow and self.kind != "upload" else None

    async def step(self, frame: Frames, deadline_s: float | None = None, patient: bool = False) -> Floats:
        """Logits f32 [K] after one more frame u8 [H,W,3]. Errors as of `Engine.step`; the state is as before then.

        `patient`: without a deadline, for a file whose frames nobody waits for one by one.
        """
        frames = frame[None]
        check_rows(self.model, frames, self._state, 1)
        model, state = self.model, self._state
        self._stepping = True
        try:
            limit_s = math.inf if patient else self._engine.deadline(deadline_s)
            logits, after = await model.batcher.submit(frames, state, limit_s)
        finally:
            self._stepping = False
        if self._state is state:  # not reset meanwhile
            self._state = after
            if self._lane:
                self._lane.offer(frames, logits)
        answer: Floats = logits[0]
        return answer

    def move_if_due(self) -> None:
        """To the current version, from the start, when the time on a replaced one is over.

        Not while a step is in work, whose answer is the old version's; and not in the middle of a file, whose answer
        is one version's: it ends by itself.
        """
        if self._stepping or self.kind == "upload":
            return
        if self._engine.due(self.model, self._engine.limits.version_s):
            self.model.held -= 1
            self._enter(self._engine.current)
            self._moved = True

    def renew(self) -> bool:
        """Whether it moved to another version since the last call: its state started anew."""
        self.move_if_due()
        moved, self._moved = self._moved, False
        return moved

    def close(self) -> None:
        """Give the version back; a second close does nothing."""
        if self._open:
            self._open = False
            self.model.held -= 1
            self._engine.closed(self)


def check_rows(model: Model, frames: Frames, state: Floats, most: int) -> None:
    """BadRequest unless the rows fit the model: one that does not would fail all that it is batched with."""
    try:
        check_inputs(frames, state, model.clip, model.state_size)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if len(frames) > most:
        raise BadRequest(f"inference request batch-size must be <= {most} for '{model.info.name}', got {len(frames)}")
