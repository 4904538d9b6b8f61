"""int8: what is quantized, from which ranges, and that both graphs get the same."""

import numpy as np
import onnx
import pytest

from framegate.contract import ParityError
from framegate.graph import constants_of
from framegate.models.video import PIXEL_MEAN
from framegate.quantize import boundaries, calibrate, feature_nodes
from tests.exported import bundle, export_clips


def test_int8_quantizes_backbone_and_projection_and_leaves_cell_and_head() -> None:
    model = onnx.load(bundle("cnn_gru", precision="int8").path / "step.onnx")
    dtypes = {name: str(value.dtype) for name, value in constants_of(model).items() if "weight" in name}
    parts = ("backbone.0.0", "backbone.1.0", "project")
    assert [dtypes[f"net.{part}.weight_quantized"] for part in parts] == ["int8"] * 3
    assert {dtypes[f"net.{part}"] for part in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight")} == {"float32"}


def test_a_backbone_without_weights_cannot_be_int8() -> None:
    empty = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    with pytest.raises(ParityError, match="no convolution or matrix product"):
        feature_nodes(empty)


@pytest.mark.parametrize(("model", "backbone", "variant"), [("cnn_gru", "small", "dense"), ("cnn", "small", "dense")])
def test_clip_and_step_have_the_same_scales(model: str, backbone: str, variant: str) -> None:
    folder = bundle(model, backbone, variant, "int8").path
    scales = [
        sorted(
            float(v) for k, v in constants_of(onnx.load(folder / name)).items() if k.endswith("scale") and v.size == 1
        )
        for name in ("step.onnx", "clip.onnx")
    ]
    assert scales[0] == scales[1] != []


def test_ranges_are_the_extremes_over_all_frames() -> None:
    step, frames = onnx.load(bundle("cnn_gru").path / "step.onnx"), export_clips().calibration[:6]
    pixels, first = boundaries(step)[:2]
    ranges = calibrate(step, frames)
    assert ranges[pixels] == (float(frames.min()) - PIXEL_MEAN, float(frames.max()) - PIXEL_MEAN)
    parts = [calibrate(step, part)[first] for part in np.split(frames, 3)]
    assert ranges[first] == pytest.approx((min(low for low, _ in parts), max(high for _, high in parts)), rel=1e-5)
