"""Never passes: bad candidates planted among the bundles and measurements of a real run, each refused for its reason.

Three ways a plant can go, each with what was not sabotaged as its control: measured and judged (bench, gate), judged
from files (gate), verified from exports/ (verify). Whoever plants seals again what he changed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framegate.bench.host import host_class
from framegate.bench.measure import measure
from framegate.bench.samples import Samples
from framegate.contract import (
    Bundle,
    CandidateName,
    ConfigError,
    DataError,
    Measurement,
    NothingShipped,
    RuntimeUnavailable,
    Skipped,
    sha256_file,
)
from framegate.gate import Case, GateRules, decide
from framegate.index import Index, ShardReader
from framegate.promotion.origin import Origin
from framegate.promotion.serving import check_host
from framegate.promotion.ship import ship
from framegate.runtime.session import open_session
from tests import evidence, planted
from tests.e2e.conftest import Clone
from tests.planted import (
    DENSE,
    HEAVIER,
    HEAVY,
    INT8,
    NAMES,
    PRUNED,
    RULES,
    Lab,
    answering,
    edited,
    forged,
    judged_again,
    lineage,
    of,
    problems,
    put,
    refused,
    sealed,
    told,
)

pytestmark = pytest.mark.slow
Reproduced = tuple[Clone, str]
Sabotage = Callable[[Path], None]
CUDA, TENSORRT = "cnn_gru-pruned-fp32--ort-cuda", "cnn_gru-pruned-fp32--tensorrt"
DENSE_BUNDLE, INT8_BUNDLE = (CandidateName.parse(name).bundle for name in (DENSE, INT8))
ORIGIN, NO_REGISTRY = Origin("2026-01-31T12:00:00+00:00"), Skipped("no registry")


@pytest.fixture(scope="module")
def lab(reproduced: Reproduced, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    clone, root = reproduced[0].path, tmp_path_factory.mktemp("lab")
    for name in NAMES:
        bundle = CandidateName.parse(name).bundle
        shutil.copytree(clone / "exports" / bundle, root / bundle)
    edited(root / DENSE_BUNDLE, planted.dead_weight(HEAVY))
    return Lab(root, ShardReader(clone / "work/index/index.json", clone / "work/index/shards"))


@pytest.fixture
def exports(reproduced: Reproduced, tmp_path: Path) -> Path:
    """A copy of what the run gave, with the project's dvc.lock beside it."""
    shutil.copytree(reproduced[0].path / "exports", tmp_path / "exports")
    shutil.copy(reproduced[0].path / "dvc.lock", tmp_path / "dvc.lock")
    return tmp_path / "exports"


# --- bundles: measured and judged -------------------------------------------------------------


def test_what_was_not_sabotaged_is_measured_passes_and_ships(lab: Lab, tmp_path: Path) -> None:
    verdict = lab.decided({}, tmp_path / "evidence")
    assert [of(verdict, name).status for name in (PRUNED, INT8)] == ["PASS", "PASS"], verdict.candidates
    assert verdict.shipped in (PRUNED, INT8) and verdict.status == "PASS"


def at_20_fps(bundle: Path) -> None:
    sealed(bundle, clip=Bundle.load(bundle).info.clip.model_copy(update={"fps": 20.0}))


def labels_permuted(bundle: Path) -> None:
    sealed(bundle, labels=tuple(reversed(Bundle.load(bundle).info.labels)))


def graph(change: planted.Change, name: str = "step", golden: bool = False) -> Sabotage:
    return lambda bundle: edited(bundle, change, name, golden)


