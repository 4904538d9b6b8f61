"""Versions, streams and the rule which version a stream is on; shadows; following a folder."""

import asyncio
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.contract import BundleError, ConfigError, FramegateError, Lineage
from framegate.promotion.archive import VERDICT
from framegate.promotion.ship import ship
from framegate.serve import server
from framegate.serve.engine import Engine, Stream
from framegate.serve.errors import BadRequest, Overloaded, UnknownModel
from framegate.serve.limits import Limits
from framegate.serve.model import Model, Opened, Source, open_folder
from framegate.serve.settings import Settings
from framegate.serve.shadow import WAITING, Shadow, check_shadow
from framegate.serve.swap import AGAIN_S, Follower, fingerprint
from tests.bundles import LABELS, SPEC, WEIGHTS
from tests.promoted import NO_REGISTRY, A, B, judged, origin
from tests.served import FakeSession, Gated, color, engine_of, info, offline, opened, run, softmax

OTHER = np.roll(WEIGHTS, 1, axis=1)


def other(**more: object) -> object:
    return opened(FakeSession(LABELS, SPEC, OTHER), digest="b" * 64, **more)


def sample(engine: object, name: str) -> float:
    """The value of a line of /metrics; nan when it is not there."""
    lines = [line for line in engine.metrics.text().decode().splitlines() if line.startswith(name)]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else float("nan")


def test_streams_that_interleave_answer_as_if_each_were_alone() -> None:
    async def play() -> None:
        async with engine_of() as engine:
            streams = [engine.open_stream("live") for _ in range(9)]
            frames = [[color((k + t) % 3, seed=9 * k + t) for t in range(6)] for k in range(9)]

            async def walk(k: int) -> list[np.ndarray]:
                return [softmax(await streams[k].step(frame)) for frame in frames[k]]

            for k, said in enumerate(await asyncio.gather(*map(walk, range(9)))):
                np.testing.assert_allclose(said, offline(frames[k]), atol=1e-6)

    run(play())


def test_a_stream_stays_on_its_version_until_its_time_is_over() -> None:
    async def play() -> None:
        now = [0.0]
        async with engine_of(clock=lambda: now[0], version_s=60) as engine:
            old = engine.open_stream("live")
            await old.step(color(0))
            engine.swap(other())
            new = engine.open_stream("live")
            assert [one.model.version for one in (old, new)] == ["a" * 12, "b" * 12]
            frames = [color(0), color(1)]
            assert softmax(await old.step(frames[1])) == pytest.approx(offline(frames)[1], abs=1e-6)
            now[0] = 59.0
            await engine.tidy()
            assert not old.renew() and [m.version for m in engine.versions] == ["a" * 12, "b" * 12]
            now[0] = 60.0
            await engine.tidy()
            assert old.renew() and not old.renew(), "told once"
            assert [m.version for m in engine.versions] == ["b" * 12]
            assert softmax(await old.step(frames[1])) == pytest.approx(offline([frames[1]], OTHER)[0], abs=1e-6)

    run(play())


def test_a_file_is_answered_by_one_version_however_long_it_takes() -> None:
    async def play() -> None:
        now = [0.0]
        async with engine_of(clock=lambda: now[0], version_s=1) as engine:
            file = engine.open_stream("upload")
            frames = [color(0), color(1)]
            await file.step(frames[0], patient=True)
            engine.swap(other())
            now[0] = 3600.0
            await engine.tidy()
            assert softmax(await file.step(frames[1], patient=True)) == pytest.approx(offline(frames)[1], abs=1e-6)
            assert file.model.version == "a" * 12
            file.close()

    run(play())


