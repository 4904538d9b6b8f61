"""A served fake model over the Open Inference Protocol: REST by a real uvicorn, gRPC beside it, one engine."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from framegate.contract import BundleInfo, ClipSpec, GraphSpec, Lineage, Parity
from framegate.runtime.session import FakeSession, run_steps
from framegate.serve.engine import Engine
from framegate.serve.grpc_server import Check, make_server
from framegate.serve.infer import Inference
from framegate.serve.limits import Limits
from framegate.serve.metrics import Metrics
from framegate.serve.model import Opened
from framegate.serve.rest import make_router
from framegate.serve.tensors import InferRequest, Tensor

CLIP = ClipSpec(frames=4, height=16, width=16, fps=10)
LABELS = ("blue", "green", "red")
T = TypeVar("T")


class HeldSession(FakeSession):
    """Steps only while it is `open`; counts its steps; `begun` says that one is in work."""

    def __init__(self, weights: NDArray[np.float32] | None = None) -> None:
        super().__init__(LABELS, CLIP, weights)
        self.open, self.begun, self.steps = threading.Event(), threading.Event(), 0
        self.rows: list[int] = []
        self.open.set()

    def step(self, frames: Any, state: Any) -> Any:
        self.begun.set()
        assert self.open.wait(20)
        self.steps += 1
        self.rows.append(len(frames))
        return super().step(frames, state)


def opened(session: FakeSession, digit: str = "a") -> Opened:
    """A version whose name is twelve of that digit."""
    graph = GraphSpec(inputs=(), outputs=())
    info = BundleInfo(
        name="tiny-dense-fp32",
        model="tiny",
        variant="dense",
        precision="fp32",
        labels=LABELS,
        clip=CLIP,
        state_size=session.state_size,
        step=graph,
        clip_graph=graph,
        parameters=9,
        macs_per_frame=9,
        lineage=Lineage(dataset="d", config="c", weights="w"),
        parity=Parity(clip_step_max_abs=0.0, tolerance=1e-3, clips=1),
        files={},
        digest=digit * 64,
    )
    return Opened(info, session, None, ())


@dataclass
class Clock:
    """Seconds that a test turns on."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def make_inference(session: FakeSession, clock: Callable[[], float] | None = None, **limits: Any) -> Inference:
    """On the running loop; a machine that stands still for a second does not make answers late."""
    limits, metrics = {"deadline_ms": 60_000, **limits}, Metrics()
    given = {} if clock is None else {"clock": clock}
    return Inference(Engine(opened(session), Limits(**limits), metrics, **given), **given)


@asynccontextmanager
async def inferring(session: FakeSession | None = None, **limits: Any) -> AsyncIterator[Inference]:
    """An inference on this loop, closed at the end."""
    inference = make_inference(session or FakeSession(LABELS, CLIP), **limits)
    try:
        yield inference
    finally:
        await inference.engine.close()


def frames_of(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """u8 [n,16,16,3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), np.uint8)


def offline(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits f32 [T,K] of one video, without a server."""
    return run_steps(FakeSession(LABELS, CLIP), frames[None])[0]


def request(frame: NDArray[Any], sequence: int | str | None = None, **parameters: Any) -> InferRequest:
    """A request; `start` and `end` are short for the flags of a sequence; `state` is an input."""
    inputs = [Tensor("frame", frame)]
    if (state := parameters.pop("state", None)) is not None:
        inputs.append(Tensor("state", state))
    for flag in ("start", "end"):
        if flag in parameters:
            parameters[f"sequence_{flag}"] = parameters.pop(flag)
    if sequence is not None:
        parameters["sequence_id"] = sequence
    return InferRequest("framegate", "", tuple(inputs), parameters=parameters)


@dataclass
class Served:
    """Ports of a running server, and a way onto its loop."""

    http: str
    grpc: str
    inference: Inference
    loop: asyncio.AbstractEventLoop

    def on_loop(self, work: Callable[[], Awaitable[T] | T]) -> T:
        """What `work` gives on the server's loop."""

        async def run() -> T:
            done = work()
            return await done if isinstance(done, Awaitable) else done

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)


@contextmanager
def serving(
    session: FakeSession | None = None, check: Check | None = None, peers: Any = None, **limits: Any
) -> Iterator[Served]:
    """REST and gRPC on ports of their own, in a thread."""
    found: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inferring(session, **limits) as inference:
            server, port = make_server(inference, "127.0.0.1:0", check=check, peers=peers)
            await server.start()
            app.include_router(make_router(inference))
            found.update(port=port, inference=inference, loop=asyncio.get_running_loop())
            yield
            await server.stop(1)

    server = uvicorn.Server(uvicorn.Config(FastAPI(lifespan=lifespan), "127.0.0.1", 0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(f"127.0.0.1:{port}", f"127.0.0.1:{found['port']}", found["inference"], found["loop"])
    finally:
        server.should_exit = True
        thread.join(20)
