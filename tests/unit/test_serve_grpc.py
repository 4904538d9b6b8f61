"""The protocol over gRPC, by tritonclient and by its stubs, against a real server."""

import asyncio
import gc
import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from framegate.contract import ConfigError
from framegate.serve.grpc_server import key_of, make_server
from framegate.serve.grpc_service import Service
from tests.oip import HeldSession, Served, frames_of, inferring, offline, opened, serving

VIDEO = frames_of(4)
EXPECTED = offline(VIDEO)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(served.grpc) as found:
        yield found


def tensor(frames: np.ndarray) -> list[Any]:
    found = triton.InferInput("frame", list(frames.shape), "UINT8")
    found.set_data_from_numpy(frames)
    return [found]


def frame(t: int) -> list[Any]:
    """The input `frame`, frame t of the video."""
    return tensor(VIDEO[t : t + 1])


def code(call: Any) -> tuple[str, str]:
    """The status and text that a call fails with."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def message(t: int, **parameters: Any) -> Any:
    """A ModelInferRequest by hand."""
    found = pb.ModelInferRequest(model_name="framegate", raw_input_contents=[VIDEO[t].tobytes()])
    found.inputs.add(name="frame", datatype="UINT8", shape=[1, 16, 16, 3])
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for key, value in parameters.items():
        setattr(found.parameters[key], kinds[type(value)], value)
    return found


def test_a_client_learns_what_is_served(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("framegate") and client.is_model_ready("framegate", "a" * 12)
    assert not client.is_model_ready("nope") and not client.is_model_ready("framegate", "9")
    assert client.get_server_metadata().name == "framegate"
    told = client.get_model_metadata("framegate", as_json=True)
    assert told["versions"] == ["a" * 12]
    assert told["inputs"][0] == {"name": "frame", "datatype": "UINT8", "shape": ["-1", "16", "16", "3"]}
    config = client.get_model_config("framegate").config
    assert config.max_batch_size == 16 and list(config.input[0].dims) == [16, 16, 3]
    assert config.sequence_batching.max_sequence_idle_microseconds == 60_000_000
    index = client.get_model_repository_index().models
    assert [(one.name, one.version, one.state) for one in index] == [("framegate", "a" * 12, "READY")]


def test_unknown_models_are_not_found(client: Any) -> None:
    text = "Request for unknown model: 'nope' is not found"
    assert code(lambda: client.get_model_metadata("nope")) == ("NOT_FOUND", text)
    assert code(lambda: client.get_model_config("nope")) == ("NOT_FOUND", text)
    assert code(lambda: client.infer("nope", frame(0))) == ("NOT_FOUND", text)
    assert code(lambda: client.infer("framegate", frame(0), model_version="9"))[0] == "NOT_FOUND"
    status, told = code(lambda: client.get_inference_statistics("nope"))
    assert status == "INVALID_ARGUMENT" and "requested model 'nope' is not available" in told


def test_what_is_not_offered_is_unimplemented(client: Any) -> None:
    assert code(lambda: client.load_model("framegate"))[0] == "UNIMPLEMENTED"
    assert code(lambda: client.get_system_shared_memory_status())[0] == "UNIMPLEMENTED"


METHODS = {one.name: one for one in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
MISSING = sorted(name for name in METHODS if not hasattr(Service, name))


def call(served: Served, name: str, sent: bytes, **metadata: str) -> tuple[grpc.StatusCode, str]:
    """What bytes to a method are refused with."""
    path, more = f"/inference.GRPCInferenceService/{name}", {"metadata": tuple(metadata.items()), "timeout": 10}
    with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        if METHODS[name].client_streaming:
            list(channel.stream_stream(path)(iter([sent]), **more))
        else:
            channel.unary_unary(path)(sent, **more)
    return caught.value.code(), caught.value.details()


def outcomes(served: Served, outcome: str) -> float:
    """So many calls were counted."""
    metrics = served.inference.engine.metrics
    metrics.flush()
    labels = {"route": "grpc", "outcome": outcome}
    return metrics.registry.get_sample_value("framegate_requests_total", labels) or 0.0


@pytest.mark.parametrize("name", MISSING)
def test_a_method_that_is_not_there_is_named_counted_and_no_error_of_ours(
    served: Served, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = outcomes(served, "UNIMPLEMENTED")
    told = call(served, name, b"")
    assert told == (grpc.StatusCode.UNIMPLEMENTED, f"{name} is not offered by this server")
    assert outcomes(served, "UNIMPLEMENTED") == before + 1
    assert caplog.records == []


def test_the_methods_that_are_not_there_are_those_of_loading_memory_and_logs() -> None:
    assert {"RepositoryModelLoad", "SystemSharedMemoryStatus", "TraceSetting", "LogSettings"} <= set(MISSING)
    assert len(METHODS) - len(MISSING) == 10


@pytest.mark.parametrize("name", sorted(METHODS))
def test_bytes_that_are_no_message_are_an_invalid_argument(
    served: Served, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = outcomes(served, "INVALID_ARGUMENT")
    status, text = call(served, name, b"\xff\xff\xff")
    assert (status, "cannot be parsed as protobuf" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert outcomes(served, "INVALID_ARGUMENT") == before + 1
    assert caplog.records == []


def test_what_came_before_a_damaged_message_of_a_stream_is_answered(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    sent = [message(0).SerializeToString(), b"\xff\xff\xff", message(1).SerializeToString()]
    with grpc.insecure_channel(served.grpc) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(sent), timeout=10)
        answer = pb.ModelStreamInferResponse.FromString(next(stream)).infer_response
        np.testing.assert_array_equal(triton.InferResult(answer).as_numpy("logits"), EXPECTED[:1])
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caplog.records == []


@pytest.mark.parametrize("name", [7, "cam-a"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_sequence_gives_the_offline_answers(client: Any, name: int | str, compression: str | None) -> None:
    for t in range(4):
        result = client.infer(
            "framegate",
            frame(t),
            request_id=f"r{t}",
            sequence_id=name,
            sequence_start=t == 0,
            sequence_end=t == 3,
            compression_algorithm=compression,
        )
        np.testing.assert_array_equal(result.as_numpy("logits"), EXPECTED[t : t + 1])
        assert result.get_response().id == f"r{t}"
    status, text = code(lambda: client.infer("framegate", frame(3), sequence_id=name))
    assert status == "INVALID_ARGUMENT" and f"sequence {name} to model 'framegate' must specify the START" in text


def test_an_id_of_64_bits_is_the_same_sequence_over_both_transports(client: Any, served: Served) -> None:
    """Triton's client for C++ writes such an id into the field of signed numbers."""
    started = client.infer("framegate", frame(0), sequence_id=-5, sequence_start=True)
    np.testing.assert_array_equal(started.as_numpy("logits"), EXPECTED[:1])
    with triton_http.InferenceServerClient(served.http) as other:
        wanted = triton_http.InferInput("frame", [1, 16, 16, 3], "UINT8")
        wanted.set_data_from_numpy(VIDEO[1:2])
        ended = other.infer("framegate", [wanted], sequence_id=2**64 - 5, sequence_end=True)
    np.testing.assert_array_equal(ended.as_numpy("logits"), EXPECTED[1:2])


