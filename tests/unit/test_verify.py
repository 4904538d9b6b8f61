"""`framegate verify`: the real thing is accepted, every sabotage is refused for its own reason, nothing is believed.

Most forgers here seal again what they changed, all the way up: dvc.lock, evidence, verdict, promotion.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from framegate.bench.samples import Samples, SplitSamples
from framegate.cli import main
from framegate.contract import ConfigError, Measurement, Skipped, Split, Verdict, Waiver, sha256_file, write_json
from framegate.dvclock import Lock, md5_of
from framegate.gate import GateRules, decide
from framegate.gate.case import Case, Sources, write_case
from framegate.gate.evidence import Agreed, Agreement
from framegate.index import Index, dataset_digest
from framegate.promotion import Promotion
from framegate.promotion.origin import Origin
from framegate.promotion.ship import challenge, rollback, ship
from framegate.signature import load_private, sign
from framegate.verify import Check, files, verify
from framegate.verify.check import differences
from tests import judged
from tests.judged import DENSE, INT8, PRUNED, Project
from tests.scenarios import CAMERAS, arrays_of


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return judged.make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    shutil.copytree(original.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


def failed(found: Sequence[Check]) -> dict[str, str]:
    """First words of every check that is not ok -> its problems."""
    return {one.name.split(":")[0]: " | ".join(one.problems) for one in found if one.status != "ok"}


def only(project: Project, *names: str) -> str:
    """The problems, after making sure that exactly these checks fail."""
    found = failed(verify(project.exports))
    assert set(found) == set(names), found
    return " | ".join(found.values())


def resealed(project: Project, lock: bool = True, rules: GateRules = judged.RULES) -> None:
    """Everything that follows from samples and bundles, computed again: what a forger with time would do."""
    index = Index.read(project.root / "work" / "index" / "index.json")
    folders = {name: project.measured(name) for name in judged.MS} | {
        INT8 + " again": project.root / "work" / "confirmation"
    }
    for name, folder in folders.items():
        samples = Samples.load(folder / "samples.npz")
        judged.write_measurement(folder, name.removesuffix(" again"), samples, index, project.exports)
    if lock:
        judged.write_lock(project)
    judged.judge(project, rules=rules)


def sealed(project: Project, name: str, change: Callable[[Samples], Samples]) -> None:
    """Other samples, and all that follows from them."""
    path = project.measured(name) / "samples.npz"
    change(Samples.load(path)).save(path)
    resealed(project)


def with_test(samples: Samples, **arrays: np.ndarray) -> Samples:
    return replace(samples, splits=samples.splits | {"test": replace(samples.splits["test"], **arrays)})


# --- the real thing ---------------------------------------------------------------------------


def test_what_the_pipeline_leaves_is_verified_and_left_alone(project: Project) -> None:
    before = md5_of(project.root)
    found = verify(project.exports)
    assert failed(found) == {} and len(found) == 20
    assert md5_of(project.root) == before


def test_numbers_of_another_processor_may_differ_in_the_last_digits_and_no_more() -> None:
    assert not list(differences({"p50_ms": 0.1 + 0.2}, {"p50_ms": 0.3}))
    assert list(differences({"p50_ms": 0.3000001}, {"p50_ms": 0.3}))
    assert list(differences({"status": True}, {"status": 1.5})) and list(differences({"x": float("nan")}, {"x": 1.0}))


def test_a_folder_without_its_evidence_is_not_checked_rather_than_verified(project: Project) -> None:
    shutil.rmtree(project.evidence)
    statuses = {one.name.split(":")[0]: one.status for one in verify(project.exports)}
    assert statuses["decision"] == statuses["clips"] == statuses["dvc.lock"] == "not checked"
    assert "FAILED" not in statuses.values()


def test_a_verdict_that_ships_nothing_is_verified_where_nothing_ever_shipped(project: Project) -> None:
    judged.judge(project, [DENSE, PRUNED])
    for name in ("promotions", "shipped"):
        shutil.rmtree(project.exports / name)
    (project.exports / "promotion.json").unlink()
    assert failed(verify(project.exports)) == {}


def test_a_candidate_that_was_judged_as_missing_is_no_evidence_taken_away(project: Project) -> None:
    shutil.rmtree(project.measured(PRUNED))
    shutil.rmtree(project.evidence)
    judged.judge(project)
    assert failed(verify(project.exports)) == {}
    shutil.rmtree(project.evidence / DENSE)
    assert f"{DENSE}: {project.evidence / DENSE}" in failed(verify(project.exports))["measurements"]


def test_the_evidence_alone_is_enough_without_the_project_around_it(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.exports, tmp_path / "elsewhere")
    found = verify(tmp_path / "elsewhere")
    assert failed(found) == {} and not any("project's" in one.name for one in found)


# --- measurements -----------------------------------------------------------------------------


def test_an_edited_sample_is_found_by_its_sha256(project: Project) -> None:
    path = project.evidence / INT8 / "samples.npz"
    samples = Samples.load(path)
    replace(samples, solo_ns=samples.solo_ns // 2).save(path)
    found = failed(verify(project.exports))
    assert "measurement.json says" in found["measurements"] and INT8 in found["measurements"]
    assert "decision" in found and "dvc.lock" in found


def test_an_edited_sample_with_all_digests_recomputed_is_found_by_the_md5_in_dvc_lock(project: Project) -> None:
    path = project.measured(INT8) / "samples.npz"
    samples = Samples.load(path)
    replace(samples, solo_ns=samples.solo_ns - 1).save(path)
    resealed(project, lock=False)
    text = only(project, "dvc.lock", "the project's dvc.lock")
    assert f"for work/measurements/{INT8}" in text and "md5 is" in text


def test_a_forger_who_also_rewrites_the_copied_lock_is_found_by_the_projects_own(project: Project) -> None:
    kept = (project.root / "dvc.lock").read_bytes()
    sealed(project, INT8, lambda samples: replace(samples, solo_ns=samples.solo_ns - 1))
    assert failed(verify(project.exports)) == {}  # nothing left that could show it but a signature
    (project.root / "dvc.lock").write_bytes(kept)
    assert f"for work/measurements/{INT8}" in only(project, "the project's dvc.lock")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"p50_ms": 0.001}, "latency: p50_ms: got 0.001, expected 0.3"),
        ({"ratio_p50_high": None}, "latency: ratio_p50_high: got nothing, expected 0.3"),
        ({"processes": 1000}, "latency: processes: got 1000, expected 10"),
    ],
)
def test_facts_that_do_not_follow_from_the_samples_are_found(project: Project, change: dict, reason: str) -> None:
    path = project.measured(INT8) / "measurement.json"
    told = Measurement.read(path)
    assert told.latency
    told.model_copy(update={"latency": told.latency.model_copy(update=change)}).write(path)
    judged.write_lock(project)
    judged.judge(project)
    assert reason in failed(verify(project.exports))["measurements"]


def test_accuracy_that_does_not_follow_from_the_logits_is_found(project: Project) -> None:
    path = project.measured(PRUNED) / "measurement.json"
    told = Measurement.read(path)
    better = told.accuracy["test"].model_copy(update={"accuracy": 0.999})
    told.model_copy(update={"accuracy": told.accuracy | {"test": better}}).write(path)
    judged.write_lock(project)
    judged.judge(project)
    assert "accuracy: test: accuracy: got 0.999" in only(project, "measurements")


def test_a_measurement_of_another_host_is_found(project: Project) -> None:
    index = Index.read(project.root / "work" / "index" / "index.json")
    samples = Samples.load(project.measured(PRUNED) / "samples.npz")
    other = {**judged.HOST, "cores": 64}
    judged.write_measurement(project.measured(PRUNED), PRUNED, samples, index, project.exports, other)
    judged.write_lock(project)
    judged.judge(project)
    assert f"{PRUNED}: measured on host class" in only(project, "measurements")


def test_answers_that_differ_while_timed_are_found(project: Project) -> None:
    def cheat(samples: Samples) -> Samples:
        return replace(samples, audit_logits=samples.audit_logits[:, ::-1].copy())

    sealed(project, INT8, cheat)
    assert "what was timed is not what was judged" in failed(verify(project.exports))["answers"]


def test_a_confirmation_of_another_model_is_found_by_its_answers(project: Project) -> None:
    folder = project.root / "work" / "confirmation"
    samples = Samples.load(folder / "samples.npz")
    index = Index.read(project.root / "work" / "index" / "index.json")
    other = replace(samples, audit_logits=np.roll(samples.audit_logits, 1, axis=1))
    judged.write_measurement(folder, INT8, other, index, project.exports)
    judged.write_lock(project)
    judged.judge(project)
    assert "confirmation: answers given while time was taken differ" in only(project, "answers")


def test_a_clock_that_ran_backwards_is_found(project: Project) -> None:
    def backwards(samples: Samples) -> Samples:
        ns = samples.solo_ns.copy()
        ns[0, 0] = -5
        return replace(samples, solo_ns=ns)

    sealed(project, PRUNED, backwards)
    assert "solo_ns holds 1 times of nothing or less" in failed(verify(project.exports))["measurements"]


def test_evidence_that_was_left_out_of_the_decision_is_found(project: Project) -> None:
    judged.judge(project, [DENSE, PRUNED])
    shutil.copytree(project.measured(INT8), project.evidence / INT8)
    assert f"{INT8}: evidence that the verdict does not name" in failed(verify(project.exports))["evidence"]


# --- scenarios --------------------------------------------------------------------------------

CAMERA_RULES = GateRules.model_validate(
    judged.RULES.model_dump(mode="json")
    | {"rules": [*judged.RULES.rules, {"metric": "streams", "min": CAMERAS}, {"metric": "missed_share", "max": 0.001}]}
)


def in_scenarios(project: Project) -> None:
    """Every candidate measured in every scenario, two rules on the camera, all of it sealed."""
    for name in judged.MS:
        path = project.measured(name) / "samples.npz"
        samples = Samples.load(path)
        replace(samples, extra=arrays_of(samples.splits["test"])).save(path)
    resealed(project, rules=CAMERA_RULES)


def test_a_measurement_with_scenarios_and_a_verdict_on_them_are_verified(project: Project) -> None:
    in_scenarios(project)
    verdict = Verdict.read(project.exports / "verdict.json")
    outcomes = {one.rule: one for one in verdict.candidates[-1].outcomes}
    assert verdict.shipped == INT8 and outcomes[f"streams ≥ {CAMERAS}"].value == CAMERAS
    assert failed(verify(project.exports)) == {}


def test_an_edited_outcome_of_a_camera_is_found_by_its_sha256_and_then_by_its_facts(project: Project) -> None:
    in_scenarios(project)
    folder = project.evidence / INT8
    samples = Samples.load(folder / "samples.npz")
    outcome = samples.extra["camera_outcome"].copy()
    outcome[1, 7] = 2
    replace(samples, extra={**samples.extra, "camera_outcome": outcome}).save(folder / "samples.npz")
    assert "measurement.json says" in failed(verify(project.exports))["measurements"]
    shutil.copy(folder / "samples.npz", project.measured(INT8))
    told = Measurement.read(project.measured(INT8) / "measurement.json")
    sha256 = sha256_file(folder / "samples.npz")
    told.model_copy(update={"samples_sha256": sha256}).write(project.measured(INT8) / "measurement.json")
    judged.write_lock(project)
    judged.judge(project, rules=CAMERA_RULES)
    assert "scenarios: camera: dropped: got 0, expected 1" in failed(verify(project.exports))["measurements"]


def test_an_array_of_a_scenario_that_was_taken_away_is_found(project: Project) -> None:
    in_scenarios(project)
    path = project.measured(INT8) / "samples.npz"
    samples = Samples.load(path)
    extra = {name: array for name, array in samples.extra.items() if name != "stream_truth"}
    replace(samples, extra=extra).save(path)
    told = Measurement.read(path.with_name("measurement.json"))
    told.model_copy(update={"samples_sha256": sha256_file(path)}).write(path.with_name("measurement.json"))
    judged.write_lock(project)
    judged.judge(project, rules=CAMERA_RULES)
    text = failed(verify(project.exports))["measurements"]
    assert f"{INT8}: " in text and "missing or damaged (KeyError('stream_truth'))" in text


# --- the decision -----------------------------------------------------------------------------


def edit(path: Path, change: Callable[[dict], None]) -> None:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


def first_outcome(plain: dict, candidate: str) -> dict:
    return next(one for one in plain["candidates"] if one["candidate"] == candidate)["outcomes"][0]


def test_a_verdict_with_one_status_changed_names_candidate_rule_and_field(project: Project) -> None:
    edit(project.exports / "verdict.json", lambda plain: first_outcome(plain, PRUNED).update(status="FAIL"))
    text = failed(verify(project.exports))["decision"]
    assert f"candidate '{PRUNED}': outcomes: rule" in text and "status: got 'FAIL', expected 'PASS'" in text


@pytest.mark.parametrize(
    "field", ["shipped", "sentence", "bundle", "walk", "warnings", "candidates", "openings", "status"]
)
def test_every_field_of_the_verdict_is_decided_again(project: Project, field: str) -> None:
    other: dict[str, object] = {
        "shipped": PRUNED,
        "walk": [],
        "warnings": ["none"],
        "candidates": [],
        "openings": 7,
        "status": "FAIL",
    }
    edit(project.exports / "verdict.json", lambda plain: plain.update({field: other.get(field, "something else")}))
    assert (f"{field}: got" if field != "candidates" else "candidate 'tiny") in failed(verify(project.exports))[
        "decision"
    ]


def test_a_gate_section_that_was_loosened_is_found(project: Project) -> None:
    edit(project.exports / "verdict.json", lambda plain: plain["gate"]["rules"][0].update(drop_max=50.0))
    found = failed(verify(project.exports))
    assert (
        "the gate section has digest" in found["rules"]
        and "rule 'accuracy drop ≤ 50 points': got nothing" in found["decision"]
    )


# --- clips ------------------------------------------------------------------------------------


def permuted(samples: Samples) -> Samples:
    return with_test(samples, labels=np.roll(samples.splits["test"].labels, 1))


def shortened(samples: Samples) -> Samples:
    right = np.flatnonzero(samples.splits["test"].right)
    return replace(samples, splits=samples.splits | {"test": taken(samples.splits["test"], right)})


def doubled(samples: Samples) -> Samples:
    test = samples.splits["test"]
    rows = np.r_[np.arange(len(test.ids)), np.flatnonzero(test.right)[:50]]
    return replace(samples, splits=samples.splits | {"test": taken(test, rows)})


def regrouped(samples: Samples) -> Samples:
    return with_test(samples, groups=samples.splits["test"].ids)


def exchanged(samples: Samples) -> Samples:
    return with_test(samples, ids=np.char.add("x", samples.splits["test"].ids))


def taken(clips: SplitSamples, rows: np.ndarray) -> SplitSamples:
    return SplitSamples(clips.ids[rows], clips.groups[rows], clips.labels[rows], clips.logits[rows])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (permuted, "labels are not those of the index"),
        (shortened, "clips are missing"),
        (doubled, "50 clips are counted twice"),
        (regrouped, "groups are not those of the index"),
        (exchanged, "clips are not of this split"),
    ],
)
def test_clips_that_are_not_the_indexs_are_found(
    project: Project, change: Callable[[Samples], Samples], reason: str
) -> None:
    sealed(project, INT8, change)
    text = failed(verify(project.exports))["clips"]
    assert f"{INT8}: test" in text and reason in text


def with_index(project: Project, change: Callable[[Index], Index]) -> None:
    """Another index under everything, sealed again: measured anew as if nothing were wrong."""
    path = project.root / "work" / "index" / "index.json"
    index = change(Index.read(path))
    index = index.model_copy(update={"dataset": dataset_digest(index.clips, index.flips)})
    index.write(path)
    shutil.rmtree(project.exports)
    judged.make_bundles(project.exports, index)
    for seed, (name, ms) in enumerate(judged.MS.items()):
        samples = judged.samples_of(index, ms, 1.0, seed, ("val", "test"))
        judged.write_measurement(project.measured(name), name, samples, index, project.exports)
    again = judged.again_of(index, 0.3, 1.0)
    judged.write_measurement(project.root / "work" / "confirmation", INT8, again, index, project.exports)
    judged.write_lock(project)
    judged.judge(project)


def changed_clip(index: Index, **update: str) -> Index:
    """The first test clip, with something of the first training clip's."""
    position = index.split("test")[0]
    clips = list(index.clips)
    clips[position] = clips[position].model_copy(update=update)
    return index.model_copy(update={"clips": tuple(clips)})


