"""An index and a reader in memory: clips of a bar that moves right or left."""

import numpy as np

from framegate.contract import ClipSpec
from framegate.index import Clip, Index


class MemoryReader:
    """The reader's interface over one array u8 [n,T,H,W,3]."""

    def __init__(self, index: Index, frames: np.ndarray) -> None:
        self.index, self.frames = index, frames
        self.rows = list(range(len(frames)))

    def __len__(self) -> int:
        return len(self.rows)

    def clip(self, position: int) -> np.ndarray:
        return self.frames[self.rows[position]]

    def window(self, position: int, start: int, frames: int) -> np.ndarray:
        return self.clip(position)[start : start + frames]


def memory_index(clips_per_class: int = 32, frames: int = 6, size: int = 16) -> tuple[Index, MemoryReader]:
    """Half of the clips train, a quarter each validate and test; four groups a split."""
    spec = ClipSpec(frames=frames, height=size, width=size, fps=10)
    random = np.random.default_rng(0)
    clips, pixels = [], []
    for label in ("left", "right"):
        for n in range(clips_per_class):
            split = ("train", "train", "val", "test")[n % 4]
            path = random.integers(0, 3) + 2 * np.arange(frames)
            clip = random.integers(0, 60, (frames, size, size, 3), dtype=np.uint8)
            for t, x in enumerate(path if label == "right" else path[::-1]):
                clip[t, :, x % size] = 255
            clips.append(
                Clip(
                    id=f"{label}/{n:03}.mp4",
                    label=label,
                    group=f"{split}-{n // 4 % 4}",
                    split=split,
                    sha256=f"{label}{n}",
                    fps=10,
                    frames=frames,
                    duration_s=frames / 10,
                )
            )
            pixels.append(clip)
    index = Index(
        dataset="0" * 64,
        kind="video",
        spec=spec,
        labels=("left", "right"),
        flips={"left": "right", "right": "left"},
        clips=tuple(clips),
        skipped=(),
    )
    return index, MemoryReader(index, np.stack(pixels))
