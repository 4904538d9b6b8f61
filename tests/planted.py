"""Sabotage of real bundles and real measurements, sealed again so that only what was done to them can give it away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from framegate.bench.facts import accuracy_facts, latency_facts
from framegate.bench.host import host_digest
from framegate.bench.launch import WORKER
from framegate.bench.measure import measure, measure_again
from framegate.bench.processes import Bench
from framegate.bench.samples import Samples
from framegate.bench.settings import BenchSettings
from framegate.contract import (
    BundleInfo,
    CandidateName,
    CandidateVerdict,
    Measurement,
    Split,
    Verdict,
    digest_of,
    sha256_file,
)
from framegate.gate import GateRules, choose, decide
from framegate.gate.case import Case, Sources, write_case
from framegate.index import ShardReader
from framegate.runtime.session import open_session, run_steps
from framegate.verify import verify

DENSE, PRUNED, INT8 = (f"cnn_gru-{bundle}--ort-cpu" for bundle in ("dense-fp32", "pruned-fp32", "pruned-int8"))
NAMES = (DENSE, PRUNED, INT8)
HEAVY, HEAVIER = 200, 600  # nodes of dead weight, a tiny net has 23: far enough apart to be told apart under load
QUICK = BenchSettings(
    pairs=3, blocks=2, calls_per_block=40, solo_processes=1, solo_calls=40, confirm_pairs=5, accuracy_threads=1
)
RULES = GateRules.parse(
    {
        "reference": DENSE,
        "rules": [{"metric": "accuracy", "drop_max": 60.0}, {"metric": "latency_p50_ms", "ratio_max": 0.9}],
        "restless": 0.99,
    }
)

# --- graphs -----------------------------------------------------------------------------------

Change = Callable[[ModelProto], None]


def before(model: ModelProto, name: str, node: str, constant: Any, **attributes: Any) -> None:
    """Put a node with one constant between an input of the graph and everything that reads it."""
    for reader in model.graph.node:
        reader.input[:] = [f"{name}_planted" if read == name else read for read in reader.input]
    model.graph.initializer.append(numpy_helper.from_array(constant, f"{name}_constant"))
    inputs, outputs = [name, f"{name}_constant"], [f"{name}_planted"]
    model.graph.node.insert(0, helper.make_node(node, inputs, outputs, **attributes))


def bgr(model: ModelProto) -> None:
    """Read the channels in the other order."""
    before(model, "frame", "Gather", np.array([2, 1, 0]), axis=3)


def forgetful(model: ModelProto) -> None:
    """Throw the state away: every frame is the first one."""
    before(model, "state", "Mul", np.float32(0))


def dead_weight(nodes: int) -> Change:
    """Nodes in a row whose result counts nothing; no optimizer sees that."""

    def change(model: ModelProto) -> None:
        (first,) = (node for node in model.graph.node if node.op_type == "Cast")
        (last,) = (node for node in model.graph.node if "logits" in node.output)
        names = [first.output[0], *(f"weight{i}" for i in range(nodes))]
        row = [helper.make_node("Tanh", [names[i]], [names[i + 1]]) for i in range(nodes)]
        last.output[:] = ["light" if name == "logits" else name for name in last.output]
        constants = {"all": np.array([1, 2, 3]), "nothing": np.array(0, np.float32), "last": np.array([1])}
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        row += [
            helper.make_node("ReduceMean", [names[-1], "all"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nothing"], ["nought"]),
            helper.make_node("Unsqueeze", ["nought", "last"], ["column"]),
            helper.make_node("Add", ["light", "column"], ["logits"]),
        ]
        model.graph.node.extend(row)

    return change


def nodes_of(model: ModelProto, kind: str) -> list[NodeProto]:
    """All of one kind; a sabotage that finds none would be none."""
    found = [node for node in model.graph.node if node.op_type == kind]
    assert found, f"the exported graph has no {kind} any more"
    return found


def other_update(model: ModelProto) -> None:
    """The update gate in the convention of other frameworks: it keeps what should go and drops what should stay."""
    (difference,) = (node for node in nodes_of(model, "Sub") if "state" in node.input)
    difference.input[:] = difference.input[::-1]


def other_reset(model: ModelProto) -> None:
    """The reset gate before the matrix product instead of behind it: `linear_before_reset`."""
    (cell,) = nodes_of(model, "GRU")
    (attribute,) = (one for one in cell.attribute if one.name == "linear_before_reset")
    attribute.i = 1 - attribute.i


def not_a_number(model: ModelProto) -> None:
    """One weight of the head."""
    (bias,) = (one for one in model.graph.initializer if one.name == "net.head.bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([0, np.nan], np.float32), bias.name))


# --- bundles ----------------------------------------------------------------------------------


def sealed(bundle: Path, **changed: Any) -> str:
    """bundle.json with other facts, its files and digest made to fit; the digest."""
    info = BundleInfo.read(bundle / "bundle.json")
    files = {name: sha256_file(bundle / name) for name in info.files}
    info = info.model_copy(update={"files": files, **changed}).sealed()
    info.write(bundle / "bundle.json")
    return info.digest


def lineage(bundle: Path, **changed: Any) -> None:
    """Another origin."""
    sealed(bundle, lineage=BundleInfo.read(bundle / "bundle.json").lineage.model_copy(update=changed))


def says_bgr(bundle: Path) -> None:
    """Written by hand: our own code cannot write it."""
    plain = json.loads((bundle / "bundle.json").read_text())
    plain["clip"]["color"] = "BGR"
    plain.pop("digest")
    (bundle / "bundle.json").write_text(json.dumps(plain | {"digest": digest_of(plain)}))


def edited(bundle: Path, change: Change, graph: str = "step", golden: bool = False) -> None:
    """Another graph, sealed. `golden`: golden.npz agrees with it."""
    model = onnx.load(bundle / f"{graph}.onnx")
    change(model)
    onnx.save(model, bundle / f"{graph}.onnx")
    sealed(bundle)
    if golden:
        with np.load(bundle / "golden.npz") as kept:
            arrays = dict(kept)
        arrays["step_logits"] = run_steps(open_session(bundle, replay_golden=False), arrays["frames"])
        arrays["clip_logits"] = arrays["step_logits"][:, -1]
        np.savez(bundle / "golden.npz", **arrays)
        sealed(bundle)


# --- measurements -----------------------------------------------------------------------------


def forged(folder: Path, change: Callable[[Samples], Samples]) -> None:
    """Other samples, and everything in measurement.json that follows from samples made to follow again."""
    found, samples = Measurement.read(folder / "measurement.json"), change(Samples.load(folder / "samples.npz"))
    assert found.latency
    labels = tuple(found.accuracy["val"].recall_per_class)
    latency = latency_facts(samples, found.latency.phases_ms).model_copy(
        update={"warmup_calls": found.latency.warmup_calls, "stable": found.latency.stable}
    )
    samples.save(folder / "samples.npz")
    told(
        folder,
        accuracy={split: accuracy_facts(clips, labels) for split, clips in samples.splits.items()},
        latency=latency,
        samples_sha256=sha256_file(folder / "samples.npz"),
    )


def told(folder: Path, **changed: Any) -> None:
    """measurement.json says something else."""
    found = Measurement.read(folder / "measurement.json")
    found.model_copy(update=changed).write(folder / "measurement.json")


def elsewhere(folder: Path) -> None:
    """As if measured on a machine with more cores."""
    found = Measurement.read(folder / "measurement.json")
    host = {**found.host_class, "cores": 64}
    told(folder, host_class=host, inputs={**found.inputs, "host_class": host_digest(host)})


def answering(split: Split, **arrays: Callable[[np.ndarray], np.ndarray]) -> Callable[[Samples], Samples]:
    """Samples with some arrays of a split changed."""

    def change(samples: Samples) -> Samples:
        clips = samples.splits[split]
        new = replace(clips, **{name: made(getattr(clips, name).copy()) for name, made in arrays.items()})
        return replace(samples, splits={**samples.splits, split: new})

    return change


def put(where: Any, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Assign in place: `put((0, 1), nan)`."""

    def made(array: np.ndarray) -> np.ndarray:
        array[where] = value
        return array

    return made


