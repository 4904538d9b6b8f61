"""VideoNet -> Bundle: two graphs that provably compute what the net computes, or no bundle at all.

Here: parity, golden clips, metadata, the folder. Not here: tracing (`graph`), int8 (`quantize`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from framegate.contract import (
    Bundle,
    BundleInfo,
    ConfigError,
    DataError,
    Lineage,
    Parity,
    ParityError,
    Precision,
    Split,
    atomic_folder,
    sha256_file,
)
from framegate.folder import some
from framegate.graph import exportable, graph_spec, trace_clip, trace_step
from framegate.models.store import NetCard, count_macs, count_parameters
from framegate.models.video import VideoNet, run_clip
from framegate.quantize import quantize_graphs
from framegate.runtime.session import INT8_CLIP_STEP, open_session

log = logging.getLogger(__name__)

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

CHUNK = 16  # clips that run at once


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported: a net, its card, and the digests of all that made it."""

    net: VideoNet
    card: NetCard
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class ExportClips:
    """Real clips, u8 [n,T,H,W,3]; DataError for a calibration clip of another split than the training's."""

    calibration: Frames  # of the training split only
    golden: Frames  # a few: they travel in the bundle
    parity: Frames
    calibration_splits: Mapping[str, Split] = field(default_factory=dict)  # id -> split, in order

    def __post_init__(self) -> None:
        if leaked := [name for name, split in self.calibration_splits.items() if split != "train"]:
            raise DataError(f"calibration on {some(leaked)}: not of the training split; take clips that are")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """The `export` section. `calibration_clips` and `parity_clips` say how many clips the caller hands over."""

    opset: int = 20
    tolerance: float = 1e-4
    min_agreement: float = 0.98
    embedding: bool = False
    calibration_clips: int = 64
    parity_clips: int = 32


@dataclass(frozen=True, slots=True)
class Graphs:
    """The two graphs of a bundle."""

    step: ModelProto
    clip: ModelProto

    def steps(self, frames: Frames) -> Floats:
        """Logits f32 [n,T,K] after every frame, in ONNX Runtime, from the step graph."""
        return run_step_graph(self.step, frames)

    def ends(self, frames: Frames) -> Floats:
        """Logits f32 [n,K] after the last frame, in ONNX Runtime, from the clip graph."""
        return run_clip_graph(self.clip, frames)


def export_bundle(
    source: Source,
    precision: Precision,
    clips: ExportClips,
    out: Path,
    settings: ExportSettings,
    fp32: Bundle | None = None,
) -> Bundle:
    """Write the bundle of `source` in one precision to the folder `out`, replacing what is there.

    int8 is made from the `fp32` bundle of the same net. Raises ParityError when the graphs differ from the net, from
    each other or from fp32 by more than the settings allow, ConfigError for a precision that cannot be exported.
    Then nothing is written.
    """
    match precision:
        case "fp32":
            graphs, info = _fp32(source, clips, settings)
        case "int8":
            graphs, info = _int8(source, clips, settings, fp32)
        case _:
            raise ConfigError(f"precision {precision!r}: not built yet; this version exports fp32 and int8")
    bundle = _write(out, graphs, info, clips.golden)
    log.info("%s: %.0f KiB, %s", info.name, bundle.size_bytes / 1024, describe(info.parity))
    return bundle


def describe(parity: Parity) -> str:
    """One line: the errors found."""
    found = [f"clip against step {parity.clip_step_max_abs:.1e}"]
    if parity.torch_onnx_max_abs is not None:
        found.append(f"torch against ONNX {parity.torch_onnx_max_abs:.1e}")
    if parity.top1_agreement is not None:
        found.append(f"same top label as fp32 {100 * parity.top1_agreement:.1f} %")
    return f"{', '.join(found)} on {parity.clips} clips"


def _fp32(source: Source, clips: ExportClips, settings: ExportSettings) -> tuple[Graphs, BundleInfo]:
    net, card = source.net, source.card
    graphs = Graphs(
        trace_step(net, card.clip, settings.opset, settings.embedding), trace_clip(net, card.clip, settings.opset)
    )
    info = BundleInfo(
        name=f"{card.model}-{card.variant}-fp32",
        model=card.model,
        variant=card.variant,
        precision="fp32",
        labels=card.labels,
        clip=card.clip,
        state_size=net.state_size,
        step=graph_spec(graphs.step),
        clip_graph=graph_spec(graphs.clip),
        parameters=count_parameters(net),
        macs_per_frame=count_macs(net, card.clip),
        lineage=source.lineage,
        parity=fp32_parity(net, graphs, clips.parity, settings.tolerance),
        files={},
    )
    return graphs, info


def _int8(
    source: Source, clips: ExportClips, settings: ExportSettings, fp32: Bundle | None
) -> tuple[Graphs, BundleInfo]:
    if fp32 is None or fp32.info.precision != "fp32" or fp32.info.lineage != source.lineage:
        got = "none" if fp32 is None else f"{fp32.info.name} in {fp32.path}"
        raise ConfigError(f"precision 'int8': needs the fp32 bundle of the same net, got {got}; export fp32 first")
    exact = Graphs(onnx.load(fp32.path / "step.onnx"), onnx.load(fp32.path / "clip.onnx"))
    graphs = Graphs(*quantize_graphs(exact.step, exact.clip, clips.calibration))
    made_from = {"parent": fp32.info.digest, "calibration": tuple(clips.calibration_splits)}
    info = fp32.info.model_copy(
        update={
            "name": f"{fp32.info.model}-{fp32.info.variant}-int8",
            "precision": "int8",
            "lineage": fp32.info.lineage.model_copy(update=made_from),
            "parity": int8_parity(exact, graphs, clips, settings.min_agreement),
        }
    )
    return graphs, info


