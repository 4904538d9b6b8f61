"""What stages read of the index stage's work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from framegate.contract import ConfigError, Split
from framegate.index import Index, ShardReader, centre_window
from pipelines._schema import Config


def open_index(cfg: Config) -> tuple[Index, ShardReader]:
    """The index that the index stage wrote. ConfigError when it was built for another clip spec."""
    reader = ShardReader(Path(cfg.index) / "index.json", Path(cfg.index) / "shards")
    if reader.index.spec != cfg.data.clip:
        raise ConfigError(
            f"data.clip is {cfg.data.clip}, but {cfg.index} was built for {reader.index.spec}; "
            "build another: python -m pipelines.index data.clip... out=work/other, then index=work/other"
        )
    return reader.index, reader


def spread(rows: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`count` of the rows, evenly spread: all classes and cameras have their turn."""
    return tuple(rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=int))


def windows(reader: ShardReader, split: Split, count: int) -> NDArray[np.uint8]:
    """u8 [n,T,H,W,3]: the centre windows of `count` clips, evenly spread over a split."""
    length = reader.index.spec.frames
    rows = spread(reader.index.split(split), count)
    return np.stack([reader.window(i, centre_window(reader.index.clips[i].frames, length), length) for i in rows])


def splits(reader: ShardReader, split: Split, count: int) -> dict[str, Split]:
    """id -> split of the clips that `windows` gives, in order."""
    clips = [reader.index.clips[i] for i in spread(reader.index.split(split), count)]
    return {clip.id: clip.split for clip in clips}
