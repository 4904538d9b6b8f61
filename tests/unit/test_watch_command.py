"""`framegate watch` as a program: signals, exit codes, pipes; and what is rare: a hung driver, a broken runtime, a swap."""

import argparse
import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.cli import main
from framegate.contract import MediaError
from framegate.serve.engine import Stream
from framegate.serve.limits import Limits
from framegate.serve.model import Opened, Source, open_folder
from framegate.video import TimedFrame
from framegate.watch.line import Pace
from framegate.watch.run import Settings, watch
from tests.bundles import WEIGHTS, make_bundle
from tests.streamed import Script, mjpeg
from tests.unit.test_watch_pictures import played
from tests.watched import Event, events_of, film, named, picture, settings, watch_until

FOREVER = "g" * 5000


def command(*words: object) -> list[str]:
    program = "from framegate.cli import main; main()"
    return [sys.executable, "-c", program, "watch", *map(str, words), "--accept-host"]


def started(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0_and_a_video_that_plays(number: int, tmp_path: Path, tiny_bundle: Path) -> None:
    out = tmp_path / "out.mp4"
    with mjpeg(Script([FOREVER])) as url:
        process = started(url, "--bundle", tiny_bundle, "--annotate", out, "--answers")
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(8)]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert events[-1]["event"] == "summary"
    assert len(played(out)) == len(named(events, "answer")) >= 5