CARRIED = "clip.onnx against step.onnx with its state carried from frame to frame: logits differ"
REPLAYED = "golden clips on ort-cpu: logits differ"
SLOWER = "not faster than its parent"
BUNDLES: dict[str, tuple[str, Sabotage, tuple[str, ...]]] = {
    "int8-slower-than-its-parent": (INT8, graph(planted.dead_weight(HEAVIER)), (SLOWER, "int8 does not pay")),
    "pruned-not-faster": (PRUNED, graph(planted.dead_weight(HEAVIER)), (SLOWER,)),
    "channels-swapped": (PRUNED, graph(planted.bgr), (REPLAYED,)),
    "channels-swapped-golden-agrees": (PRUNED, graph(planted.bgr, golden=True), (CARRIED,)),
    "bundle-says-BGR": (PRUNED, planted.says_bgr, ("clip.color: Input should be 'RGB'",)),
    "update-gate-turned": (PRUNED, graph(planted.other_update), (REPLAYED,)),
    "update-gate-turned-golden-agrees": (PRUNED, graph(planted.other_update, golden=True), (CARRIED,)),
    "update-gate-turned-int8": (INT8, graph(planted.other_update, golden=True), (CARRIED,)),
    "reset-gate-attribute": (PRUNED, graph(planted.other_reset, "clip"), (CARRIED,)),
    "reset-gate-attribute-int8": (INT8, graph(planted.other_reset, "clip"), (CARRIED,)),
    "state-never-carried": (PRUNED, graph(planted.forgetful, golden=True), (CARRIED,)),
    "state-never-carried-int8": (INT8, graph(planted.forgetful, golden=True), (CARRIED,)),
    "labels-permuted": (PRUNED, labels_permuted, ("made for labels ['right', 'left']", "the index has")),
    "frames-at-another-fps": (PRUNED, at_20_fps, ("fps=20.0", "the index has", "fps=10.0")),
    "a-weight-that-is-no-number": (PRUNED, graph(planted.not_a_number, golden=True), ("finite: False",)),
}


@pytest.mark.parametrize("plant", BUNDLES)
def test_a_sabotaged_bundle_is_refused(lab: Lab, tmp_path: Path, plant: str) -> None:
    name, sabotage, words = BUNDLES[plant]
    bundle = lab.bundle(name, tmp_path / "bundle")
    sabotage(bundle)
    measure(lab.bench(name, bundle), tmp_path / "measured")
    refused(lab.decided({name: tmp_path / "measured"}, tmp_path / "evidence"), name, *words)


@pytest.mark.parametrize(("again", "words"), [(False, "golden.npz: sha256 is"), (True, REPLAYED)])
def test_golden_clips_of_another_bundle_are_refused(lab: Lab, tmp_path: Path, again: bool, words: str) -> None:
    """`again`: sealed again after the exchange."""
    bundle = lab.bundle(PRUNED, tmp_path / "bundle")
    shutil.copy(lab.root / DENSE_BUNDLE / "golden.npz", bundle / "golden.npz")
    if again:
        sealed(bundle)
    measure(lab.bench(PRUNED, bundle), tmp_path / "measured")
    refused(lab.decided({PRUNED: tmp_path / "measured"}, tmp_path / "evidence"), PRUNED, words)


def test_the_reference_under_another_name_is_refused(lab: Lab, tmp_path: Path) -> None:
    measure(lab.bench(PRUNED, lab.root / DENSE_BUNDLE), tmp_path / "measured")
    verdict = lab.decided({PRUNED: tmp_path / "measured"}, tmp_path / "evidence")
    refused(verdict, PRUNED, f"it is the reference under another name: its bundle is that of {DENSE}")


def test_zero_test_clips_are_refused(lab: Lab, tmp_path: Path) -> None:
    index = lab.reader.index
    clips = tuple(one.model_copy(update={"split": "val" if one.split == "test" else one.split}) for one in index.clips)
    index.model_copy(update={"clips": clips}).write(tmp_path / "index.json")
    untested = replace(lab, reader=ShardReader(tmp_path / "index.json", lab.reader.store.folder))
    measure(untested.bench(PRUNED), tmp_path / "measured")
    verdict = lab.decided({PRUNED: tmp_path / "measured"}, tmp_path / "evidence")
    refused(verdict, PRUNED, "the test split holds no clip")


# --- runtimes: measured and judged ------------------------------------------------------------