def test_a_stream_does_not_move_under_a_step_that_is_in_work() -> None:
    async def play() -> None:
        now, session = [0.0], Gated()
        async with engine_of(session, clock=lambda: now[0], version_s=1) as engine:
            stream = engine.open_stream("live")
            session.gate.clear()
            step = asyncio.create_task(stream.step(color(0)))
            await asyncio.to_thread(session.entered.wait, 20)
            engine.swap(other())
            now[0] = 2.0
            await engine.tidy()
            assert stream.model.version == "a" * 12, "what is being answered is the old version's answer"
            session.gate.set()
            assert softmax(await step) == pytest.approx(offline([color(0)])[0], abs=1e-6)
            await engine.tidy()
            assert stream.model.version == "b" * 12 and stream.renew()

    run(play())


def test_a_replaced_version_closes_when_its_last_stream_does() -> None:
    async def play() -> None:
        now = [0.0]
        session = FakeSession(LABELS, SPEC)
        async with engine_of(session, clock=lambda: now[0]) as engine:
            stream = engine.open_stream("live")
            engine.swap(other())
            now[0] = 2.0
            await engine.tidy()
            assert not session.closed
            stream.close()
            stream.close()
            await engine.tidy()
            assert session.closed and engine.open_streams == 0

    run(play())


def test_a_refused_frame_leaves_the_state_as_it_was() -> None:
    async def play() -> None:
        async with engine_of() as engine:
            stream = engine.open_stream("live")
            frames = [color(0), color(1, 1)]
            await stream.step(frames[0])
            with pytest.raises(BadRequest, match=r"got uint8 \[1, 8, 8, 3\]"):
                await stream.step(np.zeros((8, 8, 3), np.uint8))
            assert softmax(await stream.step(frames[1])) == pytest.approx(offline(frames)[1], abs=1e-6)
            with pytest.raises(BadRequest, match="must be <= 16"):
                await engine.step(engine.current, np.stack([color(0)] * 17), np.zeros((17, 4), np.float32))

    run(play())


def test_caps_and_unknown_names_are_errors_of_their_own() -> None:
    async def play() -> None:
        async with engine_of(max_streams=1) as engine:
            stream = engine.open_stream("live")
            with pytest.raises(Overloaded, match="1 streams are open"):
                engine.open_stream("live")
            stream.close()
            engine.open_stream("live").close()
            with pytest.raises(UnknownModel, match="Request for unknown model: 'x' is not found"):
                engine.find("x")
            with pytest.raises(UnknownModel, match=f"versions here: {'a' * 12}"):
                engine.find("framegate", "7")
            engine.refuse_when_stopping()
            engine.stopping.set()
            with pytest.raises(Overloaded, match="shutting down"):
                engine.refuse_when_stopping()
            engine.open_stream("upload").close()  # of a request that passed the rim before

    run(play())


def test_metrics_show_labels_against_those_of_training() -> None:
    async def play() -> None:
        async with engine_of() as engine:
            await engine.open_stream("live").step(color(2))
            assert sample(engine, 'framegate_training_share{label="red"}') == 0.5
            assert sample(engine, 'framegate_answers_total{label="red"}') == 1
            engine.swap(other())
            assert sample(engine, f'framegate_model_info{{bundle="tiny-dense-fp32",digest="{"a" * 64}"') == 0
            assert sample(engine, f'framegate_model_info{{bundle="tiny-dense-fp32",digest="{"b" * 64}"') == 1

    run(play())


# --- shadow -------------------------------------------------------------------------------------


def test_a_shadow_is_compared_and_never_answers() -> None:
    async def play() -> None:
        async with engine_of() as engine:
            model = Model(other(), 16, asyncio.get_running_loop(), lambda batch: None)
            engine.shadow = Shadow(model, 1.0, engine.metrics, random.Random(0))
            stream = engine.open_stream("live")
            frames = [color(k % 3, k) for k in range(6)]
            for frame, expected in zip(frames, offline(frames), strict=True):
                assert softmax(await stream.step(frame)) == pytest.approx(expected, abs=1e-6)
                while stream._lane._busy:
                    await asyncio.sleep(0.001)
            agreed = sum(x.argmax() == y.argmax() for x, y in zip(offline(frames), offline(frames, OTHER), strict=True))
            assert agreed < 6
            line = 'framegate_shadow_frames_total{outcome="%s"}'
            assert sample(engine, line % "disagreed") == 6 - agreed
            assert sample(engine, "framegate_shadow_latency_seconds_count") == 6

    run(play())


