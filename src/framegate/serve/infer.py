"""What a request of the protocol means, for REST and gRPC alike.

Three ways: with `sequence_id` one frame goes in and the server keeps the state; without it `frame` and `state` go in
and `logits` and `next_state` come out; without `state` every row starts fresh.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from framegate.runtime.session import Floats, Frames
from framegate.serve.engine import Engine
from framegate.serve.errors import BadRequest, DeadlineExceeded, NotOffered
from framegate.serve.model import Model
from framegate.serve.sequences import SequenceId, Sequences, Turn
from framegate.serve.tally import Tally
from framegate.serve.tensors import OUTPUTS, Array, InferRequest, InferResponse, Tensor, listed, shown

ID_MAX_BYTES = 128
JSON_BYTES = 1 << 20  # besides the numbers of the largest batch


class Inference:
    """Answers requests with an engine; one per server, on its event loop."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine, self.clock = engine, clock
        self.sequences = Sequences(engine, clock)
        self.tally = Tally()

    async def infer(self, request: InferRequest, deadline_s: float | None = None) -> InferResponse:
        """The answer; `deadline_s` (seconds from now) is the transport's, and only lowers what the limits say.

        Raises BadRequest, UnknownModel, Overloaded, DeadlineExceeded.
        """
        model = self.engine.find(request.model, request.version)
        start_s = self.clock()
        try:
            response = await self._infer(model, request, start_s + self._deadline_s(request, deadline_s))
        except BaseException:
            self.tally.failed(model.version, self.clock() - start_s)
            raise
        took_s = self.clock() - start_s
        self.tally.succeeded(response.version, took_s, len(response.outputs[0].array))
        self.engine.metrics.observe("total", took_s)
        return response

    @property
    def json_bytes(self) -> int:
        """The most that a request can need as JSON: what the largest batch has, and room for the rest."""
        model = self.engine.current
        row = 5 * model.clip.height * model.clip.width * 3 + 25 * model.state_size
        return JSON_BYTES + row * self.engine.limits.max_batch

    def _infer(self, model: Model, request: InferRequest, until_s: float) -> Awaitable[InferResponse]:
        sequence = sequence_id(request.parameters)
        start, end = (_flag(request.parameters, f"sequence_{flag}") for flag in ("start", "end"))
        if until_s <= self.clock():
            raise DeadlineExceeded("the deadline was over when the request came")
        if sequence is None:
            if start or end:
                raise BadRequest(
                    f"inference request to model '{request.model}' must specify a non-zero or non-empty correlation ID"
                )
            return self._stateless(model, request, until_s)
        return self._stepped(request, sequence, start, end, until_s)

    async def _stepped(
        self, request: InferRequest, sequence: SequenceId, start: bool, end: bool, until_s: float
    ) -> InferResponse:
        wanted = _outputs(request, ("logits",))
        most = self.engine.limits.max_batch
        turn = Turn(sequence, start, end, request.version, lambda model: _frame(request, model, most), until_s)
        stepped = await self.sequences.step(turn)
        outputs = tuple(Tensor(name, stepped.logits[None]) for name in wanted)
        parameters = {"reset": "version"} if stepped.moved else {}
        return InferResponse(request.model, stepped.model.version, outputs, request.id, parameters)

    async def _stateless(self, model: Model, request: InferRequest, until_s: float) -> InferResponse:
        inputs = _inputs(request)
        frames = _frames(request, inputs, model, self.engine.limits.max_batch)
        state = _state(request, inputs, model, len(frames))
        wanted = _outputs(request, OUTPUTS)
        logits, after = await self.engine.step(model, frames, state, until_s - self.clock())
        if "state" in inputs and not (np.isfinite(logits).all() and np.isfinite(after).all()):
            raise _no_state(request)
        arrays = {"logits": logits, "next_state": after}
        outputs = tuple(Tensor(name, arrays[name]) for name in wanted)
        return InferResponse(request.model, model.version, outputs, request.id)

    def _deadline_s(self, request: InferRequest, transport_s: float | None) -> float:
        """The lowest of the limits' deadline, the transport's and the parameter `timeout` (microseconds; 0 is none)."""
        timeout = request.parameters.get("timeout", 0)
        if type(timeout) is not int or timeout < 0:
            raise BadRequest(
                "Unable to parse 'timeout': attempt to access JSON non-unsigned-integer as unsigned-integer: it is a "
                "number of microseconds"
            )
        limit_s = self.engine.limits.deadline_ms / 1000
        if timeout:
            limit_s = min(limit_s, timeout / 1e6)
        return limit_s if transport_s is None else min(limit_s, transport_s)


