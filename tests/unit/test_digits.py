"""The default dataset: deterministic, split cleanly, and hard to tell from single frames."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from framegate.contract import DataError
from framegate.data import digits

CAMERAS: dict[digits.Split, int] = {"train": 2, "val": 1, "test": 1}
CLIPS: dict[digits.Split, int] = {"train": 1, "val": 1, "test": 1}


def rows(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return dict(list(csv.reader(file))[1:])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits") / "set"
    digits.render(out, CAMERAS, CLIPS, seed=0, workers=1)
    return out


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(dataset: Path, tmp_path: Path) -> None:
    digits.render(tmp_path / "again", CAMERAS, CLIPS, seed=0, workers=2)
    assert contents(tmp_path / "again") == contents(dataset)


def test_another_seed_gives_other_clips(dataset: Path, tmp_path: Path) -> None:
    digits.render(tmp_path / "other", CAMERAS, CLIPS, seed=1, workers=1)
    other, ours = contents(tmp_path / "other"), contents(dataset)
    assert all(other[name] != ours[name] for name in ours.keys() & other.keys() if "/" in name)


def test_lists_name_every_clip_and_nothing_is_left_over(dataset: Path) -> None:
    clips = {name for name in contents(dataset) if "/" in name}
    assert len(clips) == 4 * len(digits.LABELS)
    assert rows(dataset / "groups.csv").keys() == clips
    assert rows(dataset / "splits.csv").keys() == clips
    assert not dataset.with_name("set.partial").exists()


def test_a_camera_stands_in_one_split(dataset: Path) -> None:
    groups, splits = rows(dataset / "groups.csv"), rows(dataset / "splits.csv")
    seen = {(groups[path], splits[path]) for path in groups}
    assert len(seen) == len({camera for camera, _ in seen}) == 4


def test_splits_share_no_source_digit() -> None:
    parts = [digits.source_digits(split, seed=0) for split in digits.SHARES]
    assert len(np.unique(np.concatenate(parts))) == sum(len(part) for part in parts) == 1797
    assert all(len(part) > 0 for part in parts)


@pytest.mark.parametrize(("twin", "label"), digits.TWINS.items())
def test_a_twin_is_its_pair_run_backwards(twin: str, label: str) -> None:
    u = np.linspace(0, 1, 16)
    forward = digits.draw_track(label, np.random.default_rng(3), u)
    backward = digits.draw_track(twin, np.random.default_rng(3), u)
    np.testing.assert_allclose(backward, forward[::-1], atol=1e-9)
    assert np.ptp(forward, axis=0).max() > 5


def test_directions_are_named_as_seen_on_the_screen() -> None:
    u = np.linspace(0, 1, 16)
    tracks = {k: digits.draw_track(k, np.random.default_rng(5), u) for k in digits.LABELS}
    assert tracks["right"][-1, 0] > tracks["right"][0, 0]
    assert tracks["up"][-1, 1] < tracks["up"][0, 1]
    assert tracks["grow"][-1, 2] > tracks["grow"][0, 2]
    x, y, _ = (tracks["clockwise"] - tracks["clockwise"].mean(0)).T
    assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0  # y points down


def test_flips_is_an_involution_over_all_classes(dataset: Path) -> None:
    flips = rows(dataset / "flips.csv")
    assert flips.keys() == set(digits.LABELS)
    assert all(flips[flips[label]] == label for label in flips)
    assert flips["left"] == "right" and flips["clockwise"] == "counterclockwise"
    assert flips["up"] == "up"


def test_every_clip_decodes_to_sixteen_ticks_with_rising_times(dataset: Path) -> None:
    for path in dataset.rglob("*.mkv"):
        with av.open(path) as container:
            times = [float(f.pts * f.time_base) for f in container.decode(video=0)]
        assert np.all(np.diff(times) > 0)
        assert times[-1] - times[0] >= 1.5


def test_files_carry_no_encoder_note(dataset: Path) -> None:
    assert all(b"x264" not in path.read_bytes() for path in dataset.rglob("*.mkv"))


def test_frame_rates_vary_over_cameras_and_stay_in_range() -> None:
    cameras = digits.plan_cameras({s: x.cameras for s, x in digits.SHARES.items()}, seed=0)
    assert len({camera.fps for camera in cameras}) >= 8
    assert all(10 <= camera.fps <= 30 for camera in cameras)
    assert any(camera.jitter > 0 for camera in cameras)


def test_full_plan_has_enough_test_clips_and_balances_classes() -> None:
    cameras = digits.plan_cameras({s: x.cameras for s, x in digits.SHARES.items()}, seed=0)
    plan = digits.plan_clips(cameras, {s: x.clips for s, x in digits.SHARES.items()}, seed=0)
    assert sum(clip.camera.split == "test" for clip in plan) >= 2500
    assert len({clip.path for clip in plan}) == len(plan)
    for camera in cameras:
        counts = {k: sum(c.label == k and c.camera is camera for c in plan) for k in digits.LABELS}
        assert len(set(counts.values())) == 1


def test_a_folder_that_is_not_empty_is_refused(dataset: Path) -> None:
    with pytest.raises(DataError, match="not empty"):
        digits.render(dataset, CAMERAS, CLIPS)
