"""Bad input, one table: each case is refused (or skipped by name) with words that say what, where, and what to do."""

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from framegate.cli import main
from framegate.contract import REFUSED, BundleError, ClipSpec, ConfigError, DataError, FramegateError, MediaError
from framegate.index import Index, IndexSettings, build
from framegate.media import MediaLimits, read_clip
from framegate.runtime.session import open_session
from pipelines._stage import check_overrides
from tests.bundles import make_bundle
from tests.conftest import dataset, render

SPEC = ClipSpec(frames=8, height=16, width=16, fps=10)


def index(folder: Path, share: float = 0.05) -> Index:
    out = folder.parent / "out"
    return build(folder, out / "index.json", out / "shards", SPEC, IndexSettings(max_skipped_share=share), workers=0)


def frames(path: Path) -> None:
    for _ in read_clip(path, SPEC, MediaLimits()):
        pass


def empty_class(root: Path) -> None:
    (dataset(root / "data") / "nobody").mkdir()
    index(root / "data")


def only_class(root: Path) -> None:
    index(dataset(root / "data", classes=("left",)))


def one_group(root: Path) -> None:
    index(dataset(root / "data", groups=1))


def short_clips(root: Path) -> None:
    dataset(root / "data")
    render(root / "data/left/000.mp4", frames=3, seed=77)
    index(root / "data")


def mixed(root: Path) -> None:
    dataset(root / "data")
    dataset(root / "more", suffix=".png", groups=None)
    shutil.copy(root / "more/left/000.png", root / "data/left/picture.png")
    index(root / "data")


def slash_label(root: Path) -> None:
    (dataset(root / "data") / "flips.csv").write_text("label,flipped\nleft,a/b\nright,left\n")
    index(root / "data")


def lying_file(root: Path) -> None:
    dataset(root / "data")
    (root / "data/left/000.mp4").write_text("I am a text file, whatever my name says.")
    index(root / "data")


def two_labels(root: Path) -> None:
    dataset(root / "data", groups=None)
    shutil.copy(root / "data/left/000.mp4", root / "data/right/000.mp4")
    index(root / "data")


def changed_bundle(root: Path) -> None:
    bundle = make_bundle(root / "bundles").path
    data = bytearray((bundle / "step.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "step.onnx").write_bytes(data)
    open_session(bundle)


def refused_bundle(root: Path) -> None:
    (root / "cnn-dense-int8").mkdir()
    (root / "cnn-dense-int8" / REFUSED).write_text('{"reason": "int8 agrees with fp32 on 90.0 % of clips"}')
    open_session(root / "cnn-dense-int8")


def no_frames(root: Path) -> None:
    frames(_header_only(root / "none.mkv"))


def _header_only(path: Path) -> Path:
    """A Matroska file that ends before its first frame."""
    whole = render(path.with_name("whole.mkv")).read_bytes()
    path.write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75")])  # up to the first Cluster
    return path


def text_clip(root: Path) -> None:
    (root / "notes.mp4").write_text("not a video")
    frames(root / "notes.mp4")


def huge_image(root: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (root / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    frames(root / "huge.png")


@dataclass(frozen=True)
class Case:
    """What is done, what it must raise, and what the words must contain."""

    act: Callable[[Path], object]
    error: type[FramegateError]
    words: tuple[str, ...]


CASES = {
    "an empty class folder": Case(empty_class, DataError, ("nobody",)),
    "a single class": Case(only_class, DataError, ("left", "class")),
    "one group": Case(one_group, DataError, ("group",)),
    "a clip shorter than T": Case(short_clips, DataError, ("left/000.mp4", "3 frames", "clip.frames is 8")),
    "videos and images mixed": Case(mixed, DataError, ("12", "1 image", "video")),
    "a label with a slash": Case(slash_label, DataError, ("a/b", "flips.csv")),
    "a file that lies about its type": Case(lying_file, DataError, ("left/000.mp4",)),
    "two labels for the same bytes": Case(two_labels, DataError, ("left/000.mp4", "right/000.mp4")),
    "model=nope": Case(lambda _: check_overrides(["model=nope"]), ConfigError, ("model=nope", "cnn_gru")),
    "two typos at once": Case(
        lambda _: check_overrides(["train.lrr=1", "data.clip.frmes=2"]), ConfigError, ("'lr'", "'frames'")
    ),
    "a bundle with one byte changed": Case(changed_bundle, BundleError, ("step.onnx", "export the bundle again")),
    "a bundle that the export refused": Case(refused_bundle, BundleError, ("the export refused it", "90.0 %")),
    "predict on a text file": Case(text_clip, MediaError, ("notes.mp4",)),
    "predict on a missing file": Case(lambda root: frames(root / "gone.mp4"), MediaError, ("no such file",)),
    "a video without frames": Case(no_frames, MediaError, ("none.mkv",)),
    "100,000 x 100,000 pixels": Case(huge_image, MediaError, ("100000", "limit")),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_bad_input_is_refused_in_words(case: Case, tmp_path: Path) -> None:
    with pytest.raises(case.error) as caught:
        case.act(tmp_path)
    for word in case.words:
        assert word in str(caught.value), str(caught.value)


def test_labels_with_spaces_and_other_scripts_work(tmp_path: Path) -> None:
    table = index(dataset(tmp_path / "data", classes=("going left", "右へ")))
    assert table.labels == ("going left", "右へ")


def test_a_few_broken_files_are_skipped_by_name(tmp_path: Path) -> None:
    dataset(tmp_path / "data", per_class=12)
    (tmp_path / "data/left/000.mp4").write_bytes(b"")
    render(tmp_path / "data/right/001.mp4", frames=2)
    table = index(tmp_path / "data", share=0.2)
    assert {one.path for one in table.skipped} == {"left/000.mp4", "right/001.mp4"}
    assert all(one.reason for one in table.skipped) and len(table.clips) == 22


def test_predict_ends_with_one_readable_line(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*gone\.mp4: no such file"):
        main(["predict", str(tmp_path / "gone.mp4"), "--bundle", str(tiny_bundle), "--accept-host"])
    with pytest.raises(SystemExit, match="no such folder"):
        main(["predict", "x.mp4", "--bundle", str(tmp_path / "nothing")])
    main(["predict", str(render(tmp_path / "clip.mp4")), "--bundle", str(tiny_bundle), "--accept-host", "--json"])
    segments = json.loads(capsys.readouterr().out)
    assert segments[0].keys() == {"start_s", "end_s", "label", "probability"}
