"""Sequences: every one has its own state, from START to END, and answers as offline."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundles import color_clips
from tests.contract.conftest import IDS, INVALID, TOO_LONG, Answers, Client

Clips = NDArray[np.uint8]  # u8 [3,T,H,W,3]
NEEDS_START = "inference request for sequence {} to model 'framegate' must specify the START flag on the first request"
TOLERANCE = 1e-4


def same(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(got, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_the_clips_tell_a_carried_state_from_a_fresh_one(client: Client, clips: Clips) -> None:
    """Else none of the tests below could fail."""
    carried, fresh = client.server.offline(clips[0]), client.server.offline(clips[0, -1:])
    assert np.abs(carried[-1] - fresh[0]).max() > 100 * TOLERANCE


def test_a_sequence_answers_as_offline(client: Client, clips: Clips, sequence_id: int) -> None:
    same(client.whole(clips[0], sequence_id), client.server.offline(clips[0]))


def test_one_request_may_be_a_whole_sequence(client: Client, clips: Clips, sequence_id: int) -> None:
    for clip in clips:  # the id again at once: END ended it
        same(client.whole(clip[:1], sequence_id), client.server.offline(clip[:1]))


def test_interleaved_sequences_share_no_state(client: Client, clips: Clips) -> None:
    ids, last = [next(IDS) for _ in clips], clips.shape[1] - 1
    got = [
        [client.step(clip[t][None], one, t == 0, t == last) for one, clip in zip(ids, clips, strict=True)]
        for t in range(clips.shape[1])
    ]
    for number, clip in enumerate(clips):
        same(np.stack([row[number] for row in got]), client.server.offline(clip))


@pytest.mark.parametrize("make", [lambda n: f"camera-{n}", lambda n: f"hall/{n} é", lambda n: f"{n}".rjust(128, "x")])
def test_an_id_may_be_text(client: Client, clips: Clips, sequence_id: int, make: Callable[[int], str]) -> None:
    same(client.whole(clips[1], make(sequence_id)), client.server.offline(clips[1]))


def test_an_id_may_be_a_large_number(client: Client, clips: Clips, sequence_id: int) -> None:
    same(client.whole(clips[1], 2**53 + sequence_id), client.server.offline(clips[1]))


def test_a_number_and_the_same_as_text_are_two_sequences(client: Client, clips: Clips, sequence_id: int) -> None:
    client.step(clips[0, :1], sequence_id, start=True)
    with client.refused(INVALID, NEEDS_START.format(sequence_id)):
        client.step(clips[0, 1:2], str(sequence_id))
    client.step(clips[0, :1], sequence_id, end=True)


def test_text_of_more_than_128_characters_is_no_id(client: Client, clips: Clips) -> None:
    with client.refused(TOO_LONG, "string correlation ID cannot be longer than 128 characters"):
        client.step(clips[0, :1], "x" * 129, start=True, end=True)


def test_a_sequence_needs_its_start(client: Client, clips: Clips, sequence_id: int) -> None:
    for one in (sequence_id, f"camera-{sequence_id}"):
        with client.refused(INVALID, NEEDS_START.format(one)):
            client.step(clips[0, :1], one)
        with client.refused(INVALID, NEEDS_START.format(one)):
            client.step(clips[0, :1], one, end=True)


def test_a_second_start_begins_again(client: Client, clips: Clips, sequence_id: int) -> None:
    client.step(clips[0, :1], sequence_id, start=True)
    client.step(clips[0, 1:2], sequence_id)
    same(client.whole(clips[2], sequence_id), client.server.offline(clips[2]))


def test_after_end_there_is_no_sequence(client: Client, clips: Clips, sequence_id: int) -> None:
    client.whole(clips[0], sequence_id)
    for end in (False, True):
        with client.refused(INVALID, NEEDS_START.format(sequence_id)):
            client.step(clips[0, :1], sequence_id, end=end)
    same(client.whole(clips[1], sequence_id), client.server.offline(clips[1]))


@pytest.mark.parametrize("end", [False, True])
def test_a_refused_frame_leaves_the_sequence_as_it_was(
    client: Client, clips: Clips, sequence_id: int, end: bool
) -> None:
    first = client.step(clips[0, :1], sequence_id, start=True)
    with client.refused(INVALID, "unexpected shape for input 'frame'"):
        client.step(np.zeros((1, 8, 8, 3), np.uint8), sequence_id, end=end)
    second = client.step(clips[0, 1:2], sequence_id, end=True)
    same(np.stack([first, second]), client.server.offline(clips[0, :2]))


def test_a_refused_start_starts_nothing(client: Client, clips: Clips, sequence_id: int) -> None:
    with client.refused(INVALID, "unexpected shape for input 'frame'"):
        client.step(np.zeros((1, 8, 8, 3), np.uint8), sequence_id, start=True)
    with client.refused(INVALID, NEEDS_START.format(sequence_id)):
        client.step(clips[0, :1], sequence_id)


def test_a_sequence_takes_one_frame_at_a_time(client: Client, clips: Clips, sequence_id: int) -> None:
    with client.refused(INVALID, "inference request to model 'framegate' must specify batch-size 1"):
        client.step(clips[0, :2], sequence_id, start=True, end=True)


def test_a_sequence_gives_no_state(client: Client, clips: Clips, sequence_id: int) -> None:
    inputs = [client.tensor(clips[0, :1]), client.tensor(np.zeros((1, 4), np.float32), "state")]
    with client.refused(INVALID, "'state'"):
        client.infer(inputs, sequence_id=sequence_id, sequence_start=True, sequence_end=True)


def test_sequences_over_both_protocols_are_the_same_sequences(
    http: Client, grpc: Client, clips: Clips, sequence_id: int
) -> None:
    got = [http.step(clips[0, :1], sequence_id, start=True), grpc.step(clips[0, 1:2], sequence_id)]
    got += [http.step(clips[0, 2:3], sequence_id), grpc.step(clips[0, 3:4], sequence_id, end=True)]
    same(np.stack(got), http.server.offline(clips[0]))


def test_many_sequences_in_flight_at_once_answer_as_offline(grpc: Client) -> None:
    """All of one tick are on their way before the first is awaited, so that the server batches them."""
    many = color_clips([n % 3 for n in range(24)], seed=8, noise=90)
    ids, last, got = [next(IDS) for _ in many], many.shape[1] - 1, []
    for t in range(many.shape[1]):
        answers = []
        for one, clip in zip(ids, many, strict=True):
            answers.append(Answers())
            inputs, place = [grpc.tensor(clip[t][None])], {"sequence_start": t == 0, "sequence_end": t == last}
            grpc.connection.async_infer(grpc.server.model, inputs, answers[-1].take, sequence_id=one, **place)
        got.append([one.next().as_numpy("logits")[0] for one in answers])
    for number, clip in enumerate(many):
        same(np.stack([row[number] for row in got]), grpc.server.offline(clip))
