"""A real server in a process of its own, and what the tests of its faults and its behaviour say to it."""

import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import grpc
import httpx
import numpy as np
import websockets.exceptions
import websockets.sync.client
from numpy.typing import NDArray
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from framegate.contract import Bundle
from framegate.media import MediaLimits, decode_image, resize
from framegate.runtime.session import open_session
from tests.bundles import SPEC
from tests.served import color, jpeg

START_S, ANSWER_S, EVENTUALLY_S = 60, 30, 30
INFER, PREDICT = "/v2/models/framegate/infer", "/v1/predict"

Frame = NDArray[np.uint8]  # u8 [H,W,3]


def sum_of(metrics: str, name: str, **labels: str) -> float:
    """Sum of the samples of this name that have these labels, in Prometheus' text."""
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def eventually(holds: Callable[[], Any], what: str, seconds: float = EVENTUALLY_S) -> Any:
    """What `holds` gives as soon as it is true; AssertionError when it never is."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
    return found


class Server:
    """`framegate serve` over a folder. Ended by its own process id; its log is shown when a test fails."""

    def __init__(self, folder: Path, work: Path, *options: str, key: str | None = None, closed: str = "") -> None:
        """`closed`: standard streams that it does not get, as the shell writes it."""
        work.mkdir(parents=True, exist_ok=True)
        self.log, self._ports = work / "serve.log", work / "ports.json"
        self.tls = "--tls-cert" in options
        self.scheme, self.key = "https" if self.tls else "http", key
        command = [sys.executable, "-m", "framegate.cli", "serve", "--bundle", str(folder), "--port", "0"]
        command += ["--grpc-port", "0", "--ports-file", str(self._ports), "--lag-s", "0", *options]
        if closed:
            command = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
        self.scratch = Path(tempfile.mkdtemp(prefix="fg-"))  # its own, so that a test sees what a server leaves there
        environment = {**os.environ, "TMPDIR": str(self.scratch)}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)

    def wait_until_ready(self) -> "Server":
        eventually(lambda: self._ports.is_file() or self.process.poll() is not None, "the server starts", START_S)
        assert self._ports.is_file(), f"exit code {self.process.poll()}:\n{self.text}"
        self.ports = json.loads(self._ports.read_text())
        self.port, self.grpc_port = self.ports["http"], self.ports["grpc"]
        return self

    @property
    def text(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    # --- its process --------------------------------------------------------------------------

    def terminate(self) -> None:
        """SIGTERM, once."""
        self.process.terminate()

    def exit_code(self) -> int:
        """When it has ended."""
        return self.process.wait(START_S)

    def close(self) -> None:
        """End it if it runs: at once, or with its workers."""
        try:
            if self.process.poll() is None and self.children:
                self.process.terminate()
                self.process.wait(START_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def rss_bytes(self) -> int:
        """Memory of its process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def files(self) -> int:
        """Open file descriptors of its process."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def threads(self) -> int:
        """Threads of its process."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/task").iterdir())

    @property
    def children(self) -> list[int]:
        """Process ids of its workers."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    # --- HTTP ---------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request on a connection of its own."""
        headers = {**({"X-API-Key": self.key} if self.key else {}), **more.pop("headers", {})}
        verify = more.pop("verify", True)
        with httpx.Client(base_url=self.url, timeout=ANSWER_S, verify=verify, trust_env=False) as client:
            return client.request(method, path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("POST", path, **more)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name that have these labels."""
        return sum_of(self.get("/metrics").text, name, **labels)

    @property
    def version(self) -> str:
        """The one for new work."""
        return str(self.get("/v2/health/ready").json()["version"])

    def infer(self, frame: Frame, **parameters: Any) -> httpx.Response:
        """One frame as JSON; parameters: sequence_id, sequence_start, sequence_end, timeout."""
        return self.post(INFER, json=asked(frame[None], **parameters))

    # --- gRPC ---------------------------------------------------------------------------------

    @contextmanager
    def stub(self) -> Iterator[Any]:
        """A connection over gRPC."""
        with grpc.insecure_channel(f"localhost:{self.grpc_port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            yield GRPCInferenceServiceStub(channel)

    # --- WebSocket ----------------------------------------------------------------------------

    @contextmanager
    def live(self, query: str = "fps=10", model: str = "framegate", **more: Any) -> Iterator["Live"]:
        """A live stream that has been greeted."""
        with self.socket(query, model, **more) as socket:
            yield Live(socket)

    def socket(self, query: str = "fps=10", model: str = "framegate", **more: Any) -> Any:
        """A WebSocket."""
        url = f"{self.url.replace('http', 'ws', 1)}/v1/streams/{model}?{query}"
        headers = {**({"X-API-Key": self.key} if self.key else {}), **more.pop("headers", {})}
        return websockets.sync.client.connect(
            url, additional_headers=headers, compression=None, open_timeout=ANSWER_S, proxy=None, **more
        )


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server when it is ready; in the end it is told to stop, and must with exit code 0."""
    try:
        yield server.wait_until_ready()
        server.terminate()
        assert server.exit_code() == 0, server.text
    finally:
        server.close()


def asked(frames: NDArray[np.uint8], **parameters: Any) -> dict[str, Any]:
    """The JSON of an inference request of frames u8 [N,H,W,3]."""
    tensor = {"name": "frame", "shape": frames.shape, "datatype": "UINT8", "data": frames.reshape(-1).tolist()}
    return {"inputs": [tensor], "parameters": parameters}


def message(frames: NDArray[np.uint8], model: str = "framegate", **parameters: Any) -> Any:
    """The same as a message of gRPC."""
    made = pb.ModelInferRequest(model_name=model, raw_input_contents=[frames.tobytes()])
    made.inputs.add(name="frame", datatype="UINT8", shape=frames.shape)
    made.outputs.add(name="logits")
    for key, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(made.parameters[key], kind, value)
    return made


def logits_of(answer: Any) -> NDArray[np.float32]:
    """[N,K] or [K] out of an answer over HTTP (a response) or gRPC (a message)."""
    if isinstance(answer, httpx.Response):
        assert answer.status_code == 200, answer.text
        (found,) = [one for one in answer.json()["outputs"] if one["name"] == "logits"]
        return np.array(found["data"], np.float32)
    return np.frombuffer(answer.raw_output_contents[0], np.float32)


def handshake(server: Server, receive_bytes: int = 2048) -> socket.socket:
    """A WebSocket by hand, whose client has hardly room for what is sent to it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect(("127.0.0.1", server.port))
    lines = ("GET /v1/streams/framegate?fps=10 HTTP/1.1", f"Host: localhost:{server.port}", "Connection: Upgrade")
    lines += ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "\r\n")
    connection.sendall("\r\n".join(lines).encode())
    assert connection.recv(12) == b"HTTP/1.1 101"
    return connection


def binary(data: bytes) -> bytes:
    """A masked binary message (RFC 6455, 5.2); the mask is zero."""
    return b"\x82" + bytes([0x80 | 127]) + struct.pack(">Q", len(data)) + bytes(4) + data


class Live:
    """The client's side of a live stream; every `recv` has a deadline."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.ready = self.next()

    def next(self) -> dict[str, Any]:
        """The next message."""
        return dict(json.loads(self.socket.recv(timeout=ANSWER_S)))

    def send(self, image: bytes, t: float | None = None) -> None:
        """A frame, perhaps with its time."""
        if t is not None:
            self.say(t=t)
        self.socket.send(image)

    def say(self, **words: Any) -> None:
        """A control message."""
        self.socket.send(json.dumps(words))

    def ask(self, image: bytes, t: float | None = None) -> dict[str, Any]:
        """A frame's answer, or whatever comes first."""
        self.send(image, t)
        return self.next()

    def rest(self) -> list[dict[str, Any]]:
        """All messages until the close."""
        found = []
        try:
            while True:
                found.append(self.next())
        except websockets.exceptions.ConnectionClosed:
            return found

    def end(self) -> list[dict[str, Any]]:
        """Say that no more frames come; what still comes."""
        self.say(end=True)
        return self.rest()

    @property
    def code(self) -> int | None:
        """Of the close, once it has come."""
        closed = self.socket.protocol.close_rcvd
        return closed.code if closed else None


# --- what is sent, and what is right ------------------------------------------------------------


def pictures(count: int, seed: int = 0) -> list[bytes]:
    """JPEG frames in colours that differ from one to the next."""
    rng = np.random.default_rng(seed)
    return [jpeg(color(int(rng.integers(3)), seed=1000 * seed + k)) for k in range(count)]


def png(frame: Frame) -> bytes:
    """A frame without loss."""
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "PNG")
    return out.getvalue()


