"""Health, times, pauses and the way from a thread to the loop, each by itself."""

import asyncio
import math
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.contract import MediaError
from framegate.video import TimedFrame
from framegate.watch.address import parse_address
from framegate.watch.backoff import Backoff
from framegate.watch.feed import Feed, Opening, Times
from framegate.watch.health import Bounds, Change, Health, look_at
from framegate.watch.reader import WAITING, Mailbox, Reader
from tests.watched import picture

# --- health -------------------------------------------------------------------------------------


def seen(health: Health, colors: str, fps: float = 10.0, start_s: float = 0.0) -> list[tuple[int, str, bool]]:
    """(frame, problem, present) of a text: a letter a frame, a capital one is always the same picture."""
    found = []
    for k, letter in enumerate(colors):
        pixels = picture(letter.lower(), 0 if letter.isupper() else k, (16, 16), noise=5)
        found += [(k, c.problem, c.present) for c in health.see(look_at(pixels, start_s + k / fps))]
    return found


def test_a_picture_that_stands_still_is_frozen_until_it_moves() -> None:
    assert seen(Health(Bounds(frozen_s=1.0)), "ggg" + "R" * 14 + "g") == [(13, "frozen", True), (17, "frozen", False)]


def test_a_moving_picture_is_never_frozen() -> None:
    assert seen(Health(Bounds(frozen_s=0.3)), "grbgrb" * 5 + "R" * 3 + "r") == []


def test_a_picture_that_stands_still_is_frozen_whatever_an_encoder_makes_of_it() -> None:
    scene = np.asarray(cv2.resize(picture("g", 0, (32, 24)), (320, 240)), np.uint8)
    health, found, seen_as = Health(Bounds(frozen_s=1.0)), [], set()
    for k in range(30):
        quality = [cv2.IMWRITE_JPEG_QUALITY, 80 if k % 5 else 90]  # every fifth is a key frame
        decoded = np.asarray(cv2.imdecode(cv2.imencode(".jpg", scene, quality)[1], cv2.IMREAD_COLOR), np.uint8)
        pixels = np.asarray(cv2.resize(decoded, (64, 64), interpolation=cv2.INTER_AREA), np.uint8)
        seen_as.add(pixels.tobytes())
        found += [(k, change) for change in health.see(look_at(pixels, k / 10))]
    assert len(seen_as) == 2 and found == [(10, Change("frozen", True))]


@pytest.mark.parametrize("kind", ["a speck that moves", "sensor noise", "a slow dawn"])
def test_what_changes_a_little_is_not_frozen(kind: str) -> None:
    health, rng = Health(Bounds(frozen_s=1.0)), np.random.default_rng(0)
    for k in range(100):
        pixels = np.full((64, 64, 3), 100, np.uint8)
        if kind == "a speck that moves":
            pixels[30, k % 64] = 115
        elif kind == "sensor noise":
            pixels += rng.integers(0, 3, pixels.shape, np.uint8)
        else:
            pixels += np.uint8(k // 9)  # slower than a grey level in 1 s would be still
        assert not health.see(look_at(pixels, k / 10))


def test_a_black_picture_with_noise_is_black_and_a_dark_one_is_not() -> None:
    assert seen(Health(Bounds(black_s=0.5)), "g" + "k" * 8 + "g") == [(6, "black", True), (9, "black", False)]
    dark = np.full((16, 16, 3), 30, np.uint8)
    health = Health(Bounds(black_s=0.1, frozen_s=0))
    assert [health.see(look_at(dark, t / 10)) for t in range(10)] == [[]] * 10


def test_a_black_picture_with_a_light_in_it_is_not_black() -> None:
    night = np.zeros((16, 16, 3), np.uint8)
    night[4:8, 4:8] = 255
    health = Health(Bounds(black_s=0.1, frozen_s=0))
    assert [health.see(look_at(night, t / 10)) for t in range(10)] == [[]] * 10


def test_a_check_of_0_seconds_is_off() -> None:
    health = Health(Bounds(frozen_s=0, black_s=0, slow_s=0, slow_fps=100))
    assert seen(health, "K" * 300) == [] and [health.count(k, k) for k in range(100)] == [[]] * 100


def counted(health: Health, fps: float, seconds: float, start: tuple[float, int] = (0.0, 0)) -> list[Change]:
    found = []
    for k in range(round(seconds * fps)):
        found += health.count(start[0] + k / fps, start[1] + k + 1)
    return found


def test_too_few_frames_are_slow_and_enough_are_not() -> None:
    bounds = Bounds(slow_s=5, slow_fps=10)
    assert counted(Health(bounds), 9.9, 30) == []
    health = Health(bounds)
    assert counted(health, 4, 10) == [Change("slow", True)]
    assert health.fps == pytest.approx(4) and health.problems == {"slow"}
    assert counted(health, 10, 10, start=(10.0, 40)) == [Change("slow", False)]


def test_after_a_silence_nothing_before_it_counts() -> None:
    health = Health(Bounds(frozen_s=1, slow_s=5, slow_fps=10))
    counted(health, 10, 4)
    seen(health, "R" * 9)
    health.restart()
    assert counted(health, 10, 6, start=(60.0, 40)) == [] and seen(health, "R" * 5, start_s=60) == []


def test_a_problem_is_over_after_a_silence_only_when_that_is_seen() -> None:
    health = Health(Bounds(frozen_s=0.5, black_s=0.5))
    assert {one[1:] for one in seen(health, "K" * 10)} == {("frozen", True), ("black", True)}
    health.restart()
    assert seen(health, "K" * 10, start_s=60) == [] and health.problems == {"frozen", "black"}
    health.restart()
    assert seen(health, "Rr", start_s=90) == [(0, "black", False), (1, "frozen", False)]


# --- times --------------------------------------------------------------------------------------


@given(
    frames=st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6)),  # the stream's time
            st.floats(0, 30),  # since the frame before, by our clock
        ),
        max_size=50,
    )
)
def test_times_rise_whatever_a_stream_says(frames: list[tuple[float | None, float]]) -> None:
    times, at, last = Times(), 100.0, -math.inf
    for pts, pause in frames:
        at += pause
        time_s = times.place(pts, at)
        assert time_s > last
        last = time_s