def test_a_group_in_two_splits_is_found(project: Project) -> None:
    with_index(project, lambda index: changed_clip(index, group=index.clips[index.split("train")[0]].group))
    assert "1 times one group in two splits: 'train-camera" in only(project, "data set")


def test_the_same_bytes_in_two_splits_are_found(project: Project) -> None:
    with_index(project, lambda index: changed_clip(index, sha256=index.clips[index.split("train")[0]].sha256))
    assert "1 times one content in two splits" in only(project, "data set")


def test_an_index_that_is_not_the_one_that_was_measured_on_is_found(project: Project) -> None:
    edit(project.evidence / "index.json", lambda plain: plain["clips"][0].update(split="test"))
    found = failed(verify(project.exports))
    assert "its clips give" in found["data set"] and "measured on index" in found["clips"] and "dvc.lock" in found


# --- bundles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", ["test", "unknown"])
def test_calibration_on_anything_but_training_clips_is_found(project: Project, ids: str) -> None:
    index = Index.read(project.root / "work" / "index" / "index.json")
    leaked = tuple(index.clips[i].id for i in index.split("test")[:8]) if ids == "test" else ("a/b.mp4",)
    judged.reseal(project.exports / "tiny-pruned-int8", calibration=leaked)
    resealed(project)
    where = "test" if ids == "test" else "another data set"
    assert f"tiny-pruned-int8: calibrated on {len(leaked)} clips of {where}" in only(project, "calibration")


