"""Arrays of the wrong shape or kind in samples.npz, sealed as if they were right: a reason, never a crash."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from framegate.bench.samples import ARRAYS, Samples, SplitSamples
from framegate.contract import Verdict
from framegate.gate import Evidence, choose, decide
from tests.evidence import RULES, again, case_of, make

INT8 = "cnn_gru-pruned-int8--ort-cpu"
SMALL: dict[str, Any] = {"n": 900, "groups": 15}
Mutation = Callable[[NDArray[Any]], NDArray[Any]]
MUTATIONS: dict[str, Mutation] = {
    "empty": lambda array: array[:0],
    "a number": lambda _: np.array(1),
    "flat": lambda array: array.reshape(-1)[: len(array)],
    "one axis more": lambda array: array[None],
    "text": lambda array: np.full(array.shape, "x"),
    "one short": lambda array: array[1:],
}


def mutated(one: Evidence, where: str, mutation: Mutation) -> Evidence:
    """The same candidate with one array of its samples changed: `where` is its name in samples.npz."""
    samples = one.samples
    assert samples
    split, _, field = where.partition("_")
    if split in ("val", "test"):
        clips = samples.splits[split]  # type: ignore[index]
        changed = replace(clips, **{field: mutation(getattr(clips, field))})
        return of(one, replace(samples, splits={**samples.splits, split: changed}))
    if where in ARRAYS:
        return of(one, replace(samples, **{where: mutation(getattr(samples, where))}))
    return of(one, replace(samples, extra={**samples.extra, where: mutation(samples.extra[where])}))


def of(one: Evidence, samples: Samples) -> Evidence:
    return Evidence(one.name, one.measurement, samples)


def verdict(candidate: Evidence, reference: Evidence, confirmation: Evidence, champion: Evidence | None) -> Verdict:
    case = case_of([reference, candidate], confirmation=confirmation, champion=champion)
    choose(case, RULES)  # which may not stumble either
    return decide(case, RULES)


def status(found: Verdict, name: str) -> str:
    return next(one.status for one in found.candidates if one.candidate == name)


JUDGED = [name for name in ARRAYS if name != "candidate_first"]  # a note: nothing is decided by it
CLIPS = [f"{split}_{field}" for split in ("val", "test") for field in SplitSamples.__slots__]
FLAT_ALREADY = {"audit_ids", *(name for name in CLIPS if not name.endswith("logits"))}
CHANGES = [
    (where, how) for where in JUDGED + CLIPS for how in MUTATIONS if not (how == "flat" and where in FLAT_ALREADY)
]
SEEN_AGAIN = [(where, how) for where, how in CHANGES if where in JUDGED]
MET_ITSELF = [(where, how) for where in ("self_candidate_ns", "self_parent_ns") for how in MUTATIONS]


@pytest.mark.parametrize(("where", "how"), CHANGES)
def test_in_a_candidate_the_reference_or_the_champion(where: str, how: str) -> None:
    good, reference = make(INT8, p50_ms=0.1, **SMALL), make(**SMALL)
    champion = make("cnn_gru-pruned-fp32--ort-cpu", p50_ms=0.2, **SMALL)
    confirmed = again(good)
    found = verdict(good, reference, confirmed, champion)
    assert found.shipped == INT8 and not found.warnings
    change = MUTATIONS[how]
    assert status(verdict(mutated(good, where, change), reference, confirmed, None), INT8) == "INCONCLUSIVE"
    assert status(verdict(good, mutated(reference, where, change), confirmed, None), INT8) == "INCONCLUSIVE"
    (warning,) = verdict(good, reference, confirmed, mutated(champion, where, change)).warnings
    assert warning.startswith("not compared with the champion")


@pytest.mark.parametrize(("where", "how"), SEEN_AGAIN + MET_ITSELF)
def test_in_a_confirmation(where: str, how: str) -> None:
    good, reference = make(INT8, p50_ms=0.1, **SMALL), make(**SMALL)
    found = verdict(good, reference, mutated(again(good), where, MUTATIONS[how]), None)
    assert (found.chosen, found.shipped) == (INT8, None)
    assert "measured again, its" in found.sentence or "nothing shows how quiet" in found.sentence
