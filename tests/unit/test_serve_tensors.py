"""What the REST and gRPC codecs refuse, in Triton's words, and that they copy nothing that they need not."""

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from framegate.serve.errors import BadRequest
from framegate.serve.grpc_codec import decode_message
from framegate.serve.rest_codec import decode_request, encode_response
from framegate.serve.tensors import InferResponse, Tensor, from_bytes

FRAME: dict[str, Any] = {"name": "frame", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [7] * 12}
GONE = object()
UNSIGNED = "attempt to access JSON non-unsigned-integer as unsigned-integer"


def item(**changes: Any) -> dict[str, Any]:
    """The input `frame` with some keys changed or gone."""
    return {key: value for key, value in {**FRAME, **changes}.items() if value is not GONE}


def sized(size: Any, **changes: Any) -> dict[str, Any]:
    return item(data=GONE, parameters={"binary_data_size": size}, **changes)


def decode(document: Any, tail: bytes = b"", size: str | None = None) -> Any:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_request(head + tail, size or (str(len(head)) if tail else None), "framegate")


def test_a_binary_frame_is_a_view_into_the_body() -> None:
    head = json.dumps({"inputs": [sized(12)]}).encode()
    body = head + bytes(range(12))
    frame = decode_request(body, str(len(head)), "framegate").inputs[0].array
    assert np.shares_memory(frame, np.frombuffer(body, np.uint8))
    assert frame.tolist() == np.arange(12).reshape(1, 2, 2, 3).tolist()