def test_golden_clips_of_the_test_split_are_found(project: Project) -> None:
    index = Index.read(project.root / "work" / "index" / "index.json")
    judged.reseal(project.exports / "tiny-dense-fp32", golden=(index.clips[index.split("test")[0]].id,))
    resealed(project)
    assert "tiny-dense-fp32: golden clips are 1 clips of test" in only(project, "calibration")


def test_a_bundle_that_does_not_say_what_it_was_calibrated_on_is_not_verified(project: Project) -> None:
    judged.reseal(project.exports / "tiny-pruned-int8", calibration=())
    resealed(project)
    assert "'tiny-pruned-int8': bundle.json does not say" in only(project, "calibration")


def test_a_bundle_whose_graph_was_exchanged_is_found(project: Project) -> None:
    shutil.copy(project.exports / "tiny-pruned-fp32" / "clip.onnx", project.exports / "tiny-pruned-int8" / "step.onnx")
    found = failed(verify(project.exports))
    assert "the file was changed after export" in found["bundles"] and "exports/tiny-pruned-int8" in found["dvc.lock"]


def test_a_bundle_that_was_exported_anew_after_it_was_measured_is_found(project: Project) -> None:
    judged.reseal(project.exports / "tiny-pruned-int8", config="another")
    judged.write_lock(project)
    shutil.copy(project.root / "dvc.lock", project.evidence / "dvc.lock")
    assert f"{INT8}: measured with bundle" in failed(verify(project.exports))["bundles"]


