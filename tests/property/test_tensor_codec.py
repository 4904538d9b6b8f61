"""The tensor codec: what tritonclient writes is read as it was, and no bytes give anything but a request or a clean 400."""

import json
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from tritonclient.grpc import service_pb2 as pb

from framegate.serve.errors import BadRequest, NotOffered
from framegate.serve.grpc_codec import decode_message, encode_message
from framegate.serve.infer import sequence_id
from framegate.serve.rest_codec import decode_request, encode_response
from framegate.serve.tensors import InferRequest, InferResponse, Output, Tensor

Client = triton_http.InferenceServerClient
SHAPES = st_np.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
FRAMES = st_np.arrays(np.uint8, SHAPES)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
STATES = st_np.arrays(np.float32, SHAPES, elements=FINITE)


def described(module: Any, frame: np.ndarray, state: np.ndarray) -> list[Any]:
    inputs = [module.InferInput("frame", frame.shape, "UINT8"), module.InferInput("state", state.shape, "FP32")]
    return inputs


def arrays(request: InferRequest) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.array for tensor in request.inputs}


def same(request: InferRequest, frame: np.ndarray, state: np.ndarray) -> None:
    found = arrays(request)
    for name, sent in (("frame", frame), ("state", state)):
        assert found[name].dtype == sent.dtype
        assert found[name].shape == sent.shape
        assert found[name].tobytes() == sent.tobytes()


@given(FRAMES, STATES, st.booleans(), st.booleans(), st.text(max_size=8))
def test_rest_requests_are_read_as_they_were_written(frame, state, frame_binary, state_binary, name) -> None:
    inputs = described(triton_http, frame, state)
    inputs[0].set_data_from_numpy(frame, binary_data=frame_binary)
    inputs[1].set_data_from_numpy(state, binary_data=state_binary)
    body, size = Client.generate_request_body(inputs, request_id=name)
    request = decode_request(body, None if size is None else str(size), "framegate")
    same(request, frame, state)
    assert request.id == name and request.binary


@given(FRAMES, STATES)
def test_nested_lists_are_read_as_they_were_written(frame, state) -> None:
    document = {
        "inputs": [
            {"name": "frame", "datatype": "UINT8", "shape": frame.shape, "data": frame.tolist() if frame.size else []},
            {"name": "state", "datatype": "FP32", "shape": state.shape, "data": state.tolist() if state.size else []},
        ]
    }
    same(decode_request(json.dumps(document).encode(), None, "framegate"), frame, state)


@given(STATES, FRAMES, st.booleans(), st.booleans())
def test_rest_answers_are_read_as_they_were_written(logits, more, binary, all_binary) -> None:
    response = InferResponse(
        "framegate", "2", (Tensor("logits", logits), Tensor("more", more)), "r1", {"reset": "version"}
    )
    request = InferRequest("framegate", "", (), (Output("logits", binary),), binary=all_binary)
    body, size = encode_response(response, request)
    result = Client.parse_response_body(body, header_length=size)
    for name, array in (("logits", logits), ("more", more)):
        found = result.as_numpy(name)
        assert found.shape == array.shape
        assert found.astype(array.dtype).tobytes() == array.tobytes()
    told = result.get_response()
    assert (told["id"], told["model_version"], told["parameters"]) == ("r1", "2", {"reset": "version"})
    assert (size is None) == (not binary and not all_binary)


@given(FRAMES, STATES)
def test_raw_grpc_requests_are_read_as_they_were_written(frame, state) -> None:
    message = pb.ModelInferRequest(model_name="framegate")
    for sent in zip(described(triton_grpc, frame, state), (frame, state), strict=True):
        sent[0].set_data_from_numpy(sent[1])
        message.inputs.append(sent[0]._get_tensor())
        message.raw_input_contents.append(sent[0]._get_content())
    same(decode_message(pb.ModelInferRequest.FromString(message.SerializeToString())), frame, state)


@given(FRAMES, STATES)
def test_typed_grpc_contents_are_read_as_they_were_written(frame, state) -> None:
    message = pb.ModelInferRequest(model_name="framegate")
    first = message.inputs.add(name="frame", datatype="UINT8", shape=frame.shape)
    first.contents.uint_contents.extend(frame.ravel().tolist())
    second = message.inputs.add(name="state", datatype="FP32", shape=state.shape)
    second.contents.fp32_contents.extend(state.ravel().tolist())
    same(decode_message(message), frame, state)


@given(STATES)
def test_grpc_answers_are_read_as_they_were_written(logits) -> None:
    message = encode_message(InferResponse("framegate", "2", (Tensor("logits", logits),), "r1"))
    found = triton_grpc.InferResult(message).as_numpy("logits")
    assert found.shape == logits.shape and found.tobytes() == logits.tobytes()


# --- whatever comes ---------------------------------------------------------------------------