def test_floats_at_an_odd_address_are_copied_to_an_even_one() -> None:
    values = np.float32([1.5, -2.5])
    tensor = from_bytes("framegate", "state", "FP32", [1, 2], memoryview(b"x" + values.tobytes())[1:])
    assert tensor.array.flags.aligned
    assert tensor.array.tolist() == [[1.5, -2.5]]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([item(name=GONE)], "Unable to parse 'name': attempt to access non-existing object member 'name'"),
        ([item(name=3)], "Unable to parse 'name': attempt to access JSON non-string as string"),
        ([item(name="image")], "unexpected inference input 'image' for model 'framegate'"),
        ([item(datatype=GONE)], "Unable to parse 'datatype'"),
        ([item(datatype="FP32")], "inference input 'frame' data-type is 'FP32', but model 'framegate' expects 'UINT8'"),
        (
            [item(datatype="BYTES")],
            "inference input 'frame' data-type is 'BYTES', but model 'framegate' expects 'UINT8'",
        ),
        ([item(datatype="UINT9")], "invalid datatype for input frame"),
        ([item(shape=GONE)], "Unable to parse 'shape': attempt to access non-existing object member 'shape'"),
        ([item(shape=12)], "Unable to parse 'shape': attempt to access JSON non-array as array"),
        ([item(shape=[-1, 2, 2, 3])], f"Unable to parse 'shape': {UNSIGNED}"),
        ([item(shape=[True, 2, 2, 3])], f"Unable to parse 'shape': {UNSIGNED}"),
        ([item(shape=[1.0, 2, 2, 3])], f"Unable to parse 'shape': {UNSIGNED}"),
        ([item(shape=[[1], 2, 2, 3])], f"Unable to parse 'shape': {UNSIGNED}"),
        ([item(shape=[1] * 9)], "9 dimensions"),
        ([item(data=GONE)], "Input must set only one of the following fields"),
        ([item(parameters={"binary_data_size": 12})], "Input must set only one of the following fields"),
        ([item(data=[7] * 11)], "Shape does not match true shape of 'data' field"),
        ([item(data="x" * 12)], "Unable to parse 'data': attempt to access JSON non-array as array"),
        ([item(data=[-1] + [7] * 11)], f"Unable to parse 'data': {UNSIGNED}"),
        ([item(data=[256] + [7] * 11)], f"Unable to parse 'data': {UNSIGNED}"),
        ([item(data=[1.5] + [7] * 11)], f"Unable to parse 'data': {UNSIGNED}"),
        ([item(data=[True] + [7] * 11)], f"Unable to parse 'data': {UNSIGNED}"),
        ([item(data=["7"] + [7] * 11)], f"Unable to parse 'data': {UNSIGNED}"),
        ([item(data=[None] + [7] * 11)], f"Unable to parse 'data': {UNSIGNED}"),
        ([item(data=[[7]] + [7] * 11)], f"Unable to parse 'data': {UNSIGNED}"),
        ([sized(-1)], f"Unable to parse 'binary_data_size': {UNSIGNED}"),
        ([sized(1.0)], f"Unable to parse 'binary_data_size': {UNSIGNED}"),
        ([sized(True)], f"Unable to parse 'binary_data_size': {UNSIGNED}"),
        ([sized(12)], "unexpected size for input 'frame', expecting 12 additional bytes for model 'framegate'"),
        ([FRAME, FRAME], "input 'frame' already exists in request"),
        ([3], "Unable to parse 'name'"),
        ([item(parameters={"shared_memory_region": "a"})], "shared memory is not supported"),
        ([item(parameters=[1])], "Unable to parse 'parameters': attempt to access JSON non-object as object"),
        ({"name": "frame"}, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
    ],
)
def test_a_malformed_input_is_refused_by_name(inputs: Any, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode({"inputs": inputs})
    assert text in str(caught.value)


@pytest.mark.parametrize("value", [1e39, None, "1.5", True, [1.5]])
def test_a_state_takes_only_finite_numbers(value: Any) -> None:
    state = {"name": "state", "datatype": "FP32", "shape": [1, 2], "data": [1, value]}
    with pytest.raises(BadRequest, match="takes finite FP32 numbers"):
        decode({"inputs": [FRAME, state]})


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
        ([], "failed to parse the request JSON buffer"),
        (b"", "failed to parse the request JSON buffer"),
        (b'{"inputs": [', "failed to parse the request JSON buffer"),
        (b'{"inputs": []} more', "failed to parse the request JSON buffer"),
        (b'{"inputs": "\xff"}', "failed to parse the request JSON buffer"),
        ({"inputs": [FRAME], "id": 5}, "Unable to parse 'id': attempt to access JSON non-string as string"),
        (
            {"inputs": [FRAME], "outputs": "logits"},
            "Unable to parse 'outputs': attempt to access JSON non-array as array",
        ),
        ({"inputs": [FRAME], "outputs": [{}]}, "Unable to parse 'name'"),
        ({"inputs": [FRAME], "outputs": [{"name": "logits", "parameters": {"classification": 2}}]}, "classification"),
        (
            {"inputs": [FRAME], "outputs": [{"name": "logits", "parameters": {"shared_memory_region": "a"}}]},
            "output 'logits': shared memory is not supported",
        ),
        (
            {"inputs": [FRAME], "outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]},
            "Unable to parse 'binary_data': attempt to access JSON non-boolean as boolean",
        ),
        ({"inputs": [FRAME], "parameters": {"binary_data_output": "yes"}}, "Unable to parse 'binary_data_output'"),
    ],
)
def test_a_malformed_body_is_refused(document: Any, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(document)
    assert text in str(caught.value)


@pytest.mark.parametrize("size", ["0", "-1", "1000", "x", "", "1.5", "²", "9" * 30])
def test_a_header_length_outside_the_body_is_refused(size: str) -> None:
    with pytest.raises(BadRequest, match=r"inference header size should be in range \(0, "):
        decode({"inputs": [FRAME]}, size=size or " ")


@pytest.mark.parametrize(
    ("size", "tail", "text"),
    [
        (11, b"x" * 11, "input byte size mismatch for input 'frame' for model 'framegate'. Expected 12, got 11"),
        (12, b"x" * 7, "unexpected size for input 'frame', expecting 5 additional bytes for model 'framegate'"),
        (12, b"x" * 13, "unexpected additional input data for model 'framegate'"),
    ],
)
def test_binary_data_of_another_size_is_refused(size: int, tail: bytes, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode({"inputs": [sized(size)]}, tail)
    assert text in str(caught.value)


def test_unknown_keys_and_parameters_are_passed_over() -> None:
    request = decode({"inputs": [item(extra=1)], "foo": [], "parameters": {"priority": 3, "mine": "x"}})
    assert request.parameters == {"priority": 3, "mine": "x"}


def test_an_output_asked_for_twice_comes_once_and_in_its_own_form() -> None:
    outputs = [
        {"name": "next_state", "parameters": {"binary_data": True}},
        {"name": "logits"},
        {"name": "next_state"},
    ]
    request = decode({"inputs": [FRAME], "outputs": outputs})
    assert [(output.name, output.binary) for output in request.outputs] == [("next_state", True), ("logits", False)]
    values = np.float32([[0.1, 2]])
    response = InferResponse("framegate", "1", (Tensor("next_state", values), Tensor("logits", values)))
    body, size = encode_response(response, request)
    assert body[size:] == values.tobytes()
    state, logits = json.loads(body[:size])["outputs"]
    assert state == {"name": "next_state", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    assert logits == {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 2.0]}


# --- gRPC -------------------------------------------------------------------------------------


def message(raw: list[bytes] | None = None, **fields: Any) -> Any:
    """One input `frame`, its data raw."""
    given = pb.ModelInferRequest(model_name="framegate", raw_input_contents=[bytes(12)] if raw is None else raw)
    given.inputs.add(**{"name": "frame", "datatype": "UINT8", "shape": [1, 2, 2, 3], **fields})
    return given


def test_a_raw_frame_is_a_view_into_the_message() -> None:
    asked = message()
    assert decode_message(asked).inputs[0].array.base is not None


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (message(name="image"), "unexpected inference input 'image' for model 'framegate'"),
        (
            message(datatype="FP32"),
            "inference input 'frame' data-type is 'FP32', but model 'framegate' expects 'UINT8'",
        ),
        (message(datatype="<invalid>"), "invalid datatype for input frame"),
        (message(shape=[-1, 2, 2, 3]), "Unable to parse 'shape'"),
        (message([b"x" * 11]), "input byte size mismatch for input 'frame' for model 'framegate'. Expected 12, got 11"),
        (message([b"x" * 13]), "Expected 12, got 13"),
        (message([]), "unable to find data for input tensor 'frame' for model 'framegate' in request."),
        (message([bytes(12), b""]), "unexpected additional input data for model 'framegate'"),
    ],
)
def test_a_malformed_message_is_refused(asked: Any, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_message(asked)
    assert text in str(caught.value)


def test_contents_beside_raw_contents_are_refused() -> None:
    asked = message()
    asked.inputs[0].contents.uint_contents.extend([1] * 12)
    with pytest.raises(
        BadRequest, match="contents field must not be specified when using raw_input_contents for 'frame'"
    ):
        decode_message(asked)


def test_contents_of_another_length_or_kind_are_refused() -> None:
    asked = message([])
    asked.inputs[0].contents.uint_contents.extend([1] * 11)
    with pytest.raises(BadRequest, match="Expected 12, got 11"):
        decode_message(asked)
    asked.inputs[0].contents.uint_contents.append(256)
    with pytest.raises(BadRequest, match=r"integers of 0\.\.255, got 256"):
        decode_message(asked)
    del asked.inputs[0].contents.uint_contents[:]
    asked.inputs[0].contents.fp32_contents.extend([1] * 12)
    with pytest.raises(BadRequest, match="Expected 12, got 0"):
        decode_message(asked)


def test_the_same_input_twice_is_refused() -> None:
    asked = message([bytes(12), bytes(12)])
    asked.inputs.add(name="frame", datatype="UINT8", shape=[1, 2, 2, 3])
    with pytest.raises(BadRequest, match="input 'frame' already exists in request"):
        decode_message(asked)


def test_shared_memory_is_refused() -> None:
    asked = message([])
    asked.inputs[0].parameters["shared_memory_region"].string_param = "region"
    with pytest.raises(BadRequest, match="shared memory is not supported"):
        decode_message(asked)
