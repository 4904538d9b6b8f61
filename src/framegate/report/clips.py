"""The clips that the winner gets most confidently wrong: which they are, and how they look."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from framegate.contract import DataError
from framegate.gate.evidence import Evidence
from framegate.index import ShardReader, centre_window

SHOWN = 12
HEIGHT = 112  # px of a frame at most, so that a page stays small
GAP = 2  # px between frames
QUALITY = 82


@dataclass(frozen=True, slots=True)
class WorstClip:
    """A test clip that was answered wrongly; labels are positions. `harm`: the reference answers it rightly."""

    id: str
    truth: int
    given: int
    confidence: float  # softmax of the answer, 0..1
    harm: bool


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A wrong answer with its words and a strip of frames as JPEG bytes."""

    clip: WorstClip
    truth: str
    given: str
    jpeg: bytes

    @property
    def source(self) -> str:
        """As an image's address that holds the image itself."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


def worst_clips(winner: Evidence, reference: Evidence, limit: int = SHOWN) -> list[WorstClip]:
    """Where the reference is right and the winner is not, most confident first; then what both get wrong.

    An answer that is not finite has no confidence and is none of them. Empty without test samples.
    """
    mine = winner.samples.splits.get("test") if winner.samples else None
    theirs = reference.samples.splits.get("test") if reference.samples else None
    if mine is None or not len(mine.ids):
        return []
    known = set() if theirs is None else set(theirs.ids[theirs.right].tolist())
    wrong = np.flatnonzero(~mine.right & np.isfinite(mine.logits).all(axis=1))
    found = [
        WorstClip(
            id=str(mine.ids[n]),
            truth=int(mine.labels[n]),
            given=int(mine.logits[n].argmax()),
            confidence=_confidence(mine.logits[n]),
            harm=str(mine.ids[n]) in known,
        )
        for n in wrong
    ]
    return sorted(found, key=lambda clip: (not clip.harm, -clip.confidence, clip.id))[:limit]


def _confidence(logits: NDArray[np.float32]) -> float:
    """Softmax of the top logit."""
    return float(1 / np.exp(logits.astype(np.float64) - logits.max()).sum())


def thumbnails(worst: Sequence[WorstClip], reader: ShardReader) -> list[Thumbnail]:
    """First, middle and last frame of what the model looked at; DataError for a clip that the index does not have."""
    positions = {clip.id: n for n, clip in enumerate(reader.index.clips)}
    return [_thumbnail(clip, positions.get(clip.id), reader) for clip in worst]


def _thumbnail(clip: WorstClip, position: int | None, reader: ShardReader) -> Thumbnail:
    labels, looked_at = reader.index.labels, reader.index.spec.frames
    if position is None or not max(clip.truth, clip.given) < len(labels):
        raise DataError(f"index: has no test clip {clip.id!r} as it was measured; name the index of this measurement")
    start = centre_window(reader.index.clips[position].frames, looked_at)
    frames = reader.window(position, start, looked_at)  # u8 [T,H,W,3]
    picked = sorted({0, looked_at // 2, looked_at - 1})
    return Thumbnail(clip, labels[clip.truth], labels[clip.given], strip(frames[picked]))


def strip(frames: NDArray[np.uint8]) -> bytes:
    """JPEG of frames u8 [n,H,W,3] side by side, at most HEIGHT px high."""
    pictures = [Image.fromarray(frame) for frame in frames]
    tall = min(pictures[0].height, HEIGHT)
    wide = max(round(pictures[0].width * tall / pictures[0].height), 1)
    sheet = Image.new("RGB", (len(pictures) * (wide + GAP) - GAP, tall), "white")
    for n, picture in enumerate(pictures):
        sheet.paste(picture.resize((wide, tall)), (n * (wide + GAP), 0))
    written = BytesIO()
    sheet.save(written, "JPEG", quality=QUALITY, optimize=True)
    return written.getvalue()
