"""One live source: its ticks, its one slot, its new starts. Equal to the same frames as a file."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract import MediaError
from framegate.resampling import MAX_GAP_S, resample
from framegate.runtime.session import Frames
from framegate.serve.engine import Engine
from framegate.serve.live import Answer, Event, Live, Refused, Reset
from tests.bundles import LABELS, SPEC
from tests.served import FakeSession, Gated, color, engine_of, offline, opened, run


def loads(frame: Frames) -> Callable[[], Frames]:
    return lambda: frame


async def collect(live: Live) -> list[Event]:
    return [event async for event in live.events()]


async def play(engine: Engine, times: list[float], frames: list[Frames]) -> list[Event]:
    """Offer each frame when the one before is answered, as a source that is slow enough does."""
    stream = engine.open_stream("live")
    live = Live(engine, stream)
    answering = asyncio.create_task(collect(live))
    for time_s, frame in zip(times, frames, strict=True):
        live.offer(time_s, loads(frame))
        while live._slot is not None:
            await asyncio.sleep(0)
    live.finish()
    events = await answering
    stream.close()
    return events


class At:
    def __init__(self, time_s: float, frame: Frames) -> None:
        self.time_s, self.frame = time_s, frame


@given(
    st.lists(st.floats(0.001, 1.5), min_size=0, max_size=12),
    st.floats(-1e3, 1e6),
)
@settings(max_examples=40, deadline=None)
def test_a_live_source_answers_as_the_same_frames_in_a_file(gaps: list[float], start: float) -> None:
    times = [start + sum(gaps[:k]) for k in range(len(gaps) + 1)]
    frames = [color(k % 3, seed=k) for k in range(len(times))]

    async def go() -> list[Event]:
        async with engine_of() as engine:
            return await play(engine, times, frames)

    events = run(go())
    picked = list(resample([At(t, f) for t, f in zip(times, frames, strict=True)], SPEC.fps))
    assert all(isinstance(event, Answer) for event in events)
    assert [event.time_s for event in events] == pytest.approx([tick for tick, _, _ in picked])
    expected = offline([at.frame for _, at, _ in picked])
    np.testing.assert_allclose([event.shares for event in events], expected, atol=1e-6)
    assert all(event.dropped == 0 for event in events)


def test_frames_between_ticks_are_never_decoded_nor_dropped() -> None:
    async def go() -> None:
        async with engine_of() as engine:
            decoded: list[int] = []

            def load(number: int) -> Callable[[], Frames]:
                return lambda: (decoded.append(number), color(0))[1]

            live = Live(engine, engine.open_stream("live"))
            answering = asyncio.create_task(collect(live))
            for k in range(9):
                live.offer(k / 30, load(k))
                while live._slot is not None:
                    await asyncio.sleep(0)
            live.finish()
            answers = await answering
            assert decoded == [0, 3, 6] and [a.seq for a in answers] == [0, 3, 6] and live.dropped == 0

    run(go())


def test_the_newest_frame_wins_and_drops_are_told() -> None:
    async def go() -> None:
        session = Gated()
        session.gate.clear()
        async with engine_of(session, deadline_ms=20_000) as engine:
            live = Live(engine, engine.open_stream("live"))
            events = live.events()
            live.offer(0.0, loads(color(0)))
            first = asyncio.create_task(anext(events))
            await asyncio.to_thread(session.entered.wait, 9)
            for k in range(1, 5):
                live.offer(k / 10, loads(color(k % 3)))
            session.gate.set()
            assert (await first).seq == 0
            newest = await anext(events)
            assert (newest.seq, newest.dropped) == (4, 3)
            text = engine.metrics.text().decode()
            assert "framegate_dropped_frames_total 3.0" in text
            live.finish()
            assert [event async for event in events] == []

    run(go())


def test_a_silence_is_a_cut() -> None:
    async def go() -> None:
        async with engine_of() as engine:
            frames = [color(0), color(1, 1)]
            events = await play(engine, [0.0, MAX_GAP_S + 0.5], frames)
            first, reset, second = events[0], events[1], events[2]
            assert isinstance(reset, Reset) and (reset.reason, reset.time_s) == ("gap", MAX_GAP_S + 0.5)
            assert isinstance(first, Answer) and isinstance(second, Answer) and second.time_s == MAX_GAP_S + 0.5
            assert second.shares == pytest.approx(offline([frames[1]])[0], abs=1e-6)

    run(go())


def test_what_a_tick_in_a_silence_sees_is_not_too_old_to_be_answered() -> None:
    """The frame came before the silence; that its ticks are due is known only after it."""

    async def go() -> None:
        async with engine_of(deadline_ms=200) as engine:
            live = Live(engine, engine.open_stream("live"))
            answering = asyncio.create_task(collect(live))
            live.offer(0.0, loads(color(0)))
            await asyncio.sleep(0.4)
            live.offer(0.5, loads(color(1)))
            live.finish()
            events = await answering
            assert [(event.seq, type(event)) for event in events][:6] == [(0, Answer)] * 5 + [(1, Answer)]

    run(go())


def test_a_reset_survives_a_drop() -> None:
    async def go() -> None:
        session = Gated()
        session.gate.clear()
        async with engine_of(session, deadline_ms=20_000) as engine:
            live = Live(engine, engine.open_stream("live"))
            answering = asyncio.create_task(collect(live))
            live.offer(0.0, loads(color(0)))
            await asyncio.to_thread(session.entered.wait, 9)
            live.restart("client")
            live.offer(0.1, loads(color(1)))
            live.offer(0.2, loads(color(2)))
            live.finish()
            session.gate.set()
            kinds = [type(event).__name__ for event in await answering]
            assert kinds == ["Answer", "Reset", "Answer"] and live.dropped == 1

    run(go())


def test_a_frame_that_is_none_is_refused_and_the_source_goes_on() -> None:
    def broken() -> Frames:
        raise MediaError("frame 1", "not an image")

    async def go() -> None:
        async with engine_of() as engine:
            live = Live(engine, engine.open_stream("live"))
            answering = asyncio.create_task(collect(live))
            frames = [color(0), color(1), color(2, 2)]
            for k, load in enumerate([loads(frames[0]), broken, loads(frames[2])]):
                live.offer(k / 10, load)
                while live._slot is not None:
                    await asyncio.sleep(0)
            live.finish()
            _, refused, last = await answering
            assert isinstance(refused, Refused) and refused.seq == 1 and "not an image" in str(refused.error)
            assert isinstance(last, Answer)
            assert last.shares == pytest.approx(offline([frames[0], frames[2]])[1], abs=1e-6)

    run(go())


def test_a_version_that_took_over_is_announced_before_its_first_answer() -> None:
    async def go() -> None:
        now = [0.0]
        async with engine_of(clock=lambda: now[0], version_s=5) as engine:
            live = Live(engine, engine.open_stream("live"))
            events = live.events()
            live.offer(0.0, loads(color(0)))
            assert (await anext(events)).version == "a" * 12
            engine.swap(opened(FakeSession(LABELS, SPEC), digest="b" * 64))
            now[0] = 6.0
            live.offer(0.1, loads(color(0)))
            reset, answer = await anext(events), await anext(events)
            assert isinstance(reset, Reset) and (reset.reason, reset.version) == ("version", "b" * 12)
            assert answer.version == "b" * 12

    run(go())


def test_times_of_arrival_jitter_and_each_frame_is_answered_at_once() -> None:
    async def go() -> None:
        async with engine_of() as engine:
            live = Live(engine, engine.open_stream("live"))
            events = live.events()
            for k, jitter in enumerate([0.0, 0.03, -0.04, 0.02, 0.0]):
                live.offer(k / 10 + jitter, loads(color(0)), exact=False)
                answer = await anext(events)
                assert isinstance(answer, Answer) and (answer.seq, answer.time_s) == (k, pytest.approx(k / 10))

    run(go())


def test_a_jump_that_the_client_announced_is_its_reset() -> None:
    async def go() -> None:
        async with engine_of() as engine:
            live = Live(engine, engine.open_stream("live"))
            events = live.events()
            live.offer(0.0, loads(color(0)))
            await anext(events)
            live.restart("client")
            live.offer(30.0, loads(color(0)))
            reset = await anext(events)
            assert isinstance(reset, Reset) and reset.reason == "client"

    run(go())
