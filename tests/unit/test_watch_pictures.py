"""Annotated videos and the window."""

import asyncio
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from framegate.contract import ConfigError, MediaError
from framegate.media import MediaLimits, read_video
from framegate.watch.annotate import Annotation, annotation_paths
from framegate.watch.line import Pace
from framegate.watch.output import Output
from framegate.watch.picture import Picture, draw
from framegate.watch.run import watch
from framegate.watch.window import Window
from tests.streamed import Script, mjpeg
from tests.watched import COLORS, Event, events_of, film, named, picture, settings, watch_until

FAST = Pace(fast=True)
SHARES = (("blue", 0.1), ("green", 0.2), ("red", 0.7))


def shown(
    color: str = "r", time_s: float = 1.0, alert: str | None = None, size: tuple[int, int] = (320, 240)
) -> Picture:
    return Picture("door", picture(color, 0, size, noise=0), time_s, SHARES, alert)


def played(path: Path) -> list[tuple[float, np.ndarray]]:
    return [(frame.time_s, frame.rgb()) for frame in read_video(path, MediaLimits())]


def test_the_video_shows_every_answered_frame_at_its_time(tmp_path: Path, tiny_bundle: Path) -> None:
    clip, out = film(tmp_path / "a.mp4", "r" * 10 + "b" * 10, fps=10, size=(320, 240)), tmp_path / "out.mp4"
    events = events_of(settings(tiny_bundle, [clip], pace=FAST, annotate=out, answers=True))
    frames = played(out)
    assert [time_s for time_s, _ in frames] == pytest.approx([e["t"] for e in named(events, "answer")], abs=0.0015)
    assert frames[0][1].shape == (240, 320, 3)
    for k, color in ((3, "r"), (15, "b")):
        centre = frames[k][1][100:130, 100:200].mean(axis=(0, 1))
        assert np.abs(centre - COLORS[color]).max() < 25
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.mp4", "out.mp4"]
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_several_cameras_are_written_into_a_folder(tmp_path: Path, tiny_bundle: Path) -> None:
    clips = [film(tmp_path / f"{name}.mp4", "rrr") for name in "ab"]
    events_of(settings(tiny_bundle, clips, pace=FAST, annotate=tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mp4"]
    assert len(played(tmp_path / "out/b.mp4")) == 3


def test_a_stream_that_is_stopped_leaves_a_video_that_plays(tmp_path: Path, tiny_bundle: Path) -> None:
    out = tmp_path / "out.mp4"

    def enough(events: list[Event]) -> bool:
        return len(named(events, "answer")) >= 8

    with mjpeg(Script(["g" * 2000])) as url:
        events = watch_until(settings(tiny_bundle, [url], annotate=out, answers=True), enough)
    assert len(played(out)) == len(named(events, "answer"))


def test_a_camera_that_gives_nothing_leaves_no_video(tmp_path: Path, tiny_bundle: Path) -> None:
    out = tmp_path / "out.mp4"
    events_of(settings(tiny_bundle, [tmp_path / "missing.mp4"], pace=FAST, annotate=out), code=1)
    assert list(tmp_path.glob("*.mp4")) == []


def test_a_video_that_cannot_be_written_does_not_end_the_watching(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r" * 10)
    (tmp_path / "file").write_text("in the way")
    events = events_of(settings(tiny_bundle, [clip], pace=FAST, annotate=tmp_path / "file/out.mp4"))
    assert "no more pictures" in named(events, "error")[0]["error"] and len(named(events, "error")) == 1
    assert named(events, "end")[0]["answers"] == 10


def test_a_size_that_changes_is_fitted_and_times_that_stand_still_go_on(tmp_path: Path) -> None:
    annotation = Annotation(tmp_path / "a.mp4", 10)
    for number, size in enumerate([(640, 480), (320, 240), (641, 333)]):
        annotation.add(shown(time_s=0.0 if number < 2 else 0.5, size=size))
    annotation.close()
    annotation.close()
    assert [frame.shape for _, frame in played(tmp_path / "a.mp4")] == [(480, 640, 3)] * 3


def test_a_failure_in_the_middle_leaves_what_stood_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("before")
    annotation = Annotation(path, 10)
    annotation.add(shown())

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotation, "_encode", full)
    with pytest.raises(MediaError, match="No space left"):
        annotation.add(shown())
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_where_videos_go_is_checked_before_anything_starts(tmp_path: Path) -> None:
    one = tmp_path / "a.mp4"
    with pytest.raises(ConfigError, match="name a folder"):
        annotation_paths(one, ["a", "b"], [])
    with pytest.raises(ConfigError, match="what is watched"):
        annotation_paths(one, ["a"], [one])
    with pytest.raises(ConfigError, match="several cameras would write"):
        annotation_paths(tmp_path, ["a/b", "a?b"], [])
    for cameras in (["a"], ["a", "b"]):
        with pytest.raises(ConfigError, match=r"\.avi cannot be written"):
            annotation_paths(tmp_path / "out.avi", cameras, [])
    (dated := tmp_path / "films.2024").mkdir()
    assert annotation_paths(dated, ["a"], []) == [dated / "a.mp4"]
    assert annotation_paths(tmp_path / "new", ["a"], []) == [tmp_path / "new/a.mp4"]
    assert annotation_paths(tmp_path, ["../../etc/x", "10.0.0.7:554/s1"], []) == [
        tmp_path / "etc-x.mp4",
        tmp_path / "10.0.0.7-554-s1.mp4",
    ]


def test_the_drawing_shows_bars_and_a_red_frame_while_an_alert_is_on() -> None:
    quiet, loud = draw(shown("g")), draw(shown("g", alert="red"))
    assert np.array_equal(quiet[0, 0], quiet[0, -1]) and tuple(loud[120, 0]) == (255, 72, 72)
    rows = quiet[240 - 3 * 16 :, 160:]
    lengths = [int((rows[16 * k + 8] == (64, 160, 255)).all(axis=1).sum()) for k in range(3)]
    assert lengths == pytest.approx([0.7 * 156, 0.2 * 156, 0.1 * 156], abs=2)  # the likeliest first


def test_a_long_label_does_not_run_into_the_bars() -> None:
    long = replace(shown("g"), shares=(("counterclockwise", 0.6), ("up", 0.3), ("down", 0.1)))
    row = draw(long)[240 - 3 * 16 + 4 : 240 - 2 * 16 - 4]
    bar = (row == (64, 160, 255)).all(axis=2).any(axis=0).nonzero()[0]
    letters = (row.min(axis=2) > 150).any(axis=0).nonzero()[0]
    assert letters.max() < bar.min() < bar.max() < 319


def test_a_tiny_picture_is_enlarged_and_the_frame_itself_is_not_drawn_on() -> None:
    small = shown(size=(33, 17))
    before = small.pixels.copy()
    height, width = draw(small).shape[:2]
    assert width >= 320 and height % 2 == 0 and width % 2 == 0
    draw(shown(size=(640, 480)))
    assert np.array_equal(small.pixels, before)


def test_without_a_display_a_window_is_refused_with_a_way_out(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    clip = film(tmp_path / "a.mp4", "r")
    with pytest.raises(ConfigError, match=r"--show needs .*--annotate"):
        events_of(settings(tiny_bundle, [clip], pace=FAST, show=True))


def test_without_tkinter_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(ConfigError, match="python3-tk"):
        Window(["a"])


def test_without_tkinter_everything_else_works() -> None:
    words = "import sys; sys.modules['tkinter'] = None; import framegate.watch.run"
    subprocess.run([sys.executable, "-c", words], check=True)


@pytest.fixture(scope="module")
def xvfb() -> Iterator[str]:
    """A virtual screen, where there is one; one for all, as Tk never lets go of a display."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24"], pass_fds=[write], stderr=subprocess.DEVNULL
    )
    os.close(write)
    with os.fdopen(read) as told:
        yield f":{told.readline().strip()}"
    server.send_signal(signal.SIGTERM)
    server.wait()


@pytest.fixture
def display(xvfb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the screen of this process."""
    monkeypatch.setenv("DISPLAY", xvfb)


@pytest.mark.usefixtures("display")
def test_the_window_shows_all_cameras_and_closing_it_ends_the_watching(tmp_path: Path, tiny_bundle: Path) -> None:
    window = Window(["a", "b", "c"])
    for pane in window.panes:
        pane.add(shown())
    window.refresh()
    time.sleep(0.05)
    window.refresh()
    assert [pane.photo is not None for pane in window.panes] == [True] * 3
    assert window.panes[0].photo.width() == 320
    window._shut()
    assert window.closed
    window.close()
    clip = film(tmp_path / "a.mp4", "r" * 10)
    events = events_of(settings(tiny_bundle, [clip], show=True))
    assert named(events, "end")[0]["frames"] == 10


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what nobody refers to is freed; what is left in a circle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("display", "no_collector")
def test_tk_dies_with_its_window() -> None:
    window = Window(["a"])
    window.panes[0].add(shown())
    window.refresh()
    kept = [weakref.ref(one) for one in (window._root, window._labels[0], window.panes[0].photo)]
    window.close()
    assert [ref() for ref in kept] == [None] * 3


@pytest.mark.usefixtures("display", "no_collector")
@pytest.mark.parametrize("fault", ["output", "screens"])
def test_tk_dies_in_its_thread_whatever_ends_the_watching(
    fault: str, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "gone")

    class Kept(Window):
        def __init__(self, cameras: list[str]) -> None:
            super().__init__(cameras)
            roots.append(weakref.ref(self._root))

    def failing(*args: object) -> None:
        raise BrokenPipeError(32, "gone")

    roots: list[weakref.ref[object]] = []
    monkeypatch.setattr("framegate.watch.run.Window", Kept)
    if fault == "screens":
        monkeypatch.setattr("framegate.watch.run._screens", failing)
    with pytest.raises(BrokenPipeError) as caught:
        asyncio.run(watch(settings(tiny_bundle, [film(tmp_path / "a.mp4", "r")], show=True), Gone()))
    assert caught.value and [ref() for ref in roots] == [None]


def test_an_error_of_the_output_is_told_once_and_holds_on_to_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "gone")

    output = Output(Gone(), answers=False, stop=asyncio.Event())
    output.tell("summary")
    with pytest.raises(BrokenPipeError):
        output.check()
    output.check()
