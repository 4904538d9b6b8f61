"""The shared writers: a full disk or Ctrl-C leaves what stood there before, and nothing else."""

import errno
import json
from pathlib import Path

import pytest

from framegate.contract import Bundle, atomic_folder, atomic_path, write_text
from tests.bundles import make_bundle

FAILURES = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]


@pytest.mark.parametrize("failure", FAILURES, ids=["disk full", "Ctrl-C"])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, failure: BaseException) -> None:
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(type(failure)), atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half of the n")
        raise failure
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"
    write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"


@pytest.mark.parametrize("failure", FAILURES, ids=["disk full", "Ctrl-C"])
def test_a_failed_folder_leaves_the_old_one_alone(tmp_path: Path, failure: BaseException) -> None:
    write_text(tmp_path / "bundle" / "step.onnx", "old")
    with pytest.raises(type(failure)), atomic_folder(tmp_path / "bundle") as folder:
        (folder / "step.onnx").write_text("half")
        raise failure
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle" / "step.onnx").read_text() == "old"
    with atomic_folder(tmp_path / "bundle") as folder:
        (folder / "clip.onnx").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["clip.onnx"]


def test_fields_that_came_later_leave_older_bundles_their_digest(tmp_path: Path) -> None:
    path = make_bundle(tmp_path).path / "bundle.json"
    plain = json.loads(path.read_text())
    for key in ("calibration", "golden"):
        assert plain["lineage"].pop(key) == []
    path.write_text(json.dumps(plain))
    assert Bundle.load(path.parent).info.digest == plain["digest"]
    info = Bundle.load(path.parent).info
    named = info.model_copy(update={"lineage": info.lineage.model_copy(update={"calibration": ("a.mp4",)})})
    assert named.sealed().digest != plain["digest"]
