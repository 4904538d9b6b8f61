"""The gate: what holds for any candidates and rules."""

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract import Verdict
from framegate.gate import Evidence, GateRules, decide
from tests.evidence import REFERENCE, RULES, absent, make

NAMES = [
    "cnn_gru-pruned-fp32--ort-cpu",
    "cnn_gru-pruned-int8--ort-cpu",
    "cnn_gru-pruned-int8--openvino",
    "cnn_gru-pruned70-fp32--ort-cpu",
    "cnn-dense-fp32--ort-cpu",
]


@cache
def candidate(name: str, speed: int, lost: int, val_lost: int, kind: str) -> Evidence:
    """From a small table, so that each is computed once."""
    if kind == "absent":
        return absent(name)
    inputs = {"host_class": "another"} if kind == "elsewhere" else {}
    return make(name, (0.05, 0.2, 0.4, 0.6)[speed], 0.46, lost, 0, val_lost, n=900, groups=15, inputs=inputs)


@cache
def reference() -> Evidence:
    return make(n=900, groups=15)


RUNS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, 3),
        st.sampled_from([0, 2, 9, 40]),
        st.sampled_from([0, 2, 9]),
        st.sampled_from(["there"] * 6 + ["absent", "elsewhere"]),
    ),
    unique_by=lambda spec: spec[0],
)


def build(run: list[tuple]) -> list[Evidence]:
    return [reference(), *(candidate(*spec) for spec in run)]


def passing(verdict: Verdict) -> set[str]:
    return {one.candidate for one in verdict.candidates if one.status == "PASS"}


def rules(drop: float, ratio: float, p50: float, p99: float) -> GateRules:
    return GateRules.parse(
        {
            "reference": REFERENCE,
            "rules": [
                {"metric": "accuracy", "drop_max": drop},
                {"metric": "latency_p50_ms", "ratio_max": ratio},
                {"metric": "latency_p50_ms", "max": p50},
                {"metric": "latency_p99_ms", "max": p99},
            ],
        }
    )


BOUNDS = st.tuples(st.floats(0, 8), st.floats(0, 2), st.floats(0, 1), st.floats(0, 3))


@settings(max_examples=25, deadline=None)
@given(run=RUNS, bounds=BOUNDS, shares=st.tuples(*[st.floats(0, 1)] * 4))
def test_tightening_rules_never_lets_more_pass(run: list, bounds: tuple, shares: tuple) -> None:
    loose = decide(build(run), rules(*bounds))
    tight = decide(build(run), rules(*(b * s for b, s in zip(bounds, shares, strict=True))))
    assert passing(tight) <= passing(loose)


@settings(max_examples=25, deadline=None)
@given(run=RUNS, data=st.data())
def test_the_order_of_candidates_never_matters(run: list, data: st.DataObject) -> None:
    assert decide(build(data.draw(st.permutations(run)))[::-1], RULES) == decide(build(run), RULES)


@settings(max_examples=25, deadline=None)
@given(run=RUNS)
def test_adding_a_candidate_never_changes_anothers_evidence(run: list) -> None:
    after = {one.candidate: one for one in decide(build(run), RULES).candidates}
    for one in decide(build(run[:-1]), RULES).candidates:
        same = after[one.candidate]
        assert (same.outcomes, same.status, same.shortlisted) == (one.outcomes, one.status, one.shortlisted)


@settings(max_examples=25, deadline=None)
@given(run=RUNS, bounds=BOUNDS)
def test_what_ships_has_passed_and_was_walked_or_is_the_reference(run: list, bounds: tuple) -> None:
    verdict = decide(build(run), rules(*bounds))
    if verdict.shipped:
        one = next(c for c in verdict.candidates if c.candidate == verdict.shipped)
        assert one.status == "PASS" and one.outcomes and all(o.status == "PASS" for o in one.outcomes)
        assert one.candidate == REFERENCE or (one.walked and one.shortlisted)
    assert all(c.shortlisted for c in verdict.candidates if c.walked)