def cut(path: Path) -> None:
    """Half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# --- the pipeline's own way, in small ---------------------------------------------------------


@dataclass(frozen=True)
class Lab:
    """Copies of the real bundles, and honest measurements of them with few calls.

    The dense net carries dead weight: tiny nets are all as fast as each other, and here what is pruned must be proven
    faster. Every case has the three candidates; a plant takes the place of one.
    """

    root: Path
    reader: ShardReader

    def bundle(self, name: str, to: Path) -> Path:
        """A copy of a candidate's bundle, to be sabotaged."""
        shutil.copytree(self.root / CandidateName.parse(name).bundle, to)
        return to

    def bench(self, name: str, bundle: Path | None = None, command: Sequence[str] = WORKER) -> Bench:
        """As the bench stage makes it."""
        parsed = CandidateName.parse(name)
        parent = self.root / CandidateName.parse(parsed.parent).bundle
        return Bench(parsed, bundle or self.root / parsed.bundle, parent, self.reader, QUICK, command=command)

    @cached_property
    def honest(self) -> dict[str, Path]:
        """Measurements of what was not sabotaged."""
        found = {name: self.root / "measurements" / name for name in NAMES}
        for name, folder in found.items():
            measure(self.bench(name), folder)
        return found

    @cached_property
    def again(self) -> dict[str, Path]:
        """Of those that may be chosen, measured again."""
        found = {name: self.root / "again" / name for name in (PRUNED, INT8)}
        for name, folder in found.items():
            bench = self.bench(name)
            measure_again(replace(bench, settings=QUICK.again()), folder)
        return found

    def measurement(self, name: str, to: Path) -> Path:
        """A copy of a measurement, to be sabotaged."""
        shutil.copytree(self.honest[name], to)
        return to

    def decided(self, planted: dict[str, Path], evidence: Path, rules: GateRules = RULES) -> Verdict:
        """Choose, confirm, gate: the verdict over a case written to `evidence` and read from there."""
        folders = {**self.honest, **planted}
        chosen = choose(Case.read(Sources(folders)), rules)
        again = self.again.get(chosen) if chosen and chosen not in planted else None
        write_case(evidence, Sources(folders, confirmation=again))
        return decide(Case.load(evidence, folders), rules)


def of(verdict: Verdict, name: str) -> CandidateVerdict:
    """One candidate's."""
    (found,) = (one for one in verdict.candidates if one.candidate == name)
    return found


def refused(verdict: Verdict, name: str, *words: str) -> None:
    """Not proven, not shipped, for the reason that was planted; another one ships as if nothing had happened."""
    one = of(verdict, name)
    assert one.status != "PASS", one.reason
    for text in words:
        assert text in one.reason, one.reason
    assert verdict.shipped in {PRUNED, INT8} - {name}, verdict.sentence


# --- exports/ ---------------------------------------------------------------------------------


def judged_again(exports: Path) -> None:
    """The verdict over what the evidence has become: whoever forges it does not forget that."""
    verdict = Verdict.read(exports / "verdict.json")
    case = Case.load(exports / "evidence", verdict.measurements)
    decide(case, GateRules.parse(verdict.gate), verdict.waived).write(exports / "verdict.json")


def problems(exports: Path) -> dict[str, str]:
    """First words of every check that is not ok -> its problems."""
    return {one.name.split(":")[0]: " | ".join(one.problems) for one in verify(exports) if one.status != "ok"}