def test_typed_contents_give_the_same_answer(client: Any, served: Served) -> None:
    asked = message(0)
    del asked.raw_input_contents[:]
    asked.inputs[0].contents.uint_contents.extend(VIDEO[0].ravel().tolist())
    with grpc.insecure_channel(served.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(asked)
    np.testing.assert_array_equal(triton.InferResult(answer).as_numpy("logits"), EXPECTED[:1])


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"sequence_id": 1.5}, "Unable to parse 'sequence_id'"),
        ({"sequence_id": True}, "Unable to parse 'sequence_id'"),
        ({"sequence_id": 5, "sequence_start": "yes"}, "Unable to parse 'sequence_start'"),
        ({"timeout": "soon"}, "Unable to parse 'timeout'"),
        ({"sequence_start": True}, "non-zero or non-empty correlation ID"),
    ],
)
def test_wrong_parameters_are_invalid_arguments(served: Served, parameters: dict[str, Any], text: str) -> None:
    with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message(0, **parameters))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and text in caught.value.details()


def test_wrong_tensors_are_invalid_arguments(client: Any) -> None:
    small = tensor(np.zeros((1, 8, 8, 3), np.uint8))
    status, text = code(lambda: client.infer("framegate", small))
    assert status == "INVALID_ARGUMENT" and "Expected [-1,16,16,3], got [1,8,8,3]" in text
    outputs = [triton.InferRequestedOutput("nope")]
    status, text = code(lambda: client.infer("framegate", frame(0), outputs=outputs))
    assert status == "INVALID_ARGUMENT" and "unexpected inference output 'nope'" in text
    shared = triton.InferInput("frame", [1, 16, 16, 3], "UINT8")
    shared.set_shared_memory("region", 768)
    assert code(lambda: client.infer("framegate", [shared]))[0] == "INVALID_ARGUMENT"
    ranked = [triton.InferRequestedOutput("logits", class_count=2)]
    assert code(lambda: client.infer("framegate", frame(0), outputs=ranked))[0] == "INVALID_ARGUMENT"


