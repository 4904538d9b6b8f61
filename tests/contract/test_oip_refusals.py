"""Requests that cannot be answered: the status, and the essential part of Triton's own words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.contract.conftest import INVALID, UNKNOWN, Client

ZEROS = np.zeros((1, 16, 16, 3), np.uint8)
Inputs = Callable[[Client], list[Any]]


def one(array: np.ndarray, name: str = "frame") -> Inputs:
    return lambda client: [client.tensor(array, name)]


def twice(client: Client) -> list[Any]:
    return [client.tensor(ZEROS), client.tensor(ZEROS)]


def two(client: Client) -> list[Any]:
    return [client.tensor(ZEROS), client.tensor(ZEROS, "image")]


def mislabelled(client: Client) -> list[Any]:
    """Bytes of one frame that say to be two."""
    given = client.tensor(ZEROS)
    given.set_shape([2, 16, 16, 3])
    return [given]


SHAPE = r"unexpected shape for input 'frame' for model 'framegate'. Expected \[-1,16,16,3\], got "
TYPE = r"inference input 'frame' data-type is '{}', but model 'framegate' expects 'UINT8'"
SIZE = r"input byte size mismatch for input 'frame' for model 'framegate'. Expected {}, got {}"
BAD_INPUTS: dict[str, tuple[Inputs, str]] = {
    "another name": (one(ZEROS, "image"), "unexpected inference input 'image' for model 'framegate'"),
    "one too many": (two, "'image'"),
    "the same twice": (twice, "input 'frame' already exists in request"),
    "none": (lambda _: [], r"missing required input\(s\) \['frame'\]"),
    "floats": (one(ZEROS.astype(np.float32)), TYPE.format("FP32")),
    "wide integers": (one(ZEROS.astype(np.int32)), TYPE.format("INT32")),
    "signed bytes": (one(ZEROS.astype(np.int8)), TYPE.format("INT8")),
    "small": (one(np.zeros((1, 8, 8, 3), np.uint8)), SHAPE + r"\[1,8,8,3\]"),
    "no batch axis": (one(ZEROS[0]), SHAPE + r"\[16,16,3\]"),
    "an axis too many": (one(ZEROS[None]), SHAPE + r"\[1,1,16,16,3\]"),
    "channels first": (one(np.zeros((1, 3, 16, 16), np.uint8)), SHAPE + r"\[1,3,16,16\]"),
    "grey": (one(ZEROS[..., :1]), SHAPE + r"\[1,16,16,1\]"),
    "alpha": (one(np.zeros((1, 16, 16, 4), np.uint8)), SHAPE + r"\[1,16,16,4\]"),
    "no frame in the batch": (one(ZEROS[:0]), SIZE.format(".*", 0)),
    "bytes of another shape": (mislabelled, SIZE.format(1536, 768)),
    "seventeen frames": (one(ZEROS.repeat(17, 0)), "inference request batch-size must be <= 16 for 'framegate'"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_inputs_that_do_not_fit_are_refused_by_name(client: Client, sequence_id: int, name: str) -> None:
    inputs, text = BAD_INPUTS[name]
    with client.refused(INVALID, text):
        client.infer(inputs(client), sequence_id=sequence_id, sequence_start=True, sequence_end=True)


def test_after_all_these_refusals_a_sequence_still_answers(client: Client, clips: np.ndarray, sequence_id: int) -> None:
    for inputs, text in BAD_INPUTS.values():
        with client.refused(INVALID, text):
            client.infer(inputs(client), sequence_id=sequence_id, sequence_start=True)
    np.testing.assert_allclose(
        client.whole(clips[0], sequence_id), client.server.offline(clips[0]), atol=1e-4, rtol=1e-4
    )


def test_an_output_that_is_not_there_is_refused(client: Client, sequence_id: int) -> None:
    outputs = [client.module.InferRequestedOutput("boxes")]
    with client.refused(INVALID, "unexpected inference output 'boxes' for model 'framegate'"):
        client.infer(
            [client.tensor(ZEROS)], outputs=outputs, sequence_id=sequence_id, sequence_start=True, sequence_end=True
        )


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"model_name": "nobody"}, "unknown model: 'nobody' is not found"),
        ({"model_version": "9"}, "unknown model: 'framegate' version 9 is not found"),
    ],
)
def test_an_unknown_model_or_version_answers_nothing(
    client: Client, sequence_id: int, where: dict[str, str], text: str
) -> None:
    with client.refused(UNKNOWN, text):
        client.infer([client.tensor(ZEROS)], sequence_id=sequence_id, sequence_start=True, **where)