WORKER = "from framegate.bench import worker; worker.main(sys.argv[1:])"
KILLED = "import os, sys; from framegate.bench.latency import Lane; Lane.block = lambda *_: os.kill(os.getpid(), 9); "
BACKWARDS = "import sys, time; now = time.perf_counter_ns; time.perf_counter_ns = lambda: -now(); "
FALLEN_BACK = (  # a CUDA provider without a device: ONNX Runtime takes the CPU and says so in a log at most
    "import os, sys; os.environ['CUDA_VISIBLE_DEVICES'] = ''; "
    "from framegate.runtime import ort; ort.probe = lambda _: 'here'; "
)
UNNOTICED = (  # a runtime that opens what it can
    "import sys; from framegate.bench import worker; opened = worker.open_session; "
    "worker.open_session = lambda bundle, runtime, threads: opened(bundle, 'ort-cpu', threads); "
)
RUNTIMES = {
    "killed-midway": (INT8, KILLED, "the pair process of ort-cpu was killed by SIGKILL"),
    "clock-that-goes-backwards": (PRUNED, BACKWARDS, "clock went backwards or stood still"),
    "provider-that-falls-back": (CUDA, FALLEN_BACK, "asked for CUDAExecutionProvider, ONNX Runtime would run CPU"),
    "session-on-the-cpu": (
        CUDA,
        UNNOTICED,
        "session ran ort-cpu by CPUExecutionProvider on cpu, the candidate is for ort-cuda on gpu",
    ),
}


@pytest.mark.parametrize("plant", RUNTIMES)
def test_a_sabotaged_runtime_is_refused_and_the_others_go_on(lab: Lab, tmp_path: Path, plant: str) -> None:
    name, sabotage, words = RUNTIMES[plant]
    measure(lab.bench(name, command=(sys.executable, "-c", sabotage + WORKER)), tmp_path / "measured")
    refused(lab.decided({name: tmp_path / "measured"}, tmp_path / "evidence"), name, words)


def test_cuda_and_tensorrt_run_there_or_are_skipped_and_never_run_on_the_cpu(lab: Lab, tmp_path: Path) -> None:
    for name in (CUDA, TENSORRT):
        found = measure(lab.bench(name), tmp_path / name)
        on_gpu = found.status == "measured" and found.session["device"] == "gpu"
        assert on_gpu or (found.status == "skipped" and found.reason.startswith("runtime '")), found.reason
        if found.status == "skipped":
            refused(lab.decided({name: tmp_path / name}, tmp_path / "evidence"), name, f"skipped: {found.reason}")
            with pytest.raises(RuntimeUnavailable, match="use --runtime ort-cpu"):
                open_session(lab.bench(name).bundle, name.split("--")[1])


# --- measurements: judged from files ----------------------------------------------------------


