"""The protocol over HTTP, by tritonclient and by hand, against a real uvicorn."""

import gzip
import json
import logging
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.oip import HeldSession, Served, frames_of, offline, opened, serving

VIDEO = frames_of(4)
EXPECTED = offline(VIDEO)


class Client(triton.InferenceServerClient):
    """Closed by `with`: gevent allows that only in the thread that opened it, and `__del__` may run in any."""

    def __del__(self) -> None:
        pass


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with Client(served.http) as found:
        yield found


def frame(t: int, binary: bool = True) -> list[Any]:
    """The input `frame`, frame t of the video."""
    found = triton.InferInput("frame", [1, 16, 16, 3], "UINT8")
    found.set_data_from_numpy(VIDEO[t : t + 1], binary_data=binary)
    return [found]


def post(served: Served, document: Any, path: str = "/v2/models/framegate/infer", **headers: str) -> httpx.Response:
    return httpx.post(f"http://{served.http}{path}", content=json.dumps(document), headers=headers)


def document(t: int = 0, **parameters: Any) -> dict[str, Any]:
    data = VIDEO[t].ravel().tolist()
    entry = {"name": "frame", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": data}
    return {"inputs": [entry], "parameters": parameters}


def test_a_client_learns_what_is_served(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("framegate") and client.is_model_ready("framegate", "a" * 12)
    assert not client.is_model_ready("nope") and not client.is_model_ready("framegate", "9")
    assert client.get_server_metadata()["name"] == "framegate"
    told = client.get_model_metadata("framegate")
    assert told["versions"] == ["a" * 12]
    assert told["inputs"][0] == {"name": "frame", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}
    assert told["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, 3]}
    config = client.get_model_config("framegate", "a" * 12)
    assert config["max_batch_size"] == 16 and config["input"][0]["dims"] == [16, 16, 3]
    assert json.loads(config["parameters"]["labels"]["string_value"]) == ["blue", "green", "red"]
    assert client.get_model_repository_index() == [{"name": "framegate", "version": "a" * 12, "state": "READY"}]


def test_unknown_models_are_not_found(client: Any) -> None:
    for ask in (client.get_model_metadata, client.get_model_config):
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found") as caught:
            ask("nope")
        assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="requested model 'nope' is not available") as caught:
        client.get_inference_statistics("nope")
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="version 9 is not found") as caught:
        client.infer("framegate", frame(0), model_version="9")
    assert caught.value.status() == "404"


@pytest.mark.parametrize("name", [7, "cam-a"])
@pytest.mark.parametrize("binary", [True, False])
def test_a_sequence_gives_the_offline_answers(client: Any, name: int | str, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput("logits", binary_data=binary)]
    for t in range(4):
        result = client.infer(
            "framegate",
            frame(t, binary),
            outputs=outputs,
            request_id=f"r{t}",
            sequence_id=name,
            sequence_start=t == 0,
            sequence_end=t == 3,
        )
        np.testing.assert_array_equal(result.as_numpy("logits"), EXPECTED[t : t + 1])
        assert result.get_response()["id"] == f"r{t}"
    with pytest.raises(InferenceServerException, match=f"sequence {name} to model 'framegate' must specify the START"):
        client.infer("framegate", frame(3), sequence_id=name)


def test_the_state_can_stay_with_the_client(client: Any) -> None:
    state = triton.InferInput("state", [1, 4], "FP32")
    carried = np.zeros((1, 4), np.float32)
    for t in range(4):
        state.set_data_from_numpy(carried)
        result = client.infer("framegate", [*frame(t), state])
        np.testing.assert_array_equal(result.as_numpy("logits"), EXPECTED[t : t + 1])
        carried = result.as_numpy("next_state")


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
@pytest.mark.parametrize("rows", [1, 16])
def test_answers_are_compressed_for_who_asks(client: Any, compression: str, rows: int) -> None:
    frames = triton.InferInput("frame", [rows, 16, 16, 3], "UINT8")
    frames.set_data_from_numpy(frames_of(rows))
    outputs = [triton.InferRequestedOutput(name, binary_data=name == "logits") for name in ("logits", "next_state")]
    plain = client.infer("framegate", [frames], outputs=outputs)
    small = client.infer("framegate", [frames], outputs=outputs, response_compression_algorithm=compression)
    for name in ("logits", "next_state"):
        np.testing.assert_array_equal(small.as_numpy(name), plain.as_numpy(name))


@pytest.mark.parametrize(
    ("asked", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, GZIP;q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.0", None),
        ("gzip;q=0.01", "gzip"),
        ("identity", None),
        ("", None),
    ],
)
def test_the_coding_of_an_answer_is_one_that_was_accepted(served: Served, asked: str, coding: str | None) -> None:
    data = {"name": "frame", "datatype": "UINT8", "shape": [16, 16, 16, 3], "data": frames_of(16).ravel().tolist()}
    url = f"http://{served.http}/v2/models/framegate/infer"
    with httpx.stream("POST", url, json={"inputs": [data]}, headers={"Accept-Encoding": asked}) as response:
        body = b"".join(response.iter_raw())
    assert response.headers.get("Content-Encoding") == coding
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding]
    assert [entry["name"] for entry in json.loads(unpack(body))["outputs"]] == ["logits", "next_state"]