def test_too_many_sequences_are_unavailable_and_say_when_to_come_back() -> None:
    with serving(max_streams=1) as served, grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(message(0, sequence_id=1, sequence_start=True))
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message(0, sequence_id=2, sequence_start=True))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "5000"


def test_an_expired_deadline_is_refused(client: Any) -> None:
    assert code(lambda: client.infer("framegate", frame(0), timeout=1))[0] == "DEADLINE_EXCEEDED"


def test_the_deadline_of_the_call_bounds_the_wait_in_the_queue() -> None:
    held = HeldSession()
    with serving(held, deadline_ms=10_000) as served, triton.InferenceServerClient(served.grpc) as client:
        client.infer("framegate", frame(0), sequence_id=1, sequence_start=True)
        held.open.clear()
        held.begun.clear()
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.async_infer("framegate", frame(0), lambda result, error: answers.put((result, error)))
        assert held.begun.wait(10)
        status, _ = code(lambda: client.infer("framegate", frame(3), sequence_id=1, client_timeout=0.05))
        assert status == "DEADLINE_EXCEEDED"
        held.open.set()
        assert answers.get(timeout=10)[1] is None
        result = client.infer("framegate", frame(1), sequence_id=1)
        np.testing.assert_array_equal(result.as_numpy("logits"), EXPECTED[1:2])


def test_a_cancelled_call_counts_once() -> None:
    held = HeldSession()
    with serving(held, deadline_ms=10_000) as served, grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(message(0, sequence_id=1, sequence_start=True))
        held.open.clear()
        held.begun.clear()
        leaving = stub.ModelInfer.future(message(1, sequence_id=1))
        assert held.begun.wait(10)
        leaving.cancel()
        held.open.set()
        answer = stub.ModelInfer(message(2, sequence_id=1))
        np.testing.assert_array_equal(triton.InferResult(answer).as_numpy("logits"), EXPECTED[2:3])
        assert held.steps == 3


def test_a_message_beyond_the_limit_is_exhausting_even_when_it_was_small_on_the_wire() -> None:
    with serving(max_request_mb=0.5) as served, triton.InferenceServerClient(served.grpc) as client:
        bomb = tensor(np.zeros((1000, 32, 32, 3), np.uint8))
        for compression in (None, "gzip", "deflate"):
            status, _ = code(lambda how=compression: client.infer("framegate", bomb, compression_algorithm=how))
            assert status == "RESOURCE_EXHAUSTED"
        assert client.infer("framegate", frame(0)).as_numpy("logits") is not None


# --- streams ----------------------------------------------------------------------------------