def edited_alone(folder: Path) -> None:
    """The samples and the sha256 of their file; facts stay."""
    path = folder / "samples.npz"
    found = Samples.load(path)
    replace(found, solo_ns=found.solo_ns // 2).save(path)
    told(folder, samples_sha256=sha256_file(path))


def cut_and_named(folder: Path) -> None:
    planted.cut(folder / "samples.npz")
    told(folder, samples_sha256=sha256_file(folder / "samples.npz"))


def accuracy_no_number(folder: Path) -> None:
    accuracy = Measurement.read(folder / "measurement.json").accuracy
    told(folder, accuracy={**accuracy, "test": accuracy["test"].model_copy(update={"accuracy": float("nan")})})


def latency_no_number(folder: Path) -> None:
    latency = Measurement.read(folder / "measurement.json").latency
    assert latency
    told(folder, latency=latency.model_copy(update={"ratio_p50_high": float("nan")}))


def samples(change: Callable[[Samples], Samples]) -> Sabotage:
    return lambda folder: forged(folder, change)


def without_test(found: Samples) -> Samples:
    return replace(found, splits={"val": found.splits["val"]})


def backwards(found: Samples) -> Samples:
    return replace(found, candidate_ns=put((0, 0, 0), -5)(found.candidate_ns.copy()))


FOLLOWS = "measurement does not follow from its samples: "
MEASUREMENTS: dict[str, tuple[Sabotage, str]] = {
    "nan-in-one-class": (
        samples(answering("test", logits=put((0, 1), np.nan))),
        "logits are not finite in 1 clips (test)",
    ),
    "nan-in-one-class-of-val": (
        samples(answering("val", logits=put((3, 0), np.inf))),
        "logits are not finite in 1 clips (val)",
    ),
    "nan-as-accuracy": (accuracy_no_number, FOLLOWS + "accuracy.test.accuracy is nan"),
    "nan-as-a-bound": (latency_no_number, FOLLOWS + "latency.ratio_p50_high is nan"),
    "a-sample-edited-and-its-digest": (edited_alone, FOLLOWS + "latency.p50_ms is"),
    "a-clock-that-went-backwards": (samples(backwards), "clock went backwards or stood still: 1 of 240 times"),
    "no-test-clips": (samples(without_test), "test split has no clip"),
    "another-host-class": (planted.elsewhere, "measured on another host class than the reference"),
    "no-measurement": (shutil.rmtree, "measurement.json: no such file"),
    "no-samples": (lambda folder: (folder / "samples.npz").unlink(), "samples.npz: missing"),
    "measurement-cut": (lambda folder: planted.cut(folder / "measurement.json"), "not a Measurement"),
    "samples-cut": (lambda folder: planted.cut(folder / "samples.npz"), "not the samples of measurement.json"),
    "samples-cut-and-named": (cut_and_named, "not readable as samples"),
}


@pytest.mark.parametrize("plant", MEASUREMENTS)
def test_a_sabotaged_measurement_is_refused(lab: Lab, tmp_path: Path, plant: str) -> None:
    sabotage, words = MEASUREMENTS[plant]
    folder = lab.measurement(PRUNED, tmp_path / "measured")
    sabotage(folder)
    refused(lab.decided({PRUNED: folder}, tmp_path / "evidence"), PRUNED, words)


def test_labels_permuted_in_a_measurement_prove_nothing(lab: Lab, tmp_path: Path) -> None:
    """Nothing faster may ship then either: the walk stops at the first that is not proven on test answers."""
    folder = lab.measurement(PRUNED, tmp_path / "measured")
    forged(folder, answering("test", labels=lambda labels: np.roll(labels, 1)))
    verdict = lab.decided({PRUNED: folder}, tmp_path / "evidence")
    assert of(verdict, PRUNED).status != "PASS" and verdict.shipped != PRUNED
    assert "measured on other clips than what it is compared with" in of(verdict, PRUNED).reason


def test_a_measurement_that_was_only_written_again_passes(lab: Lab, tmp_path: Path) -> None:
    """What forges is no sabotage by itself."""
    folder = lab.measurement(PRUNED, tmp_path / "measured")
    forged(folder, lambda found: found)
    assert of(lab.decided({PRUNED: folder}, tmp_path / "evidence"), PRUNED).status == "PASS"


@pytest.mark.parametrize(
    ("name", "session", "words"),
    [
        (CUDA, {"runtime": "ort-cuda", "device": "cpu"}, "session ran ort-cuda by CPUExecutionProvider on cpu"),
        (CUDA, {"runtime": "ort-cuda", "device": "gpu"}, "session ran ort-cuda by CPUExecutionProvider on gpu"),
        (TENSORRT, {"runtime": "ort-tensorrt", "device": "gpu"}, "the candidate is for tensorrt on gpu"),
    ],
)
def test_a_session_that_ran_elsewhere_is_refused(
    lab: Lab, tmp_path: Path, name: str, session: dict[str, str], words: str
) -> None:
    folder = lab.measurement(PRUNED, tmp_path / "measured")
    told(folder, candidate=name, session={**Measurement.read(folder / "measurement.json").session, **session})
    refused(lab.decided({name: folder}, tmp_path / "evidence"), name, words)


def test_an_engine_from_another_host_is_refused_by_gate_and_server(lab: Lab, exports: Path, tmp_path: Path) -> None:
    folder = lab.measurement(PRUNED, tmp_path / "measured")
    told(folder, candidate=TENSORRT, session={"runtime": "tensorrt", "provider": "TensorRT", "device": "gpu"})
    planted.elsewhere(folder)
    verdict = lab.decided({TENSORRT: folder}, tmp_path / "evidence")
    refused(verdict, TENSORRT, "measured on another host class than the reference")
    here = host_class()
    assert check_host(exports / "shipped", here, None)[0].candidate
    with pytest.raises(RuntimeUnavailable, match="shipped for cores"):
        check_host(exports / "shipped", {**here, "cores": 640}, None)


# --- too little to decide ---------------------------------------------------------------------


def with_rule(**rule: object) -> GateRules:
    plain = RULES.model_dump(mode="json", exclude_none=True)
    return GateRules.parse({**plain, "rules": [*plain["rules"], rule]})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"metric": "latency_p99_ms", "ratio_max": 0.9}, "is not proven: unknown: too few samples (n = 240)"),
        ({"metric": "latency_p99_ms", "max": 1000}, "measured alone in 1 processes, 10 would do"),
        ({"metric": "latency_p50_ms", "max": 1000}, "measured alone in 1 processes, 10 would do"),
    ],
)
def test_too_few_samples_prove_nothing(lab: Lab, tmp_path: Path, rule: dict, words: str) -> None:
    verdict = lab.decided({}, tmp_path / "evidence", with_rule(**rule))
    for name in (PRUNED, INT8):
        assert of(verdict, name).status == "INCONCLUSIVE" and words in of(verdict, name).reason
    assert verdict.shipped is None


