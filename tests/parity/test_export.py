"""torch == ONNX step iterated == ONNX clip, per model, backbone, variant and precision; what is off does not export."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from framegate.contract import Bundle, ParityError
from framegate.export import (
    Graphs,
    export_bundle,
    fp32_parity,
    int8_parity,
    run_clip_graph,
    run_step_graph,
    run_torch,
)
from framegate.graph import trace_clip, trace_step
from framegate.quantize import quantize_graphs
from framegate.runtime.session import open_session, run_steps
from tests.exported import SETTINGS, SPEC, bundle, export_clips, random_clips, random_net, source

EXPORTS = [
    ("cnn", "small", "dense"),
    ("cnn_gru", "small", "dense"),
    ("cnn_gru", "small", "pruned"),
    ("cnn_lstm", "textbook", "pruned"),
    ("cnn_gru", "resnet18", "pruned"),
]


def graphs(exported: Bundle) -> Graphs:
    return Graphs(onnx.load(exported.path / "step.onnx"), onnx.load(exported.path / "clip.onnx"))


@pytest.mark.parametrize(("model", "backbone", "variant"), EXPORTS)
class TestEveryExport:
    def test_fp32_computes_what_the_net_computes(self, model: str, backbone: str, variant: str) -> None:
        frames = random_clips(3, seed=7)
        expected = run_torch(source(model, backbone, variant).net, frames)
        found = graphs(bundle(model, backbone, variant))
        np.testing.assert_allclose(found.steps(frames), expected, atol=1e-4)
        np.testing.assert_allclose(found.ends(frames), expected[:, -1], atol=1e-4)

    def test_int8_agrees_with_fp32_and_its_clip_with_its_steps(self, model: str, backbone: str, variant: str) -> None:
        int8 = bundle(model, backbone, variant, "int8")
        parity = int8.info.parity
        assert parity.top1_agreement is not None
        assert parity.top1_agreement >= 0.98
        assert parity.torch_onnx_max_abs is None
        frames, found = random_clips(3, seed=7), graphs(int8)
        exact = graphs(bundle(model, backbone, variant)).ends(frames)
        np.testing.assert_allclose(found.ends(frames), found.steps(frames)[:, -1], atol=1e-3)
        assert 0 < np.abs(found.ends(frames) - exact).max() < np.abs(exact).max()

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_any_batch_and_any_length(self, model: str, backbone: str, variant: str, precision: str) -> None:
        found, frames = graphs(bundle(model, backbone, variant, precision)), random_clips(5, seed=8)
        whole = found.steps(frames)
        np.testing.assert_allclose(found.steps(frames[:1]), whole[:1], atol=1e-3)
        for length in (1, 3):
            np.testing.assert_allclose(found.ends(frames[:, :length]), whole[:, length - 1], atol=1e-3)

    def test_a_session_of_the_serving_side_gives_the_golden_logits(
        self, model: str, backbone: str, variant: str
    ) -> None:
        exported = bundle(model, backbone, variant)
        with np.load(exported.path / "golden.npz") as golden:
            found = run_steps(open_session(exported), golden["frames"])
            np.testing.assert_allclose(found, golden["step_logits"], atol=1e-5)
            np.testing.assert_allclose(found[:, -1], golden["clip_logits"], atol=1e-4)


@pytest.mark.parametrize(("model", "backbone", "variant"), [EXPORTS[1], EXPORTS[3]])
def test_the_second_export_in_one_process_is_right(model: str, backbone: str, variant: str) -> None:
    """torch caches the decomposition of a GRU or LSTM with the sizes of the first export (pytorch#191855)."""
    bundle(model, backbone, variant)  # the first
    net, _ = random_net(model, seed=1)
    frames = random_clips(4, seed=1)[:, :3]
    second = trace_clip(net, SPEC, SETTINGS.opset)
    np.testing.assert_allclose(run_clip_graph(second, frames), run_torch(net, frames)[:, -1], atol=1e-4)


def test_a_sabotaged_gru_is_caught() -> None:
    """ONNX's other GRU (the reset gate before the recurrent product) differs from torch's in one attribute."""
    made = source("cnn_gru")
    found = graphs(bundle("cnn_gru"))
    for node in found.clip.graph.node:
        if node.op_type == "GRU":
            kept = [a for a in node.attribute if a.name != "linear_before_reset"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("linear_before_reset", 0)])
    with pytest.raises(ParityError, match="logits differ"):
        fp32_parity(made.net, found, export_clips().parity, SETTINGS.tolerance)


def test_a_graph_of_another_net_is_caught() -> None:
    other, _ = random_net("cnn_gru", seed=3)
    with pytest.raises(ParityError, match="torch against ONNX Runtime"):
        fp32_parity(other, graphs(bundle("cnn_gru")), export_clips().parity, SETTINGS.tolerance)


def test_int8_that_disagrees_with_its_fp32_is_caught() -> None:
    exact, clips = graphs(bundle("cnn")), export_clips()
    dark = Graphs(*quantize_graphs(exact.step, exact.clip, np.zeros_like(clips.calibration[:2])))
    with pytest.raises(ParityError, match="top label equals that of fp32 in"):
        int8_parity(exact, dark, clips, 1.0)


def test_beyond_tolerance_nothing_is_written(tmp_path, monkeypatch) -> None:
    found = graphs(bundle("cnn"))
    monkeypatch.setattr("framegate.export.trace_step", lambda *_: found.step)
    monkeypatch.setattr("framegate.export.trace_clip", lambda *_: found.clip)
    with pytest.raises(ParityError, match="nothing is written"):
        export_bundle(source("cnn"), "fp32", export_clips(), tmp_path / "b", replace(SETTINGS, tolerance=0.0))
    assert list(tmp_path.iterdir()) == []


def test_the_embedding_is_an_output_on_request_and_opset_18_is_enough() -> None:
    net, _ = random_net("cnn_gru")
    step = trace_step(net.train(), SPEC, 18, embedding=True)
    assert net.training  # tracing works on a copy
    assert [output.name for output in step.graph.output] == ["logits", "next_state", "embedding"]
    assert {entry.version for entry in step.opset_import if not entry.domain} == {18}
    frames = random_clips(2)
    np.testing.assert_allclose(run_step_graph(step, frames), run_torch(net, frames), atol=1e-4)
