"""A Bundle as a model repository of Triton Inference Server, checked against its graphs.

Layout::

    <name>/          config.pbtxt, labels.txt, 1/model.onnx   one frame a request; Triton keeps each sequence's state
    <name>_clip/     config.pbtxt, labels.txt, 1/model.onnx   a whole clip a request, without state
    framegate.json   what was written here, by sha256: only such a folder is replaced

Triton itself does not compare the dimensions of an implicit state with the graph, so it is done here. Runs no Triton.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from framegate.contract import (
    Bundle,
    BundleError,
    BundleInfo,
    ConfigError,
    DataError,
    GraphSpec,
    Record,
    TensorSpec,
    atomic_folder,
    sha256_file,
    write_text,
)
from framegate.runtime.raw import Declared, open_raw

Kind = Literal["cpu", "gpu"]
MARK, LABELS, CONFIG, GRAPH = "framegate.json", "labels.txt", "config.pbtxt", "1/model.onnx"
MAX_BATCH = 16
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
SEQUENCES = """sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 64 max_queue_delay_microseconds: 1000 }
  state [ {
    input_name: "state" output_name: "next_state" data_type: TYPE_FP32 dims: %(dims)s
    initial_state { name: "zeros" data_type: TYPE_FP32 dims: %(dims)s zero_data: true }
  } ]
}
"""


class Mark(Record):
    """framegate.json: which bundle a repository was written from, and every file in it."""

    format: Literal[1] = 1
    bundle: str  # digest
    files: dict[str, str]  # path in the repository -> sha256


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph of a bundle: what its file must take and give, and what bundle.json says of it."""

    file: str
    needed: GraphSpec  # the first axis is the batch
    told: GraphSpec