def test_a_trace_below_the_minimum_has_no_percentile(lab: Lab, tmp_path: Path) -> None:
    folder = lab.measurement(PRUNED, tmp_path / "measured")
    forged(folder, lambda found: replace(found, solo_ns=found.solo_ns[:, :10]))
    verdict = lab.decided({PRUNED: folder}, tmp_path / "evidence", with_rule(metric="latency_p50_ms", max=1000))
    assert Measurement.read(folder / "measurement.json").latency.p50_ms is None  # type: ignore[union-attr]
    assert of(verdict, PRUNED).status == "INCONCLUSIVE" and "too few samples (n = 10)" in of(verdict, PRUNED).reason


def test_few_groups_decide_nothing_and_one_clip_a_group_does(lab: Lab, tmp_path: Path) -> None:
    def grouped(groups: int) -> Callable[[Samples], Samples]:
        return answering("test", groups=lambda old: np.array([f"camera{i % groups}" for i in range(len(old))]))

    folders = {name: lab.measurement(name, tmp_path / name) for name in NAMES}
    for groups, status in ((16, "PASS"), (9, "INCONCLUSIVE")):
        for folder in folders.values():
            forged(folder, grouped(groups))
        one = of(lab.decided(folders, tmp_path / "evidence"), PRUNED)
        accuracy = next(found for found in one.outcomes if found.metric == "accuracy")
        assert accuracy.status == status, accuracy.reason
    assert "undecidable: 9 groups, 10 would do" in one.reason


@pytest.mark.parametrize(("lost", "status"), [(0, "PASS"), (52, "FAIL")])
def test_an_accuracy_two_points_lower_fails(lost: int, status: str) -> None:
    """On 2600 clips made to order: the 16 of the real run decide no margin below 19 points."""
    rules = RULES.model_copy(update={"rules": evidence.RULES.rules})
    verdict = evidence.decided([evidence.make(DENSE), evidence.make(PRUNED, 0.2, lost=lost)], rules)
    assert of(verdict, PRUNED).status == status and verdict.shipped == (DENSE if lost else PRUNED)
    assert not lost or "accuracy drop ≤ 1 points fails: 2 points" in of(verdict, PRUNED).reason


# --- what is asked ----------------------------------------------------------------------------


def test_a_rule_on_an_unknown_metric_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="unknown metric 'latency_p95_ms'; did you mean 'latency_p9"):
        with_rule(metric="latency_p95_ms", max=10)


