"""The gate: what never passes, what ships, and in which words."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import CandidateVerdict, ConfigError, DataError, RuleOutcome, Verdict, Waiver
from framegate.gate import Agreed, Agreement, Case, CaseFacts, Evidence, GateRules, Sources, choose, decide, write_case
from framegate.gate.rules import RECALL
from tests.evidence import (
    CLASSES,
    INPUTS,
    PROCESSES,
    REFERENCE,
    RULES,
    absent,
    again,
    case_of,
    decided,
    make,
    of,
    times,
    write_evidence,
)
from tests.scenarios import arrays_of, facts_of

GOOD = "cnn_gru-pruned-int8--openvino"


def judged(verdict: Verdict, name: str = GOOD) -> CandidateVerdict:
    return next(one for one in verdict.candidates if one.candidate == name)


def outcome(verdict: Verdict, text: str, name: str = GOOD, against: str | None = None) -> RuleOutcome:
    found = [o for o in judged(verdict, name).outcomes if o.rule == text and against in (None, o.against)]
    assert len(found) == 1, [o.rule for o in judged(verdict, name).outcomes]
    return found[0]


def good(**changed: object) -> Evidence:
    return make(**({"name": GOOD, "p50_ms": 0.061, "lost": 6} | changed))


def rules_of(*rules: dict, **more: object) -> GateRules:
    return GateRules.parse({"reference": REFERENCE, "rules": rules, **more})


def also(*rules: dict) -> GateRules:
    """The usual rules and some more."""
    return RULES.model_copy(update={"rules": RULES.rules + rules_of(*rules).rules})


def sampled(one: Evidence, **changed: object) -> Evidence:
    """The same evidence with other samples; its facts follow from them."""
    assert one.samples
    return of(str(one.name), replace(one.samples, **changed), one.measurement.inputs)


def with_clips(one: Evidence, split: str = "test", **changed: object) -> Evidence:
    assert one.samples
    return sampled(one, splits=one.samples.splits | {split: replace(one.samples.splits[split], **changed)})


def measured(one: Evidence, **changed: object) -> Evidence:
    """The same samples under another measurement: its facts need not follow from them."""
    return replace(one, measurement=one.measurement.model_copy(update=changed))


def nan_in_one_class(one: Evidence, split: str) -> Evidence:
    assert one.samples
    clips = one.samples.splits[split]
    logits = clips.logits.copy()
    logits[np.flatnonzero(clips.labels == 2)[:3], 2] = np.nan
    return with_clips(one, split, logits=logits)


def backwards(one: Evidence, name: str) -> Evidence:
    assert one.samples
    ns = getattr(one.samples, name).copy()
    ns.flat[17] *= -1
    return replace(one, samples=replace(one.samples, **{name: ns}))


def otherwise_audited(one: Evidence) -> Evidence:
    assert one.samples
    return sampled(one, audit_logits=np.roll(one.samples.audit_logits, 1, axis=1))


def doctored(one: Evidence) -> Evidence:
    """A measurement that claims to be twice as fast as its samples say."""
    assert one.measurement.latency
    latency = one.measurement.latency
    return measured(one, latency=latency.model_copy(update={"ratio_p50_high": (latency.ratio_p50_high or 0) / 2}))


def ran(runtime: str, device: str) -> dict[str, str]:
    return {"runtime": runtime, "provider": "some", "device": device}


BAD = {
    "accuracy two points lower": (lambda: good(lost=52), "FAIL", "accuracy drop ≤ 1 points fails: 2 points"),
    "not a number in one class": (lambda: nan_in_one_class(good(), "test"), "INCONCLUSIVE", "its logits are not finite in 3 clips (test)"),
    "not a number in validation": (lambda: nan_in_one_class(good(), "val"), "INCONCLUSIVE", "its logits are not finite in 3 clips (val)"),
    "too few clips": (lambda: good(n=250, lost=0), "INCONCLUSIVE", "measured on other clips than"),
    "too few calls": (lambda: good(solo=(10, 600)), "INCONCLUSIVE", "latency_p99_ms ≤ 33.3 is not proven"),
    "too few processes alone": (lambda: good(solo=(9, 700)), "INCONCLUSIVE", "measured alone in 9 processes, 10 would do"),
    "never alone": (lambda: good(solo=(0, 0)), "INCONCLUSIVE", "measured alone in 0 processes"),
    "one pair": (lambda: good(shape=(1, 21, 50)), "INCONCLUSIVE", "bounds unknown, n = 1050"),
    "restless processes": (lambda: good(p50_ms=0.2, process_spread=0.2), "INCONCLUSIVE", "x parent is not proven"),
    "another host": (lambda: good(inputs={"host_class": "x"}), "INCONCLUSIVE", "on another host class than the reference"),
    "no host": (lambda: good(inputs={"host_class": ""}), "INCONCLUSIVE", "on another host class"),
    "other data": (lambda: good(inputs={"index": "x"}), "INCONCLUSIVE", "measured on other data"),
    "no bundle": (lambda: good(inputs={"bundle": ""}), "INCONCLUSIVE", "nothing says which bundle was measured"),
    "another parent": (lambda: good(inputs={"parent": "x"}), "INCONCLUSIVE", "timed beside another bundle than that of its parent"),
    "no parent": (lambda: good(name="lstm-pruned-int8--openvino"), "INCONCLUSIVE", "its parent lstm-dense-fp32--ort-cpu was not measured"),
    "the reference under another name": (lambda: good(inputs={"bundle": make().bundle}), "INCONCLUSIVE", "the reference under another name"),
    "slower than its parent": (lambda: good(p50_ms=0.5), "FAIL", "not faster than its parent: 1.08"),
    "a pruned model that is not faster": (lambda: good(p50_ms=0.458), "FAIL", "latency_p50_ms ≤ 0.5 x parent fails"),
    "killed": (lambda: absent(GOOD), "INCONCLUSIVE", "failed: killed by SIGKILL"),
    "not installed": (lambda: absent(GOOD, "skipped", "no openvino"), "INCONCLUSIVE", "skipped: no openvino"),
    "other labels": (lambda: with_clips(good(), labels=np.zeros(2600, np.int64)), "INCONCLUSIVE", "measured on other clips"),
    "a silent fallback to another runtime": (lambda: measured(good(), session=ran("ort-cpu", "cpu")), "INCONCLUSIVE", "its session ran ort-cpu by some on cpu, the candidate is for openvino"),
    "no session": (lambda: measured(good(), session={}), "INCONCLUSIVE", "its session ran None"),
    "cuda on a cpu": (lambda: measured(good(name="cnn_gru-pruned-fp32--ort-cuda"), session=ran("ort-cuda", "cpu")), "INCONCLUSIVE", "on cpu, the candidate is for ort-cuda on gpu"),
    "a clock that goes backwards": (lambda: backwards(good(), "solo_ns"), "INCONCLUSIVE", "its clock went backwards or stood still: 1 of 7000 times in solo_ns"),
    "a parent's clock that goes backwards": (lambda: backwards(good(), "parent_ns"), "INCONCLUSIVE", "times in parent_ns"),
    "other answers while timed": (lambda: otherwise_audited(good()), "INCONCLUSIVE", "what was timed is not what was judged"),
    "no answers while timed": (lambda: sampled(good(), audit_ids=np.empty(0, "U1")), "INCONCLUSIVE", "its answers given while time was taken were not kept"),
    "facts that do not follow": (lambda: doctored(good()), "INCONCLUSIVE", "does not follow from its samples: latency.ratio_p50_high is"),
    "an accuracy that does not follow": (lambda: measured(good(lost=52), accuracy=good().measurement.accuracy), "INCONCLUSIVE", "does not follow from its samples: accuracy.test.accuracy is"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_candidate_never_passes_and_the_reference_ships(bad: str) -> None:
    build, status, reason = BAD[bad]
    one = build()
    with np.errstate(invalid="ignore"):
        verdict = decided([make(), one])
    found = judged(verdict, str(one.name))
    assert reason in found.reason
    assert (found.status, verdict.shipped, verdict.status) == (status, REFERENCE, "PASS")
    assert verdict.sentence.startswith(f"{REFERENCE}, the reference itself, ships uncompressed: nothing faster is")


def test_a_good_candidate_ships_with_a_sentence_that_can_be_checked() -> None:
    verdict = decided([make(), good()])
    assert (verdict.shipped, verdict.chosen, verdict.status, verdict.walk) == (GOOD, GOOD, "PASS", (GOOD,))
    assert verdict.compressed and verdict.bundle == good().bundle
    assert verdict.sentence.startswith(f"{GOOD} ships: 7.5x faster than its dense parent (0.063 ms a step), accuracy")
    assert verdict.sentence.endswith("accuracy 95.8 % against 96.0 % (drop 0.2, at most 0.5 points; margin 1.0).")
    kinds = [(o.kind, o.against) for o in judged(verdict).outcomes]
    assert kinds == [
        ("drop_max", "reference"),
        ("ratio_max", "parent"),
        ("max", ""),
        ("max", ""),
        ("guardrail", "reference"),
        ("effect", "parent"),
    ]


def test_a_verdict_names_all_that_it_was_made_from() -> None:
    case = case_of([make(), good()], openings=3)
    verdict = decide(case, RULES)
    assert verdict.gate == RULES.model_dump(mode="json") and GateRules.parse(verdict.gate) == RULES
    assert verdict.measurements == {str(one.name): one.digest for one in case.evidence}
    assert case.confirmation and verdict.evidence == {"index": "i", "confirmation": case.confirmation.digest}
    assert verdict.openings == 3 and Verdict.model_validate_json(verdict.to_json()) == verdict


# --- small data -------------------------------------------------------------------------------


def test_few_groups_cannot_pass_but_evident_harm_fails() -> None:
    few = {"n": 400, "groups": 3}
    verdict = decided([make(**few), good(**few, lost=0)])
    assert judged(verdict).status == "INCONCLUSIVE"
    assert "undecidable: 3 groups, 10 would do" in judged(verdict).reason
    assert judged(decided([make(**few), good(**few, lost=120)])).status == "FAIL"


def test_few_clips_name_what_they_can_decide_and_what_would_do() -> None:
    few = {"n": 200, "groups": 20}
    reason = judged(decided([make(**few), good(**few, lost=0)])).reason
    assert "undecidable: 200 clips decide 1.5 points at best, 299 would do" in reason
    assert "framegate agree FOLDER compares both on unlabelled clips" in reason


def test_what_is_not_proven_says_what_would_prove_it() -> None:
    one = judged(decided([make(), good(lost=20)]))
    assert one.status == "INCONCLUSIVE"
    told = re.search(r"(\d+) clips of (\d+) groups like these would prove it; one that loses nothing", one.reason)
    assert told
    clips, groups = map(int, told.groups())
    more = clips / 2600
    assert groups == math.ceil(40 * more) and 1.1 < more < 4
    assert "would prove it" not in judged(decided([make(), good(lost=30)])).reason  # 1.2 points are no one point


def test_a_loss_that_one_camera_carries_is_shown_without_it() -> None:
    def losing(clips: np.ndarray) -> Evidence:
        one = good(lost=0)
        assert one.samples
        test = one.samples.splits["test"]
        lost = np.flatnonzero(test.right & clips)[:20]
        logits = test.logits.copy()
        logits[lost] = np.roll(logits[lost], 1, axis=1)
        splits = {**one.samples.splits, "test": replace(test, logits=logits)}
        audited = {"audit_ids": test.ids[-16:], "audit_logits": logits[-16:]}
        return of(GOOD, replace(one.samples, splits=splits, **audited), one.measurement.inputs)

    groups = good().samples.splits["test"].groups  # type: ignore[union-attr]
    assert (
        "few groups decide it: 0 points without g7, 0.79 points without"
        in judged(decided([make(), losing(groups == "g7")])).reason
    )
    assert "few groups" not in judged(decided([make(), losing(np.ones(len(groups), bool))])).reason


def agreed(n: int = 900, groups: int = 90, disagreements: int = 0, **changed: object) -> Agreed:
    top = np.arange(n) % 4
    other = np.where(np.arange(n) < disagreements, (top + 1) % 4, top)
    record = Agreement(
        candidate=GOOD,
        reference=REFERENCE,
        bundle=good().bundle,
        reference_bundle=make().bundle,
        index=INPUTS["index"],
        host_class=INPUTS["host_class"],
        n=n,
        groups=groups,
        disagreements=disagreements,
    )
    ids, of_groups = np.array([f"u{i}" for i in range(n)]), np.array([f"c{i % groups}" for i in range(n)])
    return Agreed(record.model_copy(update=changed), ids, of_groups, ids, other, top)


FEW = {"n": 200, "groups": 20}


@pytest.mark.parametrize(
    ("agreement", "status", "words"),
    [
        (agreed(), "PASS", "every rule is proven"),
        (agreed(disagreements=2), "PASS", "every rule is proven"),
        (agreed(disagreements=8), "INCONCLUSIVE", "nor by agreement: 8 of 900 unlabelled clips answered otherwise"),
        (agreed(n=298, groups=149), "INCONCLUSIVE", "298 clips decide 1 points at best, 299 would do"),
        (agreed(groups=9), "INCONCLUSIVE", "9 groups, 10 would do"),
        (agreed(bundle="x"), "INCONCLUSIVE", "the agreement says nothing: it was made of other bundles"),
        (agreed(candidate="x"), "INCONCLUSIVE", "it compares x with"),
        (agreed(host_class="elsewhere"), "INCONCLUSIVE", "it was made on another host class"),
        (agreed(index=""), "INCONCLUSIVE", "the clips that these models learnt from were not told apart"),
        (agreed(index="other"), "INCONCLUSIVE", "it was made without their index"),
    ],
)
def test_agreement_on_unlabelled_clips_proves_what_few_labelled_ones_cannot(
    agreement: Agreed, status: str, words: str
) -> None:
    verdict = decided([make(**FEW), good(**FEW, lost=0)], agreements={GOOD: agreement})
    assert judged(verdict).status == status and words in judged(verdict).reason
    if status == "PASS":
        found = outcome(verdict, "accuracy drop ≤ 1 points")
        assert found.n == 900 and "holds by agreement with the reference" in found.reason
        assert verdict.shipped == GOOD and verdict.evidence[f"agreement/{GOOD}"] == agreement.digest


def test_an_agreement_is_counted_again_from_its_samples() -> None:
    lied = agreed(disagreements=8)
    lied = replace(lied, record=lied.record.model_copy(update={"disagreements": 0}))
    twice = replace(agreed(), sha256=np.array(["u"] * 900))
    for one, words in ((lied, "its numbers do not follow"), (twice, "a clip stands in it twice")):
        found = judged(decided([make(**FEW), good(**FEW, lost=0)], agreements={GOOD: one}))
        assert found.status == "INCONCLUSIVE" and words in found.reason


def test_agreement_never_turns_proven_harm() -> None:
    verdict = decided([make(), good(lost=60)], agreements={GOOD: agreed()})
    assert judged(verdict).status == "FAIL"


# --- choosing ---------------------------------------------------------------------------------

SLOW, MIDDLE, FAST = (f"cnn_gru-{v}-fp32--ort-cpu" for v in ("a", "b", "c"))


def test_the_walk_stops_at_the_first_that_is_not_proven() -> None:
    verdict = decided([make(), make(FAST, 0.05), make(MIDDLE, 0.1, lost=30), make(SLOW, 0.15, lost=3)])
    assert verdict.walk == (SLOW, MIDDLE) and verdict.shipped == SLOW
    assert judged(verdict, FAST).status == "PASS" and not judged(verdict, FAST).walked
    assert judged(verdict, FAST).reason.endswith(f"not tried: the walk from slow to fast stopped at {MIDDLE}")


def test_validation_bars_from_the_walk_what_test_would_pass() -> None:
    verdict = decided([make(), good(val_lost=4)])
    assert judged(verdict).status == "PASS" and not judged(verdict).shortlisted and verdict.shipped == REFERENCE
    assert "on validation 0.67 points, at most 0.5 to be shortlisted" in judged(verdict).reason


def test_test_answers_never_shorten_the_shortlist() -> None:
    """One that fails on test answers stops the walk: barring it beforehand would let the next one be tried."""
    harmed = with_clips(make(MIDDLE, 0.1), logits=lost_in_one_class(make(MIDDLE, 0.1), 24))
    verdict = decided([make(), harmed, make(FAST, 0.05)], rules=also({"metric": "accuracy", "min": 50}))
    assert outcome(verdict, RECALL, MIDDLE).status == "FAIL"
    assert judged(verdict, MIDDLE).shortlisted and verdict.walk == (MIDDLE,) and verdict.shipped == REFERENCE


def test_candidates_tied_in_time_are_told_apart_by_their_drop() -> None:
    close = [make(), make(MIDDLE, 0.1001, lost=2), make(FAST, 0.1, lost=8)]
    verdict = decided(close)
    assert set(verdict.tied) == {MIDDLE, FAST} and verdict.shipped == MIDDLE
    assert f"tied in time with {MIDDLE}, which is preferred" in judged(verdict, FAST).reason
    apart = decided([make(), make(MIDDLE, 0.12, lost=2), make(FAST, 0.1, lost=8)])
    assert apart.tied == () and apart.shipped == FAST
    strict = RULES.model_copy(update={"indifference": 0.3})
    assert decided([make(), make(MIDDLE, 0.12, lost=2), make(FAST, 0.1, lost=8)], strict).shipped == MIDDLE


def test_among_equal_drops_the_smaller_one_ships() -> None:
    tied = [make(), make(MIDDLE, 0.1, lost=2, size_bytes=9), make(FAST, 0.1, lost=2, size_bytes=8)]
    assert decided(tied).shipped == FAST
    assert decided([tied[0], tied[1], make(FAST, 0.1, lost=2, size_bytes=9)]).shipped == MIDDLE


def test_the_incumbent_stays_unless_beaten_by_more_than_the_zone() -> None:
    champion, near, far = make(FAST, 0.1, lost=8), make(MIDDLE, 0.1001, lost=2), make(SLOW, 0.08, lost=2)
    ships = {"champion": champion, "incumbent": FAST}
    assert decided([make(), champion, near]).shipped == MIDDLE
    verdict = decided([make(), champion, near], **ships)
    assert verdict.shipped == FAST == verdict.incumbent
    assert decided([make(), champion, near, far], **ships).shipped == SLOW


@pytest.mark.parametrize("kind", ["flat logits", "labels with a point", "text as times"])
def test_samples_of_another_shape_or_kind_are_no_evidence(kind: str) -> None:
    one = good()
    assert one.samples
    test = one.samples.splits["test"]
    changed = {
        "flat logits": {"splits": {**one.samples.splits, "test": replace(test, logits=test.logits[:, 0])}},
        "labels with a point": {"splits": {**one.samples.splits, "test": replace(test, labels=test.labels + 0.5)}},
        "text as times": {"solo_ns": one.samples.solo_ns.astype(str)},
    }[kind]
    broken = replace(one, samples=replace(one.samples, **changed))
    verdict = decide(Case((make(), broken)), RULES)
    assert verdict.shipped is None and judged(verdict).status == "INCONCLUSIVE"


def test_what_ships_is_not_undone_by_the_same_evidence() -> None:
    """Beside the champion a slower one is no longer proven, and stops the walk before the champion itself."""
    evidence = [make(), make(MIDDLE, 0.15, lost=16), make(FAST, 0.1, won=10)]
    first = decided(evidence)
    assert first.shipped == FAST and first.walk == (MIDDLE, FAST)
    again = decided(evidence, champion=evidence[2], incumbent=FAST)
    assert judged(again, MIDDLE).status == "INCONCLUSIVE" and again.walk == (MIDDLE,)
    assert again.shipped == FAST


def test_an_incumbent_whose_bundle_was_made_again_is_none() -> None:
    shipped_then = make(FAST, 0.1, lost=8, inputs={"bundle": "older"})
    verdict = decided(
        [make(), make(FAST, 0.1, lost=8), make(MIDDLE, 0.1001, lost=2)], champion=shipped_then, incumbent=FAST
    )
    assert verdict.incumbent is None and verdict.shipped == MIDDLE
    assert decided([make(), make(FAST, 0.1, lost=8)], incumbent=FAST).incumbent is None


def test_candidates_of_different_parents_are_compared_by_their_own_times() -> None:
    """A ratio to a slow parent is not a short time."""
    dense = "cnn-dense-fp32--ort-cpu"
    slow_parent = make("cnn-pruned-fp32--ort-cpu", 0.2, 2.0, lost=2)
    fast = make(FAST, 0.1, 0.46, lost=8)
    verdict = decided([make(), make(dense, 2.0, 2.0), slow_parent, fast])
    assert verdict.walk == (str(slow_parent.name), FAST) and verdict.tied == () and verdict.shipped == FAST


def test_int8_that_does_not_pay_says_so() -> None:
    fp32, int8 = "cnn_gru-pruned-fp32--ort-cpu", "cnn_gru-pruned-int8--ort-cpu"
    verdict = decided([make(), make(fp32, 0.1), make(int8, 0.108)])
    assert re.search(rf"int8 does not pay: 1.0\dx the time of {fp32}", judged(verdict, int8).reason)
    assert "pay" not in judged(verdict, fp32).reason


# --- measured again -----------------------------------------------------------------------------


def test_what_is_chosen_ships_only_when_measured_again() -> None:
    case = case_of([make(), good()], confirmation=None)
    assert choose(case, RULES) == GOOD
    verdict = decide(case, RULES)
    assert (verdict.shipped, verdict.chosen, verdict.status) == (None, GOOD, "INCONCLUSIVE")
    assert verdict.sentence.startswith(f"Nothing ships: {GOOD} was chosen, but its latency was not measured again")
    assert verdict.sentence.endswith("what shipped before stays.")


CONFIRMATIONS = {
    "of another candidate": (lambda: again(make()), "its latency was not measured again"),
    "of another bundle": (lambda: again(good(), inputs={"bundle": "x"}), "measured again of another bundle"),
    "beside another parent": (lambda: again(good(), inputs={"parent": "x"}), "measured again beside another parent"),
    "on another host class": (lambda: again(good(), inputs={"host_class": "x"}), "again on another host class"),
    "on other data": (lambda: again(good(), inputs={"index": "x"}), "measured again on other data"),
    "the first run once more": (good, "its second measurement is the first one"),
    "killed": (lambda: absent(GOOD), "measured again, it failed: killed by SIGKILL"),
    "doctored": (lambda: doctored(again(good())), "measured again, its measurement does not follow from its samples"),
    "with a clock that goes backwards": (lambda: backwards(again(good()), "solo_ns"), "measured again, its clock went"),
    "answering otherwise": (lambda: otherwise_audited(again(good())), "what was timed is not what was judged"),
    "by another runtime": (lambda: measured(again(good()), session=ran("ort-cpu", "cpu")), "its session ran ort-cpu"),
    "twice as slow as allowed": (lambda: again(good(), 0.4), "latency_p50_ms ≤ 0.5 x parent fails: 0.8"),
    "slower than its parent": (lambda: again(good(), 0.5), "not faster than its parent"),
}


@pytest.mark.parametrize("how", CONFIRMATIONS)
def test_what_is_not_confirmed_does_not_ship_nor_does_anything_in_its_place(how: str) -> None:
    build, words = CONFIRMATIONS[how]
    verdict = decided([make(), good()], confirmation=build())
    assert verdict.shipped is None and verdict.chosen == GOOD and verdict.status == "INCONCLUSIVE"
    assert words in verdict.sentence and words in judged(verdict).reason


def test_the_winners_times_are_those_of_the_second_measurement() -> None:
    verdict = decided([make(), good()], confirmation=again(good(), 0.08))
    found = outcome(verdict, "latency_p50_ms ≤ 0.5 x parent")
    assert verdict.shipped == GOOD and found.value == pytest.approx(0.174, abs=0.002)
    assert re.search(r"\(measured again; at first 0\.13\d\d x\)$", found.reason)
    assert verdict.sentence.startswith(f"{GOOD} ships: 5.8x faster")
    assert outcome(verdict, "accuracy drop ≤ 1 points").value == pytest.approx(0.2308, abs=1e-4)


def test_the_reference_is_confirmed_too() -> None:
    assert choose(Case((make(), good(lost=52))), RULES) == REFERENCE
    verdict = decided([make(), good(lost=52)], confirmation=None)
    assert verdict.shipped is None and verdict.chosen == REFERENCE


# --- reference, champion, machine ---------------------------------------------------------------


def test_a_reference_not_above_chance_promotes_nothing() -> None:
    verdict = decided([make(wrong=0.74), good(wrong=0.74, lost=0)])
    assert verdict.shipped is None and {one.status for one in verdict.candidates} == {"INCONCLUSIVE"}
    assert "Nothing ships" in verdict.sentence and "reference not above chance" in verdict.sentence


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (lambda: absent(REFERENCE), "the reference has no measurement"),
        (lambda: nan_in_one_class(make(), "test"), "the reference's logits are not finite"),
        (lambda: doctored(make()), "the reference's measurement does not follow from its samples"),
        (lambda: otherwise_audited(make()), "the reference's answers given while time was taken differ"),
    ],
)
def test_without_a_sound_reference_nothing_ships(reference: object, words: str) -> None:
    verdict = decided([reference(), good()])  # type: ignore[operator]
    assert verdict.shipped is None and verdict.chosen is None and words in judged(verdict).reason


def test_a_reference_over_the_absolute_limit_does_not_ship() -> None:
    rules = RULES.model_copy(
        update={"rules": (*RULES.rules[:2], *rules_of({"metric": "latency_p50_ms", "max": 0.3}).rules)}
    )
    verdict = decided([make()], rules)
    assert verdict.shipped is None and verdict.status == "FAIL"
    assert decided([make(), good()], rules).shipped == GOOD


def test_a_better_dense_model_is_said() -> None:
    verdict = decided([make(), make("cnn-dense-fp32--ort-cpu", 0.4, 0.4, won=60)])
    assert verdict.warnings == (
        "the reference is not the best dense model: cnn-dense-fp32--ort-cpu is 2.3 points better",
    )


@pytest.mark.parametrize("parent_p50_ms", [0.42, 0.5])
def test_on_a_restless_machine_no_latency_rule_passes_for_anybody(parent_p50_ms: float) -> None:
    verdict = decided([make(parent_p50_ms=parent_p50_ms), good()])
    assert verdict.shipped is None and {one.status for one in verdict.candidates} == {"INCONCLUSIVE"}
    for one in verdict.candidates:
        timed = [o for o in one.outcomes if o.metric.startswith("latency")]
        assert {o.status for o in timed} == {"INCONCLUSIVE"}
        assert all("this machine is too restless: load 0.5" in o.reason for o in timed)
    assert outcome(verdict, "accuracy drop ≤ 1 points").status == "PASS"
    assert any("too restless" in note for note in verdict.warnings)


def test_a_wide_interval_is_restless_however_good_the_point() -> None:
    calm = make(process_spread=0.003)
    wide = make(process_spread=0.1, shape=(3, 21, 50), seed=5)
    assert decided([calm]).shipped == REFERENCE and decided([calm]).warnings == ()
    assert decided([wide]).shipped is None
    assert decided([make(shape=(1, 21, 50))]).shipped is None  # met itself once: nothing shows how quiet it was


def test_a_restless_machine_does_not_touch_what_takes_no_time() -> None:
    verdict = decided([make(parent_p50_ms=0.42), good()], also({"metric": "size_bytes", "max": 2e6}))
    assert outcome(verdict, "size_bytes ≤ 2e+06").status == "PASS"


def test_a_reference_that_never_met_itself_shows_no_quiet_machine() -> None:
    rules = RULES.model_copy(update={"reference": GOOD})
    verdict = decided([good(), make(SLOW, 0.03)], rules)
    assert verdict.shipped is None and "was not measured" in judged(verdict, SLOW).reason


def test_drops_are_counted_from_the_champion_too() -> None:
    """Creep: each is within the margin of the reference, but not of the one before it."""
    champion = make(FAST, 0.1, won=24)
    verdict = decided([make(), good(lost=6)], champion=champion)
    against = {o.against: o for o in judged(verdict).outcomes if o.kind == "drop_max"}
    assert against["reference"].status == "PASS" and against["champion"].status == "INCONCLUSIVE"
    assert "accuracy drop ≤ 1 points against the champion is not proven: 1.154 points" in judged(verdict).reason
    assert {o.rule for o in against.values()} == {"accuracy drop ≤ 1 points"}
    assert verdict.evidence["champion"] == champion.digest


def test_a_rule_may_name_whom_it_compares_with() -> None:
    champion = make(FAST, 0.1, won=24)
    for against in ("reference", "champion"):
        rules = also({"metric": "accuracy", "drop_max": 5, "against": against})
        found = [o for o in judged(decided([make(), good()], rules, champion=champion)).outcomes if o.bound == 5]
        assert [(o.against, o.rule) for o in found] == [(against, f"accuracy drop ≤ 5 points against {against}")]


def test_the_champion_is_not_compared_with_itself() -> None:
    few = {"n": 200, "groups": 20}
    verdict = decided([make(**few), good(**few)], champion=good(**few), incumbent=GOOD)
    assert {o.against for o in judged(verdict).outcomes if o.kind == "drop_max"} == {"reference"}
    assert {o.against for o in judged(verdict, REFERENCE).outcomes if o.kind == "drop_max"} == {"champion"}


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        (lambda: make(FAST, 0.1, inputs={"index": "older"}), "it was measured on other data"),
        (lambda: absent(FAST, reason="samples.npz: missing"), "samples.npz: missing"),
        (lambda: doctored(make(FAST, 0.1)), "its measurement does not follow from its samples"),
    ],
)
def test_a_champion_that_cannot_be_compared_is_said_and_blocks_only_who_asks_for_it(
    champion: object, words: str
) -> None:
    verdict = decided([make(), good()], champion=champion())  # type: ignore[operator]
    assert verdict.shipped == GOOD
    assert f"not compared with the champion {FAST}: {words}" in verdict.warnings[0]
    asked = also({"metric": "accuracy", "drop_max": 5, "against": "champion"})
    assert judged(decided([make(), good()], asked, champion=champion())).status == "INCONCLUSIVE"  # type: ignore[operator]
    assert decided([make(), good()], asked).shipped == GOOD  # nothing has ever shipped


@pytest.mark.parametrize(("openings", "warned"), [(9, False), (10, True), (12, True)])
def test_a_test_split_that_was_opened_often_is_said(openings: int, warned: bool) -> None:
    verdict = decided([make(), good()], openings=openings)
    assert any(f"the test split was opened {openings} times" in note for note in verdict.warnings) == warned


# --- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "lacks"), [("accuracy", "latency"), ("latency_p50_ms", "accuracy")])
def test_a_candidate_that_no_rule_touches_is_inconclusive(metric: str, lacks: str) -> None:
    kept = tuple(rule for rule in RULES.rules if rule.metric == metric)
    verdict = decided([make(), good()], RULES.model_copy(update={"rules": kept}))
    assert judged(verdict).reason == f"no {lacks} rule applies to it"


def test_rules_for_one_runtime_touch_only_that() -> None:
    rules = also({"metric": "latency_p50_ms", "max": 0.01, "runtime": "openvino"})
    verdict = decided([make(), good()], rules)
    assert judged(verdict).status == "FAIL" and judged(verdict, REFERENCE).status == "PASS"
    assert "latency_p50_ms ≤ 0.01 on openvino fails" in judged(verdict).reason


@pytest.mark.parametrize(("floor", "status"), [(90, "PASS"), (95.5, "INCONCLUSIVE"), (99, "FAIL")])
def test_an_accuracy_floor_is_proven_or_not(floor: float, status: str) -> None:
    rules = rules_of({"metric": "accuracy", "min": floor}, {"metric": "latency_p50_ms", "max": 1})
    one = judged(decided([make(), good()], rules))
    found = one.outcomes[0]
    assert one.status == status
    assert found.low is not None and found.value is not None and found.low < found.value < (found.high or 0)


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ({"metric": "size_bytes", "max": 1_000_000}, "PASS"),
        ({"metric": "size_bytes", "max": 999_999}, "FAIL"),
        ({"metric": "memory_mb", "max": 80}, "PASS"),
        ({"metric": "memory_mb", "max": 79.9}, "FAIL"),
        ({"metric": "parameters", "max": 460_000}, "PASS"),
        ({"metric": "latency_p99_ms", "ratio_max": 0.3}, "PASS"),
        ({"metric": "latency_p99_ms", "ratio_max": 0.05}, "FAIL"),
        ({"metric": "latency_p90_ms", "max": 0.08}, "PASS"),
        ({"metric": "latency_p90_ms", "max": 0.06}, "FAIL"),
    ],
)
def test_a_limit_is_inclusive_and_proven_either_way(rule: dict, status: str) -> None:
    assert judged(decided([make(), good()], also(rule))).status == status


def test_absolute_times_come_from_running_alone() -> None:
    """Beside its parent a candidate may be fast: what is promised is how it runs by itself."""
    slow_alone = sampled(good(), solo_ns=times(0.5, 3, PROCESSES, 0.003))
    found = outcome(
        decided([make(), slow_alone], also({"metric": "latency_p50_ms", "max": 0.4})), "latency_p50_ms ≤ 0.4"
    )
    assert found.status == "FAIL" and found.value == pytest.approx(0.518, abs=0.005)


SCENARIO_RULES = {
    "server": {"metric": "latency_p99_ms", "max": 5, "scenario": "server"},
    "offline": {"metric": "throughput_fps", "min": 100},
    "camera": {"metric": "streams", "min": 4},
    "streams": {"metric": "false_alarms_per_hour", "max": 1},
}


@pytest.mark.parametrize("scenario", SCENARIO_RULES)
def test_what_was_not_measured_is_named_with_the_setting_that_measures_it(scenario: str) -> None:
    verdict = decided([make(), good()], also(SCENARIO_RULES[scenario]))
    assert judged(verdict).status == "INCONCLUSIVE"
    assert f"not measured: add {scenario} to bench.scenarios" in judged(verdict).reason


def in_scenarios(one: Evidence, **how: Any) -> Evidence:
    """Measured in every scenario; `how` as in `arrays_of`."""
    assert one.samples
    found = sampled(one, extra=arrays_of(one.samples.splits["test"], **how))
    assert found.samples
    return measured(found, **facts_of(found.samples, CLASSES))


@pytest.mark.parametrize(
    ("rule", "text", "status"),
    [
        ({"metric": "latency_p99_ms", "max": 5, "scenario": "server"}, "latency_p99_ms ≤ 5 in server", "PASS"),
        ({"metric": "latency_p50_ms", "max": 0.9, "scenario": "server"}, "latency_p50_ms ≤ 0.9 in server", "FAIL"),
        ({"metric": "throughput_fps", "min": 800}, "throughput_fps ≥ 800", "PASS"),
        ({"metric": "throughput_fps", "min": 1000}, "throughput_fps ≥ 1000", "FAIL"),
        ({"metric": "streams", "min": 6}, "streams ≥ 6", "PASS"),
        ({"metric": "streams", "min": 7}, "streams ≥ 7", "FAIL"),
        ({"metric": "missed_share", "max": 0.001}, "missed_share ≤ 0.001", "PASS"),
        ({"metric": "latency_p99_ms", "max": 5, "scenario": "camera"}, "latency_p99_ms ≤ 5 in camera", "PASS"),
        ({"metric": "latency_p99_ms", "max": 0.01, "scenario": "camera"}, "latency_p99_ms ≤ 0.01 in camera", "FAIL"),
        ({"metric": "accuracy", "drop_max": 2, "scenario": "camera"}, "accuracy drop ≤ 2 points in camera", "PASS"),
        ({"metric": "accuracy", "min": 90, "scenario": "camera"}, "accuracy ≥ 90 % in camera", "PASS"),
        ({"metric": "false_alarms_per_hour", "max": 1}, "false_alarms_per_hour ≤ 1", "PASS"),
        ({"metric": "false_alarms_per_hour", "max": 0.5}, "false_alarms_per_hour ≤ 0.5", "INCONCLUSIVE"),
        ({"metric": "time_to_detect_s", "max": 0.7}, "time_to_detect_s ≤ 0.7", "FAIL"),
    ],
)
def test_any_metric_of_any_scenario_can_be_asked_for(rule: dict, text: str, status: str) -> None:
    verdict = decided([make(), in_scenarios(good())], also(rule))
    assert outcome(verdict, text).status == status


def test_missed_frames_and_clips_lost_by_dropping_fail() -> None:
    rules = also({"metric": "missed_share", "max": 0.001}, {"metric": "accuracy", "drop_max": 2, "scenario": "camera"})
    verdict = decided([in_scenarios(make(), lost=90), in_scenarios(good(), missed=200, lost=90)], rules)
    assert outcome(verdict, "missed_share ≤ 0.001").status == "FAIL"
    assert outcome(verdict, "accuracy drop ≤ 2 points in camera").status == "FAIL"
    assert outcome(verdict, "accuracy drop ≤ 2 points in camera", REFERENCE).status == "FAIL"  # dropping costs it too


def test_a_scenario_that_was_not_measured_again_keeps_its_first_outcome() -> None:
    rules = also(SCENARIO_RULES["server"])
    verdict = decided([in_scenarios(make()), in_scenarios(good())], rules)
    assert verdict.shipped == GOOD and "measured again" not in outcome(verdict, "latency_p99_ms ≤ 5 in server").reason


def test_a_number_of_streams_that_does_not_follow_is_no_evidence() -> None:
    one = in_scenarios(good())
    camera = one.measurement.scenarios["camera"].model_copy(update={"streams": 60})
    lied = measured(one, scenarios={**one.measurement.scenarios, "camera": camera})
    found = judged(decided([in_scenarios(make()), lied]))
    assert found.status == "INCONCLUSIVE"
    assert "does not follow from its samples: scenarios.camera.streams is 60, 6 follows" in found.reason


def test_a_server_that_falls_behind_proves_nothing() -> None:
    one = in_scenarios(good())
    assert one.samples
    extra = {**one.samples.extra, "server_at_ns": one.samples.extra["server_at_ns"] // 10_000}  # all come at once
    late = sampled(one, extra=extra)
    assert late.samples
    late = measured(late, **facts_of(late.samples, CLASSES))
    found = outcome(decided([make(), late], also(SCENARIO_RULES["server"])), "latency_p99_ms ≤ 5 in server")
    assert found.status == "INCONCLUSIVE" and "faster than they were answered in 10 processes" in found.reason


def lost_in_one_class(one: Evidence, count: int) -> np.ndarray:
    assert one.samples
    clips = one.samples.splits["test"]
    logits = clips.logits.copy()
    which = np.flatnonzero((clips.labels == 1) & clips.right)[-count:]  # the first ones are audited
    logits[which] = np.roll(logits[which], 1, axis=1)
    return logits


def test_harm_to_one_class_fails_where_the_average_hides_it() -> None:
    """Fourteen of 2600 clips are half a point, but all of one class."""
    harmed = with_clips(make(GOOD, 0.061), logits=lost_in_one_class(make(GOOD, 0.061), 14))
    verdict = decided([make(), harmed])
    assert outcome(verdict, "accuracy drop ≤ 1 points").status == "PASS"
    found = outcome(verdict, RECALL)
    assert (found.status, found.kind, judged(verdict).status) == ("FAIL", "guardrail", "FAIL")
    assert f"{RECALL} fails: proven to lose more than 0 points: b; 'b' lost 2." in found.reason
    for points in (5, None):
        assert judged(decided([make(), harmed], RULES.model_copy(update={"guardrail_points": points}))).status == "PASS"


def test_the_guardrail_makes_nothing_inconclusive() -> None:
    few = {"n": 30, "groups": 2}
    assert outcome(decided([make(**few), good(**few, lost=3)]), RECALL).status == "PASS"


# --- waivers ------------------------------------------------------------------------------------


def waiver(rule: str, reason: str = "the customer wants it") -> tuple[Waiver]:
    return (Waiver(rule=rule, reason=reason),)


def test_a_waived_rule_does_not_block_and_stays_what_it_is() -> None:
    few = {"n": 200, "groups": 20}
    waivers = waiver("accuracy drop <= 1 points")
    verdict = decided([make(**few), good(**few, lost=1)], waivers=waivers)
    assert verdict.shipped == GOOD and verdict.waived == waiver("accuracy drop ≤ 1 points")
    assert outcome(verdict, "accuracy drop ≤ 1 points").status == "INCONCLUSIVE"
    assert "(waived: the customer wants it)" in judged(verdict).reason
    assert verdict.sentence.endswith("; waived: accuracy drop ≤ 1 points (the customer wants it).")


def test_the_guardrail_can_be_waived() -> None:
    harmed = with_clips(make(GOOD, 0.061), logits=lost_in_one_class(make(GOOD, 0.061), 14))
    assert decided([make(), harmed], waivers=waiver(RECALL)).shipped == GOOD


@pytest.mark.parametrize(
    "bad", ["not a number in one class", "another host", "other data", "a clock that goes backwards", "killed"]
)
def test_what_makes_a_measurement_no_evidence_cannot_be_waived(bad: str) -> None:
    waivers = tuple(Waiver(rule=str(rule), reason="all of them") for rule in RULES.rules)
    verdict = decided([make(), BAD[bad][0]()], waivers=waivers)
    assert judged(verdict).status == "INCONCLUSIVE" and verdict.shipped == REFERENCE


@pytest.mark.parametrize(
    ("rule", "reason", "words"),
    [
        ("accuracy drop ≤ 2 points", "x", "did you mean 'accuracy drop ≤ 1 points'"),
        ("faster than its parent", "x", "is no rule"),
        ("accuracy drop ≤ 1 points", " ", "give a reason"),
    ],
)
def test_a_waiver_of_what_is_no_rule_is_a_config_error(rule: str, reason: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        decided([make(), good()], waivers=waiver(rule, reason))


# --- configuration ------------------------------------------------------------------------------


def test_the_default_rules_are_valid() -> None:
    rules = GateRules.parse(yaml.safe_load((Path(__file__).parents[2] / "conf/gate/default.yaml").read_text()))
    assert rules == RULES


@pytest.mark.parametrize("key", ["max", "restless", "guardrail_points"])
def test_a_yes_is_no_number(key: str) -> None:
    plain = {"reference": REFERENCE, "rules": [{"metric": "latency_p50_ms", "max": 1}]}
    (plain["rules"][0] if key == "max" else plain)[key] = yaml.safe_load("yes")
    with pytest.raises(ConfigError, match=rf"{key}: .*a number is needed, got True"):
        GateRules.parse(plain)


def test_every_mistake_in_the_rules_is_told_at_once() -> None:
    rules = [
        {"metric": "acuracy", "drop_max": 1},
        {"metric": "latency_p50_ms", "max": 1, "ratio_max": 1},
        {"metric": "latency_p90_ms", "ratio_max": 0.5},
        {"metric": "accuracy", "drop_max": float("nan")},
        {"metric": "accuracy", "drop_maxx": 1},
        {"metric": "size_bytes", "max": 1, "runtime": "ort"},
        {"metric": "latency_p50_ms", "max": 1, "scenario": "sever"},
        {"metric": "latency_p50_ms", "ratio_max": 1, "scenario": "server"},
        {"metric": "size_bytes", "max": 1, "scenario": "camera"},
        {"metric": "accuracy", "drop_max": 1, "against": "parent"},
        {"metric": "latency_p50_ms", "max": 1, "against": "champon"},
    ]
    with pytest.raises(ConfigError) as error:
        GateRules.parse({"reference": "dense", "rules": rules, "indifference": 2})
    for words in (
        "did you mean 'accuracy'",
        "exactly one of max, ratio_max; got max, ratio_max",
        "exactly one of max; got ratio_max",
        "finite number of 0 or more",
        "rules.4.drop_maxx",
        "unknown runtime 'ort'",
        "unknown scenario 'sever'; did you mean 'server'",
        "ratio_max of latency_p50_ms takes the scenario single_stream, got 'server'",
        "max of size_bytes takes no scenario, got 'camera'",
        "drop_max takes against reference or champion, got 'parent'",
        "unknown opponent 'champon'; did you mean 'champion'",
        "expected <model>-<variant>-<precision>--<runtime>",
        "indifference",
    ):
        assert words in str(error.value), words


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (lambda: [], "no candidate is declared"),
        (lambda: [make("cnn_gru-dense-fp32--openvino")], "did you mean 'cnn_gru-dense-fp32--openvino'"),
        (lambda: [make(), make()], "declared twice"),
    ],
)
def test_candidates_that_cannot_be_judged_are_a_config_error(evidence: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        decide(Case(tuple(evidence())), RULES)  # type: ignore[operator]


# --- evidence from files ----------------------------------------------------------------------


def sources(tmp_path: Path, **more: object) -> Sources:
    folders = {REFERENCE: write_evidence(make(), tmp_path / "a"), GOOD: write_evidence(good(), tmp_path / "b")}
    return Sources(folders, confirmation=write_evidence(again(good()), tmp_path / "c"), **more)  # type: ignore[arg-type]


def test_a_case_survives_its_folder(tmp_path: Path) -> None:
    agreed().write(tmp_path / "agreement")
    (tmp_path / "index.json").write_text("{}")
    written = sources(
        tmp_path,
        champion=write_evidence(make(FAST, 0.1), tmp_path / "d"),
        agreements={GOOD: tmp_path / "agreement"},
        index=tmp_path / "index.json",
        facts=CaseFacts(openings=4, incumbent=FAST),
    )
    write_case(tmp_path / "evidence", written)
    before, after = Case.read(written), Case.load(tmp_path / "evidence", [REFERENCE, GOOD])
    assert decide(after, RULES) == decide(before, RULES)
    assert after.openings == 4 and decide(after, RULES).shipped == GOOD
    assert set(decide(after, RULES).evidence) == {"index", "confirmation", "champion", f"agreement/{GOOD}"}
    in_memory = decide(Case((make(), good()), again(good()), make(FAST, 0.1), {GOOD: agreed()}), RULES)
    assert decide(after, RULES).candidates == in_memory.candidates


@pytest.mark.parametrize(
    "harm", ["no measurement", "no samples", "cut samples", "cut measurement", "another candidate"]
)
def test_damaged_evidence_never_passes(tmp_path: Path, harm: str) -> None:
    write_case(tmp_path / "evidence", sources(tmp_path))
    samples, measurement = (tmp_path / "evidence" / GOOD / name for name in ("samples.npz", "measurement.json"))
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
    verdict = decide(Case.load(tmp_path / "evidence", [REFERENCE, GOOD]), RULES)
    assert judged(verdict).status == "INCONCLUSIVE" and verdict.shipped is None and verdict.chosen == REFERENCE


def test_an_agreement_that_was_changed_is_named(tmp_path: Path) -> None:
    agreed().write(tmp_path)
    assert Agreed.load(tmp_path).disagrees.sum() == 0 and Agreed.load(tmp_path).record.n == 900
    (tmp_path / "samples.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="run `framegate agree` again"):
        Agreed.load(tmp_path)


def test_samples_that_are_no_samples_are_named(tmp_path: Path) -> None:
    (tmp_path / "samples.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not readable as samples"):
        Samples.load(tmp_path / "samples.npz")


def test_logits_that_are_not_finite_are_no_answer() -> None:
    logits = np.array([[1, 0], [np.nan, 0], [np.inf, 0]], np.float32)
    clips = SplitSamples(np.array(["a", "b", "c"]), np.array(["g"] * 3), np.zeros(3, np.int64), logits)
    assert clips.right.tolist() == [True, False, False]


def test_a_choice_that_was_confirmed_on_a_restless_machine_does_not_ship() -> None:
    case = case_of([make(), good()])
    assert decide(case, RULES).shipped == GOOD and case.confirmation and case.confirmation.samples
    samples = case.confirmation.samples
    for extra, words in (
        ({**samples.extra, "self_candidate_ns": samples.extra["self_candidate_ns"] * 12 // 10}, "too restless"),
        ({}, "nothing shows how quiet this machine is"),
    ):
        confirmed = sampled(case.confirmation, extra=extra)
        verdict = decide(replace(case, confirmation=confirmed), RULES)
        assert verdict.shipped is None and words in verdict.sentence
