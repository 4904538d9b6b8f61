"""Bodies of POST .../infer <-> requests and responses: JSON, or JSON with binary tensors behind it.

Binary tensors are views into the body. Whatever the bytes are, the outcome is a request, a BadRequest or a TooLarge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from framegate.serve.errors import BadRequest, TooLarge
from framegate.serve.tensors import (
    InferRequest,
    InferResponse,
    Output,
    Tensor,
    from_bytes,
    from_list,
    refuse_parameters,
    shown,
)

NOUNS: dict[type, str] = {list: "array", str: "string", dict: "object"}


def decode_request(
    body: bytes, header_length: str | None, model: str, version: str = "", most: int | None = None
) -> InferRequest:
    """The request in a body; `header_length` = the header Inference-Header-Content-Length.

    Raises BadRequest, and TooLarge for more than `most` bytes of JSON: parsing them holds up every stream.
    """
    size = _header_size(header_length, len(body))
    if most is not None and size > most:
        raise TooLarge(f"JSON: {size} bytes, at most {most} make sense here; send binary tensors")
    document = _parsed(memoryview(body)[:size])
    inputs, rest = _inputs(_field(document, "inputs", list), memoryview(body)[size:], model)
    if rest:
        raise BadRequest(f"unexpected additional input data for model '{shown(model)}': {rest} bytes")
    parameters = _parameters(document)
    binary = _flag(parameters, "binary_data_output", False)
    outputs = _outputs(document["outputs"], binary) if document.get("outputs") is not None else ()
    name = _field(document, "id", str) if "id" in document else ""
    return InferRequest(model, version, inputs, outputs, name, parameters, binary)


def encode_response(response: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part if binary tensors follow it."""
    wanted = {output.name: output.binary for output in request.outputs}
    outputs: list[dict[str, Any]] = []
    tail: list[memoryview] = []
    for tensor in response.outputs:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.array.shape}
        if wanted.get(tensor.name, request.binary):
            entry["parameters"] = {"binary_data_size": tensor.array.nbytes}
            tail.append(np.ascontiguousarray(tensor.array).data)
        else:
            entry["data"] = np.ascontiguousarray(tensor.array).reshape(-1)
        outputs.append(entry)
    document: dict[str, Any] = {"id": response.id} if response.id else {}
    document |= {"model_name": response.model, "model_version": response.version}
    if response.parameters:
        document["parameters"] = response.parameters
    document["outputs"] = outputs
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


# --- parsing ----------------------------------------------------------------------------------


def _header_size(text: str | None, size: int) -> int:
    """Bytes of the JSON part of a body of `size` bytes."""
    if text is None:
        return size
    length = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1
    if not 0 < length <= size:
        raise BadRequest(f"inference header size should be in range (0, {size}), got: {shown(text)}")
    return length


def _parsed(head: memoryview) -> dict[str, Any]:
    try:
        document = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"failed to parse the request JSON buffer: {error}") from None
    if type(document) is not dict:
        raise BadRequest("failed to parse the request JSON buffer: expected an object with the key 'inputs'")
    return document


def _field(item: Any, key: str, kind: type) -> Any:
    """The member `key` of an object, of a given JSON type."""
    if type(item) is not dict or key not in item:
        raise BadRequest(f"Unable to parse '{key}': attempt to access non-existing object member '{key}'")
    value = item[key]
    if type(value) is not kind:
        noun = NOUNS[kind]
        raise BadRequest(f"Unable to parse '{key}': attempt to access JSON non-{noun} as {noun}")
    return value


def _parameters(item: dict[str, Any]) -> dict[str, Any]:
    return _field(item, "parameters", dict) if item.get("parameters") is not None else {}


def _flag(parameters: dict[str, Any], key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise BadRequest(f"Unable to parse '{key}': attempt to access JSON non-boolean as boolean")
    return value


def _inputs(items: list[Any], binary: memoryview, model: str) -> tuple[tuple[Tensor, ...], int]:
    """The inputs, and how many bytes are left over."""
    inputs: list[Tensor] = []
    offset = 0
    for item in items:
        tensor, used = _input(item, binary[offset:], model)
        if any(other.name == tensor.name for other in inputs):
            raise BadRequest(f"input '{tensor.name}' already exists in request")
        inputs.append(tensor)
        offset += used
    return tuple(inputs), len(binary) - offset


def _input(item: Any, binary: memoryview, model: str) -> tuple[Tensor, int]:
    """An input, and how many of the binary bytes are its own."""
    name = _field(item, "name", str)
    shape, datatype = _field(item, "shape", list), _field(item, "datatype", str)
    parameters = _parameters(item)
    refuse_parameters("input", name, parameters)
    size = parameters.get("binary_data_size")
    if (size is None) == (item.get("data") is None):
        raise BadRequest(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters'. "
            f"But {'no field is' if size is None else 'both are'} set for input '{shown(name)}'"
        )
    if size is None:
        return from_list(model, name, datatype, shape, _field(item, "data", list)), 0
    if type(size) is not int or size < 0:
        raise BadRequest(
            "Unable to parse 'binary_data_size': attempt to access JSON non-unsigned-integer as unsigned-integer"
        )
    if size > len(binary):
        raise BadRequest(
            f"unexpected size for input '{shown(name)}', expecting {size - len(binary)} additional bytes for model "
            f"'{shown(model)}'"
        )
    return from_bytes(model, name, datatype, shape, binary[:size]), size


def _outputs(items: Any, binary: bool) -> tuple[Output, ...]:
    if type(items) is not list:
        raise BadRequest("Unable to parse 'outputs': attempt to access JSON non-array as array")
    found: dict[str, Output] = {}
    for item in items:
        name = _field(item, "name", str)
        parameters = _parameters(item)
        refuse_parameters("output", name, parameters)
        found.setdefault(name, Output(name, _flag(parameters, "binary_data", binary)))
    return tuple(found.values())
