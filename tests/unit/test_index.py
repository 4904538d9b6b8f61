"""From a folder to a table of clips: what is taken, what is refused and why, who stands where."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from framegate.contract import ClipSpec, DataError
from framegate.index import Index, IndexSettings, ShardReader, build, centre_window, decidability
from framegate.splits import SplitShares

SPEC = ClipSpec(frames=8, height=16, width=24, fps=5)
MakeDataset = Callable[..., Path]


def build_in(
    tmp_path: Path, root: Path, spec: ClipSpec = SPEC, settings: IndexSettings | None = None, workers: int = 0
) -> Index:
    return build(root, tmp_path / "index.json", tmp_path / "shards", spec, settings or IndexSettings(), workers)


def refused(tmp_path: Path, root: Path, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        build_in(tmp_path, root, **changes)
    return str(caught.value)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six clips in six groups; copied before it is changed."""
    from tests.conftest import dataset

    return dataset(tmp_path_factory.mktemp("pristine") / "data")


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


# --- what is taken ----------------------------------------------------------------------------


def test_every_clip_has_its_facts_in_the_order_of_ids(tmp_path: Path, root: Path) -> None:
    index = build_in(tmp_path, root)
    assert [clip.id for clip in index.clips] == [f"{c}/{k:03}.mp4" for c in ("left", "right") for k in range(6)]
    assert index.labels == ("left", "right")
    clip = index.clips[7]
    assert (clip.label, clip.group, clip.frames, clip.fps) == ("right", "g1", 8, 10.0)
    assert clip.duration_s == pytest.approx(1.6)
    assert Index.read(tmp_path / "index.json") == index
    assert not index.skipped


def test_the_reader_gives_each_clip_its_own_frames(tmp_path: Path, root: Path) -> None:
    from framegate.media import MediaLimits, read_clip

    index = build_in(tmp_path, root)
    reader = ShardReader(tmp_path / "index.json", tmp_path / "shards")
    for position, clip in enumerate(index.clips):
        expected = np.stack([frame.pixels for frame in read_clip(root / clip.id, SPEC, MediaLimits())])
        assert (reader.clip(position) == expected).all()
    assert (reader.window(3, 2, 4) == reader.clip(3)[2:6]).all()
    assert len(reader) == 12


def test_names_in_any_script_and_case_are_labels(tmp_path: Path, root: Path) -> None:
    (root / "groups.csv").unlink()
    (root / "left").rename(root / "走る 人")
    (root / "right").rename(root / "Cafe\u0301")
    for clip in sorted((root / "走る 人").iterdir())[:2]:
        clip.rename(clip.with_suffix(".MP4"))
    index = build_in(tmp_path, root)
    assert index.labels == ("Caf\u00e9", "走る 人")
    assert index.clips[0].id == "Caf\u00e9/000.mp4"
    reader = ShardReader(tmp_path / "index.json", tmp_path / "shards")
    assert reader.clip(11).shape == (8, 16, 24, 3)


def test_images_are_clips_of_one_frame(tmp_path: Path, make_dataset: MakeDataset) -> None:
    root = make_dataset(tmp_path / "data", suffix=".png", per_class=8)
    one = SPEC.model_copy(update={"frames": 1})
    index = build_in(tmp_path, root, one)
    assert index.kind == "image"
    assert {(clip.frames, clip.fps, clip.duration_s) for clip in index.clips} == {(1, 0.0, 0.0)}
    assert "data.clip.fps" not in decidability(index)
    assert "set data.clip.frames=1" in refused(tmp_path, root)


def test_hidden_names_are_ignored_and_unknown_ones_reported(tmp_path: Path, root: Path) -> None:
    (root / "left" / ".cache").mkdir()
    (root / "left" / ".cache" / "x.mp4").write_bytes(b"x")
    (root / ".git").mkdir()
    (root / "LICENSE").write_text("free")
    (root / "left" / "notes.txt").write_text("hello")
    (root / "loose.mp4").write_bytes(b"x")
    skipped = {entry.path: entry.reason for entry in build_in(tmp_path, root).skipped}
    assert set(skipped) == {"left/notes.txt", "loose.mp4"}
    assert "unknown suffix '.txt'" in skipped["left/notes.txt"]
    assert "beside the class folders" in skipped["loose.mp4"]


def test_linked_folders_are_entered_once(tmp_path: Path, root: Path) -> None:
    shutil.move(root / "left", tmp_path / "elsewhere")
    (root / "left").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert len(build_in(tmp_path, root).clips) == 12


# --- bad input --------------------------------------------------------------------------------


def _empty_class(root: Path) -> None:
    (root / "nothing").mkdir()


def _one_class(root: Path) -> None:
    shutil.rmtree(root / "left")


def _no_class(root: Path) -> None:
    for name in ("left", "right"):
        shutil.rmtree(root / name)


def _mixed(root: Path) -> None:
    for k in range(3):
        Image.new("RGB", (8, 8)).save(root / "left" / f"{k}.jpg")


