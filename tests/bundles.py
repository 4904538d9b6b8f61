"""Tiny bundles without training: the mean colour of all frames so far decides the label."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from framegate.contract import (
    Bundle,
    BundleInfo,
    ClipSpec,
    GraphSpec,
    Lineage,
    Parity,
    TensorSpec,
    sha256_file,
    write_text,
)
from framegate.index import Clip, Index
from framegate.runtime.session import FakeSession, run_clips, run_steps

SPEC = ClipSpec(frames=4, height=16, width=16, fps=10)
LABELS = ("blue", "green", "red")
SHARPNESS = 20.0
WEIGHTS = SHARPNESS * np.eye(3, dtype=np.float32)[::-1]


def color_clips(labels: list[int], seed: int = 0, noise: float = 60.0) -> NDArray[np.uint8]:
    """u8 [n,T,H,W,3]: each clip tinted in the colour of its label (position in LABELS)."""
    rng = np.random.default_rng(seed)
    tint = 90 + 40 * np.eye(3)[::-1][labels] + rng.normal(0, noise / 4, (len(labels), 3))
    pixels = tint[:, None, None, None] + rng.normal(0, noise, (len(labels), SPEC.frames, SPEC.height, SPEC.width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def make_bundle(
    folder: Path,
    name: str = "tiny-dense-fp32",
    ballast: int = 0,
    weights: NDArray[np.float32] = WEIGHTS,
    golden_shift: float = 0.0,
    forgetful: bool = False,
) -> Bundle:
    """Write a sealed bundle; `ballast` columns of useless multiplication make its step slower.

    `forgetful`: step.onnx throws the state away and golden.npz agrees with that; clip.onnx does not.
    """
    path = folder / name
    path.mkdir(parents=True)
    onnx.save(step_graph(weights, ballast, forgetful), path / "step.onnx")
    onnx.save(clip_graph(weights), path / "clip.onnx")
    golden(path, weights, golden_shift, forgetful)
    model, variant, precision = name.split("-")
    files = {file.name: sha256_file(file) for file in sorted(path.iterdir())}
    info = BundleInfo(
        name=name,
        model=model,
        variant=variant,
        precision=precision,
        labels=LABELS,
        clip=SPEC,
        state_size=4,
        step=GraphSpec(
            inputs=(_spec("frame", "uint8", "N", 16, 16, 3), _spec("state", "float32", "N", 4)),
            outputs=(_spec("logits", "float32", "N", 3), _spec("next_state", "float32", "N", 4)),
        ),
        clip_graph=GraphSpec(
            inputs=(_spec("frames", "uint8", "N", "T", 16, 16, 3),), outputs=(_spec("logits", "float32", "N", 3),)
        ),
        parameters=weights.size,
        macs_per_frame=weights.size,
        lineage=Lineage(dataset="d", config="c", weights="w"),
        parity=Parity(clip_step_max_abs=0.0, tolerance=1e-4, clips=4),
        files=files,
    ).sealed()
    write_text(path / "bundle.json", info.to_json())
    return Bundle.load(path)


def _spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def golden(path: Path, weights: NDArray[np.float32], shift: float, forgetful: bool) -> None:
    """golden.npz from the formula itself, not from a runtime."""
    session = FakeSession(LABELS, SPEC, weights=weights)
    frames = color_clips([0, 1, 2, 0], seed=9)
    steps = run_steps(session, frames)
    if forgetful:
        steps = np.stack([run_clips(session, frames[:, t : t + 1]) for t in range(SPEC.frames)], axis=1)
    steps[:, :, 0] += shift
    np.savez(path / "golden.npz", frames=frames, clip_logits=run_clips(session, frames), step_logits=steps)


def step_graph(weights: NDArray[np.float32], ballast: int, forgetful: bool = False) -> onnx.ModelProto:
    """frame u8 [N,H,W,3], state f32 [N,4] (sum of colours, count) -> logits, next_state."""
    tensors = {
        "scale": np.float32(1 / 255),
        "one": np.float32(1),
        "zero": np.float32(0),
        "weights": weights,
        "space": np.array([1, 2]),
        "from0": np.array([0]),
        "to1": np.array([1]),
        "to3": np.array([3]),
        "to4": np.array([4]),
        "axis1": np.array([1]),
        "heavy": np.zeros((16 * 16 * 3, max(ballast, 1)), np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["bright"]),
        helper.make_node("ReduceMean", ["bright", "space"], ["color"], keepdims=0),
        helper.make_node("Slice", ["color", "from0", "to1", "axis1"], ["first"]),
        helper.make_node("Mul", ["first", "zero"], ["nought"]),
        helper.make_node("Flatten", ["bright"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "heavy"], ["product"]),
        helper.make_node("ReduceMean", ["product", "axis1"], ["useless"], keepdims=1),
        helper.make_node("Add", ["nought", "useless"], ["nothing"]),
        helper.make_node("Add", ["nothing", "one"], ["tick"]),
        helper.make_node("Concat", ["color", "tick"], ["now"], axis=1),
        helper.make_node(*(("Identity", ["now"]) if forgetful else ("Add", ["state", "now"])), ["next_state"]),
        helper.make_node("Slice", ["next_state", "from0", "to3", "axis1"], ["sum"]),
        helper.make_node("Slice", ["next_state", "to3", "to4", "axis1"], ["count"]),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    inputs = [("frame", TensorProto.UINT8, ["N", 16, 16, 3]), ("state", TensorProto.FLOAT, ["N", 4])]
    outputs = [("logits", TensorProto.FLOAT, ["N", 3]), ("next_state", TensorProto.FLOAT, ["N", 4])]
    return _model("step", nodes, inputs, outputs, tensors)


def clip_graph(weights: NDArray[np.float32]) -> onnx.ModelProto:
    """frames u8 [N,T,H,W,3] -> logits f32 [N,3]."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["bright"]),
        helper.make_node("ReduceMean", ["bright", "space"], ["color"], keepdims=0),
        helper.make_node("MatMul", ["color", "weights"], ["logits"]),
    ]
    tensors = {"scale": np.float32(1 / 255), "space": np.array([1, 2, 3]), "weights": weights}
    inputs = [("frames", TensorProto.UINT8, ["N", "T", 16, 16, 3])]
    return _model("clip", nodes, inputs, [("logits", TensorProto.FLOAT, ["N", 3])], tensors)


def _model(name: str, nodes: list, inputs: list, outputs: list, tensors: dict) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*spec) for spec in inputs],
        [helper.make_tensor_value_info(*spec) for spec in outputs],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@dataclass
class FakeReader:
    """A ShardReader's face over frames in memory."""

    index: Index
    frames: NDArray[np.uint8]

    def clip(self, position: int) -> NDArray[np.uint8]:
        return self.frames[position]

    def window(self, position: int, start: int, frames: int) -> NDArray[np.uint8]:
        return self.frames[position, start : start + frames]


def fake_reader(per_split: int = 60, groups: int = 12, seed: int = 0) -> FakeReader:
    """Val and test clips of the three colours."""
    labels = [i % 3 for i in range(2 * per_split)]
    clips = tuple(
        Clip(
            id=f"{LABELS[k]}/{i:04}.mkv",
            label=LABELS[k],
            group=f"camera{i % groups}",
            split="val" if i < per_split else "test",
            sha256=f"{i:064}",
            fps=10,
            frames=SPEC.frames,
            duration_s=0.4,
        )
        for i, k in enumerate(labels)
    )
    index = Index(dataset="d" * 64, kind="video", spec=SPEC, labels=LABELS, flips=None, clips=clips, skipped=())
    return FakeReader(index, color_clips(labels, seed))
