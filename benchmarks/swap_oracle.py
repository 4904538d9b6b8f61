"""What each version of a model answers to the same frames, computed offline: the measure of `swap_clients`."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from framegate.contract import Bundle
from framegate.runtime.session import Session, open_session
from framegate.timeline import softmax

LENGTH = 128  # frames of a sequence or of a live stream, before a new one starts
LOGITS_TOLERANCE, SHARES_TOLERANCE = 0.05, 0.02

Logits = NDArray[np.float32]  # [K]


class Oracle:
    """What each version answers to the same frames, u8 [LENGTH,H,W,3], offline."""

    def __init__(self, bundles: Mapping[str, Path]) -> None:
        loaded = {version: Bundle.load(path) for version, path in bundles.items()}
        self._sessions: dict[str, Session] = {version: open_session(one) for version, one in loaded.items()}
        clip = next(iter(loaded.values())).info.clip
        self.labels, self.fps = next(iter(loaded.values())).info.labels, clip.fps
        rng = np.random.default_rng(0)
        tint = rng.integers(0, 160, (LENGTH, 1, 1, 3))
        self.frames = (tint + rng.integers(0, 90, (LENGTH, clip.height, clip.width, 3))).astype(np.uint8)
        self.pngs = [_png(frame) for frame in self.frames]
        self.versions = tuple(bundles)
        self._known: dict[tuple[str, int], tuple[list[Logits], Any]] = {}

    def logits(self, version: str, start: int, at: int) -> Logits:
        """After frame `at` of a stream whose state began, on this version, with frame `start`."""
        session = self._sessions[version]
        said, state = self._known.get((version, start), ([], session.init_state(1)))
        while len(said) <= at - start:
            logits, state = session.step(self.frames[start + len(said)][None], state)
            said.append(logits[0])
        self._known[version, start] = said, state
        return said[at - start]

    def check(self, version: str, start: int, at: int, logits: Logits) -> bool:
        """Whether the server gave the logits of this version."""
        return version in self._sessions and bool(
            np.allclose(logits, self.logits(version, start, at), atol=LOGITS_TOLERANCE)
        )

    def check_labels(self, version: str, start: int, at: int, labels: list[dict[str, Any]]) -> bool:
        """The same for names and probabilities."""
        if version not in self._sessions:
            return False
        shares = softmax(self.logits(version, start, at))
        said = np.array([{one["name"]: one["probability"] for one in labels}[name] for name in self.labels])
        return bool(np.allclose(said, shares, atol=SHARES_TOLERANCE))


def _png(frame: NDArray[np.uint8]) -> bytes:
    out = BytesIO()
    Image.fromarray(frame).save(out, "PNG")
    return out.getvalue()
