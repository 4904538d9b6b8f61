"""Decode once: what a rebuild may do, what an interruption may cost, what a reader may trust."""

import errno
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from framegate import decoding
from framegate.contract import ClipSpec, DataError
from framegate.index import Index, IndexSettings, ShardReader, build
from framegate.shards import DEAD_SHARE, Store, entries
from tests.conftest import dataset, render

SPEC = ClipSpec(frames=8, height=16, width=24, fps=5)
ANY = IndexSettings(max_skipped_share=0.9)


def build_in(folder: Path, root: Path, spec: ClipSpec = SPEC, settings: IndexSettings = ANY, workers: int = 0) -> Index:
    return build(root, folder / "index.json", folder / "shards", spec, settings, workers)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("pristine") / "data", groups=None)


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded, in order."""
    names: list[str] = []
    original = decoding.read_frames

    def spy(path: Path, *rest: object) -> Iterator[object]:
        names.append(f"{path.parent.name}/{path.stem}")
        return original(path, *rest)

    monkeypatch.setattr(decoding, "read_frames", spy)
    return names


# --- once -------------------------------------------------------------------------------------


def test_an_unchanged_file_is_not_decoded_again(tmp_path: Path, root: Path, decoded: list[str]) -> None:
    build_in(tmp_path, root)
    assert sorted(decoded) == [f"{label}/{k:03}" for label in ("left", "right") for k in range(6)]
    decoded.clear()
    render(root / "left" / "003.mp4", seed=77)
    (root / "left" / "001.mp4").rename(root / "left" / "moved.mp4")
    build_in(tmp_path, root)
    build_in(tmp_path, root, SPEC.model_copy(update={"frames": 4}))
    assert decoded == ["left/003"]


def test_another_size_rate_or_limit_decodes_again(tmp_path: Path, root: Path, decoded: list[str]) -> None:
    build_in(tmp_path, root)
    for change in ({"height": 24}, {"fps": 10.0}):
        decoded.clear()
        build_in(tmp_path, root, SPEC.model_copy(update=change))
        assert len(decoded) == 12
    assert len(entries(tmp_path / "shards")) == 12


def test_duplicates_are_decoded_once(tmp_path: Path, root: Path, decoded: list[str]) -> None:
    shutil.copy(root / "left" / "001.mp4", root / "left" / "copy.mp4")
    assert len(build_in(tmp_path, root).clips) == 13
    assert len(decoded) == 12


def test_processes_give_what_one_process_gives(tmp_path: Path, root: Path) -> None:
    (root / "left" / "bad.mp4").write_text("no video")
    one, many = tmp_path / "one", tmp_path / "many"
    assert build_in(one, root, workers=0) == build_in(many, root, workers=2)
    files = sorted(path.name for path in (one / "shards").iterdir())
    assert files == sorted(path.name for path in (many / "shards").iterdir())
    assert all((one / "shards" / f).read_bytes() == (many / "shards" / f).read_bytes() for f in files)


def test_bytes_of_removed_clips_are_dropped(tmp_path: Path, root: Path) -> None:
    for k in range(60):
        (root / "left" / f"x{k}.mp4").write_bytes((root / "left" / "000.mp4").read_bytes() + _free_box(k))
    first = build_in(tmp_path, root)
    gone = {clip.id for clip in first.clips[::2]}
    for name in gone:
        (root / name).unlink()
    second = build_in(tmp_path, root)
    size = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.bin"))
    frames = sum(clip.frames for clip in second.clips) * 16 * 24 * 3
    assert frames <= size <= frames / (1 - DEAD_SHARE)
    reader = ShardReader(tmp_path / "index.json", tmp_path / "shards")
    fresh = tmp_path / "fresh"
    build_in(fresh, root)
    expected = ShardReader(fresh / "index.json", fresh / "shards")
    assert all((reader.clip(n) == expected.clip(n)).all() for n in range(len(reader)))


def _free_box(number: int) -> bytes:
    """Other bytes at the end of an MP4, the same video."""
    return struct.pack(">I4sI", 12, b"free", number)


# --- interruptions ----------------------------------------------------------------------------


class Interrupted:
    """Lets some frames be written, then raises once."""

    def __init__(self, frames: int, error: BaseException) -> None:
        self.left, self.error = frames, error
        self.original: Callable[..., bytes] = decoding.encode

    def __call__(self, *frame: object) -> bytes:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.original(*frame)


@pytest.mark.parametrize(
    ("error", "seen", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DataError, "disk is full after 5 of 12 clips"),
        (KeyboardInterrupt("now"), KeyboardInterrupt, "now"),
    ],
    ids=["disk full", "ctrl-c"],
)
def test_an_interrupted_build_goes_on_where_it_stopped(
    tmp_path: Path,
    root: Path,
    decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    seen: type[BaseException],
    words: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "encode", Interrupted(5 * 8 + 3, error))
        with pytest.raises(seen, match=words):
            build_in(tmp_path, root)
    assert not (tmp_path / "index.json").exists()
    assert len(decoded) == 6
    index = build_in(tmp_path, root)
    assert len(decoded) == 6 + 7
    assert index == build_in(tmp_path / "fresh", root)


def test_ctrl_c_stops_the_processes_and_the_next_build_goes_on(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=75, fps=25, size=(320, 240)).read_bytes()
    root = tmp_path / "data"
    for number in range(100):
        path = root / ("left" if number % 2 else "right") / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip + _free_box(number))
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\nfrom tests.unit.test_shards import build_in\n"
        f"if __name__ == '__main__':\n    build_in(Path({str(tmp_path)!r}), Path({str(root)!r}), workers=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(program)], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    shards = tmp_path / "shards"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (shards.exists() and len(entries(shards)) >= 5):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in stderr
    done = len(entries(shards))
    assert 5 <= done < 100
    index = build_in(tmp_path, root)
    assert len(index.clips) == len(entries(shards)) == 100


def test_a_torn_journal_and_a_short_shard_lose_only_their_clips(tmp_path: Path, root: Path, decoded: list[str]) -> None:
    build_in(tmp_path, root)
    torn, short = sorted((tmp_path / "shards").glob("*.jsonl"))[:2]
    torn.write_bytes(torn.read_bytes()[:-20])
    data = short.with_suffix(".bin")
    data.write_bytes(data.read_bytes()[:-1])
    decoded.clear()
    assert build_in(tmp_path, root) == build_in(tmp_path / "fresh", root)
    assert len(decoded) == 2 + 12


def test_a_crashed_decoder_names_its_suspects(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "decode_chunk", _die)
    with pytest.raises(DataError, match=r"a decoding process died.*\.mp4; move the file out"):
        build_in(tmp_path, root, workers=1)


def _die(chunk: decoding.Chunk) -> None:
    """What a crashing decoder does, after the first file of its shard."""
    files = chunk.files
    decoding.ShardWriter(chunk.folder, [sha256 for sha256, _ in files])
    os._exit(3)


# --- reading ----------------------------------------------------------------------------------


def test_raw_frames_are_views_and_travel_to_other_processes(tmp_path: Path, root: Path) -> None:
    build_in(tmp_path, root)
    reader = ShardReader(tmp_path / "index.json", tmp_path / "shards")
    window = reader.window(0, 1, 3)
    assert window.base is not None
    assert not window.flags.writeable
    copy = pickle.loads(pickle.dumps(reader))
    assert (copy.window(0, 1, 3) == window).all()
    assert len(pickle.dumps(reader)) < 20_000


def test_above_the_limit_frames_are_kept_as_jpeg(tmp_path: Path, root: Path) -> None:
    big = SPEC.model_copy(update={"height": 48, "width": 64})
    build_in(tmp_path / "raw", root, big)
    build_in(tmp_path, root, big, ANY.model_copy(update={"shard_bytes_limit": 1000}))
    raw = ShardReader(tmp_path / "raw" / "index.json", tmp_path / "raw" / "shards")
    jpeg = ShardReader(tmp_path / "index.json", tmp_path / "shards")
    assert jpeg.store.info.encoding == "jpeg"
    assert jpeg.clip(2).shape == raw.clip(2).shape
    assert np.abs(jpeg.clip(2).astype(int) - raw.clip(2)).mean() < 12
    assert (jpeg.window(2, 3, 4) == jpeg.clip(2)[3:7]).all()


def test_a_reader_refuses_what_does_not_belong_together(tmp_path: Path, root: Path) -> None:
    build_in(tmp_path, root)
    other = tmp_path / "other"
    build_in(other, root, SPEC.model_copy(update={"height": 24}))
    with pytest.raises(DataError, match=r"24 x 24 at 5 fps.*24 x 16 at 5; run the index stage again"):
        ShardReader(tmp_path / "index.json", other / "shards")
    with pytest.raises(DataError, match="no such file"):
        ShardReader(tmp_path / "index.json", tmp_path / "nowhere")
    reader = ShardReader(tmp_path / "index.json", tmp_path / "shards")
    with pytest.raises(DataError, match=r"has 8 frames, asked for 6\.\.14"):
        reader.window(0, 6, 8)
    next((tmp_path / "shards").glob("*.jsonl")).unlink()
    broken = ShardReader(tmp_path / "index.json", tmp_path / "shards")
    with pytest.raises(DataError, match="run the index stage again"):
        [broken.clip(n) for n in range(12)]


def test_the_store_says_what_it_holds(tmp_path: Path, root: Path) -> None:
    build_in(tmp_path, root)
    facts = json.loads((tmp_path / "shards" / "store.json").read_text())
    assert (facts["height"], facts["width"], facts["fps"], facts["encoding"]) == (16, 24, 5.0, "raw")
    assert Store(tmp_path / "shards").info.frame_bytes == 16 * 24 * 3
