"""Files that are watched: the answers of predict, alerts, folders, and files that cannot be played."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from framegate.contract import ConfigError
from framegate.media import MediaLimits, read_clip
from framegate.runtime.session import open_session
from framegate.timeline import softmax
from framegate.watch.line import Pace
from tests.running import audio_only
from tests.watched import Event, events_of, film, named, settings

FAST = Pace(fast=True)


def offline(bundle: Path, clip: Path) -> list[tuple[float, str, float]]:
    """(time, label, probability) of every tick, a frame at a time, nothing batched."""
    session = open_session(bundle)
    state, found = session.init_state(1), []
    for frame in read_clip(clip, session.clip, MediaLimits()):
        logits, state = session.step(frame.pixels[None], state)
        shares = softmax(logits[0])
        found.append((frame.time_s, session.labels[int(shares.argmax())], float(shares.max())))
    session.close()
    return found


def answers(events: list[Event], camera: str) -> list[tuple[float, str, float]]:
    return [(e["t"], e["label"], e["probability"]) for e in named(events, "answer") if e["camera"] == camera]


def same(got: list[tuple[float, str, float]], expected: list[tuple[float, str, float]]) -> bool:
    return [(t, label) for t, label, _ in got] == [(round(t, 3), label) for t, label, _ in expected] and all(
        abs(a[2] - b[2]) < 2e-4 for a, b in zip(got, expected, strict=True)
    )


def test_many_files_at_once_give_the_answers_of_each_alone(tmp_path: Path, tiny_bundle: Path) -> None:
    clips = [
        film(tmp_path / "a.mp4", "rrrrrrrrbbbbbbbbbb", fps=10),
        film(tmp_path / "b.mp4", "g" * 40 + "r" * 30, fps=25),
        film(tmp_path / "c.mkv", "b" * 9, fps=4),
        film(tmp_path / "d.mp4", "rgb" * 20, fps=29.97),
        film(tmp_path / "e.mp4", "g", fps=10),
    ]
    events = events_of(settings(tiny_bundle, clips, pace=FAST, answers=True))
    for clip in clips:
        assert same(answers(events, clip.stem), offline(tiny_bundle, clip)), clip
    ends = named(events, "end")
    assert {e["camera"] for e in ends} == {c.stem for c in clips} and all(e["dropped"] == 0 for e in ends)
    assert not named(events, "reset", "error")


def test_a_file_is_played_at_its_own_speed_and_answered_to_the_end(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r" * 12)
    events = events_of(settings(tiny_bundle, [clip], answers=True))
    end = named(events, "end")[0]
    assert end["frames"] == 12 and end["answers"] + end["dropped"] == 12
    first, last = named(events, "answer")[0], named(events, "answer")[-1]
    assert last["t"] - first["t"] == pytest.approx(1.1, abs=0.11)
    assert _clock(last) - _clock(first) > 0.5  # not all at once


def _clock(event: Event) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event["time"]).timestamp()


def test_an_alert_is_told_when_it_goes_off_and_when_it_ends(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "door.mp4", "g" * 5 + "r" * 40)
    given = {"background": "green", "hold_s": 0.5, "thresholds": {"red": 0.6}}
    events = events_of(settings(tiny_bundle, [clip], given, pace=FAST, answers=True))
    alert, end = named(events, "alert", "alert_end")
    assert set(alert) == {"event", "camera", "label", "probability", "start_s", "t", "time", "version"}
    assert (alert["event"], alert["camera"], alert["label"]) == ("alert", "door", "red")
    held = [e for e in named(events, "answer") if e["label"] == "red" and e["probability"] >= 0.6]
    assert alert["start_s"] == held[0]["t"] and alert["t"] == held[4]["t"]
    assert alert["probability"] == held[4]["probability"]
    assert (end["start_s"], end["t"]) == (alert["start_s"], 4.5)
    assert end["duration_s"] == pytest.approx(4.5 - alert["start_s"])
    assert named(events, "end")[0]["alerts"] == 1


@pytest.mark.parametrize(("name", "fps"), [("a.mp4", 25), ("a.mkv", 24)])
def test_a_file_says_its_rate_and_is_not_slow_by_it(name: str, fps: float, tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / name, "r" * 30, fps=fps)
    events = events_of(settings(tiny_bundle, [clip], {"slow_s": 0.5}, pace=FAST))
    assert named(events, "connected")[0]["fps"] == fps and not named(events, "health")


def test_a_file_that_declares_more_than_it_gives_is_not_slow(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framegate.watch.feed.probe_fps", lambda path: 60.0)
    clip = film(tmp_path / "a.mp4", "r" * 30)
    events = events_of(settings(tiny_bundle, [clip], {"slow_s": 0.5}, pace=FAST))
    assert named(events, "connected")[0]["fps"] == 60 and not named(events, "health")


def test_a_folder_is_all_its_videos(tmp_path: Path, tiny_bundle: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mkv", "a.mkv"):
        film(folder / name, "rr")
    (folder / "notes.txt").write_text("not a video")
    events = events_of(settings(tiny_bundle, [folder], pace=FAST))
    assert sorted(e["camera"] for e in named(events, "end")) == ["films/a", "films/a-2", "films/b"]


def test_a_folders_hidden_files_are_left_out_and_what_is_no_file_says_so(tmp_path: Path, tiny_bundle: Path) -> None:
    folder = tmp_path / "films"
    (folder / "sub.mp4").mkdir(parents=True)
    for name in ("a.mp4", "._a.mp4", "b.M4V"):
        film(tmp_path / "x.mp4", "rr").rename(folder / name)
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    events = events_of(settings(tiny_bundle, [folder], pace=FAST))
    errors = {e["camera"].removeprefix("films/"): e.get("error", "") for e in named(events, "end")}
    assert set(errors) == {"a", "b", "gone", "pipe"} and errors["a"] == errors["b"] == ""
    assert "no such file" in errors["gone"] and "not a file" in errors["pipe"]


def test_a_folder_without_videos_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="no video in this folder"):
        settings(tiny_bundle, [tmp_path])


def test_one_camera_that_fails_disturbs_no_other(tmp_path: Path, tiny_bundle: Path) -> None:
    good = film(tmp_path / "good.mp4", "r" * 10 + "b" * 20)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video at all" * 50)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film(tmp_path / "whole.mkv", "g" * 200, noise=60).read_bytes()[:40_000])
    silent = audio_only(tmp_path / "silent.mp4")
    events = events_of(
        settings(tiny_bundle, [tmp_path / "missing.mp4", broken, good, cut, silent], pace=FAST, answers=True)
    )
    errors = {e["camera"]: e.get("error", "") for e in named(events, "end")}
    assert "no such file" in errors["missing"]
    assert "not a video" in errors["broken"]
    assert "truncated" in errors["cut"] or "corrupt" in errors["cut"]
    assert "no video stream" in errors["silent"]
    assert errors["good"] == ""
    assert same(answers(events, "good"), offline(tiny_bundle, good))
    assert events[-1]["event"] == "summary" and events[-1]["failed"] == 4


def test_the_exit_code_is_1_when_every_camera_failed(tmp_path: Path, tiny_bundle: Path) -> None:
    events = events_of(settings(tiny_bundle, [tmp_path / "a.mp4", tmp_path / "b.mp4"], pace=FAST), code=1)
    assert [e["event"] for e in events] == ["end", "end", "summary"]


def test_labels_that_the_model_does_not_have_are_told_all_at_once(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r")
    given = {"background": "nothing", "thresholds": {"gren": 0.5}}
    with pytest.raises(ConfigError) as caught:
        events_of(settings(tiny_bundle, [clip], given))
    text = str(caught.value)
    assert "did you mean 'green'?" in text and "background" in text and "blue, green, red" in text


def test_frozen_and_black_are_told_when_they_begin_and_when_they_are_over(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r" * 10 + "k" * 40 + "g" * 10, noise=0, same=True)
    given = {"frozen_s": 1.5, "black_s": 1.0, "slow_s": 0}
    events = events_of(settings(tiny_bundle, [clip], given, pace=FAST))
    told = [(e["problem"], e["present"], e["t"]) for e in named(events, "health")]
    assert [one[:2] for one in told] == [("black", True), ("frozen", True), ("black", False), ("frozen", False)] or [
        one[:2] for one in told
    ] == [("black", True), ("frozen", True), ("frozen", False), ("black", False)]
    assert told[0][2] == pytest.approx(2.0, abs=0.11) and told[1][2] == pytest.approx(2.5, abs=0.4)


@pytest.mark.parametrize(("rotation", "size"), [(0, (64, 48)), (90, (48, 64)), (180, (64, 48)), (270, (48, 64))])
def test_the_size_that_is_told_is_that_of_the_upright_picture(
    rotation: int, size: tuple[int, int], tmp_path: Path, tiny_bundle: Path, make_clip: Callable[..., Path]
) -> None:
    clip = make_clip(tmp_path / "a.mp4", rotation=rotation, size=(64, 48), frames=3)
    told = named(events_of(settings(tiny_bundle, [clip], pace=FAST)), "connected")[0]
    assert (told["width"], told["height"]) == size


def test_a_camera_that_gives_fewer_frames_than_the_model_wants_is_slow(tmp_path: Path, tiny_bundle: Path) -> None:
    slow, quick = film(tmp_path / "slow.mp4", "r" * 20, fps=4), film(tmp_path / "quick.mp4", "r" * 40, fps=10)
    events = events_of(settings(tiny_bundle, [slow, quick], {"slow_s": 2.0}, pace=FAST))
    assert [(e["camera"], e["problem"], e["present"]) for e in named(events, "health")] == [("slow", "slow", True)]
    tallies = events[-1]["cameras"]
    assert tallies["slow"]["fps"] == pytest.approx(4, abs=0.1) and tallies["slow"]["problems"] == ["slow"]
    assert tallies["quick"]["problems"] == []