def read(body: bytes, size: str | None) -> InferRequest | None:
    """The request, or None after a 400 whose text can be sent as JSON."""
    try:
        request = decode_request(body, size, "framegate")
        sequence_id(request.parameters)
        return request
    except (BadRequest, NotOffered) as error:
        assert error.status in (400, 501) and 0 < len(str(error)) < 1000
        orjson.dumps({"error": str(error)})
        return None


@given(st.binary(max_size=300), st.none() | st.integers(-5, 400).map(str) | st.text(max_size=20))
@example(b"", None)
@example(b"", "0")
@example(b"[" * 100_000, None)
@example(b'{"inputs":' + b"[" * 500 + b"]" * 500 + b"}", None)
def test_any_bytes_are_a_request_or_a_clean_error(body, size) -> None:
    read(body, size)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["frame", "state", "image"]) | JSON,
        "datatype": st.sampled_from(["UINT8", "FP32", "BYTES", "FP64"]) | JSON,
        "shape": st.lists(st.integers(0, 3), max_size=3) | st.lists(JSON, max_size=4) | JSON,
        "data": st.lists(st.integers(0, 255), max_size=8) | st.lists(JSON, max_size=4) | JSON,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "shared_memory_region"]), JSON, max_size=2)
        | JSON,
    },
)
OUTPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["logits", "next_state"]) | JSON,
        "parameters": st.dictionaries(st.sampled_from(["binary_data", "classification"]), JSON, max_size=2) | JSON,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=4) | JSON,
        "inputs": st.lists(INPUT, max_size=3) | JSON,
        "outputs": st.lists(OUTPUT, max_size=3) | JSON,
        "parameters": st.dictionaries(st.sampled_from(["sequence_id", "binary_data_output"]), JSON, max_size=2) | JSON,
    },
)


@given(DOCUMENT | JSON, st.binary(max_size=32))
def test_any_document_is_a_request_or_a_clean_error(document, tail) -> None:
    head = json.dumps(document).encode()
    read(head + tail, str(len(head)))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.lists(st.integers(0, 255), max_size=30))
def test_a_tensor_is_accepted_exactly_when_its_size_is_its_shape(shape, values) -> None:
    item = {"name": "frame", "datatype": "UINT8", "shape": shape, "data": values}
    request = read(json.dumps({"inputs": [item]}).encode(), None)
    assert (request is not None) == (int(np.prod(shape)) == len(values))
    binary = {"name": "frame", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": len(values)}}
    head = json.dumps({"inputs": [binary]}).encode()
    request = read(head + bytes(values), str(len(head)))
    assert (request is not None) == (int(np.prod(shape)) == len(values))


@given(st.binary(max_size=200))
def test_any_message_is_a_request_or_a_clean_error(data) -> None:
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    try:
        decode_message(message)
    except BadRequest as error:
        assert 0 < len(str(error)) < 1000


FIELDS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["frame", "state", "image", ""]),
        "datatype": st.sampled_from(["UINT8", "FP32", "BYTES", "what"]),
        "shape": st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 3), max_size=10),
    }
)


@given(
    st.lists(st.tuples(FIELDS, st.none() | st.lists(st.integers(0, 2**32 - 1), max_size=4)), max_size=3),
    st.lists(st.binary(max_size=12), max_size=4),
)
def test_any_tensors_in_a_message_are_a_request_or_a_clean_error(inputs, raw) -> None:
    message = pb.ModelInferRequest(model_name="framegate", raw_input_contents=raw)
    for fields, contents in inputs:
        item = message.inputs.add(**fields)
        if contents is not None:
            item.contents.uint_contents.extend(contents)
    try:
        request = decode_message(message)
    except BadRequest as error:
        assert 0 < len(str(error)) < 1000
    else:
        assert len(request.inputs) == len(inputs)


@pytest.mark.parametrize(
    "shape",
    [
        [10**9, 10**9, 3],
        [2**63 - 1] * 8,
        [0, 2**62, 2**62],
        [1] * 100,
        [10**9, 16, 16, 3],
    ],
)
def test_a_huge_shape_allocates_nothing(shape) -> None:
    bodies = [
        {"name": "frame", "datatype": "UINT8", "shape": shape, "data": [1, 2, 3]},
        {"name": "frame", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": 0}},
        {"name": "state", "datatype": "FP32", "shape": shape, "data": ["x" * 10_000, *[1] * 1000]},
    ]
    for item in bodies:
        body = json.dumps({"inputs": [item]}).encode()
        tracemalloc.start()
        try:
            assert read(body, str(len(body))) is None
            assert tracemalloc.get_traced_memory()[1] < 500_000
        finally:
            tracemalloc.stop()


def test_long_text_among_numbers_allocates_no_array_of_text() -> None:
    """NumPy would make every element as wide as the longest text: 4 bytes x 20,000 x 20,000."""
    item = {"name": "state", "datatype": "FP32", "shape": [20_001], "data": ["x" * 20_000, *[1] * 20_000]}
    body = json.dumps({"inputs": [item]}).encode()
    tracemalloc.start()
    try:
        assert read(body, None) is None
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