def test_an_int8_bundle_of_other_weights_is_found(project: Project) -> None:
    judged.reseal(project.exports / "tiny-pruned-int8", parent="f" * 64)
    resealed(project)
    assert "made from bundle ffffffffffff…, tiny-pruned-fp32 is" in only(project, "bundles")


def test_a_bundle_trained_on_another_data_set_is_found(project: Project) -> None:
    judged.reseal(project.exports / "tiny-dense-fp32", dataset="e" * 64)
    resealed(project)
    assert "tiny-dense-fp32: trained on data set eeeeeeeeeeee…" in only(project, "bundles")


# --- dvc.lock and what ships ------------------------------------------------------------------


def test_an_upstream_entry_that_was_edited_is_found(project: Project) -> None:
    path = project.evidence / "dvc.lock"
    path.write_text(path.read_text().replace("cmd: python -m pipelines", "cmd: python -m other", 1))
    assert "stage index: dvc.lock's entry is" in only(project, "upstream")


def test_a_promotion_that_leaves_out_a_stage_is_found(project: Project) -> None:
    edit(project.exports / "promotion.json", lambda plain: plain["upstream"].pop("index"))
    text = failed(verify(project.exports))["upstream"]
    assert "does not name what led here: index" in text


def test_another_model_under_the_shipped_name_is_found(project: Project) -> None:
    shipped = project.exports / "shipped"
    for file in ("bundle.json", "step.onnx", "clip.onnx", "golden.npz"):
        shutil.copy(project.exports / "tiny-dense-fp32" / file, shipped / file)
    assert "shipped: holds bundle" in only(project, "shipped")