# --- parity -----------------------------------------------------------------------------------


def fp32_parity(net: VideoNet, graphs: Graphs, frames: Frames, tolerance: float) -> Parity:
    """Largest logit differences on these clips: torch against ONNX (every step, and the clip), clip against step."""
    expected, steps, ends = run_torch(net, frames), graphs.steps(frames), graphs.ends(frames)
    parity = Parity(
        torch_onnx_max_abs=max(largest(steps - expected), largest(ends - expected[:, -1])),
        clip_step_max_abs=largest(ends - steps[:, -1]),
        tolerance=tolerance,
        clips=len(frames),
    )
    check_within("torch against ONNX Runtime", parity.torch_onnx_max_abs or 0.0, tolerance)
    check_within("clip graph against iterated step graph", parity.clip_step_max_abs, tolerance)
    return parity


def int8_parity(exact: Graphs, graphs: Graphs, clips: ExportClips, min_agreement: float) -> Parity:
    """Share of calibration clips with the same top label as fp32; clip against step on the parity clips."""
    same = graphs.ends(clips.calibration).argmax(1) == exact.ends(clips.calibration).argmax(1)
    parity = Parity(
        clip_step_max_abs=largest(graphs.ends(clips.parity) - graphs.steps(clips.parity)[:, -1]),
        top1_agreement=float(same.mean()),
        tolerance=min_agreement,
        clips=len(clips.calibration),
    )
    if not same.mean() >= min_agreement:
        raise ParityError(
            f"int8: the top label equals that of fp32 in {100 * same.mean():.1f} % of {len(same)} calibration clips, "
            f"at least {100 * min_agreement:g} % is wanted; give more export.calibration_clips or leave int8 out"
        )
    check_within("int8 clip graph against iterated step graph", parity.clip_step_max_abs, INT8_CLIP_STEP)
    return parity


def check_within(what: str, got: float, tolerance: float) -> None:
    """ParityError unless the difference (NaN never is) lies within the tolerance."""
    if not got <= tolerance:
        raise ParityError(f"{what}: logits differ by {got:.2g}, at most {tolerance:g} is allowed; nothing is written")


def largest(difference: Floats) -> float:
    """Largest absolute value; NaN when there is one."""
    return float(np.abs(difference).max())


def run_torch(net: VideoNet, frames: Frames) -> Floats:
    """Logits f32 [n,T,K] of the net itself, on the CPU."""
    copy = exportable(net)
    with torch.no_grad():
        parts = [run_clip(copy, torch.from_numpy(chunk))[0].numpy() for chunk in chunks(frames)]
    return np.concatenate(parts)


def run_step_graph(model: ModelProto, frames: Frames) -> Floats:
    """Logits f32 [n,T,K] in ONNX Runtime: the step graph, its state fed back, from zeros."""
    session = open_graph(model)
    size = session.get_inputs()[1].shape[1]
    parts = []
    for chunk in chunks(frames):
        state, steps = np.zeros((len(chunk), size), np.float32), []
        for t in range(chunk.shape[1]):
            feed = {"frame": np.ascontiguousarray(chunk[:, t]), "state": state}
            logits, state = session.run(["logits", "next_state"], feed)
            steps.append(logits)
        parts.append(np.stack(steps, 1))
    return np.concatenate(parts)


def run_clip_graph(model: ModelProto, frames: Frames) -> Floats:
    """Logits f32 [n,K] in ONNX Runtime: the clip graph."""
    session = open_graph(model)
    return np.concatenate([session.run(["logits"], {"frames": chunk})[0] for chunk in chunks(frames)])


def chunks(frames: Frames) -> list[Frames]:
    """A few clips at a time: memory stays bounded."""
    return [np.ascontiguousarray(frames[start : start + CHUNK]) for start in range(0, len(frames), CHUNK)]


def open_graph(model: ModelProto) -> Any:
    """An ONNX Runtime session on one CPU thread, as it is served."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


# --- files ------------------------------------------------------------------------------------


def _write(out: Path, graphs: Graphs, info: BundleInfo, golden: Frames) -> Bundle:
    """The folder, swapped in whole after a session of the serving side has opened and replayed it."""
    with atomic_folder(out) as folder:
        for name, model in (("step", graphs.step), ("clip", graphs.clip)):
            (folder / f"{name}.onnx").write_bytes(serialize(model, facts(info) | {"graph": name}))
        np.savez_compressed(
            folder / "golden.npz",
            frames=golden,
            clip_logits=graphs.ends(golden),
            step_logits=graphs.steps(golden),
        )
        files = {name: sha256_file(folder / name) for name in ("step.onnx", "clip.onnx", "golden.npz")}
        info = info.model_copy(update={"files": files}).sealed()
        info.write(folder / "bundle.json")
        open_session(folder).close()
    return Bundle(out, info)


def facts(info: BundleInfo) -> dict[str, str]:
    """What a lone .onnx says of itself: bundle.json without what is known only after the file is written."""
    body = info.model_dump(mode="json", exclude={"step", "clip_graph", "parity", "files", "digest"})
    body["lineage"] = {key: body["lineage"][key] for key in ("dataset", "config", "weights", "parent")}
    return {key: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for key, text in body.items()}


def serialize(model: ModelProto, metadata: Mapping[str, str]) -> bytes:
    """One byte string for one graph, with `framegate.*` metadata in it."""
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.producer_name, copy.producer_version = "framegate", ""
    onnx.helper.set_model_props(copy, {f"framegate.{key}": value for key, value in sorted(metadata.items())})
    return bytes(copy.SerializeToString(deterministic=True))
