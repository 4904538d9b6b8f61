"""A session whose steps take virtual time, and what its streams are fed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from framegate.bench.clock import PacedSession, VirtualClock
from framegate.runtime.session import FakeSession
from tests.bundles import LABELS, SPEC, WEIGHTS, color_clips

MS = 1_000_000
CLIPS = color_clips([0, 1, 2, 0, 1])


def fake() -> FakeSession:
    return FakeSession(LABELS, SPEC, weights=WEIGHTS)


def paced(cost: Callable[[int], int]) -> tuple[PacedSession, VirtualClock]:
    """A session whose step of n frames takes cost(n) ns, and its clock."""
    clock = VirtualClock()
    return PacedSession(fake(), clock, cost), clock


def fed(streams: int, frames: int) -> NDArray[np.uint8]:
    """u8 [stream, frame, H, W, 3]: what a FrameSource over CLIPS gives."""
    pool = CLIPS.reshape(-1, *CLIPS.shape[2:])
    return np.stack([[pool[(s * SPEC.frames + k) % len(pool)] for k in range(frames)] for s in range(streams)])
