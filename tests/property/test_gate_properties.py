"""The gate: what holds for any candidates and rules."""

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract import Verdict
from framegate.gate import Case, Evidence, GateRules, choose, decide
from tests.evidence import REFERENCE, RULES, absent, again, decided, make

NAMES = [
    "cnn_gru-pruned-fp32--ort-cpu",
    "cnn_gru-pruned-int8--ort-cpu",
    "cnn_gru-pruned-int8--openvino",
    "cnn_gru-pruned70-fp32--ort-cpu",
    "cnn-dense-fp32--ort-cpu",
]
SMALL = {"n": 900, "groups": 15, "shape": (3, 3, 20), "solo": (10, 700)}


@cache
def candidate(name: str, speed: int, lost: int, val_lost: int, kind: str) -> Evidence:
    """From a small table, so that each is computed once."""
    if kind == "absent":
        return absent(name)
    inputs = {"host_class": "another"} if kind == "elsewhere" else {}
    p50, parent = (0.05, 0.2, 0.202, 0.6)[speed], 0.46
    if name.startswith("cnn-dense"):
        p50 = parent = (0.1, 0.2, 0.4, 0.6)[speed]
    return make(name, p50, parent, lost=lost, val_lost=val_lost, inputs=inputs, **SMALL)


def reference() -> Evidence:
    return make(**SMALL)


def one_of(names: list[str]) -> st.SearchStrategy:
    return st.tuples(
        st.sampled_from(names),
        st.integers(0, 3),
        st.sampled_from([0, 2, 9, 40]),
        st.sampled_from([0, 2, 9]),
        st.sampled_from(["there"] * 6 + ["absent", "elsewhere"]),
    )


RUNS = st.lists(one_of(NAMES), unique_by=lambda spec: spec[0])


def build(run: list[tuple]) -> list[Evidence]:
    return [reference(), *(candidate(*spec) for spec in run)]


def passing(verdict: Verdict) -> set[str]:
    return {one.candidate for one in verdict.candidates if one.status == "PASS"}


def rules(drop: float, ratio: float, p50: float, p99: float, recall: float) -> GateRules:
    return GateRules.parse(
        {
            "reference": REFERENCE,
            "guardrail_points": recall,
            "restless": 0.9,  # made to be quick, these samples look restless: no latency rule would pass for anybody
            "rules": [
                {"metric": "accuracy", "drop_max": drop},
                {"metric": "latency_p50_ms", "ratio_max": ratio},
                {"metric": "latency_p50_ms", "max": p50},
                {"metric": "latency_p99_ms", "max": p99},
            ],
        }
    )


BOUNDS = st.tuples(st.floats(0, 8), st.floats(0, 2), st.floats(0, 1), st.floats(0, 3), st.floats(0, 9))
CONFIRMED = st.one_of(st.none(), st.tuples(st.integers(0, 5), st.sampled_from([0.05, 0.2, 0.6])))


def confirmed(evidence: list[Evidence], how: tuple | None) -> Evidence | None:
    """Any of the candidates measured again, whether it would be chosen or not."""
    there = [one for one in evidence if one.samples]
    return None if how is None else again(there[how[0] % len(there)], how[1])


@settings(max_examples=25, deadline=None)
@given(run=RUNS, bounds=BOUNDS, shares=st.tuples(*[st.floats(0, 1)] * 5), how=CONFIRMED)
def test_tightening_rules_never_lets_more_pass(run: list, bounds: tuple, shares: tuple, how: tuple | None) -> None:
    evidence = build(run)
    case = Case(tuple(evidence), confirmed(evidence, how))
    loose = decide(case, rules(*bounds))
    tight = decide(case, rules(*(b * s for b, s in zip(bounds, shares, strict=True))))
    assert passing(tight) <= passing(loose)


@settings(max_examples=25, deadline=None)
@given(run=RUNS, data=st.data())
def test_the_order_of_candidates_never_matters(run: list, data: st.DataObject) -> None:
    assert decided(build(data.draw(st.permutations(run)))[::-1]) == decided(build(run))


@settings(max_examples=25, deadline=None)
@given(run=RUNS, more=one_of(["cnn_gru-late-int8--openvino"]), how=CONFIRMED)
def test_adding_a_candidate_never_changes_anothers_evidence(run: list, more: tuple, how: tuple | None) -> None:
    evidence = build(run)
    again = confirmed(evidence, how)
    after = {one.candidate: one for one in decide(Case((*evidence, candidate(*more)), again), RULES).candidates}
    for one in decide(Case(tuple(evidence), again), RULES).candidates:
        same = after[one.candidate]
        assert (same.outcomes, same.status, same.shortlisted) == (one.outcomes, one.status, one.shortlisted)


@settings(max_examples=25, deadline=None)
@given(run=RUNS, bounds=BOUNDS, incumbent=st.sampled_from(NAMES))
def test_what_ships_has_passed_and_was_walked_or_is_the_reference(run: list, bounds: tuple, incumbent: str) -> None:
    evidence = build(run)
    champion = next((one for one in evidence if str(one.name) == incumbent and one.samples), None)
    verdict = decided(evidence, rules(*bounds), champion=champion, incumbent=incumbent)
    if verdict.shipped:
        one = next(c for c in verdict.candidates if c.candidate == verdict.shipped)
        assert one.status == "PASS" and one.outcomes and all(o.status == "PASS" for o in one.outcomes)
        stays = verdict.shipped == verdict.incumbent and champion is not None  # it was walked before, on these clips
        assert one.candidate == REFERENCE or stays or (one.walked and one.shortlisted)
        assert verdict.shipped == verdict.chosen and verdict.status == "PASS"
    assert all(c.shortlisted for c in verdict.candidates if c.walked)
    walked = [c.candidate for c in verdict.candidates if c.walked]
    assert set(walked) == set(verdict.walk) and set(verdict.walk[:-1]) <= passing(verdict) | {verdict.chosen}


@settings(max_examples=25, deadline=None)
@given(run=RUNS, bounds=BOUNDS)
def test_nothing_ships_that_was_not_chosen_before_it_was_measured_again(run: list, bounds: tuple) -> None:
    case, strict = Case(tuple(build(run))), rules(*bounds)
    assert decide(case, strict).shipped is None
    assert decide(case, strict).chosen == choose(case, strict)


def test_these_samples_are_such_that_something_passes_and_ships() -> None:
    """Else what holds for all that ships would hold of nothing."""
    evidence = build([(NAMES[0], 1, 0, 0, "there"), (NAMES[1], 0, 40, 0, "there")])
    verdict = decided(evidence, rules(3, 2, 1, 3, 9))
    assert verdict.shipped == NAMES[0] and passing(verdict) == {NAMES[0], REFERENCE}