def test_a_streams_own_clock_counts_and_arrival_where_it_has_none() -> None:
    times = Times()
    assert [times.place(50 + k / 10, 7 + k / 3) for k in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    times = Times()
    assert [times.place(None, 7 + k / 3) for k in range(3)] == pytest.approx([0, 1 / 3, 2 / 3])


def test_a_clock_that_was_set_anew_goes_on_by_ours() -> None:
    times = Times()
    times.place(1000.0, 5.0)
    assert times.place(3.0, 5.5) == pytest.approx(0.5)  # back
    assert times.place(3.1, 5.6) == pytest.approx(0.6)
    assert times.place(9000.0, 5.7) == pytest.approx(0.7)  # far ahead


def test_a_stream_of_an_unknown_codec_is_refused() -> None:
    class Container:
        streams = SimpleNamespace(video=[SimpleNamespace(codec_context=None, disposition=0)])

    feed = Feed(parse_address("http://cam/x"), Opening())
    with pytest.raises(MediaError, match="codec that is not known"):
        next(feed._decode(Container()))  # type: ignore[arg-type]


# --- pauses -------------------------------------------------------------------------------------


def test_pauses_double_up_to_a_minute_and_begin_anew_after_it_went_well() -> None:
    backoff = Backoff(draw=lambda: 0.0)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.next(lasted_s=30) == 60  # not for long enough
    assert backoff.next(lasted_s=61) == 1


@given(draw=st.floats(0, 1, exclude_max=True))
def test_chance_shortens_a_pause_by_a_half_at_most(draw: float) -> None:
    assert 0.5 <= Backoff(draw=lambda: draw).next() <= 1


# --- from the thread to the loop ----------------------------------------------------------------


def frame(number: int) -> TimedFrame:
    return TimedFrame(float(number), np.zeros((2, 2, 3), np.uint8))


def test_frames_never_pile_up_before_a_busy_loop_and_the_newest_stay() -> None:
    async def run() -> tuple[list[float], int]:
        taken: list[float] = []
        loop, calls = asyncio.get_running_loop(), 0
        real = loop.call_soon_threadsafe

        def counting(*args: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            return real(*args, **more)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign,assignment]
        mailbox = Mailbox(loop, lambda one: taken.append(one.time_s))
        thread = threading.Thread(target=lambda: [mailbox.put(frame(k)) for k in range(1000)])
        thread.start()
        thread.join()  # the loop does nothing meanwhile
        await asyncio.sleep(0.05)
        mailbox.put(frame(1000))
        await asyncio.sleep(0.05)
        return taken, calls

    taken, calls = asyncio.run(run())
    assert taken == [1000 - k for k in range(WAITING, 0, -1)] + [1000]
    assert calls == 2


def test_a_reader_says_how_it_ended() -> None:
    async def run(frames: object) -> object:
        return await Reader("a", frames, lambda one: None, paced=False).done  # type: ignore[arg-type]

    def broken() -> object:
        yield frame(0)
        raise RuntimeError("a bug")

    assert asyncio.run(run([frame(0)])) is None
    assert isinstance(asyncio.run(run(broken())), RuntimeError)


def test_a_reader_that_is_stopped_gives_no_more_frames() -> None:
    async def run() -> list[float]:
        given: list[float] = []
        go, stopped = threading.Event(), threading.Event()

        def frames() -> object:
            yield frame(0)
            go.wait(10)
            yield frame(1)

        reader = Reader("a", frames(), lambda one: (given.append(one.time_s), stopped.set()), paced=False)  # type: ignore[arg-type,func-returns-value]
        await asyncio.to_thread(stopped.wait, 10)
        reader.stop()
        go.set()
        await reader.done
        return given

    assert asyncio.run(run()) == [0.0]