def test_a_promotion_record_that_was_edited_is_found(project: Project) -> None:
    edit(project.exports / "promotion.json", lambda plain: plain.update(threads=64))
    assert "not the record of what is shipped" in only(project, "shipped")


def test_an_archived_promotion_that_was_changed_is_found(project: Project) -> None:
    (project.exports / "promotions" / "1" / "step.onnx").write_bytes(b"another")
    assert "1: " in only(project, "promotions")


def test_what_shipped_by_another_verdict_is_found(project: Project, tmp_path: Path) -> None:
    names = ("promotions", "shipped", "promotion.json")
    for name in names:
        (project.exports / name).rename(tmp_path / name)
    sealed(project, INT8, lambda samples: replace(samples, solo_ns=samples.solo_ns - 1))
    shutil.rmtree(project.exports / "promotions")
    shutil.rmtree(project.exports / "shipped")
    for name in names:
        (tmp_path / name).rename(project.exports / name)
    assert f"{INT8} was shipped by verdict" in failed(verify(project.exports))["shipped"]


def test_a_rollback_is_verified_and_what_is_held_must_be_what_ships(project: Project) -> None:
    sealed(project, INT8, lambda samples: replace(samples, solo_ns=samples.solo_ns - 1))
    rollback(project.exports, 1, "", "2026-01-31T12:00:00+00:00", Skipped("no registry"))
    assert failed(verify(project.exports)) == {}
    edit(project.exports / "hold.json", lambda plain: plain.update(promotion=2))
    assert "promotion 1 is shipped, hold.json holds 2" in only(project, "shipped")


def test_a_verdict_that_ships_nothing_leaves_what_shipped_before_and_is_verified(project: Project) -> None:
    assert judged.judge(project, [DENSE, PRUNED]).shipped is None  # what was measured again is not what it would ship
    assert failed(verify(project.exports)) == {}


def test_a_challenger_in_the_champions_place_is_found(project: Project) -> None:
    exports = project.exports
    plain = [{"metric": "accuracy", "drop_max": 5.0}, {"metric": "latency_p50_ms", "max": 0.001}]
    strict = GateRules.parse({**judged.RULES.model_dump(), "rules": plain})
    waiver = Waiver(rule=str(strict.rules[1]), reason="a week of trial")
    shutil.rmtree(exports / "shipped")
    (exports / "promotion.json").unlink()
    assert judged.judge(project, rules=strict).shipped is None
    waived = decide(Case.load(project.evidence, list(judged.MS)), strict, [waiver])
    challenge(exports, waived, Origin("2026-01-31T12:00:00+00:00"), Skipped("no registry"), PRUNED)
    assert failed(verify(exports)) == {}
    shutil.copytree(exports / "challenger", exports / "shipped")
    shutil.copy(exports / "challenger/promotion.json", exports)
    assert "a challenger stands in the champion's place" in failed(verify(exports))["shipped"]