def test_an_empty_list_of_candidates_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no candidate is declared"):
        decide(Case(()), RULES)


# --- a broken reference -----------------------------------------------------------------------


def always_the_same(found: Samples) -> Samples:
    """The most frequent label, timed or not."""
    constant = put((slice(None), slice(None)), [1.0, 0.0])
    changed = answering("test", logits=constant)(found)
    return replace(changed, audit_logits=constant(found.audit_logits.copy()))


REFERENCES: dict[str, tuple[Sabotage, str]] = {
    "missing": (shutil.rmtree, "the reference has no measurement (failed: "),
    "not-above-chance": (samples(always_the_same), "reference not above chance"),
    "nan": (samples(answering("test", logits=put((0, 0), np.nan))), "the reference's logits are not finite"),
    "edited": (edited_alone, "the reference's " + FOLLOWS),
    "on-another-host": (planted.elsewhere, "measured on another host class than the reference"),
}


@pytest.mark.parametrize("plant", REFERENCES)
def test_with_a_broken_reference_nothing_ships(lab: Lab, exports: Path, tmp_path: Path, plant: str) -> None:
    sabotage, words = REFERENCES[plant]
    folder = lab.measurement(DENSE, tmp_path / "measured")
    sabotage(folder)
    verdict = lab.decided({DENSE: folder}, tmp_path / "evidence")
    assert verdict.shipped is None and verdict.sentence.startswith("Nothing ships")
    for name in (PRUNED, INT8):
        assert of(verdict, name).status == "INCONCLUSIVE" and words in of(verdict, name).reason
    assert ship(exports, ORIGIN, NO_REGISTRY).promotion.number == 1
    before = sha256_file(exports / "shipped" / "promotion.json")
    verdict.write(exports / "verdict.json")
    with pytest.raises(NothingShipped, match="What shipped before stays"):
        ship(exports, ORIGIN, NO_REGISTRY)
    assert sha256_file(exports / "shipped" / "promotion.json") == before


# --- exports/: verified -----------------------------------------------------------------------


def test_what_the_run_gave_is_verified(exports: Path) -> None:
    assert problems(exports) == {}


def one_sample(exports: Path) -> None:
    forged(exports / "evidence" / PRUNED, lambda found: replace(found, solo_ns=found.solo_ns - 1))
    judged_again(exports)


def all_labels(exports: Path) -> None:
    for name in NAMES:
        forged(exports / "evidence" / name, answering("test", labels=lambda labels: 1 - labels))
    judged_again(exports)


def of_another_host(exports: Path) -> None:
    planted.elsewhere(exports / "evidence" / PRUNED)
    judged_again(exports)


def clock(exports: Path) -> None:
    forged(exports / "evidence" / PRUNED, backwards)
    judged_again(exports)


def gone(exports: Path) -> None:
    shutil.rmtree(exports / "evidence" / PRUNED)


def half(exports: Path) -> None:
    planted.cut(exports / "evidence" / PRUNED / "samples.npz")


def calibrated_on_test(exports: Path) -> None:
    index = Index.read(exports / "evidence" / "index.json")
    lineage(exports / INT8_BUNDLE, calibration=tuple(index.clips[i].id for i in index.split("test")[:8]))


def golden_of_test(exports: Path) -> None:
    index = Index.read(exports / "evidence" / "index.json")
    lineage(exports / DENSE_BUNDLE, golden=(index.clips[index.split("test")[0]].id,))


def of_another_fp32(exports: Path) -> None:
    lineage(exports / INT8_BUNDLE, parent=Bundle.load(exports / DENSE_BUNDLE).info.digest)


def golden_exchanged(exports: Path) -> None:
    shutil.copy(exports / DENSE_BUNDLE / "golden.npz", exports / INT8_BUNDLE / "golden.npz")


def golden_exchanged_and_sealed(exports: Path) -> None:
    golden_exchanged(exports)
    sealed(exports / INT8_BUNDLE)