def test_small_answers_are_not_compressed(served: Served) -> None:
    response = post(served, document(), **{"Accept-Encoding": "gzip"})
    assert response.status_code == 200 and "Content-Encoding" not in response.headers


def test_errors_are_json_with_a_text(served: Served) -> None:
    for asked, status, text in (
        (document(sequence_id=99), 400, "must specify the START flag"),
        ({"inputs": []}, 400, "missing required input(s) ['frame']"),
        ([1], 400, "failed to parse the request JSON buffer"),
        (document(timeout=1), 504, ""),
    ):
        response = post(served, asked)
        assert response.status_code == status and response.headers["Content-Type"] == "application/json"
        assert list(response.json()) == ["error"] and text in response.json()["error"]
    assert post(served, document(), "/v2/models/nope/infer").status_code == 404
    for length in ("3", "0", "-1", "x", "9" * 5000):
        wrong = httpx.post(
            f"http://{served.http}/v2/models/framegate/infer",
            content=b"{}",
            headers={"Inference-Header-Content-Length": length},
        )
        assert wrong.status_code == 400 and "inference header size should be in range (0, 2)" in wrong.json()["error"]


def test_more_json_than_the_largest_batch_can_need_is_not_parsed(served: Served) -> None:
    batch = {"name": "frame", "datatype": "UINT8", "shape": [16, 16, 16, 3], "data": frames_of(16).tolist()}
    text = json.dumps({"inputs": [batch]})
    for padding, status in ((500_000, 200), (2_000_000, 413)):
        url = f"http://{served.http}/v2/models/framegate/infer"
        response = httpx.post(url, content=text + " " * padding)
        assert response.status_code == status
    assert "send binary tensors" in response.json()["error"]


def test_too_many_sequences_say_when_to_come_back() -> None:
    with serving(max_streams=1) as served:
        assert post(served, document(sequence_id=1, sequence_start=True)).status_code == 200
        response = post(served, document(sequence_id=2, sequence_start=True))
        assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
        assert "1 streams are open" in response.json()["error"]


def test_a_server_that_stops_is_alive_and_not_ready() -> None:
    with serving() as served, Client(served.http) as client:
        served.inference.engine.draining = True
        assert client.is_server_live() and not client.is_server_ready() and not client.is_model_ready("framegate")
        assert client.infer("framegate", frame(0)).as_numpy("logits") is not None  # what comes is still answered


def test_readiness_names_the_bundle_that_stays_out() -> None:
    with serving() as served:
        served.on_loop(lambda: served.inference.engine.reject(ValueError("golden clips differ")))
        response = httpx.get(f"http://{served.http}/v2/health/ready")
        assert response.status_code == 200
        told = response.json()
        assert told.pop("version") == served.inference.engine.current.version
        assert told == {"ready": True, "rejected": "golden clips differ"}


def test_a_sequence_is_told_of_another_version() -> None:
    with serving(version_s=1e-6) as served:
        assert post(served, document(sequence_id=1, sequence_start=True)).json()["model_version"] == "a" * 12
        served.on_loop(lambda: served.inference.engine.swap(opened(HeldSession(), "b")))
        told = post(served, document(1, sequence_id=1)).json()
        assert told["model_version"] == "b" * 12 and told["parameters"] == {"reset": "version"}
        assert "parameters" not in post(served, document(2, sequence_id=1)).json()


def sent(served: Served, body: bytes, length: int) -> socket.socket:
    """A connection that has sent a request and has not read the answer."""
    host, port = served.http.split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v2/models/framegate/infer HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_a_client_that_disconnects_mid_request_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldSession()
    with serving(held, deadline_ms=10_000) as served:
        assert post(served, document(0, sequence_id=1, sequence_start=True)).status_code == 200
        held.open.clear()
        held.begun.clear()
        body = json.dumps(document(1, sequence_id=1)).encode()
        connection = sent(served, body, len(body))
        assert held.begun.wait(10)
        connection.close()
        held.open.set()
        answer = post(served, document(2, sequence_id=1)).json()
        np.testing.assert_allclose(answer["outputs"][0]["data"], EXPECTED[2], rtol=1e-6)
        assert held.steps == 3
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_client_that_disconnects_mid_body_is_not_stepped(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldSession()
    with serving(held) as served:
        assert post(served, document(0, sequence_id=1, sequence_start=True)).status_code == 200
        body = json.dumps(document(3, sequence_id=1)).encode()
        sent(served, body[: len(body) // 2], len(body)).close()
        answer = post(served, document(1, sequence_id=1)).json()
        np.testing.assert_allclose(answer["outputs"][0]["data"], EXPECTED[1], rtol=1e-6)
        assert held.steps == 2
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_every_route_stands_in_the_openapi_page(served: Served) -> None:
    paths = httpx.get(f"http://{served.http}/openapi.json").json()["paths"]
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/repository/index"):
        assert path in paths
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        for end in ("", "/ready", "/config", "/stats", "/infer"):
            assert base + end in paths
    infer = paths["/v2/models/{model}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert set(infer["responses"]) == {"200", "400", "404", "413", "501", "503", "504"}
    names = [one["operationId"] for path in paths.values() for one in path.values()]
    assert len(names) == len(set(names))