def write_repository(bundle: Bundle, out: Path, name: str, kind: Kind, threads: int) -> None:
    """Write the step graph as model `name`, the clip graph as `name`_clip; replaces only what this wrote before.

    ConfigError for a name that Triton cannot have, DataError for a folder that holds anything else, BundleError for a
    graph, bundle.json or label that such a repository cannot have; nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(f"model name {name!r}: use letters, digits, '_' and '-'; it is a folder and part of URLs")
    out, step, clip = out.resolve(), step_graph(bundle.info), clip_graph(bundle.info)
    _check_ours(out)
    problems = [*_misfits(bundle, step), *_misfits(bundle, clip), *_unprintable(bundle.info.labels)]
    if problems:
        raise BundleError(f"{bundle.path}: no repository fits it: {'; '.join(problems)}; export the bundle again")
    state, runs = _dims(step.needed.inputs[1]), _runs(kind, threads)
    with atomic_folder(out) as folder:
        _write_model(bundle, step, folder / name, SEQUENCES % {"dims": state} + runs)
        _write_model(bundle, clip, folder / f"{name}_clip", "dynamic_batching { }\n" + runs)
        files = {one.relative_to(folder).as_posix(): sha256_file(one) for one in sorted(_files(folder))}
        Mark(bundle=bundle.info.digest, files=files).write(folder / MARK)


def step_graph(info: BundleInfo) -> Graph:
    """step.onnx as the clip spec, the labels and the state size need it."""
    frame = TensorSpec(name="frame", dtype="uint8", shape=("N", info.clip.height, info.clip.width, 3))
    state, after = (
        TensorSpec(name=name, dtype="float32", shape=("N", info.state_size)) for name in ("state", "next_state")
    )
    return Graph("step.onnx", GraphSpec(inputs=(frame, state), outputs=(_logits(info), after)), info.step)


def clip_graph(info: BundleInfo) -> Graph:
    """clip.onnx as the clip spec and the labels need it."""
    frames = TensorSpec(name="frames", dtype="uint8", shape=("N", "T", info.clip.height, info.clip.width, 3))
    return Graph("clip.onnx", GraphSpec(inputs=(frames,), outputs=(_logits(info),)), info.clip_graph)


def _logits(info: BundleInfo) -> TensorSpec:
    return TensorSpec(name="logits", dtype="float32", shape=("N", len(info.labels)))


def _runs(kind: Kind, threads: int) -> str:
    """Where the graph runs, on as many threads as it was judged with."""
    group = f"instance_group [ {{ count: 1 kind: KIND_{kind.upper()} }} ]\n"
    return group + f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}\n'


def _misfits(bundle: Bundle, graph: Graph) -> Iterator[str]:
    """Every way in which the file itself, or bundle.json, differs from what is needed."""
    file = open_raw(bundle.path / graph.file, "ort-cpu", 1, {})
    for where, inputs, outputs in (
        (graph.file, file.inputs, file.outputs),
        (f"bundle.json of {graph.file}", graph.told.inputs, graph.told.outputs),
    ):
        yield from _unlike(f"{where}: input", graph.needed.inputs, inputs)
        names = {one.name for one in graph.needed.outputs}  # a graph may give more: an embedding
        yield from _unlike(f"{where}: output", graph.needed.outputs, [one for one in outputs if one.name in names])


def _unlike(where: str, needed: Sequence[TensorSpec], got: Sequence[TensorSpec | Declared]) -> Iterator[str]:
    expected, found = {one.name: one for one in needed}, {one.name: one for one in got}
    yield from (f"{where} {name!r} is missing" for name in sorted(expected.keys() - found.keys()))
    yield from (f"{where} {name!r} is one too many" for name in sorted(found.keys() - expected.keys()))
    for name in sorted(expected.keys() & found.keys()):
        if _axes(expected[name]) != _axes(found[name]) or expected[name].dtype != found[name].dtype:
            yield f"{where} {name!r} is {_words(found[name])}, expected {_words(expected[name])}"


def _axes(tensor: TensorSpec | Declared) -> list[int]:
    """The shape as Triton writes it: -1 for a dynamic axis."""
    return [axis if isinstance(axis, int) else -1 for axis in tensor.shape]


def _words(tensor: TensorSpec | Declared) -> str:
    return f"{tensor.dtype} {_axes(tensor)}"


def _dims(tensor: TensorSpec) -> str:
    """All axes but the batch."""
    return str(_axes(tensor)[1:])


def _unprintable(labels: Sequence[str]) -> Iterator[str]:
    yield from (f"label {one!r} is not one line of text" for one in labels if [one] != one.splitlines())


def _write_model(bundle: Bundle, graph: Graph, folder: Path, more: str) -> None:
    """One model's folder; BundleError when the graph was changed since the bundle was read."""
    (frame, *_), (logits, *_) = graph.needed.inputs, graph.needed.outputs
    write_text(
        folder / CONFIG,
        f"# Written by `framegate triton-repo` for bundle {bundle.info.digest}, checked against {GRAPH}.\n"
        f'name: "{folder.name}"\nbackend: "onnxruntime"\nmax_batch_size: {MAX_BATCH}\n'
        f'input [ {{ name: "{frame.name}" data_type: {TYPES[frame.dtype]} dims: {_dims(frame)} }} ]\n'
        f'output [ {{ name: "{logits.name}" data_type: {TYPES[logits.dtype]} dims: {_dims(logits)} '
        f'label_filename: "{LABELS}" }} ]\n{more}',
    )
    write_text(folder / LABELS, "".join(f"{label}\n" for label in bundle.info.labels))
    (folder / GRAPH).parent.mkdir()
    shutil.copyfile(bundle.path / graph.file, folder / GRAPH)
    if sha256_file(folder / GRAPH) != bundle.info.files.get(graph.file):
        raise BundleError(f"{bundle.path / graph.file}: changed while it was copied; run this again")


def _check_ours(out: Path) -> None:
    """DataError unless `out` is not there, is empty, or holds exactly what this wrote."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARK).is_file():
        raise DataError(f"{out}: holds other things than a repository written by this command; name another folder")
    known = Mark.read(out / MARK).files
    for file in sorted(_files(out) - {out / MARK}):
        path = file.relative_to(out).as_posix()
        if path not in known or sha256_file(file) != known[path]:
            told = "was changed" if path in known else "is not of this command"
            raise DataError(f"{file}: {told}, and would be lost; move it away, or name another folder")


def _files(folder: Path) -> set[Path]:
    return {one for one in folder.rglob("*") if not one.is_dir()}
