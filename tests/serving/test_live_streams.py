"""What a live stream says: the answers of the same frames as a file, resets, drops, and how it ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from framegate.cli.predict import predict
from framegate.runtime.session import open_session
from framegate.timeline import Spans, softmax
from tests.bundles import LABELS, SPEC
from tests.running import PREDICT, Server, eventually, offline, pictures, png, seen, shares_of
from tests.served import color


def times(said: Sequence[dict[str, Any]]) -> list[float]:
    return [one["t"] for one in said]


def assert_answers(said: list[dict[str, Any]], bundle: Path, frames: list[bytes]) -> None:
    """They are those of these frames, one after the other from the start."""
    right = softmax(offline(bundle, [seen(one) for one in frames]))
    assert abs(np.stack([shares_of(one, LABELS) for one in said]) - right).max() < 1e-3


def test_a_stream_greets_answers_and_ends(server: Server, bundle: Path) -> None:
    frames = pictures(5)
    with server.live() as live:
        clip = {"height": SPEC.height, "width": SPEC.width, "fps": SPEC.fps}
        assert live.ready["event"] == "ready"
        assert (live.ready["model"], live.ready["version"]) == ("framegate", server.version)
        assert (live.ready["labels"], live.ready["clip"]) == (list(LABELS), clip)
        said = [live.ask(one) for one in frames]
        assert live.end() == [{"event": "end", "frames": 5, "dropped": 0}]
        assert live.code == 1000
    assert [one["seq"] for one in said] == [0, 1, 2, 3, 4]
    assert times(said) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert {one["version"] for one in said} == {server.version}
    assert all(one["dropped"] == 0 and one["latency_ms"] > 0 for one in said)
    assert_answers(said, bundle, frames)


@pytest.mark.parametrize("top", [1, 2, 99])
def test_a_stream_says_as_many_labels_as_it_is_asked_for(server: Server, top: int) -> None:
    with server.live(f"fps=10&top={top}") as live:
        labels = live.ask(pictures(1)[0])["labels"]
    shares = [one["probability"] for one in labels]
    assert len(labels) == min(top, len(LABELS))
    assert shares == sorted(shares, reverse=True)


def test_a_frame_that_no_tick_picks_is_not_looked_at(server: Server, bundle: Path) -> None:
    """25 fps into 10: 60 frames give the 24 ticks that a file of them gives, each of its latest frame."""
    labels = [2] * 20 + [0] * 40
    frames = [color(label, seed=k) for k, label in enumerate(labels)]
    clip = lossless(server.log.parent / "clip.mov", frames, fps=25)
    segments = list(predict(open_session(bundle), clip))
    with server.live("fps=25") as live:
        said: list[dict[str, Any]] = []
        for number, frame in enumerate(frames):
            live.send(png(frame))
            if number == 0 or (number * 10) // 25 > ((number - 1) * 10) // 25:  # this one ends a tick
                said.append(live.next())
        *rest, end = live.end()
    said += rest
    assert end == {"event": "end", "frames": 60, "dropped": 0}
    assert times(said) == [round(k / 10, 3) for k in range(24)]
    spans = Spans(1 / SPEC.fps)
    ended = [spans.add(one["t"], shares_of(one, LABELS)) for one in said]
    found = [one for one in [*ended, spans.end()] if one]
    assert len(segments) > 1
    assert [(one.start_s, one.end_s, LABELS[one.top]) for one in found] == [
        (one.start_s, one.end_s, one.label) for one in segments
    ]
    assert [one.shares[one.top] for one in found] == pytest.approx([one.probability for one in segments], abs=1e-3)


def test_a_silence_is_a_cut_for_files_and_streams_alike(server: Server, bundle: Path) -> None:
    """One label all the time, so that only the cut divides it."""
    frames, numbers = [color(1, seed=k) for k in range(12)], [*range(6), *range(36, 42)]
    clip = lossless(server.log.parent / "silence.mov", frames, fps=10, numbers=numbers)
    segments = list(predict(open_session(bundle), clip))
    uploaded = server.post(PREDICT, content=clip.read_bytes()).json()
    with server.live("") as live:
        said: list[dict[str, Any]] = []
        for frame, number in zip(frames, numbers, strict=True):
            said.append(live.ask(png(frame), t=number / 10))
            if "seq" not in said[-1]:  # the reset; its answer comes next, and nothing is sent before
                said.append(live.next())
        said += live.end()
    assert [one.get("reason") for one in said if one.get("event") == "reset"] == ["gap"]
    answers = [one for one in said if "seq" in one]
    assert times(answers) == pytest.approx([number / 10 for number in numbers])
    assert_answers(answers[6:], bundle, [png(frame) for frame in frames[6:]])
    spans = [(0.0, 0.6, LABELS[1]), (3.6, 4.2, LABELS[1])]
    assert [(one.start_s, one.end_s, one.label) for one in segments] == spans
    assert [(one["start_s"], one["end_s"], one["labels"][0]["name"]) for one in uploaded] == spans
    means = [np.mean([shares_of(one, LABELS)[1] for one in part]) for part in (answers[:6], answers[6:])]
    assert [one.probability for one in segments] == pytest.approx(means, abs=1e-3)


def lossless(path: Path, frames: list[np.ndarray], fps: int, numbers: Sequence[int] | None = None) -> Path:
    """A video of these very pixels; `numbers`: when each frame is, in frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = numbers[number] if numbers else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_times_that_the_client_says_count(server: Server, bundle: Path) -> None:
    """Two frames within a tick: the later one is seen at the next; a late frame holds the one before it."""
    frames = pictures(4)
    with server.live("") as live:
        said = [live.ask(frames[0], t=100.0)]
        live.send(frames[1], t=100.04)
        live.send(frames[2], t=100.08)
        live.send(frames[3], t=100.25)
        said += [live.next(), live.next()]
        said += live.end()
    assert [(one["seq"], one["t"]) for one in said[:3]] == [(0, 100.0), (2, 100.1), (2, 100.2)]
    assert said[-1] == {"event": "end", "frames": 4, "dropped": 0}
    assert [(one["seq"], one["t"]) for one in said[3:-1]] == [(3, 100.3)]
    assert_answers(said[:4], bundle, [frames[k] for k in (0, 2, 2, 3)])