def seen(image: bytes) -> Frame:
    """What the model sees of an image: u8 [H,W,3]."""
    return resize(decode_image(image, MediaLimits(), "an image"), SPEC)


def offline(folder: Path, frames: list[Frame]) -> NDArray[np.float32]:
    """Logits [T,K] of a bundle's own session, the state carried from frame to frame."""
    session = open_session(Bundle.load(folder))
    state, said = session.init_state(1), []
    for frame in frames:
        logits, state = session.step(frame[None], state)
        said.append(logits[0])
    session.close()
    return np.stack(said)


def top_of(answer: Mapping[str, Any]) -> str:
    """The first label of an answer of a live stream."""
    return str(answer["labels"][0]["name"])


def shares_of(answer: Mapping[str, Any], labels: tuple[str, ...]) -> NDArray[np.float64]:
    """[K] in the order of `labels`."""
    said = {one["name"]: one["probability"] for one in answer["labels"]}
    return np.array([said[label] for label in labels])


def video(path: Path, labels: list[int], fps: int = 10, codec: str = "libx264", seed: int = 0) -> Path:
    """A clip, 64x64, whose k-th frame is tinted in the colour of labels[k]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width = stream.height = 64
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        for number, label in enumerate(labels):
            pixels = color(label, seed=1000 * seed + number).repeat(4, axis=0).repeat(4, axis=1)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def audio_only(path: Path) -> Path:
    """An MP4 with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
