"""What a request means, and sequences: every fault leaves the state as it was, whoever comes and goes."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import numpy as np
import pytest

from framegate.runtime.session import FakeSession, Floats, Frames
from framegate.serve.errors import BadRequest, DeadlineExceeded, NotOffered, Overloaded, UnknownModel
from framegate.serve.infer import Inference
from framegate.serve.tensors import InferRequest, InferResponse, Output, Tensor
from tests.oip import CLIP, LABELS, Clock, HeldSession, frames_of, inferring, offline, opened, request

NO_START = "to model 'framegate' must specify the START flag on the first request of the sequence"
VIDEO = frames_of(4)
EXPECTED = offline(VIDEO)
SMALL = np.zeros((1, 8, 8, 3), np.uint8)
OTHER_WEIGHTS = np.float32([[9, 0, 0], [0, 9, 0], [0, 0, 9]])


def logits(response: InferResponse) -> np.ndarray:
    """The first row of the output `logits`."""
    found = {tensor.name: tensor.array for tensor in response.outputs}["logits"]
    assert found.shape == (1, len(LABELS)) and found.dtype == np.float32
    return found[0]


async def step(inference: Inference, t: int, sequence: int | str = 5, **flags: Any) -> np.ndarray:
    """Frame t of the video within a sequence."""
    return logits(await inference.infer(request(VIDEO[t : t + 1], sequence, **flags)))


async def refused(work: Awaitable[Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        await work
    assert text in str(caught.value)


# --- sequences --------------------------------------------------------------------------------


def test_interleaved_sequences_equal_as_many_offline_runs() -> None:
    videos = [frames_of(6, seed) for seed in range(8)]
    held = HeldSession()

    async def main() -> list[list[np.ndarray]]:
        async with inferring(held) as inference:

            async def one(video: np.ndarray, name: int | str) -> list[np.ndarray]:
                return [
                    logits(await inference.infer(request(video[t : t + 1], name, start=t == 0, end=t == 5)))
                    for t in range(6)
                ]

            held.open.clear()
            names = [1, "1", 2, "two", 3, 4, "cam 5", 2**64 - 1]
            all_of_them = [asyncio.create_task(one(video, name)) for video, name in zip(videos, names, strict=True)]
            await asyncio.sleep(0.05)
            held.open.set()
            answers = await asyncio.gather(*all_of_them)
            assert len(inference.sequences) == 0 and inference.engine.open_streams == 0
            return answers

    for video, answers in zip(videos, asyncio.run(main()), strict=True):
        np.testing.assert_array_equal(np.stack(answers), offline(video))
    assert max(held.rows) > 1  # they were batched


def test_requests_of_one_sequence_are_stepped_in_order_of_arrival() -> None:
    async def main() -> list[np.ndarray]:
        async with inferring() as inference:
            tasks = [asyncio.create_task(step(inference, t, start=t == 0, end=t == 3)) for t in range(4)]
            return await asyncio.gather(*tasks)

    np.testing.assert_array_equal(np.stack(asyncio.run(main())), EXPECTED)


@pytest.mark.parametrize("name", [1001, "cam-a"])
def test_a_sequence_without_start_is_refused_in_tritons_words(name: int | str) -> None:
    async def main() -> None:
        async with inferring() as inference:
            await refused(step(inference, 0, name), BadRequest, f"inference request for sequence {name} {NO_START}")
            await refused(step(inference, 0, name, end=True), BadRequest, NO_START)
            assert len(inference.sequences) == 0

    asyncio.run(main())


def test_a_step_after_end_is_refused() -> None:
    async def main() -> None:
        async with inferring() as inference:
            await step(inference, 0, start=True)
            await step(inference, 1, end=True)
            await refused(step(inference, 2), BadRequest, NO_START)
            await refused(step(inference, 2, end=True), BadRequest, NO_START)

    asyncio.run(main())


def test_a_step_that_waited_behind_end_is_refused() -> None:
    held = HeldSession()

    async def main() -> None:
        async with inferring(held) as inference:
            held.open.clear()
            last = asyncio.create_task(step(inference, 0, start=True, end=True))
            late = asyncio.create_task(step(inference, 1))
            again = asyncio.create_task(step(inference, 0, start=True))
            await asyncio.sleep(0.02)
            held.open.set()
            np.testing.assert_array_equal(await last, EXPECTED[0])
            await refused(late, BadRequest, NO_START)
            np.testing.assert_array_equal(await again, EXPECTED[0])
            np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])

    asyncio.run(main())


def test_a_second_start_begins_again() -> None:
    async def main() -> None:
        async with inferring() as inference:
            for _ in range(2):
                np.testing.assert_array_equal(await step(inference, 0, start=True), EXPECTED[0])
                np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])
            assert inference.engine.open_streams == 1

    asyncio.run(main())


def test_start_and_end_in_one_request_leave_nothing() -> None:
    async def main() -> None:
        async with inferring() as inference:
            np.testing.assert_array_equal(await step(inference, 0, start=True, end=True), EXPECTED[0])
            assert len(inference.sequences) == 0 and inference.engine.open_streams == 0

    asyncio.run(main())


@pytest.mark.parametrize("flags", [{}, {"end": True}, {"start": True}])
def test_a_refused_request_in_a_sequence_changes_nothing(flags: dict[str, bool]) -> None:
    async def main() -> None:
        async with inferring() as inference:
            await step(inference, 0, start=True)
            await refused(inference.infer(request(SMALL, 5, **flags)), BadRequest, "unexpected shape for input 'frame'")
            np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])

    asyncio.run(main())


def test_a_refused_start_begins_no_sequence() -> None:
    async def main() -> None:
        async with inferring() as inference:
            await refused(inference.infer(request(SMALL, 5, start=True)), BadRequest, "unexpected shape")
            await refused(step(inference, 1), BadRequest, NO_START)
            assert inference.engine.open_streams == 0

    asyncio.run(main())


def test_more_sequences_than_streams_are_refused_until_one_ends() -> None:
    async def main() -> None:
        async with inferring(max_streams=2) as inference:
            await step(inference, 0, 1, start=True)
            await step(inference, 0, 2, start=True)
            await refused(step(inference, 0, 3, start=True), Overloaded, "2 streams are open")
            await refused(step(inference, 1, 3), BadRequest, NO_START)
            np.testing.assert_array_equal(await step(inference, 0, 2, start=True), EXPECTED[0])  # in its own place
            np.testing.assert_array_equal(await step(inference, 1, 1, end=True), EXPECTED[1])
            np.testing.assert_array_equal(await step(inference, 0, 3, start=True), EXPECTED[0])

    asyncio.run(main())


def test_an_idle_sequence_is_forgotten() -> None:
    clock = Clock()

    async def main() -> None:
        async with inferring(clock=clock, sequence_idle_s=60) as inference:
            await step(inference, 0, 1, start=True)
            clock.now += 40
            await step(inference, 0, 2, start=True)
            clock.now += 19
            np.testing.assert_array_equal(await step(inference, 1, 1), EXPECTED[1])
            clock.now += 41
            assert inference.sequences.evict() == 1
            assert len(inference.sequences) == 1 and inference.engine.open_streams == 1
            await refused(step(inference, 1, 2), BadRequest, NO_START)
            clock.now += 60
            await refused(step(inference, 2, 1), BadRequest, NO_START)  # before anybody swept
            assert inference.engine.open_streams == 0

    asyncio.run(main())


def test_a_new_sequence_takes_the_place_of_an_idle_one() -> None:
    clock = Clock()

    async def main() -> None:
        async with inferring(clock=clock, max_streams=1, sequence_idle_s=60) as inference:
            await step(inference, 0, 1, start=True)
            await refused(step(inference, 0, 2, start=True), Overloaded, "1 streams are open")
            clock.now += 61
            np.testing.assert_array_equal(await step(inference, 0, 2, start=True), EXPECTED[0])
            await refused(step(inference, 1, 1), BadRequest, NO_START)

    asyncio.run(main())


def test_a_sequence_in_work_is_not_idle() -> None:
    clock, held = Clock(), HeldSession()

    async def main() -> None:
        async with inferring(held, clock=clock, sequence_idle_s=60) as inference:
            await step(inference, 0, start=True)
            held.open.clear()
            task = asyncio.create_task(step(inference, 1))
            await asyncio.sleep(0.02)
            clock.now += 100
            assert inference.sequences.evict() == 0
            held.open.set()
            np.testing.assert_array_equal(await task, EXPECTED[1])
            np.testing.assert_array_equal(await step(inference, 2), EXPECTED[2])

    asyncio.run(main())


# --- clients that leave -----------------------------------------------------------------------


def test_a_client_that_leaves_mid_step_counts_once() -> None:
    held = HeldSession()

    async def main() -> None:
        async with inferring(held) as inference:
            await step(inference, 0, start=True)
            held.open.clear()
            held.begun.clear()
            leaving = asyncio.create_task(step(inference, 1))
            assert await asyncio.to_thread(held.begun.wait, 10)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            after = asyncio.create_task(step(inference, 2))
            await asyncio.sleep(0.02)
            assert not after.done()  # its turn comes when the abandoned step is finished
            held.open.set()
            np.testing.assert_array_equal(await after, EXPECTED[2])
            assert held.steps == 3

    asyncio.run(main())


def test_a_client_that_leaves_with_its_start_leaves_a_sequence_that_can_go_on() -> None:
    held = HeldSession()

    async def main() -> None:
        async with inferring(held) as inference:
            held.open.clear()
            leaving = asyncio.create_task(step(inference, 0, start=True))
            assert await asyncio.to_thread(held.begun.wait, 10)
            leaving.cancel()
            await asyncio.wait([leaving])
            held.open.set()
            np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])

    asyncio.run(main())


def test_a_client_that_leaves_before_its_turn_is_not_stepped() -> None:
    held = HeldSession()

    async def main() -> None:
        async with inferring(held) as inference:
            held.open.clear()
            first = asyncio.create_task(step(inference, 0, start=True))
            leaving = asyncio.create_task(step(inference, 3))
            second = asyncio.create_task(step(inference, 1, end=True))
            await asyncio.sleep(0.02)
            leaving.cancel()
            held.open.set()
            np.testing.assert_array_equal(await first, EXPECTED[0])
            np.testing.assert_array_equal(await second, EXPECTED[1])
            assert held.steps == 2 and len(inference.sequences) == 0

    asyncio.run(main())


def test_a_failed_step_that_nobody_waits_for_harms_nothing() -> None:
    held = HeldSession()
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async with inferring(held) as inference:
            await step(inference, 0, start=True)
            held.open.clear()
            held.begun.clear()
            blocking = asyncio.create_task(inference.infer(request(VIDEO[:1])))
            assert await asyncio.to_thread(held.begun.wait, 10)
            leaving = asyncio.create_task(step(inference, 1, timeout=1000))
            await asyncio.sleep(0.02)  # by now it is too late for it
            leaving.cancel()
            held.open.set()
            await blocking
            np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])

    asyncio.run(main())
    assert complaints == []


# --- deadlines --------------------------------------------------------------------------------


def test_an_expired_deadline_is_refused_and_the_state_stays() -> None:
    async def main() -> None:
        async with inferring() as inference:
            await step(inference, 0, start=True)
            await refused(step(inference, 3, timeout=1), DeadlineExceeded, "")
            asked = request(VIDEO[:1], 5)
            await refused(inference.infer(asked, deadline_s=0), DeadlineExceeded, "the deadline was over when")
            await refused(inference.infer(request(VIDEO[:1]), deadline_s=-1), DeadlineExceeded, "")
            np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])

    asyncio.run(main())


def test_a_deadline_that_passes_in_the_queue_is_refused_and_the_state_stays() -> None:
    held = HeldSession()

    async def main() -> None:
        async with inferring(held, deadline_ms=10_000) as inference:
            await step(inference, 0, start=True)
            held.open.clear()
            held.begun.clear()
            blocking = asyncio.create_task(inference.infer(request(VIDEO[:1])))
            assert await asyncio.to_thread(held.begun.wait, 10)
            late = asyncio.create_task(step(inference, 3, timeout=5000))
            await asyncio.sleep(0.05)
            held.open.set()
            await refused(late, DeadlineExceeded, "its deadline was")
            await blocking
            np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])

    asyncio.run(main())


def test_a_deadline_that_passes_behind_an_earlier_request_is_refused() -> None:
    held = HeldSession()

    async def main() -> None:
        async with inferring(held, deadline_ms=10_000) as inference:
            held.open.clear()
            first = asyncio.create_task(step(inference, 0, start=True))
            assert await asyncio.to_thread(held.begun.wait, 10)
            await refused(step(inference, 3, timeout=5000), DeadlineExceeded, "an earlier request of it was in work")
            held.open.set()
            np.testing.assert_array_equal(await first, EXPECTED[0])
            np.testing.assert_array_equal(await step(inference, 1), EXPECTED[1])

    asyncio.run(main())


def test_a_start_that_misses_its_deadline_begins_no_sequence() -> None:
    held = HeldSession()

    async def main() -> None:
        async with inferring(held, deadline_ms=10_000) as inference:
            held.open.clear()
            blocking = asyncio.create_task(inference.infer(request(VIDEO[:1])))
            assert await asyncio.to_thread(held.begun.wait, 10)
            late = asyncio.create_task(step(inference, 0, start=True, timeout=5000))
            await asyncio.sleep(0.05)
            held.open.set()
            await refused(late, DeadlineExceeded, "its deadline was")
            await blocking
            await refused(step(inference, 1), BadRequest, NO_START)
            assert inference.engine.open_streams == 0

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [-1, 1.5, "1", True, None])
def test_a_timeout_that_is_no_number_of_microseconds_is_refused(timeout: Any) -> None:
    async def main() -> None:
        async with inferring() as inference:
            asked = request(VIDEO[:1], timeout=timeout)
            await refused(inference.infer(asked), BadRequest, "Unable to parse 'timeout'")

    asyncio.run(main())


# --- versions ---------------------------------------------------------------------------------


def test_a_sequence_is_told_when_it_moved_to_another_version() -> None:
    clock = Clock()

    async def main() -> None:
        async with inferring(clock=clock, version_s=30) as inference:
            first = await inference.infer(request(VIDEO[:1], 5, start=True))
            assert first.version == "a" * 12 and first.parameters == {}
            inference.engine.swap(opened(HeldSession(OTHER_WEIGHTS), "b"))
            stays = await inference.infer(request(VIDEO[1:2], 5))
            assert stays.version == "a" * 12 and stays.parameters == {}
            np.testing.assert_array_equal(logits(stays), EXPECTED[1])
            clock.now += 31
            await refused(
                inference.infer(request(SMALL, 5)), BadRequest, "unexpected shape"
            )  # moved, and nobody was told
            moved = await inference.infer(request(VIDEO[2:3], 5))
            assert moved.version == "b" * 12 and moved.parameters == {"reset": "version"}
            mean = VIDEO[2].mean(axis=(0, 1)) / 255
            np.testing.assert_allclose(logits(moved), 9 * mean, rtol=1e-5)
            after = await inference.infer(request(VIDEO[3:], 5))
            assert after.version == "b" * 12 and after.parameters == {}

    asyncio.run(main())


def test_a_second_start_moves_to_the_current_version_at_once() -> None:
    async def main() -> None:
        async with inferring() as inference:
            await step(inference, 0, start=True)
            inference.engine.swap(opened(HeldSession(OTHER_WEIGHTS), "b"))
            again = await inference.infer(request(VIDEO[:1], 5, start=True))
            assert again.version == "b" * 12 and again.parameters == {}

    asyncio.run(main())


def test_a_sequence_keeps_to_the_version_that_it_names() -> None:
    def pinned(t: int, version: str, **flags: Any) -> InferRequest:
        asked = request(VIDEO[t : t + 1], 5, **flags)
        return InferRequest(asked.model, version, asked.inputs, parameters=asked.parameters)

    async def main() -> None:
        async with inferring() as inference:
            await inference.infer(pinned(0, "a" * 12, start=True))
            inference.engine.swap(opened(HeldSession(), "b"))
            await refused(inference.infer(pinned(1, "b" * 12)), BadRequest, "it runs on version aaaaaaaaaaaa")
            await refused(inference.infer(pinned(1, "c")), UnknownModel, "version c is not found")
            np.testing.assert_array_equal(logits(await inference.infer(pinned(1, "a" * 12))), EXPECTED[1])
            await refused(
                inference.infer(pinned(0, "a" * 12, start=True)), BadRequest, "it runs on version bbbbbbbbbbbb"
            )
            np.testing.assert_array_equal(await step(inference, 2), EXPECTED[2])

    asyncio.run(main())


# --- without a sequence -----------------------------------------------------------------------


def test_a_client_that_keeps_the_state_gets_the_offline_answers() -> None:
    async def main() -> list[np.ndarray]:
        async with inferring() as inference:
            state, found = np.zeros((1, 4), np.float32), []
            for t in range(4):
                response = await inference.infer(request(VIDEO[t : t + 1], state=state))
                found.append(logits(response))
                state = response.outputs[1].array
            return found

    np.testing.assert_array_equal(np.stack(asyncio.run(main())), EXPECTED)


def test_a_state_that_leads_to_no_number_is_refused() -> None:
    class Overflowing(FakeSession):
        def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
            logits, after = super().step(frames, np.minimum(state, 1))
            return np.where(state.max() > 1e30, np.float32(np.nan), logits), after

    async def main() -> None:
        async with inferring(Overflowing(LABELS, CLIP)) as inference:
            large = request(VIDEO[:1], state=np.full((1, 4), 3e38, np.float32))
            await refused(inference.infer(large), BadRequest, "leads to logits that are not")

    asyncio.run(main())


def test_rows_without_a_state_each_start_fresh() -> None:
    async def main() -> InferResponse:
        async with inferring() as inference:
            return await inference.infer(request(VIDEO))

    response = asyncio.run(main())
    assert [(tensor.name, tensor.array.shape) for tensor in response.outputs] == [
        ("logits", (4, 3)),
        ("next_state", (4, 4)),
    ]
    alone = np.concatenate([offline(VIDEO[t : t + 1]) for t in range(4)])
    np.testing.assert_array_equal(response.outputs[0].array, alone)


def test_outputs_come_as_they_were_asked_for() -> None:
    async def main() -> None:
        async with inferring() as inference:
            frame = (Tensor("frame", VIDEO[:1]),)
            both = InferRequest("framegate", "", frame, (Output("next_state"), Output("logits")), "r7")
            response = await inference.infer(both)
            assert [tensor.name for tensor in response.outputs] == ["next_state", "logits"]
            assert response.id == "r7" and response.model == "framegate"
            wrong = InferRequest("framegate", "", frame, (Output("nope"),))
            await refused(
                inference.infer(wrong), BadRequest, "unexpected inference output 'nope' for model 'framegate'"
            )
            kept = {"sequence_id": 5, "sequence_start": True}
            state = InferRequest("framegate", "", frame, (Output("next_state"),), parameters=kept)
            await refused(inference.infer(state), BadRequest, "unexpected inference output 'next_state'")

    asyncio.run(main())


STATE = np.zeros((1, 4), np.float32)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            request(SMALL),
            "unexpected shape for input 'frame' for model 'framegate'. Expected [-1,16,16,3], got [1,8,8,3]",
        ),
        (request(VIDEO[0]), "Expected [-1,16,16,3], got [16,16,3]"),
        (request(np.zeros((), np.uint8)), "Expected [-1,16,16,3], got []"),
        (request(VIDEO[:0]), "input byte size mismatch for input 'frame' for model 'framegate'. Expected 768, got 0"),
        (request(frames_of(17)), "inference request batch-size must be <= 16 for 'framegate'"),
        (request(VIDEO[:1], state=np.zeros((1, 5), np.float32)), "unexpected shape for input 'state'"),
        (request(VIDEO[:2], state=STATE), "input 'state' batch size does not match other inputs"),
        (request(VIDEO[:1], state=np.full((1, 4), np.nan, np.float32)), "is not finite"),
        (InferRequest("framegate", "", ()), "missing required input(s) ['frame']"),
        (InferRequest("framegate", "", (Tensor("state", STATE),)), "missing required input(s) ['frame']"),
        (request(VIDEO[:2], 5, start=True), "must specify batch-size 1 due to requirements of sequence batcher"),
        (request(VIDEO[:1], 5, start=True, state=STATE), "expected 1 inputs but got 2 inputs for model 'framegate'"),
        (request(VIDEO[:1], start=True), "must specify a non-zero or non-empty correlation ID"),
        (request(VIDEO[:1], 0, end=True), "must specify a non-zero or non-empty correlation ID"),
        (request(VIDEO[:1], "", end=True), "must specify a non-zero or non-empty correlation ID"),
        (request(VIDEO[:1], sequence_id=-1), "Unable to parse 'sequence_id'"),
        (request(VIDEO[:1], sequence_id=2**64), "Unable to parse 'sequence_id'"),
        (request(VIDEO[:1], sequence_id=1.5), "Unable to parse 'sequence_id'"),
        (request(VIDEO[:1], sequence_id=True), "Unable to parse 'sequence_id'"),
        (request(VIDEO[:1], sequence_id=[1]), "Unable to parse 'sequence_id'"),
        (
            request(VIDEO[:1], 5, start=1),
            "Unable to parse 'sequence_start': attempt to access JSON non-boolean as boolean",
        ),
        (
            request(VIDEO[:1], 5, end="yes"),
            "Unable to parse 'sequence_end': attempt to access JSON non-boolean as boolean",
        ),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(asked: InferRequest, text: str) -> None:
    async def main() -> None:
        async with inferring() as inference:
            await refused(inference.infer(asked), BadRequest, text)
            assert len(inference.sequences) == 0 and inference.engine.open_streams == 0

    asyncio.run(main())


def test_a_long_text_is_no_id() -> None:
    async def main() -> None:
        async with inferring() as inference:
            text = "string correlation ID cannot be longer than 128 characters"
            await refused(step(inference, 0, "x" * 129, start=True), NotOffered, text)
            np.testing.assert_array_equal(await step(inference, 0, "x" * 128, start=True), EXPECTED[0])

    asyncio.run(main())


def test_an_unknown_model_or_version_is_refused() -> None:
    async def main() -> None:
        async with inferring() as inference:
            frame = (Tensor("frame", VIDEO[:1]),)
            text = "Request for unknown model: 'nope' is not found"
            await refused(inference.infer(InferRequest("nope", "", frame)), UnknownModel, text)
            await refused(
                inference.infer(InferRequest("framegate", "9", frame)), UnknownModel, "version 9 is not found"
            )

    asyncio.run(main())


def test_requests_are_counted() -> None:
    async def main() -> dict[str, Any]:
        async with inferring() as inference:
            await inference.infer(request(VIDEO))
            await step(inference, 0, start=True)
            await refused(step(inference, 0, 6), BadRequest, NO_START)
            return inference.tally.statistics("framegate", "a" * 12)

    told = asyncio.run(main())
    assert told["inference_count"] == 5
    assert {key: value["count"] for key, value in told["inference_stats"].items()} == {"success": 2, "fail": 1}
    assert told["inference_stats"]["success"]["ns"] > 0 and told["last_inference"] > 1_700_000_000_000


def test_requests_are_measured_and_their_answers_counted() -> None:
    async def main() -> None:
        async with inferring() as inference:
            metrics = inference.engine.metrics
            seen = metrics.registry.get_sample_value
            await inference.infer(request(VIDEO))
            await step(inference, 0, start=True)
            metrics.flush()
            assert seen("framegate_latency_seconds_count", {"phase": "total"}) == 2
            assert sum(seen("framegate_answers_total", {"label": name}) or 0 for name in LABELS) == 5

    asyncio.run(main())


def test_the_clip_of_these_tests_is_the_one_of_the_model() -> None:
    assert VIDEO.shape[1:] == (CLIP.height, CLIP.width, 3)
