"""Tensors as the Open Inference Protocol v2 names them, checked before anything is allocated.

Here: requests and responses as both transports see them, and bytes or lists of numbers as arrays.
Not here: JSON bodies (rest_codec), protobuf messages (grpc_codec), what a request means (infer).
Texts follow Triton's, so that a client that reads them finds what it knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.serve.errors import BadRequest

Array = NDArray[Any]
Buffer = bytes | memoryview

INPUTS = {"frame": "UINT8", "state": "FP32"}
OUTPUTS = ("logits", "next_state")
DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
DATATYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}
OTHER_DATATYPES = frozenset(
    ("BOOL", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP64", "BF16", "BYTES")
)
MAX_DIMS = 8
MAX_ELEMENTS = 2**40  # an empty tensor can claim any shape; NumPy refuses what no address space holds


@dataclass(frozen=True, slots=True)
class Tensor:
    """A name and its data: u8 (UINT8) or f32 (FP32), C-contiguous, perhaps read-only."""

    name: str
    array: Array

    @property
    def datatype(self) -> str:
        """UINT8 or FP32."""
        return DATATYPES[self.array.dtype]


@dataclass(frozen=True, slots=True)
class Output:
    """An output that is asked for; `binary` counts for REST only."""

    name: str
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request; no `outputs` means all of them, as bytes if `binary`."""

    model: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Output, ...] = ()
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferResponse:
    """The answer; outputs in the order that was asked for."""

    model: str
    version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def shown(text: str) -> str:
    """A client's own words, short enough for an error of ours (gRPC's go into a header)."""
    return text if len(text) <= 64 else text[:61] + "..."


def listed(shape: Sequence[object]) -> str:
    """A shape as Triton writes it: [1,64,64,3]."""
    return "[" + ",".join(map(str, shape)) + "]"


def dtype_of(model: str, name: str, datatype: str) -> np.dtype[Any]:
    """What an input holds; BadRequest for a name or datatype that the model does not take."""
    expected = INPUTS.get(name)
    if expected is None:
        raise BadRequest(f"unexpected inference input '{shown(name)}' for model '{shown(model)}'")
    if datatype == expected:
        return DTYPES[datatype]
    if datatype not in DTYPES and datatype not in OTHER_DATATYPES:
        raise BadRequest(f"invalid datatype for input {name}: '{shown(datatype)}'; expected {expected}")
    raise BadRequest(
        f"inference input '{name}' data-type is '{datatype}', but model '{shown(model)}' expects '{expected}'"
    )


def checked_shape(name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """The shape as integers of 0 or more; BadRequest for anything else."""
    if len(shape) > MAX_DIMS:
        raise BadRequest(f"unexpected shape for input '{name}': {len(shape)} dimensions, at most {MAX_DIMS}")
    sizes, elements = list[int](), 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise BadRequest("Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer")
        sizes.append(size)
        elements *= size or 1
    if elements > MAX_ELEMENTS:
        raise BadRequest(f"unexpected shape for input '{name}': {listed(sizes)} is more than {MAX_ELEMENTS} elements")
    return tuple(sizes)


def from_bytes(model: str, name: str, datatype: str, shape: Sequence[object], data: Buffer) -> Tensor:
    """Row-major little-endian `data` seen as a tensor; copied only where an f32 does not lie on an address of its own.

    Raises BadRequest where the size is not the shape's.
    """
    dtype, sizes = dtype_of(model, name, datatype), checked_shape(name, shape)
    check_size(model, name, math.prod(sizes) * dtype.itemsize, len(data))
    array = np.frombuffer(data, dtype) if len(data) else np.empty(0, dtype)
    return Tensor(name, (array if array.flags.aligned else array.copy()).reshape(sizes))


def check_size(model: str, name: str, expected: int, got: int) -> None:
    """BadRequest where bytes and shape disagree."""
    if expected != got:
        raise BadRequest(
            f"input byte size mismatch for input '{name}' for model '{shown(model)}'. Expected {expected}, got {got}"
        )


def from_list(model: str, name: str, datatype: str, shape: Sequence[object], data: list[Any]) -> Tensor:
    """Numbers of a JSON list, flat or nested in any way, as a tensor.

    Raises BadRequest where their number is not the shape's, or one of them is no such number; none is rounded or cut.
    """
    dtype, sizes = dtype_of(model, name, datatype), checked_shape(name, shape)
    while data and all(type(item) is list for item in data):
        data = list(chain.from_iterable(data))
    if len(data) != math.prod(sizes):
        raise BadRequest(
            f"Unable to parse 'data': Shape does not match true shape of 'data' field: input '{name}' is "
            f"{listed(sizes)}, got {len(data)} elements"
        )
    array = _bytes_of(name, data) if dtype == np.uint8 else _floats_of(name, data)
    return Tensor(name, array.reshape(sizes))


def _bytes_of(name: str, data: list[Any]) -> Array:
    wrong = set(map(type, data)) - {int}
    if not wrong:
        try:
            return np.frombuffer(bytes(data), np.uint8) if data else np.empty(0, np.uint8)
        except ValueError:  # an integer out of range
            pass
    raise BadRequest(
        f"Unable to parse 'data': attempt to access JSON non-unsigned-integer as unsigned-integer: input '{name}' "
        "takes integers of 0..255"
    )


def _floats_of(name: str, data: list[Any]) -> Array:
    if not set(map(type, data)) - {int, float}:
        with np.errstate(over="ignore"):
            array = np.array(data, np.float64).astype(np.float32)
        if np.isfinite(array).all():
            return array
    raise BadRequest(
        f"Unable to parse 'data': attempt to access JSON non-number as number: input '{name}' takes finite FP32 numbers"
    )


def refuse_parameters(kind: str, name: str, parameters: Mapping[str, Any]) -> None:
    """BadRequest for parameters of a tensor (an input or output) that ask for what is not offered here."""
    for key in parameters:
        if key.startswith("shared_memory"):
            raise BadRequest(f"{kind} '{shown(name)}': shared memory is not supported; send the data in the request")
        if key == "classification":
            raise BadRequest(
                f"{kind} '{shown(name)}': the classification extension is not supported; take the largest of the logits"
            )