class Talk:
    """A stream of tritonclient's, its answers in a queue."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.start_stream(lambda result, error: self.answers.put((result, error)))

    def send(self, t: int, sequence: int | str, frames: np.ndarray = VIDEO, **flags: bool) -> None:
        self.client.async_stream_infer(
            "framegate", tensor(frames[t : t + 1]), request_id=f"{sequence}/{t}", sequence_id=sequence, **flags
        )

    def answer(self) -> tuple[str, np.ndarray]:
        result, error = self.answers.get(timeout=10)
        assert error is None, error
        assert result.get_response().parameters["triton_final_response"].bool_param
        return result.get_response().id, result.as_numpy("logits")[0]

    def error(self) -> str:
        result, error = self.answers.get(timeout=10)
        assert result is None
        return str(error.message())


def test_sequences_in_one_stream_come_in_order_each_and_are_batched() -> None:
    held = HeldSession()
    videos = {name: frames_of(6, seed) for seed, name in enumerate([1, 2, 3, "four", "1"])}
    with serving(held, deadline_ms=10_000) as served, triton.InferenceServerClient(served.grpc) as client:
        talk = Talk(client)
        held.open.clear()
        for t in range(6):
            for name, video in videos.items():
                talk.send(t, name, video, sequence_start=t == 0, sequence_end=t == 5)
        time.sleep(0.1)
        held.open.set()
        answers = [talk.answer() for _ in range(30)]
        client.stop_stream()
        found: dict[str, list[np.ndarray]] = {}
        order: dict[str, list[int]] = {}
        for name, logits in answers:
            sequence, _, t = name.partition("/")
            found.setdefault(sequence, []).append(logits)
            order.setdefault(sequence, []).append(int(t))
        assert max(held.rows) > 1
        for name in ("2", "3", "four"):
            assert order[name] == list(range(6))
            video = videos[int(name) if name.isdigit() else name]
            np.testing.assert_array_equal(np.stack(found[name]), offline(video))
        both = np.stack(sorted((row for row in found["1"]), key=lambda row: row.tolist()))  # of 1 and "1"
        expected = np.concatenate([offline(videos[1]), offline(videos["1"])])
        np.testing.assert_array_equal(both, np.stack(sorted(expected, key=lambda row: row.tolist())))


def test_an_error_in_a_stream_comes_in_its_turn() -> None:
    held = HeldSession()
    with serving(held, deadline_ms=10_000) as served, triton.InferenceServerClient(served.grpc) as client:
        talk = Talk(client)
        held.open.clear()
        talk.send(0, 1, sequence_start=True)
        client.async_stream_infer("nope", frame(0), sequence_id=1)  # known at once, and yet not told before the first
        talk.send(1, 1, sequence_end=True)
        assert held.begun.wait(10)
        time.sleep(0.1)
        held.open.set()
        np.testing.assert_array_equal(talk.answer()[1], EXPECTED[0])
        assert talk.error() == "Request for unknown model: 'nope' is not found"
        np.testing.assert_array_equal(talk.answer()[1], EXPECTED[1])
        client.stop_stream()


def test_after_an_error_a_stream_goes_on(client: Any) -> None:
    talk = Talk(client)
    talk.send(0, 31, sequence_start=True)
    client.async_stream_infer("framegate", tensor(np.zeros((1, 8, 8, 3), np.uint8)), sequence_id=31)
    talk.send(1, 31, sequence_end=True)
    np.testing.assert_array_equal(talk.answer()[1], EXPECTED[0])
    assert "unexpected shape for input 'frame'" in talk.error()
    np.testing.assert_array_equal(talk.answer()[1], EXPECTED[1])
    talk.send(2, 31)
    assert "must specify the START flag" in talk.error()
    client.async_stream_infer("nope", frame(0))
    assert talk.error() == "Request for unknown model: 'nope' is not found"
    client.stop_stream()


def test_more_requests_than_fit_in_flight_are_all_answered() -> None:
    held = HeldSession()
    with serving(held, deadline_ms=10_000) as served, triton.InferenceServerClient(served.grpc) as client:
        talk = Talk(client)
        held.open.clear()
        for number in range(150):
            client.async_stream_infer("framegate", frame(0), request_id=str(number))
        time.sleep(0.1)
        held.open.set()
        assert [talk.answer()[0] for _ in range(150)] == [str(number) for number in range(150)]
        client.stop_stream()


def test_requests_on_their_way_to_another_worker_do_not_overtake_each_other() -> None:
    class Elsewhere:
        """Every sequence lives there; the first call takes longest to arrive."""

        def __init__(self) -> None:
            self.waits_s, self.arrived = [0.1, 0.05, 0.0], []

        def elsewhere(self, parameters: Any) -> int:
            return 1

        async def infer(self, index: int, message: Any, left_s: float | None) -> Any:
            await asyncio.sleep(self.waits_s.pop(0))
            self.arrived.append(message.id)
            return pb.ModelInferResponse(id=message.id)

    peers = Elsewhere()
    with serving(peers=peers) as served, triton.InferenceServerClient(served.grpc) as client:
        talk = Talk(client)
        for t in range(3):
            talk.send(t, 1, sequence_start=t == 0)
        assert [talk.answers.get(timeout=10)[0].get_response().id for _ in range(3)] == ["1/0", "1/1", "1/2"]
        client.stop_stream()
    assert peers.arrived == ["1/0", "1/1", "1/2"]


def test_a_long_stream_keeps_nothing_of_sequences_that_ended(client: Any) -> None:
    def tasks() -> int:
        gc.collect()
        return sum(
            issubclass(type(one), asyncio.Task) for one in gc.get_objects()
        )  # isinstance would wake lazy modules

    before, talk = tasks(), Talk(client)
    for name in range(100, 200):
        talk.send(0, name, sequence_start=True, sequence_end=True)
    for _ in range(100):
        talk.answer()
    assert tasks() < before + 20
    client.stop_stream()


def test_a_client_that_leaves_its_stream_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldSession()
    with serving(held, deadline_ms=10_000) as served, triton.InferenceServerClient(served.grpc) as client:
        talk = Talk(client)
        talk.send(0, 1, sequence_start=True)
        talk.answer()
        held.open.clear()
        held.begun.clear()
        talk.send(1, 1)
        talk.send(3, 1)
        assert held.begun.wait(10)
        client.stop_stream(cancel_requests=True)
        time.sleep(0.1)
        held.open.set()
        result = client.infer("framegate", frame(2), sequence_id=1)
        np.testing.assert_array_equal(result.as_numpy("logits"), EXPECTED[2:3])  # frame 1 counts, frame 3 was not begun
        assert held.steps == 3
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_a_stream_is_told_of_another_version() -> None:
    with serving(version_s=1e-6) as served, triton.InferenceServerClient(served.grpc) as client:
        client.infer("framegate", frame(0), sequence_id=1, sequence_start=True)
        served.on_loop(lambda: served.inference.engine.swap(opened(HeldSession(), "b")))
        told = client.infer("framegate", frame(1), sequence_id=1).get_response()
        assert told.model_version == "b" * 12 and told.parameters["reset"].string_param == "version"


# --- keys, ports, failures --------------------------------------------------------------------


def test_calls_without_a_valid_key_are_refused() -> None:
    with (
        serving(check=lambda key: key == "right") as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        assert client.is_server_live() and client.is_server_ready()
        for sent in (None, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}, {"authorization": "Basic right"}):
            status, text = code(lambda headers=sent: client.infer("framegate", frame(0), headers=headers))
            assert status == "UNAUTHENTICATED" and "wrong" not in text
            assert code(lambda headers=sent: client.get_model_metadata("framegate", headers=headers))[0] == status
        for sent in ({"authorization": "Bearer right"}, {"x-api-key": "right"}):
            assert client.infer("framegate", frame(0), headers=sent).as_numpy("logits") is not None
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for sent in (b"", b"\xff\xff\xff"):
            for name in ("RepositoryModelLoad", "ModelInfer", "ModelStreamInfer"):
                assert call(served, name, sent)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert call(served, "TraceSetting", b"", **{"x-api-key": "right"})[0] is grpc.StatusCode.UNIMPLEMENTED
        client.start_stream(lambda result, error: answers.put(error), headers={"x-api-key": "wrong"})
        assert answers.get(timeout=10).status() == "StatusCode.UNAUTHENTICATED"
        client.stop_stream()


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ([], None),
        ([("authorization", "Bearer a")], "a"),
        ([("authorization", "bearer  a ")], "a"),
        ([("authorization", "Basic a")], None),
        ([("x-api-key", "b")], "b"),
        ([("authorization", "Bearer a"), ("x-api-key", "b")], "a"),
        ([("x-api-key", b"b")], None),
    ],
)
def test_a_key_is_read_from_the_metadata(sent: Any, key: str | None) -> None:
    assert key_of(sent) == key


def test_a_port_in_use_is_an_error_that_names_it(served: Served) -> None:
    async def take() -> None:
        async with inferring() as inference:
            make_server(inference, served.grpc)

    with pytest.raises(ConfigError, match=r"gRPC cannot listen on 127\.0\.0\.1:"):
        asyncio.run(take())


def test_what_nobody_foresaw_is_internal_and_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(HeldSession):
        def step(self, frames: Any, state: Any) -> Any:
            raise ZeroDivisionError("secret")

    with serving(Broken()) as served, triton.InferenceServerClient(served.grpc) as client:
        status, text = code(lambda: client.infer("framegate", frame(0)))
        assert status == "INTERNAL" and "secret" not in text
        talk = Talk(client)
        talk.send(0, 1, sequence_start=True)
        assert "secret" not in talk.error()
        client.stop_stream()
    assert "secret" in caplog.text


def test_calls_are_counted_by_their_outcome(client: Any, served: Served) -> None:
    before = outcomes(served, "OK"), outcomes(served, "NOT_FOUND")
    client.infer("framegate", frame(0))
    code(lambda: client.infer("nope", frame(0)))
    assert (outcomes(served, "OK"), outcomes(served, "NOT_FOUND")) == (before[0] + 1, before[1] + 1)


def test_what_another_worker_accepted_is_answered_while_the_server_stops() -> None:
    async def play() -> None:
        async with inferring() as inference:
            inference.engine.stopping.set()
            server, port = make_server(inference, "127.0.0.1:0", counted=False)
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                frames = frames_of(1)
                asked = pb.ModelInferRequest(model_name="framegate", raw_input_contents=[frames.tobytes()])
                asked.inputs.add(name="frame", datatype="UINT8", shape=frames.shape)
                answer = await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(asked, timeout=20)
            assert len(answer.outputs) == 2
            await server.stop(None)

    asyncio.run(play())