def _two_labels(root: Path) -> None:
    shutil.copy(root / "left" / "001.mp4", root / "right" / "001.mp4")


def _one_group(root: Path) -> None:
    _table(root, "groups.csv", dict.fromkeys(_names(root), "cam"), "path,group")


def _class_in_two_groups(root: Path) -> None:
    groups = {name: name[-5] if "left" in name else str(int(name[-5]) % 2) for name in _names(root)}
    _table(root, "groups.csv", groups, "path,group")


def _missing_row(root: Path) -> None:
    names = _names(root)
    _table(root, "groups.csv", {name: "a" for name in names if "003" not in name}, "path,group")


def _unknown_row(root: Path) -> None:
    _table(root, "groups.csv", dict.fromkeys([*_names(root), "left/0O1.mp4"], "a"), "path,group")


def _double_row(root: Path) -> None:
    path = root / "groups.csv"
    path.write_text(path.read_text() + "left/001.mp4,g9\n")


def _header(root: Path) -> None:
    _table(root, "groups.csv", dict.fromkeys(_names(root), "a"), "file,camera")


def _not_utf8(root: Path) -> None:
    (root / "groups.csv").write_bytes(b"path,group\nleft/001.mp4,caf\xe9\n")


def _unknown_split(root: Path) -> None:
    _table(root, "splits.csv", dict.fromkeys(_names(root), "tset"), "path,split")


def _group_in_two_splits(root: Path) -> None:
    words = ["train", "val", "test"]
    splits = {name: words[n % 3] if n != 6 else "val" for n, name in enumerate(_names(root))}
    _table(root, "splits.csv", splits, "path,split")


def _split_without_class(root: Path) -> None:
    _table(root, "splits.csv", {name: "test" if "5" in name else "train" for name in _names(root)}, "path,split")


def _flip_slash(root: Path) -> None:
    _table(root, "flips.csv", {"left": "a/b"}, "label,flipped")


def _flip_unknown(root: Path) -> None:
    _table(root, "flips.csv", {"left": "rihgt", "right": "left"}, "label,flipped")


def _flip_missing(root: Path) -> None:
    _table(root, "flips.csv", {"left": "left"}, "label,flipped")


def _flip_one_way(root: Path) -> None:
    _table(root, "flips.csv", {"left": "right", "right": "right"}, "label,flipped")


def _corrupt(root: Path) -> None:
    (root / "left" / "002.mp4").write_text("no video")
    (root / "left" / "004.mp4").write_bytes(b"")


def _names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.mp4"))


def _table(root: Path, name: str, rows: dict[str, str], header: str) -> None:
    (root / name).write_text("\n".join([header, *(f"{a},{b}" for a, b in rows.items())]) + "\n", "utf-8")


BAD: list[tuple[Callable[[Path], None], list[str]]] = [
    (_empty_class, ["class folder 'nothing'", "add clips or remove"]),
    (_one_class, ["only one class, 'right'", "at least two"]),
    (_no_class, ["no class folders", "one folder per class"]),
    (_mixed, ["12 videos and 3 images are mixed", "left/0.jpg"]),
    (_two_labels, ["two labels", "'left/001.mp4' (left)", "'right/001.mp4' (right)"]),
    (_one_group, ["12 clips hang together in 1 group,", "at least 3 groups"]),
    (_class_in_two_groups, ["class 'right' has no clip in the", "2 groups", "add clips of 'right'"]),
    (_missing_row, ["groups.csv", "2 of 12 clips have no row", "'left/003.mp4'"]),
    (_unknown_row, ["groups.csv", "'left/0O1.mp4'", "did you mean 'left/001.mp4'"]),
    (_double_row, ["groups.csv, line 14", "'left/001.mp4' has a row already"]),
    (_header, ["the header is 'file,camera'", "expected 'path,group'"]),
    (_not_utf8, ["groups.csv", "UTF-8"]),
    (_unknown_split, ["unknown split 'tset'", "train, val or test", "did you mean 'test'"]),
    (_group_in_two_splits, ["group 'g0' in two splits", "is in train", "in val"]),
    (_split_without_class, ["class 'left' has no clip in the val split"]),
    (_flip_slash, ["flips.csv", "'a/b' cannot be a label", "slash"]),
    (_flip_unknown, ["'rihgt' is no class folder", "did you mean 'right'"]),
    (_flip_missing, ["no row for 'right'"]),
    (_flip_one_way, ["'left' flips to 'right', but 'right' flips to 'right'"]),
    (_corrupt, ["2 of 12 clips", "0.05", "left/002.mp4: not a video", "left/004.mp4: empty file"]),
]