def test_a_reset_starts_the_state_anew(server: Server, bundle: Path) -> None:
    frames = pictures(6)
    with server.live() as live:
        before = [live.ask(one) for one in frames[:3]]
        live.say(reset=True)
        told = live.ask(frames[3])
        after = [live.next(), *map(live.ask, frames[4:])]
    assert (told["event"], told["reason"], told["version"], told["t"]) == ("reset", "client", server.version, 0.3)
    assert_answers(before, bundle, frames[:3])
    assert_answers(after, bundle, frames[3:])
    assert [one["seq"] for one in after] == [3, 4, 5]


def test_one_control_message_may_say_two_things(server: Server, bundle: Path) -> None:
    frames = pictures(4)
    with server.live("") as live:
        before = [live.ask(frames[0], t=1.79e9), live.ask(frames[1], t=1.79e9 + 0.1)]
        live.say(t=7.0, reset=True)
        told = live.ask(frames[2])
        after = [live.next()]
        live.say(t=7.1, end=True)
        *rest, end = live.rest()
    assert times(before) == [1.79e9, 1.79e9 + 0.1]
    assert (told["reason"], told["t"]) == ("client", 7.0)
    assert times(after) == [7.0]
    assert (rest, end["frames"], live.code) == ([], 3, 1000)
    assert_answers(after, bundle, frames[2:3])


def test_a_silence_is_a_cut(server: Server, bundle: Path) -> None:
    frames = pictures(4)
    with server.live("") as live:
        before = [live.ask(frames[0], t=1.0), live.ask(frames[1], t=1.1)]
        told = live.ask(frames[2], t=61.1)
        after = [live.next(), live.ask(frames[3], t=61.2)]
    assert (told["event"], told["reason"], told["t"]) == ("reset", "gap", 61.1)
    assert times(after) == [61.1, 61.2]
    assert_answers(before, bundle, frames[:2])
    assert_answers(after, bundle, frames[2:])


def test_the_newest_frame_wins_and_drops_are_told(start, slow_bundle: Path) -> None:
    """A flood of frames, each a tick: few are answered, each by its own picture's state, the rest is counted."""
    server, count = start(slow_bundle), 400
    frames = pictures(count)
    with server.live() as live:
        for one in frames:
            live.send(one)
        *said, end = live.end()
    seqs = [one["seq"] for one in said]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == count - 1, "the newest frame wins"
    assert end == {"event": "end", "frames": count, "dropped": count - len(said)}
    assert end["dropped"] > 0
    assert said[-1]["dropped"] == end["dropped"]
    assert server.metric("framegate_dropped_frames_total") == end["dropped"]
    assert_answers(said, slow_bundle, [frames[seq] for seq in seqs])


def test_a_stream_whose_client_vanishes_is_closed(server: Server) -> None:
    with server.live() as live:
        live.ask(pictures(1)[0])
        assert server.metric("framegate_streams", kind="live") == 1
        live.socket.socket.close()
        eventually(lambda: server.metric("framegate_streams", kind="live") == 0, "its stream is given back")
