"""The bundle as files: what is in it, the same bytes twice, nothing of this machine."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from framegate.contract import Bundle, ConfigError, DataError, Lineage, ParityError
from framegate.export import ExportSettings, export_bundle
from framegate.graph import check_symbolic
from tests.exported import LABELS, LINEAGE, SETTINGS, SPEC, bundle, export_clips, source

FILES = {"step.onnx", "clip.onnx", "golden.npz", "bundle.json"}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_loads_and_says_what_it_is(precision: str) -> None:
    made = bundle("cnn_gru", precision=precision)
    loaded = Bundle.load(made.path)
    assert loaded == made
    assert {path.name for path in made.path.iterdir()} == FILES
    info = loaded.info
    assert (info.name, info.labels, info.clip) == (f"cnn_gru-dense-{precision}", LABELS, SPEC)
    assert info.state_size == 16
    step, clip = info.step, info.clip_graph
    assert [(t.name, t.dtype, t.shape) for t in (*step.inputs, *step.outputs)] == [
        ("frame", "uint8", ("N", 32, 32, 3)),
        ("state", "float32", ("N", 16)),
        ("logits", "float32", ("N", 5)),
        ("next_state", "float32", ("N", 16)),
    ]
    assert [(t.name, t.shape) for t in (*clip.inputs, *clip.outputs)] == [
        ("frames", ("N", "T", 32, 32, 3)),
        ("logits", ("N", 5)),
    ]


def test_int8_names_its_parent() -> None:
    fp32, int8 = bundle("cnn_gru"), bundle("cnn_gru", precision="int8")
    assert fp32.info.lineage == LINEAGE
    assert int8.info.lineage == LINEAGE.model_copy(update={"parent": fp32.info.digest})
    assert int8.info.parameters == fp32.info.parameters


def test_int8_names_the_training_clips_that_it_was_calibrated_on(tmp_path: Path) -> None:
    named = replace(export_clips(), calibration_splits={"up/1.mp4": "train", "up/2.mp4": "train"})
    int8 = export_bundle(source("cnn_gru"), "int8", named, tmp_path / "int8", SETTINGS, bundle("cnn_gru"))
    assert int8.info.lineage.calibration == ("up/1.mp4", "up/2.mp4")
    assert "up/1.mp4" not in "".join(p.value for p in onnx.load(int8.path / "step.onnx").metadata_props)


@pytest.mark.parametrize("split", ["val", "test"])
def test_calibration_on_clips_of_another_split_is_refused(split: str) -> None:
    with pytest.raises(DataError, match=r"'up/2[.]mp4': not of the training split"):
        replace(export_clips(), calibration_splits={"up/1.mp4": "train", "up/2.mp4": split})


def test_golden_clips_have_the_shapes_of_the_contract() -> None:
    with np.load(bundle("cnn_gru").path / "golden.npz") as golden:
        shapes = {key: (golden[key].dtype.str, golden[key].shape) for key in golden}
    assert shapes == {
        "frames": ("|u1", (4, 4, 32, 32, 3)),
        "clip_logits": ("<f4", (4, 5)),
        "step_logits": ("<f4", (4, 4, 5)),
    }


@pytest.mark.parametrize("name", ["step", "clip"])
def test_a_lone_onnx_file_explains_itself(name: str) -> None:
    made = bundle("cnn_gru", precision="int8")
    model = onnx.load(made.path / f"{name}.onnx")
    said = {prop.key.removeprefix("framegate."): prop.value for prop in model.metadata_props}
    assert (said["graph"], said["precision"], said["name"]) == (name, "int8", made.info.name)
    assert tuple(json.loads(said["labels"])) == LABELS
    assert json.loads(said["clip"]) == SPEC.model_dump(mode="json")
    assert json.loads(said["lineage"])["parent"] == bundle("cnn_gru").info.digest


def test_the_same_net_gives_the_same_bytes(tmp_path: Path) -> None:
    again = export_bundle(source("cnn_gru"), "fp32", export_clips(), tmp_path / "fp32", SETTINGS)
    int8 = export_bundle(source("cnn_gru"), "int8", export_clips(), tmp_path / "int8", SETTINGS, again)
    for made, precision in ((again, "fp32"), (int8, "int8")):
        first = bundle("cnn_gru", precision=precision)
        for name in FILES:
            assert (made.path / name).read_bytes() == (first.path / name).read_bytes(), name


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["step.onnx", "clip.onnx", "bundle.json"])
def test_no_file_names_a_place_on_this_machine(name: str, precision: str) -> None:
    text = (bundle("cnn_gru", precision=precision).path / name).read_bytes()
    for place in (str(Path(__file__).parents[2]), str(Path.home()), "site-packages", "stack_trace", ".py:", "File "):
        assert place.encode() not in text, place


def test_pixels_go_into_the_first_convolution_without_a_division() -> None:
    kinds = [node.op_type for node in onnx.load(bundle("cnn_gru").path / "step.onnx").graph.node]
    assert kinds[: kinds.index("Conv")].count("Sub") == 1
    assert not {"Div", "BatchNormalization"} & set(kinds)


def test_pooling_to_one_pixel_is_one_node() -> None:
    """`AdaptiveAvgPool2d(1)` of a channels-last tensor exports to as_strided: ranges, sums and a gather."""
    kinds = [node.op_type for node in onnx.load(bundle("cnn_gru", "resnet18", "pruned").path / "step.onnx").graph.node]
    assert kinds.count("GlobalAveragePool") == 1
    assert not {"ReduceMean", "Gather", "Range"} & set(kinds)


def test_an_axis_that_became_a_number_is_caught() -> None:
    model = onnx.load(bundle("cnn").path / "clip.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    with pytest.raises(ParityError, match=r"axis 1 of 'frames' is 3, expected the symbol 'T'"):
        check_symbolic(model, {"frames": {"N": (0,), "T": (1,)}})


@pytest.mark.parametrize("precision", ["fp16", "int8_trt"])
def test_a_precision_of_later_is_refused(precision: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exports fp32 and int8"):
        export_bundle(source("cnn"), precision, export_clips(), tmp_path / "b", ExportSettings())


def test_int8_needs_the_fp32_bundle_of_the_same_net(tmp_path: Path) -> None:
    fp32, made = bundle("cnn"), source("cnn")
    with pytest.raises(ConfigError, match="got none; export fp32 first"):
        export_bundle(made, "int8", export_clips(), tmp_path / "b", SETTINGS)
    other = replace(made, lineage=Lineage(dataset="x", config="y", weights="z"))
    with pytest.raises(ConfigError, match="got cnn-dense-fp32"):
        export_bundle(other, "int8", export_clips(), tmp_path / "b", SETTINGS, fp32)
