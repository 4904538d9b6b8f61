"""What the export stage writes fits Triton: every model and precision, with and without an embedding."""

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from framegate.export import export_bundle
from framegate.triton import write_repository
from tests.exported import MODELS, SETTINGS, bundle, export_clips, source


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("model", MODELS)
def test_an_exported_bundle_becomes_a_repository(tmp_path: Path, model: str, precision: str) -> None:
    one = bundle(model, precision=precision)
    write_repository(one, tmp_path / "repo", "framegate", "cpu", 1)
    config = text_format.Parse((tmp_path / "repo/framegate/config.pbtxt").read_text(), pb.ModelConfig())
    (state,) = config.sequence_batching.state
    assert list(state.dims) == list(state.initial_state[0].dims) == [one.info.state_size]
    assert list(config.input[0].dims) == [32, 32, 3] and list(config.output[0].dims) == [5]


def test_an_embedding_stays_in_the_graph_and_is_not_offered(tmp_path: Path) -> None:
    settings = replace(SETTINGS, embedding=True)
    one = export_bundle(source("cnn_gru"), "fp32", export_clips(), tmp_path / "bundle", settings, None)
    assert "embedding" in [output.name for output in one.info.step.outputs]
    write_repository(one, tmp_path / "repo", "framegate", "cpu", 1)
    config = text_format.Parse((tmp_path / "repo/framegate/config.pbtxt").read_text(), pb.ModelConfig())
    assert [output.name for output in config.output] == ["logits"]
