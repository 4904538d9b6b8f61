"""Real camera footage: 320x240 CCTV clips in four classes, whatever folder FRAMEGATE_REAL_CLIPS names."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from framegate.contract import ClipSpec
from framegate.index import Index, IndexSettings, ShardReader, build, decidability

FOLDER = os.environ.get("FRAMEGATE_REAL_CLIPS")
pytestmark = [pytest.mark.real, pytest.mark.skipif(not FOLDER, reason="FRAMEGATE_REAL_CLIPS names no folder")]
SPEC = ClipSpec(frames=16, height=16, width=16, fps=10)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, ShardReader]:
    """The index of the whole folder and a reader of its frames."""
    out = tmp_path_factory.mktemp("real")
    index = build(Path(str(FOLDER)), out / "index.json", out / "shards", SPEC, IndexSettings(), workers=2)
    return index, ShardReader(out / "index.json", out / "shards")


def test_real_clips_are_all_usable_and_no_camera_stands_in_two_splits(built: tuple[Index, ShardReader]) -> None:
    index, _ = built
    assert not index.skipped
    splits: dict[str, set[str]] = {}
    for clip in index.clips:
        splits.setdefault(clip.group, set()).add(clip.split)
    assert all(len(found) == 1 for found in splits.values())
    for split in ("train", "val", "test"):
        assert {clip.label for clip in index.clips if clip.split == split} == set(index.labels)
    assert "smallest decidable margin" in decidability(index)


def test_real_frames_show_something(built: tuple[Index, ShardReader]) -> None:
    index, reader = built
    for position in range(0, len(index.clips), 17):
        frames = reader.window(position, 0, SPEC.frames)
        assert frames.shape == (16, 16, 16, 3) and frames.std() > 5, index.clips[position].id
    assert Counter(clip.fps for clip in index.clips).most_common(1)[0][0] == pytest.approx(25, abs=0.1)
    assert not np.array_equal(reader.clip(0), reader.clip(1))
