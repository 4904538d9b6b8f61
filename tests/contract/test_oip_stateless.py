"""What our server answers outside a sequence, where Triton's implicit state refuses: the state is the client's."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.contract.conftest import INVALID, Client

pytestmark = pytest.mark.parametrize("server", ["framegate"], indirect=True)
Clips = NDArray[np.uint8]  # u8 [3,T,H,W,3]


def same(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_a_state_that_the_client_carries_answers_as_offline(client: Client, clips: Clips) -> None:
    """All clips at once: row i of the state belongs to row i of the frames."""
    state, got = np.zeros((len(clips), client.server.bundle.info.state_size), np.float32), []
    for t in range(clips.shape[1]):
        inputs = [client.tensor(np.ascontiguousarray(clips[:, t])), client.tensor(state, "state")]
        result = client.infer(inputs)
        got.append(result.as_numpy("logits"))
        state = result.as_numpy("next_state")
    for number, clip in enumerate(clips):
        same(np.stack(got)[:, number], client.server.offline(clip))


def test_without_a_state_every_row_starts_fresh(client: Client, clips: Clips) -> None:
    frames = clips.reshape(-1, *clips.shape[2:])
    expected = np.concatenate([client.server.offline(frame[None]) for frame in frames])
    for _ in range(2):
        same(client.infer([client.tensor(frames)]).as_numpy("logits"), expected)


def test_sixteen_frames_are_answered_and_seventeen_refused(client: Client) -> None:
    frames = np.zeros((17, 16, 16, 3), np.uint8)
    assert client.infer([client.tensor(frames[:16])]).as_numpy("logits").shape == (16, 3)
    with client.refused(INVALID, "inference request batch-size must be <= 16 for 'framegate'"):
        client.infer([client.tensor(frames)])


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (np.zeros((1, 4), np.float32), "state"),  # two frames, one state
        (np.zeros((2, 5), np.float32), r"unexpected shape for input 'state' .*Expected \[-1,4\], got \[2,5\]"),
        (np.zeros((2, 4), np.float64), "input 'state' data-type is 'FP64', but model 'framegate' expects 'FP32'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(client: Client, state: np.ndarray, text: str) -> None:
    with client.refused(INVALID, text):
        client.infer([client.tensor(np.zeros((2, 16, 16, 3), np.uint8)), client.tensor(state, "state")])


def test_a_state_without_a_frame_is_refused(client: Client) -> None:
    with client.refused(INVALID, r"missing required input\(s\) \['frame'\]"):
        client.infer([client.tensor(np.zeros((1, 4), np.float32), "state")])
