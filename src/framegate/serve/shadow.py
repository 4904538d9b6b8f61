"""Shadow mode: a share of the streams also goes to a candidate. Its answers are compared and thrown away.

A shadow is never waited for: where it falls behind, frames pass it by.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from framegate.contract import ConfigError
from framegate.runtime.session import Floats, Frames
from framegate.serve.batcher import Answer

if TYPE_CHECKING:
    from framegate.serve.metrics import Metrics
    from framegate.serve.model import Model


WAITING = 16  # frames of one stream that a shadow may be behind


class Shadow:
    """A candidate beside the champion, for `share` of the streams (0..1)."""

    def __init__(self, model: Model, share: float, metrics: Metrics, draw: random.Random) -> None:
        self.model, self.share, self.metrics, self._draw = model, share, metrics, draw

    def lane(self, champion: Model) -> ShadowLane | None:
        """A lane beside a new stream, for a share of them; None where the two cannot be compared."""
        return ShadowLane(self) if not differs(self.model, champion) and self._draw.random() < self.share else None


def differs(candidate: Model, champion: Model) -> str | None:
    """Why two models cannot be compared frame by frame, or None."""
    for what, one, other in (
        ("labels", candidate.labels, champion.labels),
        ("frame size", (candidate.clip.height, candidate.clip.width), (champion.clip.height, champion.clip.width)),
        ("fps", candidate.clip.fps, champion.clip.fps),
    ):
        if one != other:
            return f"{what} {one}, the champion's: {other}"
    return None


def check_shadow(candidate: Model, champion: Model, share: float) -> None:
    """ConfigError when the candidate cannot be compared with the champion."""
    if not 0 < share <= 1:
        raise ConfigError(f"--shadow-share is {share:g}; expected more than 0, at most 1")
    if why := differs(candidate, champion):
        raise ConfigError(f"--shadow {candidate.info.name}: {why}; only models of the same task can be compared")


class ShadowLane:
    """One stream's state on the candidate, with the frames that it has not answered yet.

    Where too many wait, frames pass the candidate by, and from there on its state is not the champion's: nothing more
    is compared until the stream starts anew.
    """

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._state = np.zeros((1, shadow.model.state_size), np.float32)
        self._waiting: deque[tuple[Frames, Floats]] = deque()
        self._busy = self._lost = False

    def offer(self, frames: Frames, champion: Floats) -> None:
        """A frame u8 [1,H,W,3] and the champion's logits [1,K] for it."""
        self._waiting.append((frames, champion))
        if self._lost or len(self._waiting) > WAITING:
            self._lose()
        elif not self._busy:
            self._next()

    def _next(self) -> None:
        frames, champion = self._waiting[0]
        start = time.monotonic()
        try:
            future = self._shadow.model.batcher.submit(frames, self._state, deadline_s=10.0)
        except RuntimeError:  # it is closed: the server ends
            self._lose()
            return
        self._waiting.popleft()
        self._busy = True
        future.add_done_callback(lambda done: self._compare(done, champion, start))

    def _lose(self) -> None:
        """What waits passes the candidate by, and all that comes."""
        self._lost = True
        self._shadow.metrics.shadow_skipped(len(self._waiting))
        self._waiting.clear()

    def _compare(self, done: asyncio.Future[Answer], champion: Floats, start: float) -> None:
        self._busy = False
        if done.cancelled() or done.exception():
            self._shadow.metrics.shadow_skipped(1)
            self._lose()
            return
        logits, self._state = done.result()
        self._shadow.metrics.shadow_answered(bool(logits[0].argmax() == champion[0].argmax()), time.monotonic() - start)
        if self._waiting and not self._lost:
            self._next()
