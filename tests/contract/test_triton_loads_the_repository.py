"""What only the real Triton can say: it takes the repository that `framegate triton-repo` writes, as it was meant."""

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from tests.bundles import LABELS
from tests.contract.conftest import INVALID, Client

pytestmark = [pytest.mark.triton, pytest.mark.parametrize("server", ["triton"], indirect=True)]


def test_both_models_are_loaded_and_nothing_else(client: Client) -> None:
    found = client.connection.get_model_repository_index(**({} if client.is_http else {"as_json": True}))
    listed = found if client.is_http else found["models"]
    assert {(one["name"], one["version"], one["state"]) for one in listed} == {
        ("framegate", "1", "READY"),
        ("framegate_clip", "1", "READY"),
    }


def test_the_state_is_implicit_and_begins_with_zeros(http: Client) -> None:
    (state,) = http.connection.get_model_config("framegate")["sequence_batching"]["state"]
    assert (state["input_name"], state["output_name"], state["dims"]) == ("state", "next_state", [4])
    (initial,) = state["initial_state"]
    assert initial["zero_data"] is True and [int(axis) for axis in initial["dims"]] == [4]


def test_a_step_outside_a_sequence_is_refused(client: Client, clips: NDArray[np.uint8]) -> None:
    with client.refused(INVALID, "must specify a non-zero or non-empty correlation ID"):
        client.infer([client.tensor(clips[0, :1])])


def test_the_clip_model_answers_clips_of_any_length_in_batches(client: Client, clips: NDArray[np.uint8]) -> None:
    path = client.server.bundle.path / "clip.onnx"
    graph = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for frames in (clips, clips[:1, :2]):
        result = client.infer([client.tensor(frames, "frames")], model_name="framegate_clip")
        expected = graph.run(["logits"], {"frames": frames})[0]
        np.testing.assert_allclose(result.as_numpy("logits"), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", ["framegate", "framegate_clip"])
def test_classes_are_named_by_the_labels_file(
    client: Client, clips: NDArray[np.uint8], sequence_id: int, model: str
) -> None:
    sequence = {"sequence_id": sequence_id, "sequence_start": True, "sequence_end": True}
    inputs = [client.tensor(clips[:1], "frames") if model.endswith("clip") else client.tensor(clips[0, :1])]
    outputs = [client.module.InferRequestedOutput("logits", class_count=len(LABELS))]
    result = client.infer(inputs, model_name=model, outputs=outputs, **(sequence if model == "framegate" else {}))
    named = [text.decode().split(":")[1:] for text in result.as_numpy("logits")[0]]
    assert sorted(named) == [[str(number), label] for number, label in enumerate(LABELS)]