EXPORTS: dict[str, tuple[Sabotage, str, str]] = {
    "a-sample-edited-and-all-digests": (one_sample, "dvc.lock", "dvc.lock has"),
    "labels-permuted-in-all-samples": (all_labels, "clips", "16 labels are not those of the index"),
    "labels-permuted-in-a-bundle": (
        lambda exports: labels_permuted(exports / INT8_BUNDLE), "bundles", "made for other labels or another clip"
    ),
    "frames-at-another-fps": (
        lambda exports: at_20_fps(exports / INT8_BUNDLE), "bundles", "made for other labels or another clip"
    ),
    "measured-on-another-host": (of_another_host, "measurements", f"{PRUNED}: measured on host class"),
    "a-clock-that-went-backwards": (clock, "measurements", "1 times of nothing or less"),
    "no-measurement": (gone, "measurements", f"{PRUNED}: "),
    "half-a-measurement": (half, "measurements", "samples.npz: sha256 is"),
    "calibrated-on-test-clips": (calibrated_on_test, "calibration", f"{INT8_BUNDLE}: calibrated on 8 clips of test"),
    "golden-clips-of-the-test-split": (golden_of_test, "calibration", "golden clips are 1 clips of test"),
    "int8-of-another-fp32": (of_another_fp32, "bundles", f"{INT8_BUNDLE}: made from bundle"),
    "golden-of-another-bundle": (golden_exchanged, "bundles", "golden.npz: sha256 is"),
    "golden-of-another-bundle-sealed": (golden_exchanged_and_sealed, "bundles", f"{INT8}: measured with bundle"),
}  # fmt: skip


@pytest.mark.parametrize("plant", EXPORTS)
def test_sabotaged_exports_are_not_verified(exports: Path, plant: str) -> None:
    sabotage, check, words = EXPORTS[plant]
    sabotage(exports)
    found = problems(exports)
    assert words in found.get(check, ""), found


# --- made: compressed and exported ------------------------------------------------------------


def test_a_pass_that_changes_nothing_is_an_error(reproduced: Reproduced) -> None:
    from framegate.compress import CompressContext, apply
    from framegate.compress.prune import Prune
    from framegate.models.store import load_net

    net, card = load_net(reproduced[0].path / "work/cnn_gru/dense")
    context = CompressContext(net, None, lambda _: 0.5, card.clip)  # type: ignore[arg-type]
    smaller, (report,) = apply(net, [Prune(0.5)], context)
    assert smaller is not net and report.parameters_after < report.parameters_before
    with pytest.raises(ConfigError, match="pass 'prune 50 %' changed nothing"):
        apply(net, [Prune(0.5, round_to=1024)], context)


def test_int8_of_another_fp32_or_calibrated_on_test_clips_is_not_exported(
    reproduced: Reproduced, lab: Lab, tmp_path: Path
) -> None:
    from framegate.export import ExportClips, ExportSettings, Source, export_bundle
    from framegate.models.store import load_net
    from pipelines._index import splits, windows

    def clips(split: str) -> ExportClips:
        taken = windows(lab.reader, "train", 8), windows(lab.reader, "val", 4), windows(lab.reader, "val", 8)
        return ExportClips(*taken, splits(lab.reader, split, 8))  # type: ignore[arg-type]

    exports, settings = reproduced[0].path / "exports", ExportSettings(min_agreement=0.5)
    pruned, dense = (Bundle.load(exports / name) for name in ("cnn_gru-pruned-fp32", DENSE_BUNDLE))
    net, card = load_net(reproduced[0].path / "work/cnn_gru/pruned")
    source = Source(net, card, pruned.info.lineage)
    made = export_bundle(source, "int8", clips("train"), tmp_path / "int8", settings, pruned)
    assert made.info.lineage.parent == pruned.info.digest
    with pytest.raises(ConfigError, match="needs the fp32 bundle of the same net, got cnn_gru-dense-fp32"):
        export_bundle(source, "int8", clips("train"), tmp_path / "other", settings, dense)
    with pytest.raises(DataError, match="not of the training split"):
        clips("test")
    assert not (tmp_path / "other").exists()
