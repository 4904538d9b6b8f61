"""The gate: what never passes, what ships, and in which words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import CandidateVerdict, ConfigError, Verdict
from framegate.gate import Evidence, GateRules, decide, load_evidence
from tests.evidence import REFERENCE, RULES, absent, make, of

GOOD = "cnn_gru-pruned-int8--openvino"


def judged(verdict: Verdict, name: str = GOOD) -> CandidateVerdict:
    return next(one for one in verdict.candidates if one.candidate == name)


def good(**changed: object) -> Evidence:
    return make(**({"name": GOOD, "p50_ms": 0.061, "lost": 6} | changed))


def with_test_clips(one: Evidence, **changed: object) -> Evidence:
    """The same evidence with other test clips."""
    assert one.samples
    splits = one.samples.splits | {"test": replace(one.samples.splits["test"], **changed)}
    return of(str(one.name), replace(one.samples, splits=splits), {})


def nan_logits(one: Evidence) -> Evidence:
    assert one.samples
    logits = one.samples.splits["test"].logits.copy()
    logits[7, 2] = np.nan
    return with_test_clips(one, logits=logits)


def zero_times(one: Evidence) -> Evidence:
    assert one.samples
    return replace(one, samples=replace(one.samples, parent_ns=one.samples.parent_ns * 0))


BAD = {
    "accuracy two points lower": (lambda: good(lost=52), "FAIL", "accuracy drop ≤ 1 points fails: 2 points"),
    "not a number": (lambda: nan_logits(good()), "INCONCLUSIVE", "its logits are not finite in 1 clips"),
    "too few clips": (lambda: good(n=250, lost=0), "INCONCLUSIVE", "measured on other clips than the reference"),
    "too few calls": (lambda: good(shape=(3, 10, 50)), "INCONCLUSIVE", "latency_p99_ms ≤ 33.3 is not proven"),
    "one process": (lambda: good(shape=(1, 21, 50)), "INCONCLUSIVE", "bounds unknown, n = 1050"),
    "restless processes": (lambda: good(p50_ms=0.2, process_spread=0.2), "INCONCLUSIVE", "x parent is not proven"),
    "another host": (
        lambda: good(inputs={"host_class": "x"}),
        "INCONCLUSIVE",
        "on another host class than the reference",
    ),
    "no host": (lambda: good(inputs={"host_class": ""}), "INCONCLUSIVE", "on another host class"),
    "other data": (lambda: good(inputs={"index": "x"}), "INCONCLUSIVE", "measured on other data"),
    "slower than its parent": (lambda: good(p50_ms=0.5), "FAIL", "not faster than its parent: 1.08"),
    "a pruned model that is not faster": (lambda: good(p50_ms=0.458), "FAIL", "latency_p50_ms ≤ 0.5 x parent fails"),
    "killed": (lambda: absent(GOOD), "INCONCLUSIVE", "failed: killed by SIGKILL"),
    "not installed": (lambda: absent(GOOD, "skipped", "no openvino"), "INCONCLUSIVE", "skipped: no openvino"),
    "other labels": (
        lambda: with_test_clips(good(), labels=np.zeros(2600, np.int64)),
        "INCONCLUSIVE",
        "measured on other clips",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_candidate_never_passes_and_the_reference_ships(case: str) -> None:
    build, status, reason = BAD[case]
    with np.errstate(divide="ignore"):
        verdict = decide([make(), build()], RULES)
    assert (judged(verdict).status, verdict.shipped) == (status, REFERENCE)
    assert reason in judged(verdict).reason
    assert verdict.sentence.startswith(f"{REFERENCE}, the reference itself, ships uncompressed")


def test_a_good_candidate_ships_with_a_sentence_that_can_be_checked() -> None:
    verdict = decide([make(), good()], RULES)
    assert verdict.shipped == GOOD and verdict.compressed and verdict.walk == (GOOD,)
    assert verdict.sentence.startswith(f"{GOOD} ships: 7.6x faster than its dense parent (0.063 ms against 0.4")
    assert verdict.sentence.endswith("accuracy 95.8 % against 96.0 % (drop 0.2, at most 0.5 points; margin 1.0).")


def test_a_ratio_that_is_infinite_proves_nothing() -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        verdict = decide([make(), zero_times(good())], RULES)
    assert judged(verdict).status == "INCONCLUSIVE"


def test_few_groups_cannot_pass_but_evident_harm_fails() -> None:
    few = {"n": 400, "groups": 3}
    verdict = decide([make(**few), good(**few, lost=0)], RULES)
    assert judged(verdict).status == "INCONCLUSIVE"
    assert "undecidable: 3 groups, 10 would do" in judged(verdict).reason
    assert judged(decide([make(**few), good(**few, lost=120)], RULES)).status == "FAIL"


def test_few_clips_name_the_number_that_would_do() -> None:
    few = {"n": 200, "groups": 20}
    verdict = decide([make(**few), good(**few, lost=0)], RULES)
    assert "undecidable: 200 test clips, 299 would do" in judged(verdict).reason


def test_the_walk_stops_at_the_first_that_is_not_proven() -> None:
    slow, middle, fast = (f"cnn_gru-{v}-fp32--ort-cpu" for v in ("a", "b", "c"))
    verdict = decide([make(), make(fast, 0.05), make(middle, 0.1, lost=30), make(slow, 0.15, lost=3)], RULES)
    assert verdict.walk == (slow, middle) and verdict.shipped == slow
    assert judged(verdict, fast).status == "PASS" and not judged(verdict, fast).walked
    assert judged(verdict, fast).reason.endswith(f"not tried: the walk from slow to fast stopped at {middle}")


def test_validation_bars_from_the_walk_what_test_would_pass() -> None:
    verdict = decide([make(), good(val_lost=4)], RULES)
    assert judged(verdict).status == "PASS" and not judged(verdict).shortlisted and verdict.shipped == REFERENCE
    assert "drop on validation 0.67 points, at most 0.5 to be shortlisted" in judged(verdict).reason


def test_int8_that_does_not_pay_says_so() -> None:
    fp32, int8 = "cnn_gru-pruned-fp32--ort-cpu", "cnn_gru-pruned-int8--ort-cpu"
    verdict = decide([make(), make(fp32, 0.1), make(int8, 0.108)], RULES)
    assert f"int8 does not pay: 1.08x the time of {fp32}" in judged(verdict, int8).reason
    assert "pay" not in judged(verdict, fp32).reason


def test_a_reference_not_above_chance_promotes_nothing() -> None:
    verdict = decide([make(wrong=0.74), good(wrong=0.74, lost=0)], RULES)
    assert verdict.shipped is None and {one.status for one in verdict.candidates} == {"INCONCLUSIVE"}
    assert "Nothing ships" in verdict.sentence and "reference not above chance" in verdict.sentence


def test_without_a_measured_reference_nothing_ships() -> None:
    verdict = decide([absent(REFERENCE), good()], RULES)
    assert verdict.shipped is None
    assert "the reference has no measurement" in judged(verdict).reason


def test_a_reference_over_the_absolute_limit_does_not_ship() -> None:
    rules = RULES.model_copy(update={"rules": (*RULES.rules[:2], *GateRules.parse(
        {"reference": REFERENCE, "rules": [{"metric": "latency_p50_ms", "max": 0.3}]}).rules)})  # fmt: skip
    assert decide([make()], rules).shipped is None
    assert decide([make(), good()], rules).shipped == GOOD


def test_a_reference_that_is_not_finite_proves_nothing() -> None:
    verdict = decide([nan_logits(make()), good()], RULES)
    assert verdict.shipped is None and "the reference's logits are not finite" in judged(verdict).reason


def test_a_better_dense_model_is_said() -> None:
    verdict = decide([make(), make("cnn-dense-fp32--ort-cpu", 0.4, 0.4, won=60)], RULES)
    assert verdict.warnings == (
        "the reference is not the best dense model: cnn-dense-fp32--ort-cpu is 2.3 points better",
    )


def test_a_restless_machine_is_said() -> None:
    verdict = decide([make(parent_p50_ms=0.42)], RULES)
    assert "this machine was restless" in verdict.warnings[0] and "load 0.5" in verdict.warnings[0]
    assert decide([make(parent_p50_ms=0.455)], RULES).warnings == ()


@pytest.mark.parametrize(("metric", "lacks"), [("accuracy", "latency"), ("latency_p50_ms", "accuracy")])
def test_a_candidate_that_no_rule_touches_is_inconclusive(metric: str, lacks: str) -> None:
    kept = tuple(rule for rule in RULES.rules if rule.metric == metric)
    verdict = decide([make(), good()], RULES.model_copy(update={"rules": kept}))
    assert judged(verdict).reason == f"no {lacks} rule applies to it"


def test_rules_for_one_runtime_touch_only_that() -> None:
    rule = {"metric": "latency_p50_ms", "max": 0.01, "runtime": "openvino"}
    more = GateRules.parse({"reference": REFERENCE, "rules": [rule]}).rules
    verdict = decide([make(), good()], RULES.model_copy(update={"rules": RULES.rules + more}))
    assert judged(verdict).status == "FAIL" and judged(verdict, REFERENCE).status == "PASS"
    assert "latency_p50_ms ≤ 0.01 on openvino fails" in judged(verdict).reason


@pytest.mark.parametrize(("floor", "status"), [(90, "PASS"), (95.5, "INCONCLUSIVE"), (99, "FAIL")])
def test_an_accuracy_floor_is_proven_or_not(floor: float, status: str) -> None:
    rules = GateRules.parse(
        {
            "reference": REFERENCE,
            "rules": [{"metric": "accuracy", "min": floor}, {"metric": "latency_p50_ms", "max": 1}],
        }
    )
    one = judged(decide([make(), good()], rules))
    outcome = one.outcomes[0]
    assert one.status == status
    assert outcome.low is not None and outcome.value is not None and outcome.low < outcome.value < (outcome.high or 0)


@pytest.mark.parametrize(("limit", "status"), [(1_000_000, "PASS"), (999_999, "FAIL")])
def test_a_size_limit_is_exact_and_inclusive(limit: int, status: str) -> None:
    more = GateRules.parse({"reference": REFERENCE, "rules": [{"metric": "size_bytes", "max": limit}]}).rules
    verdict = decide([make(), good()], RULES.model_copy(update={"rules": RULES.rules + more}))
    assert judged(verdict).status == status


def test_the_default_rules_are_valid() -> None:
    rules = GateRules.parse(yaml.safe_load((Path(__file__).parents[2] / "conf/gate/default.yaml").read_text()))
    assert rules == RULES


def test_every_mistake_in_the_rules_is_told_at_once() -> None:
    rules = [
        {"metric": "acuracy", "drop_max": 1},
        {"metric": "latency_p50_ms", "max": 1, "ratio_max": 1},
        {"metric": "latency_p99_ms", "ratio_max": 0.5},
        {"metric": "accuracy", "drop_max": float("nan")},
        {"metric": "accuracy", "drop_maxx": 1},
        {"metric": "size_bytes", "max": 1, "runtime": "ort"},
    ]
    with pytest.raises(ConfigError) as error:
        GateRules.parse({"reference": "dense", "rules": rules})
    for words in (
        "did you mean 'accuracy'",
        "exactly one of max, ratio_max; got max, ratio_max",
        "exactly one of max; got ratio_max",
        "finite number of 0 or more",
        "rules.4.drop_maxx",
        "unknown runtime 'ort'",
        "expected <model>-<variant>-<precision>--<runtime>",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (lambda: [], "not among the 0 declared candidates"),
        (lambda: [make("cnn_gru-dense-fp32--openvino")], "did you mean 'cnn_gru-dense-fp32--openvino'"),
        (lambda: [make(), make()], "declared twice"),
    ],
)
def test_candidates_that_cannot_be_judged_are_a_config_error(evidence: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        decide(evidence(), RULES)  # type: ignore[operator]


# --- evidence from files ----------------------------------------------------------------------


def write(one: Evidence, folder: Path) -> Path:
    assert one.samples
    one.samples.save(folder / "samples.npz")
    from framegate.contract import sha256_file

    found = one.measurement.model_copy(update={"samples_sha256": sha256_file(folder / "samples.npz")})
    found.write(folder / "measurement.json")
    return folder


def test_evidence_survives_its_files(tmp_path: Path) -> None:
    folders = {REFERENCE: write(make(), tmp_path / "a"), GOOD: write(good(), tmp_path / "b")}
    loaded = decide(load_evidence(folders), RULES)
    assert loaded.candidates == decide([make(), good()], RULES).candidates


@pytest.mark.parametrize(
    "harm", ["no measurement", "no samples", "cut samples", "cut measurement", "another candidate"]
)
def test_damaged_evidence_never_passes(tmp_path: Path, harm: str) -> None:
    folder = write(good(), tmp_path / "b")
    samples, measurement = folder / "samples.npz", folder / "measurement.json"
    match harm:
        case "no measurement":
            measurement.unlink()
        case "no samples":
            samples.unlink()
        case "cut samples":
            samples.write_bytes(samples.read_bytes()[:-100])
        case "cut measurement":
            measurement.write_text(measurement.read_text()[:-100])
        case _:
            measurement.write_text(measurement.read_text().replace(GOOD, REFERENCE))
    verdict = decide(load_evidence({REFERENCE: write(make(), tmp_path / "a"), GOOD: folder}), RULES)
    assert judged(verdict).status == "INCONCLUSIVE" and verdict.shipped == REFERENCE


def test_samples_that_are_no_samples_are_named(tmp_path: Path) -> None:
    from framegate.contract import DataError

    (tmp_path / "samples.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not readable as samples"):
        Samples.load(tmp_path / "samples.npz")


def test_logits_that_are_not_finite_are_no_answer() -> None:
    logits = np.array([[1, 0], [np.nan, 0], [np.inf, 0]], np.float32)
    clips = SplitSamples(np.array(["a", "b", "c"]), np.array(["g"] * 3), np.zeros(3, np.int64), logits)
    assert clips.right.tolist() == [True, False, False]