@pytest.mark.parametrize(("spoil", "fragments"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_data_set_that_cannot_work_says_why(
    tmp_path: Path, root: Path, spoil: Callable[[Path], None], fragments: list[str]
) -> None:
    spoil(root)
    text = refused(tmp_path, root)
    assert [fragment for fragment in fragments if fragment not in text] == []
    assert not (tmp_path / "index.json").exists()


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    assert "a folder per class" in refused(tmp_path, tmp_path / "none")


def test_unusable_clips_are_skipped_by_name_within_the_share(
    tmp_path: Path, root: Path, make_clip: Callable[..., Path]
) -> None:
    _corrupt(root)
    shutil.copy(root / "left" / "004.mp4", root / "right" / "004.mp4")  # empty twice is no duplicate
    make_clip(root / "right" / "001.mp4", frames=9)
    index = build_in(tmp_path, root, settings=IndexSettings(max_skipped_share=0.4))
    reasons = {entry.path: entry.reason for entry in index.skipped}
    assert set(reasons) == {"left/002.mp4", "left/004.mp4", "right/004.mp4", "right/001.mp4"}
    assert reasons["right/001.mp4"] == "too short: 5 frames at 5 fps, clip.frames is 8"
    assert len(index.clips) == 8


def test_a_class_with_nothing_usable_is_an_error(tmp_path: Path, root: Path) -> None:
    for path in (root / "left").iterdir():
        path.write_text("no video " + path.name)
    text = refused(tmp_path, root, settings=IndexSettings(max_skipped_share=1))
    assert "no usable clip in class 'left': not a video" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_skipped(tmp_path: Path, root: Path) -> None:
    (root / "left" / "001.mp4").chmod(0)
    index = build_in(tmp_path, root, settings=IndexSettings(max_skipped_share=0.1))
    assert "cannot be read" in index.skipped[0].reason


# --- splits -----------------------------------------------------------------------------------


def test_given_splits_and_flips_are_kept(tmp_path: Path, root: Path) -> None:
    words = ["train", "train", "train", "train", "val", "test"]
    _table(root, "splits.csv", {name: words[int(name[-5])] for name in _names(root)}, "path,split")
    _table(root, "flips.csv", {"left": "right", "right": "left"}, "label,flipped")
    index = build_in(tmp_path, root)
    assert index.flips == {"left": "right", "right": "left"}
    assert [index.clips[n].id for n in index.split("test")] == ["left/005.mp4", "right/005.mp4"]
    assert len(index.split("train")) == 8


def test_duplicates_in_two_groups_pull_the_groups_into_one_split(tmp_path: Path, root: Path) -> None:
    for a, b in ((0, 1), (1, 2)):
        shutil.copy(root / "left" / f"00{a}.mp4", root / "left" / f"00{b}.mp4")
    index = build_in(tmp_path, root)
    splits = {clip.split for clip in index.clips if clip.group in ("g0", "g1", "g2")}
    assert len(splits) == 1
    assert {clip.split for clip in index.clips} == {"train", "val", "test"}


def test_shares_are_followed_as_far_as_groups_allow(tmp_path: Path, make_dataset: MakeDataset) -> None:
    root = make_dataset(tmp_path / "data", per_class=20, groups=None, size=(32, 32), frames=2)
    one = SPEC.model_copy(update={"frames": 1})
    shares = SplitShares(train=0.6, val=0.2, test=0.2)
    index = build_in(tmp_path, root, one, IndexSettings(shares=shares))
    counts = {split: len(index.split(split)) for split in ("train", "val", "test")}
    assert counts == {"train": 24, "val": 8, "test": 8}
    assert sum(index.clips[n].label == "left" for n in index.split("test")) == 4


def test_the_index_is_a_function_of_content_alone(tmp_path: Path, root: Path) -> None:
    first = build_in(tmp_path, root)
    other = tmp_path / "other"
    moved = Path(shutil.copytree(root, other / "elsewhere"))
    assert build_in(other, moved).digest == first.digest
    assert (other / "index.json").read_bytes() == (tmp_path / "index.json").read_bytes()
    shutil.copy(moved / "left" / "000.mp4", moved / "left" / "001.mp4")
    changed = build_in(other, moved)
    assert changed.dataset != first.dataset
    finer = build_in(tmp_path, root, SPEC.model_copy(update={"width": 32}))
    assert (finer.dataset, finer.digest == first.digest) == (first.dataset, False)


# --- what it can decide -----------------------------------------------------------------------


def test_centre_window_leaves_the_same_on_both_sides() -> None:
    assert [centre_window(n, 16) for n in (16, 17, 18, 30)] == [0, 0, 1, 7]
    with pytest.raises(DataError, match="no window of 16"):
        centre_window(15, 16)


def test_decidability_says_margin_groups_and_window(tmp_path: Path, root: Path) -> None:
    index = build_in(tmp_path, root)
    test = len(index.split("test"))
    groups = len({index.clips[n].group for n in index.split("test")})
    lines = decidability(index).splitlines()
    assert lines == [
        f"12 clips, 6 groups, test {test} clips from {groups} groups: "
        f"smallest decidable margin {299 / test:.1f} points",
        f"accuracy cannot be decided: {groups} test groups, 10 needed",
    ]
    short = build_in(tmp_path, root, SPEC.model_copy(update={"frames": 2}))
    assert decidability(short).splitlines()[-1] == (
        "a window of 2 frames at 5 fps covers 0.4 s of clips that last 1.6 s (median); "
        "data.clip.fps=1.3 would cover them"
    )