def busy_shadow(engine: Engine) -> tuple[Gated, Model, Stream]:
    """A candidate whose session waits at its gate, and a stream that is shown to it."""
    session = Gated(OTHER)
    session.gate.clear()
    model = Model(opened(session, digest="b" * 64), 16, asyncio.get_running_loop(), lambda batch: None)
    engine.shadow = Shadow(model, 1.0, engine.metrics, random.Random(0))
    return session, model, engine.open_stream("live")


def test_a_busy_shadow_is_passed_by() -> None:
    async def play() -> None:
        async with engine_of() as engine:
            session, _, stream = busy_shadow(engine)
            for _ in range(1 + WAITING + 3):  # one in work, so many behind it, and those that pass it by
                await stream.step(color(0))
            skipped = 'framegate_shadow_frames_total{outcome="skipped"}'
            assert sample(engine, skipped) == WAITING + 3, "those behind it are not kept either"
            session.gate.set()
            while stream._lane._busy:
                await asyncio.sleep(0.001)
            await stream.step(color(0))
            assert sample(engine, skipped) == WAITING + 4, "its state is not the champion's any more"
            stream.reset()
            await stream.step(color(0))
            assert sample(engine, skipped) == WAITING + 4

    run(play())


def test_a_shadow_ends_in_order_with_frames_that_wait() -> None:
    """One in work, two behind it when the batcher closes, one that is offered afterwards."""
    troubles = list[dict[str, object]]()

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        async with engine_of() as engine:
            session, model, stream = busy_shadow(engine)
            for _ in range(3):
                await stream.step(color(0))
            closing = asyncio.create_task(model.batcher.close())
            await asyncio.sleep(0.01)
            session.gate.set()
            await closing
            await asyncio.sleep(0.01)
            stream.reset()
            assert len(await stream.step(color(0))) == 3, "the champion answers"
            frames = 'framegate_shadow_frames_total{outcome="%s"}'
            assert sample(engine, frames % "skipped") == 3
            assert sum(sample(engine, frames % one) == 1 for one in ("agreed", "disagreed")) == 1

    run(play())
    assert troubles == []


def test_a_shadow_of_another_task_is_refused() -> None:
    async def play() -> None:
        async with engine_of() as engine:
            model = Model(other(fps=5.0), 16, asyncio.get_running_loop(), lambda batch: None)
            with pytest.raises(ConfigError, match=r"fps 5.0, the champion's: 10.0"):
                check_shadow(model, engine.current, 0.5)
            with pytest.raises(ConfigError, match="--shadow-share is 0"):
                check_shadow(engine.current, engine.current, 0)
            await model.batcher.close()

    run(play())


# --- the folder ---------------------------------------------------------------------------------


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """A is promotion 1."""
    judged(tmp_path / "exports", A)
    ship(tmp_path / "exports", origin(), NO_REGISTRY)
    return tmp_path / "exports"


def test_a_folder_is_opened_as_it_was_promoted(exports: Path) -> None:
    found = open_folder(Source(exports / "shipped"), 4)
    assert (found.version, found.info.name, found.runtime) == ("1", "tiny-dense-fp32", "ort-cpu")
    bundle = open_folder(Source(exports / "tiny-dense-fp32", accept_host=True), 4)
    assert bundle.version == bundle.info.digest[:12]
    with pytest.raises(BundleError, match=rf"{exports / 'tiny-dense-fp32'}: no promotion.json"):
        open_folder(Source(exports / "tiny-dense-fp32"), 4)
    with pytest.raises(BundleError, match="run `dvc repro` to ship a model"):
        open_folder(Source(exports / "nowhere" / "shipped"), 4)


