"""Sequences of the protocol: an id that clients choose -> a stream of the engine, one step at a time.

A request that is refused changes nothing: the sequence goes on from where it was; a refused START begins none, and one
that comes too late ends the sequence that it would have replaced. A call that is cancelled before its turn is not
stepped (gRPC; over HTTP nobody learns that a client left). Once its turn has begun, the step is finished and counts
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from framegate.runtime.session import Floats, Frames
from framegate.serve.engine import Engine, Stream
from framegate.serve.errors import BadRequest, DeadlineExceeded, Overloaded
from framegate.serve.model import Model

SequenceId = int | str


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a sequence; `frame` gives u8 [H,W,3] for a model or raises, `until_s` is a time of the clock."""

    id: SequenceId
    start: bool
    end: bool
    version: str
    frame: Callable[[Model], Frames]
    until_s: float


@dataclass(frozen=True, slots=True)
class Stepped:
    """logits f32 [K] of a model; `moved`: since the last answer the sequence began again on another version."""

    logits: Floats
    model: Model
    moved: bool


@dataclass(slots=True, eq=False)
class _Sequence:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # fair: turns come in order of arrival
    stream: Stream | None = None
    users: int = 0  # requests that wait or are in work
    used_s: float = 0.0
    moved: bool = False  # not told yet


class Sequences:
    """All sequences of one server, over REST and gRPC alike; `clock` gives seconds that never go back."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self.engine, self.clock = engine, clock
        self._table: dict[SequenceId, _Sequence] = {}

    def __len__(self) -> int:
        return len(self._table)

    async def step(self, turn: Turn) -> Stepped:
        """One frame further, when its turn comes.

        Raises BadRequest (no START, what `turn.frame` raises), Overloaded (too many streams), DeadlineExceeded.
        """
        sequence = self._find(turn)
        sequence.users += 1
        try:
            await self._wait(sequence, turn)
        except BaseException:
            self._leave(turn.id, sequence)
            raise
        task = asyncio.create_task(self._run(sequence, turn))
        task.add_done_callback(lambda done: self._done(turn.id, sequence, done))
        return await asyncio.shield(task)

    def evict(self) -> int:
        """Forget what has been idle for limits.sequence_idle_s; how many those were."""
        before = self.clock() - self.engine.limits.sequence_idle_s
        idle = [key for key, sequence in self._table.items() if not sequence.users and sequence.used_s <= before]
        for key in idle:
            _end(self._table.pop(key))
        return len(idle)

    # --- one turn ---------------------------------------------------------------------------------

    def _find(self, turn: Turn) -> _Sequence:
        sequence = self._table.get(turn.id)
        if sequence is not None and not sequence.users:
            if sequence.used_s > self.clock() - self.engine.limits.sequence_idle_s:
                return sequence
            _end(self._table.pop(turn.id))
            sequence = None
        if sequence is None:
            if not turn.start:
                raise self._no_start(turn)
            sequence = self._table[turn.id] = _Sequence()
        return sequence

    async def _wait(self, sequence: _Sequence, turn: Turn) -> None:
        if sequence.users == 1:
            await sequence.lock.acquire()
            return
        try:
            async with asyncio.timeout(turn.until_s - self.clock()):
                await sequence.lock.acquire()
        except TimeoutError:
            self.engine.metrics.missed()
            raise DeadlineExceeded(
                f"sequence {turn.id}: an earlier request of it was in work until the deadline; this one was not stepped"
            ) from None

    async def _run(self, sequence: _Sequence, turn: Turn) -> Stepped:
        stream = self._begin(sequence, turn) if turn.start else self._go_on(sequence, turn)
        model = stream.model  # the stream may move to another one while it waits
        try:
            logits = await stream.step(turn.frame(model), self._left(turn))
        except BaseException:
            if turn.start:
                _end(sequence)
            raise
        answer = Stepped(logits, model, sequence.moved)
        sequence.moved = False
        if turn.end:
            _end(sequence)
        return answer

    def _left(self, turn: Turn) -> float:
        left = turn.until_s - self.clock()
        if left <= 0:
            self.engine.metrics.missed()
            raise DeadlineExceeded(
                f"sequence {turn.id}: the deadline was over before its turn; this frame was not stepped"
            )
        return left

    def _begin(self, sequence: _Sequence, turn: Turn) -> Stream:
        """A fresh stream on the current version, in the place of the one that was."""
        self._check_version(turn, self.engine.current)
        turn.frame(self.engine.current)
        _end(sequence)
        try:
            stream = self.engine.open_stream("sequence")
        except Overloaded:
            if not self.evict():
                raise
            stream = self.engine.open_stream("sequence")
        sequence.stream, sequence.moved = stream, False
        return stream

    def _go_on(self, sequence: _Sequence, turn: Turn) -> Stream:
        if sequence.stream is None:
            raise self._no_start(turn)
        sequence.moved |= sequence.stream.renew()
        self._check_version(turn, sequence.stream.model)
        return sequence.stream

    def _check_version(self, turn: Turn, model: Model) -> None:
        if turn.version not in ("", model.version):
            raise BadRequest(
                f"inference request for sequence {turn.id} to model '{self.engine.name}' names version {turn.version}, "
                f"but it runs on version {model.version}; name that or none"
            )

    def _no_start(self, turn: Turn) -> BadRequest:
        return BadRequest(
            f"inference request for sequence {turn.id} to model '{self.engine.name}' must specify the START flag on "
            "the first request of the sequence"
        )

    def _done(self, key: SequenceId, sequence: _Sequence, task: asyncio.Task[Stepped]) -> None:
        """Also when nobody waits for the answer any more."""
        if not task.cancelled():
            task.exception()
        sequence.lock.release()
        self._leave(key, sequence)

    def _leave(self, key: SequenceId, sequence: _Sequence) -> None:
        sequence.users -= 1
        sequence.used_s = self.clock()
        if not sequence.users and sequence.stream is None and self._table.get(key) is sequence:
            del self._table[key]


def _end(sequence: _Sequence) -> None:
    if sequence.stream is not None:
        sequence.stream.close()
        sequence.stream = None