@pytest.mark.parametrize(
    "change",
    [{"host": {"cores": 1}}, {"runtime": "openvino"}, {"threads": 8}, {"host_class": "0"}, {"sentence": "Better."}],
)
def test_what_serving_obeys_follows_from_measurement_and_verdict(project: Project, change: dict) -> None:
    for folder in ("shipped", "promotions/1", "."):
        path = project.exports / folder / "promotion.json"
        Promotion.read(path).model_copy(update=change).write(path)
    assert f"{next(iter(change))} is " in failed(verify(project.exports))["shipped"]


def test_an_agreement_that_nobody_had_when_it_was_chosen_is_found(project: Project) -> None:
    ones = np.array([f"{k}" for k in range(400)])
    told = {"bundle": "b", "reference_bundle": "r", "n": 400, "groups": 400, "disagreements": 0}
    record = Agreement(candidate=INT8, reference=DENSE, **told)
    Agreed(record, ones, ones, ones, np.zeros(400, int), np.zeros(400, int)).write(
        project.evidence / "agreement" / INT8
    )
    assert "for work/agreement" in failed(verify(project.exports))["dvc.lock"]


def test_a_champion_that_never_shipped_is_found(project: Project) -> None:
    shutil.copytree(project.evidence / DENSE, project.evidence / "champion")
    verdict = decide(Case.load(project.evidence, list(judged.MS)), judged.RULES)
    verdict.write(project.exports / "verdict.json")
    assert "is not that of any promotion" in failed(verify(project.exports))["champion"]


def test_a_ledger_that_was_begun_anew_is_found(project: Project) -> None:
    assert judged.judge(project, rules=judged.RULES.model_copy(update={"restless": 0.06})).openings == 2
    assert "ledger" not in failed(verify(project.exports))
    path = project.exports / "test_ledger.json"
    edit(path, lambda plain: plain.update(openings={key: known[1:] for key, known in plain["openings"].items()}))
    assert "1 openings of this test split; the verdict is one of 2" in failed(verify(project.exports))["ledger"]
    path.unlink()
    assert "nothing shows how often" in only(project, "ledger")


@pytest.mark.parametrize("key", ["size_bytes", "parameters"])
def test_a_size_that_is_not_the_bundles_is_found(project: Project, key: str) -> None:
    path = project.measured(INT8) / "measurement.json"
    Measurement.read(path).model_copy(update={key: 7}).write(path)
    judged.write_lock(project)
    judged.judge(project)
    assert f"{key} is 7, tiny-pruned-int8 has " in failed(verify(project.exports))["bundles"]


# --- other hosts ------------------------------------------------------------------------------


def test_the_verdict_of_another_host_class_is_verified_like_the_first(project: Project) -> None:
    host = with_host(project, {**judged.HOST, "cores": 64})
    found = verify(project.exports)
    assert failed(found) == {} and any(one.name.startswith(f"hosts/{host.name}: decision") for one in found)
    shutil.copy(project.evidence / PRUNED / "samples.npz", host / "evidence" / PRUNED / "samples.npz")
    wrong = [one.name for one in verify(project.exports) if one.status == "FAILED"]
    assert wrong and all(name.startswith(f"hosts/{host.name}: ") for name in wrong)


def test_a_host_folder_under_another_name_is_found(project: Project) -> None:
    host = with_host(project, {**judged.HOST, "cores": 64})
    write_json(project.exports / "hosts.json", {"0" * 12: sha256_file(host / "verdict.json")})
    host.rename(host.with_name("0" * 12))
    assert "the verdict is for host class" in str([one for one in verify(project.exports) if one.status == "FAILED"])


def test_the_verdict_of_another_host_class_is_the_one_that_was_judged_with_the_first(project: Project) -> None:
    host = with_host(project, {**judged.HOST, "cores": 64})
    judged.write_lock(project)
    sealed_again = Verdict.read(host / "verdict.json").model_copy(update={"sentence": "Another."})
    sealed_again.write(host / "verdict.json")
    assert "not the one that" in failed(verify(project.exports))["hosts"]
    write_json(project.exports / "hosts.json", {host.name: sha256_file(host / "verdict.json")})
    assert "hosts" not in failed(verify(project.exports))  # what it says now is found by deciding again
    lock = Lock.read(project.root / "dvc.lock")
    assert (
        "exports/hosts.json" in lock.outs()
        and "for exports/hosts.json" in failed(verify(project.exports))["the project's dvc.lock"]
    )


def test_what_another_host_class_shipped_before_a_retraining_is_no_problem(project: Project) -> None:
    host = with_host(project, {**judged.HOST, "cores": 64})
    write_json(project.exports / "hosts.json", {})
    edit(host / "evidence" / INT8 / "measurement.json", lambda plain: plain["inputs"].update(bundle="b" * 64))
    found = verify(project.exports)
    assert failed(found) == {}
    assert [one.name for one in found if one.name.startswith("hosts/")] == [
        f"hosts/{host.name}: promotions: every archived one is whole"
    ]