# --- parameters -------------------------------------------------------------------------------


def sequence_id(parameters: Mapping[str, Any]) -> SequenceId | None:
    """The id of a sequence, None where there is none (also 0 and ""). Raises BadRequest, NotOffered (a long text)."""
    value = parameters.get("sequence_id", 0)
    if type(value) is str:
        if len(value.encode()) > ID_MAX_BYTES:
            raise NotOffered(f"string correlation ID cannot be longer than {ID_MAX_BYTES} characters")
        return value or None
    if type(value) is int and 0 <= value < 2**64:
        return value or None
    raise BadRequest(
        "Unable to parse 'sequence_id': attempt to access JSON non-string as string: an integer from 0 or a string"
    )


def _flag(parameters: Mapping[str, Any], key: str) -> bool:
    value = parameters.get(key, False)
    if type(value) is bool:
        return value
    raise BadRequest(f"Unable to parse '{key}': attempt to access JSON non-boolean as boolean")


# --- tensors ----------------------------------------------------------------------------------


def _inputs(request: InferRequest) -> dict[str, Array]:
    inputs = {tensor.name: tensor.array for tensor in request.inputs}
    if "frame" not in inputs:
        raise _wrong_inputs(
            request, inputs, "but missing required input(s) ['frame']. Please provide all required input(s)."
        )
    return inputs


def _wrong_inputs(request: InferRequest, inputs: Mapping[str, Array], problem: str) -> BadRequest:
    names = ",".join(f"'{name}'" for name in inputs)
    return BadRequest(
        f"expected 1 inputs but got {len(inputs)} inputs for model '{request.model}'. Got input(s) [{names}], {problem}"
    )


def _frames(request: InferRequest, inputs: Mapping[str, Array], model: Model, max_batch: int) -> Frames:
    """u8 [N,H,W,3] of the model's size, 1 <= N <= max_batch."""
    frames, clip = inputs["frame"], model.clip
    _check_shape(request, "frame", frames, (clip.height, clip.width, 3))
    if len(frames) > max_batch:
        raise BadRequest(f"inference request batch-size must be <= {max_batch} for '{request.model}'")
    return frames


def _state(request: InferRequest, inputs: Mapping[str, Array], model: Model, n: int) -> Floats:
    """f32 [N,S]: what was sent, or the start of N streams."""
    state = inputs.get("state")
    if state is None:
        return np.zeros((n, model.state_size), np.float32)
    _check_shape(request, "state", state, (model.state_size,))
    if len(state) != n:
        raise BadRequest(
            f"input 'state' batch size does not match other inputs for '{request.model}': {len(state)} and {n}"
        )
    if not np.isfinite(state).all():
        raise _no_state(request)
    return state


def _no_state(request: InferRequest) -> BadRequest:
    return BadRequest(
        f"input 'state' for model '{request.model}' is not finite, or leads to logits that are not; feed back a "
        "next_state as it was"
    )


def _frame(request: InferRequest, model: Model, max_batch: int) -> Frames:
    """The only frame u8 [H,W,3] of a request within a sequence."""
    inputs = _inputs(request)
    if "state" in inputs:
        raise _wrong_inputs(request, inputs, "but the server keeps the state of a sequence: send 'frame' only")
    frames = _frames(request, inputs, model, max_batch)
    if len(frames) != 1:
        raise BadRequest(
            f"inference request to model '{request.model}' must specify batch-size 1 due to requirements of sequence "
            f"batcher, got {len(frames)}"
        )
    frame: Frames = frames[0]
    return frame


def _check_shape(request: InferRequest, name: str, array: Array, row: tuple[int, ...]) -> None:
    """BadRequest unless the array is one or more rows."""
    if array.shape[1:] != row or not array.ndim:
        raise BadRequest(
            f"unexpected shape for input '{name}' for model '{request.model}'. Expected {listed((-1, *row))}, "
            f"got {listed(array.shape)}"
        )
    if not len(array):
        row_bytes = array.dtype.itemsize * int(np.prod(row))
        raise BadRequest(
            f"input byte size mismatch for input '{name}' for model '{request.model}'. Expected {row_bytes}, got 0"
        )


def _outputs(request: InferRequest, offered: tuple[str, ...]) -> tuple[str, ...]:
    """The names that are asked for, all that are offered where none is."""
    for output in request.outputs:
        if output.name not in offered:
            why = ": the server keeps the state of a sequence" if output.name in OUTPUTS else ""
            raise BadRequest(
                f"unexpected inference output '{shown(output.name)}' for model '{request.model}'; "
                f"there is {', '.join(offered)}{why}"
            )
    return tuple(output.name for output in request.outputs) or offered