def test_what_ships_next_takes_over_and_what_is_broken_stays_out(
    exports: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def play() -> None:
        source = Source(exports / "shipped")
        async with engine_of() as engine:
            engine.swap(await asyncio.to_thread(open_folder, source, 2))
            follower = Follower(engine, source, fingerprint(source.folder))
            await follower.look()
            assert len(engine.versions) == 2, "nothing changed"
            judged(exports, B)
            ship(exports, origin(2), NO_REGISTRY)
            await follower.look()
            assert (engine.current.version, engine.current.info.name) == ("2", "tiny-pruned-fp32")
            verdict = exports / "shipped" / VERDICT
            kept = verdict.read_bytes()
            verdict.write_bytes(kept.replace(b"PASS", b"FAIL"))
            await follower.look()
            assert engine.current.version == "2" and "not the verdict" in engine.rejected
            assert str(exports / "shipped") in engine.rejected
            assert sample(engine, "framegate_rejected_bundle ") == 1
            verdict.write_bytes(kept)
            await follower.look()
            assert engine.rejected is None and len(engine.versions) == 3, "the same as before: no swap"
            assert caplog.messages[-1] == f"{source.folder} is good again: version 2, which serves"
            shutil.rmtree(exports / "shipped")
            await follower.look()
            assert engine.current.version == "2" and "no such folder" in engine.rejected

    run(play())


def test_nobody_waits_for_a_folder_that_is_being_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where it is followed, nor at the start, nor the event loop in the end; its session is closed."""
    gate, sessions = threading.Event(), list[FakeSession]()

    def opening(source: Source, max_batch: int) -> Opened:
        assert gate.wait(60)
        sessions.append(FakeSession(LABELS, SPEC, WEIGHTS))
        return opened(sessions[-1])

    async def play() -> None:
        async with engine_of() as engine:
            follower = Follower(engine, Source(tmp_path), (), 0.01, opening)
            (tmp_path / "bundle").write_text("another")
            following = asyncio.create_task(follower.follow())
            await asyncio.sleep(0.1)
            following.cancel()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(follower.idle(60), 0.1)
        monkeypatch.setattr(server, "open_folder", opening)
        stop, limits = asyncio.Event(), Limits(drain_s=0.1)
        asyncio.get_running_loop().call_later(0.1, stop.set)
        assert await server._engine_unless(stop, Settings(Source(tmp_path), limits=limits)) is None

    start_s = time.monotonic()
    run(play())
    assert time.monotonic() - start_s < 10
    gate.set()
    while len(sessions) < 2 or not all(one.closed for one in sessions):
        assert time.monotonic() - start_s < 30
        time.sleep(0.01)


def test_a_bundle_whose_labels_were_on_no_training_clip_serves() -> None:
    async def play() -> None:
        async with engine_of() as engine:
            lineage = Lineage(dataset="d", config="c", weights="w", label_counts=(0, 0, 0))
            engine.swap(replace(other(), info=info(digest="b" * 64).model_copy(update={"lineage": lineage})))
            assert sample(engine, 'framegate_training_share{label="red"}') == 0

    run(play())


def test_a_folder_is_followed_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails is the swap of the first bundle, and then tidying up."""

    async def play() -> None:
        async with engine_of() as engine:
            made, left = iter(("b", "c")), [ValueError("the swap"), KeyError("tidy"), KeyError("tidy")]
            follower = Follower(engine, Source(tmp_path), (), 0.01, lambda *_: opened(digest=next(made) * 64))

            def failing(real: Callable[..., Any], *words: Any) -> Any:
                if left and real.__name__ in ("show_version" if len(left) == 3 else "tidy"):
                    raise left.pop(0)
                return real(*words)

            monkeypatch.setattr(engine.metrics, "show_version", partial(failing, engine.metrics.show_version))
            monkeypatch.setattr(engine, "tidy", partial(failing, engine.tidy))
            following = asyncio.create_task(follower.follow())
            (tmp_path / "bundle").write_text("another")
            while left:
                await asyncio.sleep(0.001)
            assert engine.rejected == "the swap" and len(engine.versions) == 1
            (tmp_path / "bundle").write_text("the next one")
            while engine.current.version != "c" * 12:
                await asyncio.sleep(0.001)
            following.cancel()

    run(play())
    assert sum("goes on after an unforeseen error" in one for one in caplog.messages) == 1, "not every time"


def socket_at(path: Path) -> None:
    """Left by a server that died."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_what_may_pass_by_itself_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    now_s, opens, room = [0.0], list[float](), False

    def opening(source: Source, max_batch: int) -> Opened:
        opens.append(now_s[0])
        if room:
            return opened(digest="b" * 64)
        if isinstance(error, OSError):
            raise FramegateError(f"cannot be read whole: {error}") from error
        raise error

    async def play() -> None:
        nonlocal room
        async with engine_of(clock=lambda: now_s[0]) as engine:
            follower = Follower(engine, Source(tmp_path), (), opening=opening)
            (tmp_path / "bundle").write_text("another")
            for _ in range(3 * int(AGAIN_S)):
                await follower.look()
                now_s[0] += 1
            assert opens == [0, AGAIN_S, 2 * AGAIN_S]
            assert sum("stays out" in one for one in caplog.messages) == 1
            assert sample(engine, "framegate_rejected_bundles_total") == 1
            room = True
            await follower.look()
            assert engine.current.version == "b" * 12 and engine.rejected is None

    run(play())


def test_a_change_is_seen_whatever_time_the_files_claim(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("one")
    os.utime(tmp_path / "bundle.json", (1, 1))
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    time.sleep(0.05)  # the clock of a file system ticks some 250 times a second
    (tmp_path / "bundle.json").write_text("two")
    os.utime(tmp_path / "bundle.json", (1, 1))
    assert fingerprint(tmp_path) != before


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere"), socket_at])
def test_what_is_no_file_is_named(exports: Path, make: Callable[[Path], object]) -> None:
    path = exports / "shipped" / "step.onnx"
    path.unlink()
    make(path)
    with pytest.raises(FramegateError) as told:
        open_folder(Source(exports / "shipped"), 2)
    assert str(told.value) == f"{path}: neither a file nor a link to one"


def test_a_full_disk_is_told_in_words_and_may_pass(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", source, None, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(FramegateError, match=r"shipped/[a-z.]+: cannot be copied: No space left on device$") as told:
        open_folder(Source(exports / "shipped"), 2)
    assert isinstance(told.value.__cause__, OSError), "it is tried again"


def test_a_place_for_temporary_files_that_is_gone_is_told_in_words(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(FramegateError, match=r"cannot be read whole: .*No such file or directory") as told:
        open_folder(Source(exports / "shipped"), 2)
    assert isinstance(told.value.__cause__, OSError), "it is tried again"


def test_a_folder_that_cannot_be_read_is_an_error_not_a_crash(exports: Path) -> None:
    (exports / "shipped" / "step.onnx").unlink()
    with pytest.raises(FramegateError, match=r"step\.onnx: missing"):
        open_folder(Source(exports / "shipped"), 2)


@pytest.mark.parametrize(("waiting_s", "retry_s"), [(0.0, None), (0.24, None), (0.26, 1.0), (3.0, 3.0)])
def test_new_work_is_shed_when_half_its_deadline_would_go_into_waiting(
    monkeypatch: pytest.MonkeyPatch, waiting_s: float, retry_s: float | None
) -> None:
    async def play() -> None:
        async with engine_of(deadline_ms=500) as engine:
            monkeypatch.setattr(type(engine.current.batcher), "wait_s", waiting_s)
            assert engine.overloaded() == retry_s

    run(play())
