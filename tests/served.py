"""An engine over a session without a model, and what tests of serving send to it."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from framegate.contract import BundleInfo, GraphSpec, Lineage, Parity
from framegate.runtime.session import FakeSession, Floats, Frames
from framegate.serve.engine import Engine
from framegate.serve.limits import Limits
from framegate.serve.metrics import Metrics
from framegate.serve.model import Opened
from framegate.timeline import Shares, softmax
from tests.bundles import LABELS, SPEC, WEIGHTS

T = TypeVar("T")


def run(coroutine: Awaitable[T]) -> T:
    """Run a test's coroutine; half a minute is a hang."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await coroutine

    return asyncio.run(bounded())


def info(name: str = "tiny-dense-fp32", digest: str = "a" * 64, fps: float = SPEC.fps) -> BundleInfo:
    """The record of a bundle that has no files."""
    return BundleInfo(
        name=name, model="tiny", variant="dense", precision="fp32", labels=LABELS,
        clip=SPEC.model_copy(update={"fps": fps}), state_size=4,
        step=GraphSpec(inputs=(), outputs=()), clip_graph=GraphSpec(inputs=(), outputs=()), parameters=9,
        macs_per_frame=9, lineage=Lineage(dataset="d", config="c", weights="w", label_counts=(1, 1, 2)),
        parity=Parity(clip_step_max_abs=0.0, tolerance=1e-4, clips=4), files={}, digest=digest,
    )  # fmt: skip


class Gated(FakeSession):
    """Steps only while `gate` is set; remembers how many rows each step had."""

    def __init__(self, weights: NDArray[np.float32] = WEIGHTS) -> None:
        super().__init__(LABELS, SPEC, weights)
        self.gate, self.rows = threading.Event(), list[int]()
        self.entered = threading.Event()
        self.gate.set()

    def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
        self.entered.set()
        assert self.gate.wait(20)
        self.rows.append(len(frames))
        return super().step(frames, state)


def opened(session: FakeSession | None = None, **more: Any) -> Opened:
    """What `open_folder` gives, over a session without files."""
    return Opened(info(**more), session or FakeSession(LABELS, SPEC, WEIGHTS), None, ())


@asynccontextmanager
async def engine_of(session: FakeSession | None = None, clock: Callable[[], float] | None = None, **limits: Any) -> Any:
    """An engine that is closed in the end; a machine that stands still for a second does not make answers late."""
    limits = {"deadline_ms": 60_000, **limits}
    more = {"clock": clock} if clock else {}
    engine = Engine(opened(session), Limits(**limits), Metrics(), **more)
    try:
        yield engine
    finally:
        if isinstance(session, Gated):
            session.gate.set()
        await engine.close()


def color(label: int, seed: int = 0) -> Frames:
    """u8 [H,W,3] of noise in the colour of a label (position in LABELS)."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 60, (SPEC.height, SPEC.width, 3))
    frame[..., 2 - label] += 120
    return frame.astype(np.uint8)


def jpeg(frame: Frames, **options: Any) -> bytes:
    """A frame as JPEG."""
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def offline(frames: list[Frames], weights: NDArray[np.float32] = WEIGHTS) -> list[Shares]:
    """What a session of its own says after each frame."""
    session = FakeSession(LABELS, SPEC, weights)
    state, said = session.init_state(1), []
    for frame in frames:
        logits, state = session.step(frame[None], state)
        said.append(softmax(logits[0]))
    return said