def with_host(project: Project, facts: dict) -> Path:
    """exports/hosts/<class12> as the gate stage writes it."""
    index = Index.read(project.root / "work" / "index" / "index.json")
    found = {}
    for seed, (name, ms) in enumerate(judged.MS.items()):
        folder = project.root / "work" / "hosts" / "new" / name
        samples = judged.samples_of(index, 2 * ms, 2.0, seed + 10, ("val", "test"))
        told = judged.write_measurement(folder, name, samples, index, project.exports, facts)
        found[name] = folder
    again = project.root / "work" / "hosts" / "new" / "confirmation"
    judged.write_measurement(again, INT8, judged.again_of(index, 0.6, 2.0), index, project.exports, facts)
    host = project.exports / "hosts" / told.inputs["host_class"][:12]
    index_json = project.root / "work" / "index" / "index.json"
    write_case(host / "evidence", Sources(found, again, index=index_json, lock=project.root / "dvc.lock"))
    verdict = decide(Case.load(host / "evidence", list(found)), judged.RULES)
    verdict.write(host / "verdict.json")
    ship(host, Origin("2026-01-31T12:00:00+00:00"), Skipped("no registry"))
    write_json(project.exports / "hosts.json", {host.name: sha256_file(host / "verdict.json")})
    return host


# --- who made it ------------------------------------------------------------------------------


