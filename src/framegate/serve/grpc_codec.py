"""Protobuf messages of ModelInfer <-> requests and responses. Raw tensors are views into the message."""

from __future__ import annotations

from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from framegate.serve.errors import BadRequest
from framegate.serve.tensors import (
    DTYPES,
    InferRequest,
    InferResponse,
    Output,
    Tensor,
    check_size,
    checked_shape,
    dtype_of,
    from_bytes,
    refuse_parameters,
    shown,
)

CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents"}


def decode_message(message: Any) -> InferRequest:
    """The request in a ModelInferRequest. Raises BadRequest."""
    raw = message.raw_input_contents
    if len(raw) > len(message.inputs):
        raise BadRequest(f"unexpected additional input data for model '{shown(message.model_name)}'")
    inputs: dict[str, Tensor] = {}
    for number, item in enumerate(message.inputs):
        if item.name in inputs:
            raise BadRequest(f"input '{shown(item.name)}' already exists in request")
        inputs[item.name] = _input(message.model_name, item, raw[number] if number < len(raw) else None, bool(raw))
    outputs = {}
    for item in message.outputs:
        refuse_parameters("output", item.name, item.parameters)
        outputs[item.name] = Output(item.name)
    return InferRequest(
        message.model_name,
        message.model_version,
        tuple(inputs.values()),
        tuple(outputs.values()),
        message.id,
        parameters_of(message),
    )


def parameters_of(message: Any) -> dict[str, Any]:
    """The parameters of a message as Python values; one without a value is None.

    Triton's clients write a sequence's id, which is unsigned, into the signed field: a large one looks negative there.
    """
    found = {key: _value(parameter) for key, parameter in message.parameters.items()}
    number = found.get("sequence_id")
    return found | {"sequence_id": number + 2**64} if type(number) is int and number < 0 else found


def _value(parameter: Any) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    return None if which is None else getattr(parameter, which)


def _input(model: str, item: Any, raw: bytes | None, any_raw: bool) -> Tensor:
    refuse_parameters("input", item.name, item.parameters)
    if any_raw and item.HasField("contents"):
        raise BadRequest(
            f"contents field must not be specified when using raw_input_contents for '{shown(item.name)}' for model "
            f"'{shown(model)}'"
        )
    if raw is not None:
        return from_bytes(model, item.name, item.datatype, item.shape, raw)
    return _from_contents(model, item)


def _from_contents(model: str, item: Any) -> Tensor:
    """A tensor whose elements are a typed list in the message."""
    dtype = dtype_of(model, item.name, item.datatype)
    if not item.HasField("contents"):
        raise BadRequest(f"unable to find data for input tensor '{item.name}' for model '{shown(model)}' in request.")
    sizes = checked_shape(item.name, item.shape)
    values = getattr(item.contents, CONTENTS[item.datatype])
    check_size(model, item.name, int(np.prod(sizes, dtype=object)) * dtype.itemsize, len(values) * dtype.itemsize)
    wide = np.fromiter(values, np.uint32 if dtype == np.uint8 else np.float32, len(values))
    if dtype == np.uint8 and wide.size and wide.max() > 255:
        raise BadRequest(f"input '{item.name}' takes integers of 0..255, got {wide.max()} in uint_contents")
    return Tensor(item.name, wide.astype(dtype, copy=False).reshape(sizes))


def encode_message(response: InferResponse) -> Any:
    """A ModelInferResponse; the outputs lie in raw_output_contents, in order."""
    message = pb.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for key, value in response.parameters.items():
        message.parameters[key].string_param = str(value)
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        message.raw_output_contents.append(tensor.array.astype(DTYPES[tensor.datatype], copy=False).tobytes())
    return message
