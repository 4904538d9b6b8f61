"""One suite, two servers: ours and the real Triton, over the same bundle, seen through tritonclient alone."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from framegate.contract import Bundle
from tests import tritonserver
from tests.bundles import color_clips, make_bundle

Frame = NDArray[np.uint8]  # u8 [1,H,W,3]
READY_S, ANSWER_S = 60, 30
IDS = count(1)  # of sequences; never used twice in one run
INVALID, UNKNOWN, TOO_LONG = (400, "INVALID_ARGUMENT"), (404, "NOT_FOUND"), (501, "UNIMPLEMENTED")


@dataclass(frozen=True)
class Server:
    """A server that is up, and the bundle that it serves."""

    http: str  # host:port
    grpc: str
    version: str
    bundle: Bundle
    model: str = "framegate"

    def offline(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits f32 [T,K] of frames u8 [T,H,W,3]: ONNX Runtime, the state carried from zeros."""
        graph = ort.InferenceSession(self.bundle.path / "step.onnx", providers=["CPUExecutionProvider"])
        state, found = np.zeros((1, self.bundle.info.state_size), np.float32), []
        for frame in frames:
            logits, state = graph.run(["logits", "next_state"], {"frame": frame[None], "state": state})
            found.append(logits[0])
        return np.stack(found)


@dataclass(frozen=True)
class Client:
    """One protocol of one server; `module` is tritonclient.http or tritonclient.grpc."""

    server: Server
    module: Any
    connection: Any

    @property
    def is_http(self) -> bool:
        return self.module is tritonclient.http

    def tensor(self, array: NDArray[Any], name: str = "frame", **how: Any) -> Any:
        given = self.module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        return given.set_data_from_numpy(array, **how)

    def infer(self, inputs: list[Any], **more: Any) -> Any:
        """The whole result; `more` goes to tritonclient as it is."""
        return self.connection.infer(**{"model_name": self.server.model, "inputs": inputs, **more})

    def step(self, frame: Frame, sequence_id: int | str, start: bool = False, end: bool = False) -> NDArray[np.float32]:
        """Logits f32 [K] of one frame of a sequence."""
        sequence = {"sequence_id": sequence_id, "sequence_start": start, "sequence_end": end}
        return self.infer([self.tensor(frame)], **sequence).as_numpy("logits")[0]

    def whole(self, frames: NDArray[np.uint8], sequence_id: int | str) -> NDArray[np.float32]:
        """Logits f32 [T,K] of a sequence from START to END."""
        last = len(frames) - 1
        return np.stack([self.step(one[None], sequence_id, i == 0, i == last) for i, one in enumerate(frames)])

    def refused(self, code: tuple[int, str], text: str) -> Any:
        """A context in which a request must fail so: HTTP status or gRPC code, and a text that holds this pattern."""
        return _refused(str(code[0]) if self.is_http else f"StatusCode.{code[1]}", text)


@contextmanager
def _refused(status: str, text: str) -> Iterator[None]:
    with pytest.raises(InferenceServerException, match=text) as caught:
        yield
    assert caught.value.status() == status


class Answers:
    """What comes back on tritonclient's own threads, in the order of arrival."""

    def __init__(self) -> None:
        self._arrived: Queue[Any] = Queue()

    def take(self, result: Any, error: InferenceServerException | None) -> None:
        """A callback of tritonclient."""
        self._arrived.put(error or result)

    def next(self) -> Any:
        """The next result; raises the server's error, or queue.Empty when nothing comes."""
        found = self._arrived.get(timeout=ANSWER_S)
        if isinstance(found, InferenceServerException):
            raise found
        return found


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("served"))


# --- the servers --------------------------------------------------------------------------------


@contextmanager
def ours(bundle: Bundle, folder: Path) -> Iterator[tuple[int, int]]:
    """Ports of HTTP and gRPC of `framegate serve` over the bundle."""
    ports, log = folder / "ports.json", folder / "serve.log"
    command = [sys.executable, "-m", "framegate.cli", "serve", "--bundle", str(bundle.path), "--accept-host"]
    command += ["--port", "0", "--grpc-port", "0", "--ports-file", str(ports)]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + READY_S
            while not ports.is_file() and server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if not ports.is_file():
                pytest.fail(f"no {ports.name} (exit code {server.poll()}):\n{log.read_text(errors='replace')}")
            found = json.loads(ports.read_text())
            yield found["http"], found["grpc"]
        finally:
            code = tritonserver.stop(server)
    assert code == 0, log.read_text(errors="replace")


SERVERS = {"framegate": ours, "triton": tritonserver.running}


@pytest.fixture(scope="session", params=["framegate", pytest.param("triton", marks=pytest.mark.triton)])
def server(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with SERVERS[request.param](bundle, tmp_path_factory.mktemp(request.param)) as (http, grpc):
        version = "1" if request.param == "triton" else bundle.info.digest[:12]
        yield Server(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", version, bundle)


@pytest.fixture
def http(server: Server) -> Iterator[Client]:
    with tritonclient.http.InferenceServerClient(server.http) as connection:
        yield Client(server, tritonclient.http, connection)


@pytest.fixture
def grpc(server: Server) -> Iterator[Client]:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as connection:
        yield Client(server, tritonclient.grpc, connection)


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Client:
    """Both protocols, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def sequence_id() -> int:
    """One that nobody used before."""
    return next(IDS)


@pytest.fixture(scope="session")
def clips() -> NDArray[np.uint8]:
    """u8 [3,4,H,W,3]: blue, green, red, so noisy that every frame changes the logits."""
    return color_clips([0, 1, 2], seed=3, noise=90)