def keys(folder: Path) -> tuple[Path, Path]:
    """A new Ed25519 key: private and public, in PEM."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / "key.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signature_shows_who_shipped(project: Project, tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    assert "nothing is signed" in failed(verify(project.exports, key=public))["signature"]
    for folder in ("shipped", "promotions/1"):
        sign(project.exports / folder, load_private(private))
    assert failed(verify(project.exports, key=public)) == {}
    sealed(project, INT8, lambda samples: replace(samples, solo_ns=samples.solo_ns - 1))
    assert set(failed(verify(project.exports, key=public))) == {"signature"}  # all else was sealed again


def test_what_another_host_class_ships_is_signed_and_kept_as_well(project: Project, tmp_path: Path) -> None:
    private, public = keys(tmp_path)
    host = with_host(project, {**judged.HOST, "cores": 64})
    for exports in (project.exports, host):
        for folder in ("shipped", "promotions/1"):
            sign(exports / folder, load_private(private))
    assert failed(verify(project.exports, key=public)) == {}
    for file in host.glob("*/*.sig"), host.glob("promotions/1/*.sig"):
        for path in file:
            path.unlink()
    (host / "promotions/1/step.onnx").write_bytes(b"another")
    found = [one for one in verify(project.exports, key=public) if one.status == "FAILED"]
    assert {one.name.partition(": ")[2].split(":")[0] for one in found} == {"promotions", "signature"}
    assert all(one.name.startswith(f"hosts/{host.name}") for one in found)


# --- unlabelled clips -------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "problem"), [("test", None), ("train", "of the training or validation split")])
def test_an_agreement_on_clips_that_were_learnt_from_is_refused(
    project: Project, split: Split, problem: str | None
) -> None:
    index = Index.read(project.evidence / "index.json")
    clips = [index.clips[i] for i in index.split(split)[:20]]
    ids, groups, sha256 = (np.array([getattr(clip, name) for clip in clips]) for name in ("id", "group", "sha256"))
    record = Agreement(
        candidate=INT8,
        reference=DENSE,
        bundle="b",
        reference_bundle="r",
        index=index.digest,
        n=20,
        groups=20,
        disagreements=0,
    )
    Agreed(record, ids, groups, sha256, np.zeros(20, int), np.zeros(20, int)).write(
        project.evidence / "agreement" / INT8
    )
    told = failed(verify(project.exports)).get("agreement", "")
    assert (problem or "") in str(told) and bool(told) == bool(problem)


# --- files that are none ----------------------------------------------------------------------


FILES = (
    "verdict.json",
    "promotion.json",
    "evidence/index.json",
    "evidence/case.json",
    "evidence/dvc.lock",
    f"evidence/{INT8}/measurement.json",
    f"evidence/{INT8}/samples.npz",
    "evidence/confirmation/samples.npz",
    "tiny-pruned-int8/bundle.json",
    "tiny-dense-fp32/step.onnx",
    "shipped/promotion.json",
    "shipped/golden.npz",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["halved", "emptied", "noise", "removed"])
def test_a_damaged_file_of_any_kind_is_refused_with_its_name(project: Project, name: str, damage: str) -> None:
    path = project.exports / name
    data = path.read_bytes()
    content = {"halved": data[: len(data) // 2], "emptied": b"", "noise": b"\x00\xff{[" * 500}
    path.unlink() if damage == "removed" else path.write_bytes(content[damage])
    found = verify(project.exports)
    assert any(one.status != "ok" for one in found)
    assert path.name in str(found) or path.parent.name in str(found)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("verdict.json", "[" * 100_000, "not a Verdict"),
        ("verdict.json", '{"openings": 1' + "0" * 5000 + "}", "not a Verdict"),
        ("evidence/index.json", '{"clips": 1e999}', "not a Index"),
        ("evidence/case.json", '{"openings": 1e400}', "not a CaseFacts"),
        ("evidence/dvc.lock", "a: &a [1]\nb: *a\n", "an alias, which DVC does not write"),
        ("evidence/dvc.lock", "[" * 50_000, "not YAML"),
        ("evidence/dvc.lock", "stages: {index: {outs: [7]}}", "not a dvc.lock"),
        ("evidence/dvc.lock", "!!python/object/apply:os.system [id]", "not YAML"),
    ],
)
def test_tables_made_to_break_a_reader_are_refused(project: Project, name: str, content: str, reason: str) -> None:
    (project.exports / name).write_text(content)
    assert reason in str(failed(verify(project.exports)))


def test_samples_that_unpack_to_more_than_any_measurement_are_not_unpacked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_SAMPLES", 10_000)
    assert "when unpacked" in failed(verify(project.exports))["measurements"]


def test_a_name_that_leaves_the_folder_is_no_candidate(project: Project) -> None:
    def escape(plain: dict) -> None:
        plain["measurements"]["../../tiny-dense-fp32--ort-cpu"] = "0" * 64

    edit(project.exports / "verdict.json", escape)
    assert "is no candidate's name" in failed(verify(project.exports))["verdict"]


def test_a_bundle_file_that_leaves_its_folder_is_refused(project: Project) -> None:
    edit(
        project.exports / "tiny-dense-fp32" / "bundle.json", lambda plain: plain["files"].update({"../../x": "0" * 64})
    )
    assert "tiny-dense-fp32" in failed(verify(project.exports))["bundles"]


@pytest.mark.parametrize(
    "name", [f"evidence/{INT8}/samples.npz", f"evidence/{INT8}", "tiny-dense-fp32", "verdict.json"]
)
def test_a_link_out_of_the_folder_is_never_followed(project: Project, tmp_path: Path, name: str) -> None:
    path, outside = project.exports / name, tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    found = verify(project.exports)
    assert [one.status for one in found] == ["FAILED"] and f"{path}: a link that leaves the folder" in found[
        0
    ].problems[0]


def test_a_pipe_in_the_folder_is_refused_before_anything_waits_for_it(project: Project) -> None:
    path = project.evidence / INT8 / "samples.npz"
    path.unlink()
    os.mkfifo(path)
    assert "neither a file nor a folder" in failed(verify(project.exports))["files"]


# --- the command ------------------------------------------------------------------------------


def command(*words: str) -> int:
    try:
        main(["verify", *words])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def test_the_command_ends_in_a_sentence_and_an_exit_code(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    exports = str(project.exports)
    assert command(exports) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Verified: {exports} is what its evidence gives")
    (project.evidence / "dvc.lock").unlink()
    assert command(exports) == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("Not verified: 2 of")
    (project.evidence / "index.json").write_text("{")
    assert command(exports, "--json") == 2
    listed = json.loads(capsys.readouterr().out)
    assert {one["status"] for one in listed} == {"ok", "FAILED", "not checked"}
    assert command(str(project.root / "nothing")) == 1


def test_a_lock_that_was_asked_for_is_used(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "dvc.lock"
    other.write_text((project.root / "dvc.lock").read_text().replace(md5_of(project.measured(INT8)), "0" * 32 + ".dir"))
    assert f"has {'0' * 32}.dir for work/measurements/{INT8}" in str(failed(verify(project.exports, other)))
    with pytest.raises(ConfigError, match="no such file"):
        verify(project.exports, tmp_path / "nothing")


# --- dvc.lock itself --------------------------------------------------------------------------


def test_hashes_are_those_of_dvc(tmp_path: Path) -> None:
    dvc = pytest.importorskip("dvc_data.hashfile.tree")
    info = pytest.importorskip("dvc_data.hashfile.hash_info")
    for name in ("b.txt", "a/z.txt", "a-b.txt", "ä/ü.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    tree = dvc.Tree()
    for file in tmp_path.rglob("*.txt"):
        tree.add(file.relative_to(tmp_path).parts, None, info.HashInfo("md5", md5_of(file)))
    tree.digest()
    assert md5_of(tmp_path) == tree.hash_info.value


def test_parameters_and_outputs_are_read_from_a_lock(project: Project) -> None:
    lock = Lock.read(project.root / "dvc.lock")
    assert lock.params("bench@")["bench"] == judged.BENCH
    assert lock.outs()["work/index/index.json"] == md5_of(project.root / "work" / "index" / "index.json")