def test_a_signal_before_there_is_a_loop_is_heeded_and_handlers_are_as_they_were(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from framegate.cli import watch as module

    def interrupted(parsed: argparse.Namespace) -> Settings:
        os.kill(os.getpid(), signal.SIGINT)
        return settings_of(parsed)

    settings_of, before = module.settings_of, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(module, "settings_of", interrupted)
    clip = film(tmp_path / "a.mp4", "r" * 600)
    main(["watch", str(clip), "--loop", "--bundle", str(tiny_bundle), "--accept-host"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["end", "summary"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_summary_is_told_while_signals_are_still_heeded(tmp_path: Path, tiny_bundle: Path) -> None:
    class Looking(io.StringIO):
        def write(self, text: str) -> int:
            seen.append((json.loads(text)["event"], signal.getsignal(signal.SIGTERM)) if text.strip() else None)
            return len(text)

    seen: list[Any] = []
    clip = film(tmp_path / "a.mp4", "rr")
    assert asyncio.run(watch(settings(tiny_bundle, [clip], pace=Pace(fast=True)), Looking())) == 0
    event, handler = next(one for one in reversed(seen) if one)
    assert event == "summary" and handler is not signal.SIG_DFL


def test_a_reader_that_goes_away_ends_it_and_the_video_is_whole(tmp_path: Path, tiny_bundle: Path) -> None:
    out = tmp_path / "out.mp4"
    with mjpeg(Script([FOREVER])) as url:
        process = started(url, "--bundle", tiny_bundle, "--annotate", out, "--answers")
        assert process.stdout and process.stderr
        for _ in range(5):
            process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()
    assert len(played(out)) >= 4


def test_files_end_it(tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = film(tmp_path / "a.mp4", "r" * 20)
    words = ["watch", str(clip), "--bundle", str(tiny_bundle), "--accept-host", "--fast"]
    main([*words, "--threshold", "0.99", "--label-threshold", "red=0.5", "--status-every", "60"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["connected", "alert", "alert_end", "end", "summary"]
    with pytest.raises(SystemExit) as caught:
        main([*words[:1], str(tmp_path / "missing.mp4"), *words[2:]])
    assert caught.value.code == 1


def test_what_is_printed_is_utf8_whatever_the_locale_says(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(written := io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    clip = film(tmp_path / "kamera-日本.mp4", "rr")
    main(["watch", str(clip), "--bundle", str(tiny_bundle), "--accept-host", "--fast"])
    lines = written.getvalue().decode("utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["connected", "end", "summary"]
    assert json.loads(lines[0])["camera"] == "kamera-日本"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a.mp4", "--bundle", "nowhere"], "no such folder"),
        (["a.mp4", "--fast", "--loop"], "say one of them"),
        (["a.mp4", "b.png", "--loop"], "b.png is an image"),
        (["a.mp4", "--label-threshold", "left"], "LABEL=VALUE"),
        (["a.mp4", "--label-threshold", "=0.5"], "LABEL=VALUE"),
        (["a.mp4", "--threshold", "nan"], "threshold"),
        (["a.mp4", "--status-every", "0"], "more than 0"),
        (["rtps://me:s3cret@cam/x"], "rtps:// is not known"),
        (["cameras.yaml"], "No such file"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: list[str], text: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle.parent)
    bundle = [] if "--bundle" in words else ["--bundle", tiny_bundle.name]
    with pytest.raises(SystemExit) as caught:
        main(["watch", *words, *bundle])
    assert str(caught.value.code).startswith("error:") and text in str(caught.value.code)
    assert "s3cret" not in str(caught.value.code)


def test_a_bundle_of_another_host_class_needs_the_users_word(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["watch", str(film(tmp_path / "a.mp4", "r")), "--bundle", str(tiny_bundle)])
    assert "--accept-host" in str(caught.value.code)


# --- what is rare -------------------------------------------------------------------------------


def test_a_driver_that_hangs_is_left_alone_and_the_camera_connected_anew(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, opened = threading.Event(), []

    class Stuck:
        nominal_fps = None

        def __init__(self, *args: object) -> None:
            opened.append(self)

        def __iter__(self) -> Iterator[TimedFrame]:
            if self is opened[0]:
                release.wait(30)
                yield TimedFrame(0.0, picture("r", 0))  # too late: it counts no more
            for k in range(2000):
                if release.wait(0.05):
                    return
                yield TimedFrame(k / 20, picture("g", k))

    monkeypatch.setattr("framegate.watch.line.Feed", Stuck)
    found = settings(tiny_bundle, ["device:0"], {"timeout_s": 0.2}, answers=True)
    try:
        events = watch_until(found, lambda events: len(named(events, "answer")) > 5)
    finally:
        release.set()
    assert [e["reason"] for e in named(events, "disconnected")] == ["/dev/video0: it hangs and is left alone"]
    assert {e["label"] for e in named(events, "answer")} == {"green"}


def test_a_camera_that_gives_a_frame_and_hangs_is_tried_with_growing_pauses(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneFrame:
        nominal_fps = None

        def __init__(self, *args: object) -> None:
            pass

        def __iter__(self) -> Iterator[TimedFrame]:
            yield TimedFrame(0.0, picture("g", 0))
            time.sleep(1.1)  # longer than the first pause
            raise MediaError("camera", "no frame for 1.1 s")

    monkeypatch.setattr("framegate.watch.line.Feed", OneFrame)
    found = settings(tiny_bundle, ["device:0"])
    events = watch_until(found, lambda events: len(named(events, "disconnected")) >= 2)
    first, second = [e["retry_s"] for e in named(events, "disconnected")]
    assert first <= 1 <= second


def test_a_device_that_is_not_there_is_tried_again(tiny_bundle: Path) -> None:
    events = events_of(settings(tiny_bundle, ["device:63"], {"attempts": 2}), code=1)
    assert "No such file" in named(events, "disconnected")[0]["reason"]
    assert "/dev/video63" in named(events, "end")[0]["error"]


def test_a_runtime_that_breaks_down_ends_the_cameras_with_its_reason(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Stream, *args: object) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Stream, "step", broken)
    clips = [film(tmp_path / f"{name}.mp4", "r" * 30) for name in "ab"]
    events = events_of(settings(tiny_bundle, clips, pace=Pace(fast=True)), code=1)
    assert [e["error"] for e in named(events, "end")] == ["RuntimeError: out of memory"] * 2


def test_a_file_in_a_loop_begins_anew_with_a_new_state(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "rrrrrrggggggg"[:13], fps=20)
    found = settings(tiny_bundle, [clip], pace=Pace(loop=True), answers=True)
    events = watch_until(found, lambda events: len(named(events, "reset")) >= 2 and events[-1]["event"] == "answer")
    times = [e["t"] for e in named(events, "answer")]
    assert times == sorted(set(times))
    assert {e["reason"] for e in named(events, "reset")} == {"gap"}
    after = events[events.index(named(events, "reset")[0]) + 1]
    assert (after["event"], after["label"]) == ("answer", "red")


def test_a_video_of_one_frame_does_not_spin_in_a_loop(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r")
    found = settings(tiny_bundle, [clip], {"fps": 2.0}, pace=Pace(loop=True), answers=True)
    start = time.monotonic()
    watch_until(found, lambda events: len(named(events, "answer")) >= 4)
    assert time.monotonic() - start > 1.4


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera leaves the version that it is on after half a second."""
    monkeypatch.setattr("framegate.watch.run.Limits", partial(Limits, version_s=0.5))


@pytest.mark.usefixtures("_soon")
def test_a_model_that_takes_over_is_told_by_a_reset(tmp_path: Path, tiny_bundle: Path) -> None:
    other = make_bundle(tmp_path / "other", weights=np.ascontiguousarray(WEIGHTS[:, ::-1])).path
    served = tmp_path / "served"
    shutil.copytree(tiny_bundle, served)
    swapped = threading.Event()

    def enough(events: list[Event]) -> bool:
        if len(named(events, "answer")) >= 5 and not swapped.is_set():
            swapped.set()
            shutil.rmtree(served)
            os.rename(other, served)  # noqa: PTH104
        return bool(named(events, "reset")) and events[-1]["event"] == "answer"

    with mjpeg(Script([FOREVER])) as url:
        events = watch_until(settings(served, [url], answers=True), enough)
    reset = named(events, "reset")[0]
    versions = [e["version"] for e in named(events, "answer")]
    assert reset["reason"] == "version" and reset["version"] == versions[-1] != versions[0]
    assert named(events, "alert_end")[0]["version"] == versions[0]


@pytest.mark.usefixtures("_soon")
def test_a_model_that_is_replaced_while_it_is_opened_does_not_stay(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_bundle(tmp_path / "other", weights=np.ascontiguousarray(WEIGHTS[:, ::-1])).path
    served = tmp_path / "served"
    shutil.copytree(tiny_bundle, served)

    def opening(source: Source, max_batch: int) -> Opened:
        found = open_folder(source, max_batch)
        shutil.rmtree(served)
        os.rename(other, served)  # noqa: PTH104
        return found

    monkeypatch.setattr("framegate.watch.run.open_folder", opening)
    with mjpeg(Script([FOREVER])) as url:
        events = watch_until(settings(served, [url]), lambda events: named(events, "reset"))
    assert named(events, "reset")[0]["reason"] == "version"
