"""The ways in which tensors travel: binary and JSON, compressed, unary and in a stream. The answers stay the same."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.contract.conftest import IDS, Answers, Client

Clips = NDArray[np.uint8]  # u8 [3,T,H,W,3]
ALONE = {"sequence_start": True, "sequence_end": True}


def same(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


# --- HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("binary_in", "binary_out"), list(product([True, False], repeat=2)))
def test_json_and_binary_tensors_say_the_same(
    http: Client, clips: Clips, sequence_id: int, binary_in: bool, binary_out: bool
) -> None:
    last, got = clips.shape[1] - 1, []
    for t, frame in enumerate(clips[0]):
        inputs = [http.tensor(frame[None], binary_data=binary_in)]
        outputs = [http.module.InferRequestedOutput("logits", binary_data=binary_out)]
        place = {"sequence_start": t == 0, "sequence_end": t == last}
        result = http.infer(inputs, outputs=outputs, sequence_id=sequence_id, **place)
        assert ("data" in result.get_output("logits")) is not binary_out
        got.append(result.as_numpy("logits")[0])
    same(np.stack(got), http.server.offline(clips[0]))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("asked", "answered"), list(product([None, "gzip", "deflate"], repeat=2)))
def test_http_bodies_may_be_compressed_both_ways(
    http: Client, clips: Clips, sequence_id: int, asked: str | None, answered: str | None, binary: bool
) -> None:
    result = http.infer(
        [http.tensor(clips[0, :1], binary_data=binary)],
        outputs=[http.module.InferRequestedOutput("logits", binary_data=binary)],
        sequence_id=sequence_id,
        request_compression_algorithm=asked,
        response_compression_algorithm=answered,
        **ALONE,
    )
    same(result.as_numpy("logits"), http.server.offline(clips[0, :1]))


def test_a_body_that_tritonclient_built_by_itself_is_answered(http: Client, clips: Clips, sequence_id: int) -> None:
    """generate_request_body and parse_response_body, for people who bring their own HTTP client."""
    from urllib.request import Request, urlopen

    kind = http.module.InferenceServerClient
    body, length = kind.generate_request_body([http.tensor(clips[0, :1])], sequence_id=sequence_id, **ALONE)
    request = Request(f"http://{http.server.http}/v2/models/{http.server.model}/infer", data=body)
    request.add_header("Inference-Header-Content-Length", str(length))
    with urlopen(request, timeout=30) as answer:
        header = answer.headers.get("Inference-Header-Content-Length")
        result = kind.parse_response_body(answer.read(), header_length=int(header) if header else None)
    same(result.as_numpy("logits"), http.server.offline(clips[0, :1]))


# --- gRPC ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_grpc_messages_may_be_compressed(grpc: Client, clips: Clips, sequence_id: int, algorithm: str) -> None:
    result = grpc.infer([grpc.tensor(clips[0, :1])], sequence_id=sequence_id, compression_algorithm=algorithm, **ALONE)
    same(result.as_numpy("logits"), grpc.server.offline(clips[0, :1]))


# --- both ---------------------------------------------------------------------------------------


def test_the_answer_names_request_model_and_version(client: Client, clips: Clips, sequence_id: int) -> None:
    result = client.infer([client.tensor(clips[0, :1])], sequence_id=sequence_id, request_id="frame 7", **ALONE)
    found = result.get_response() if client.is_http else result.get_response(as_json=True)
    named = {key: found[key] for key in ("id", "model_name", "model_version")}
    assert named == {"id": "frame 7", "model_name": client.server.model, "model_version": client.server.version}
    assert result.as_numpy("logits").shape == (1, 3) and result.as_numpy("logits").dtype == np.float32


def test_a_version_may_be_named(client: Client, clips: Clips, sequence_id: int) -> None:
    result = client.infer(
        [client.tensor(clips[0, :1])], sequence_id=sequence_id, model_version=client.server.version, **ALONE
    )
    same(result.as_numpy("logits"), client.server.offline(clips[0, :1]))


def test_only_the_outputs_that_were_asked_for_come(client: Client, clips: Clips, sequence_id: int) -> None:
    outputs = [client.module.InferRequestedOutput("logits")]
    result = client.infer([client.tensor(clips[0, :1])], outputs=outputs, sequence_id=sequence_id, **ALONE)
    found = result.get_response() if client.is_http else result.get_response(as_json=True)
    assert [one["name"] for one in found["outputs"]] == ["logits"]


def test_unknown_parameters_are_passed_over(client: Client, clips: Clips, sequence_id: int) -> None:
    more = {"parameters": {"camera": "hall"}, **ALONE}
    result = client.infer([client.tensor(clips[0, :1])], sequence_id=sequence_id, **more)
    same(result.as_numpy("logits"), client.server.offline(clips[0, :1]))


# --- a stream of gRPC ---------------------------------------------------------------------------


class Stream:
    """One ModelStreamInfer call."""

    def __init__(self, grpc: Client) -> None:
        self.grpc, self.answers = grpc, Answers()
        grpc.connection.start_stream(self.answers.take)

    def send(self, frame: NDArray[np.uint8], sequence_id: int | str, start: bool, end: bool, **more: object) -> None:
        place = {"sequence_id": sequence_id, "sequence_start": start, "sequence_end": end}
        inputs = [self.grpc.tensor(frame[None])]
        self.grpc.connection.async_stream_infer(
            **{"model_name": self.grpc.server.model, "inputs": inputs} | place | more
        )

    def next(self) -> NDArray[np.float32]:
        return self.answers.next().as_numpy("logits")[0]


@pytest.fixture
def stream(grpc: Client) -> Iterator[Stream]:
    yield Stream(grpc)
    grpc.connection.stop_stream()


def test_a_stream_answers_a_sequence_in_order(stream: Stream, clips: Clips, sequence_id: int) -> None:
    last = clips.shape[1] - 1
    for t, frame in enumerate(clips[0]):  # all are sent before the first answer is read
        stream.send(frame, sequence_id, t == 0, t == last, request_id=f"{t}")
    results = [stream.answers.next() for _ in clips[0]]
    assert [one.get_response().id for one in results] == ["0", "1", "2", "3"]
    same(np.stack([one.as_numpy("logits")[0] for one in results]), stream.grpc.server.offline(clips[0]))


def test_a_stream_carries_several_sequences(stream: Stream, clips: Clips) -> None:
    ids, last = [f"camera-{next(IDS)}" for _ in clips], clips.shape[1] - 1
    got: dict[str, list] = {}
    for t in range(clips.shape[1]):
        for one, clip in zip(ids, clips, strict=True):
            stream.send(clip[t], one, t == 0, t == last, request_id=one)
    for _ in range(clips.shape[0] * clips.shape[1]):
        result = stream.answers.next()
        got.setdefault(result.get_response().id, []).append(result.as_numpy("logits")[0])
    for one, clip in zip(ids, clips, strict=True):
        same(np.stack(got[one]), stream.grpc.server.offline(clip))


def test_a_refusal_does_not_end_the_stream(stream: Stream, clips: Clips, sequence_id: int) -> None:
    stream.send(clips[0, 0], sequence_id, True, False)
    first = stream.next()
    for text, more in (
        ("unexpected inference output 'boxes'", {"outputs": [stream.grpc.module.InferRequestedOutput("boxes")]}),
        ("unknown model: 'nobody' is not found", {"model_name": "nobody"}),
        ("unexpected inference input 'image'", {"inputs": [stream.grpc.tensor(clips[0, :1], "image")]}),
        ("unexpected shape for input 'frame'", {"inputs": [stream.grpc.tensor(clips[0, :1, :8])]}),
    ):
        stream.send(clips[0, 0], sequence_id, False, False, **more)
        with pytest.raises(InferenceServerException, match=text):
            stream.next()
    stream.send(clips[0, 0], next(IDS), False, False)
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        stream.next()
    stream.send(clips[0, 1], sequence_id, False, True)
    same(np.stack([first, stream.next()]), stream.grpc.server.offline(clips[0, :2]))


def test_a_stream_and_unary_calls_share_sequences(stream: Stream, clips: Clips, sequence_id: int) -> None:
    stream.send(clips[0, 0], sequence_id, True, False)
    got = [stream.next(), stream.grpc.step(clips[0, 1:2], sequence_id)]
    stream.send(clips[0, 2], sequence_id, False, True)
    same(np.stack([*got, stream.next()]), stream.grpc.server.offline(clips[0, :3]))
