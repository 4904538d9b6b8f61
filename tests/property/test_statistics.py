"""Statistics: what holds for any samples."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.bench import stats
from framegate.bench.stats import Paired

SAMPLES = st.lists(st.integers(1, 10**9), min_size=1, max_size=300).map(np.array)


@given(samples=SAMPLES)
def test_percentiles_are_monotone_and_never_above_the_maximum(samples: np.ndarray) -> None:
    found = [stats.percentile(samples, share) for share in (0.5, 0.9, 0.95)]
    known = [value for value in found if value is not None]
    assert known == sorted(known) and all(value <= samples.max() for value in known)
    assert found[len(known) :] == [None] * (3 - len(known))  # a harder one is not known before an easier one


@given(samples=SAMPLES, slower=st.integers(0, 10**6))
def test_slower_calls_never_give_a_lower_percentile(samples: np.ndarray, slower: int) -> None:
    before, after = (stats.percentile(values, 0.5) for values in (samples, samples + slower))
    assert (before is None) == (after is None) and (before is None or before <= after)


@given(samples=SAMPLES, seed=st.integers(0, 99))
def test_percentiles_do_not_depend_on_order(samples: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(samples)
    assert stats.percentile(samples, 0.5) == stats.percentile(shuffled, 0.5)


@st.composite
def counts(draw: st.DrawFn) -> Paired:
    n = draw(st.integers(1, 2000))
    lost = draw(st.integers(0, n))
    won = draw(st.integers(0, n - lost))
    return Paired(n, draw(st.integers(2, 60)), lost, won, draw(st.floats(0, 0.01)))


@given(pairs=counts())
def test_the_drop_lies_within_its_bounds(pairs: Paired) -> None:
    found = stats.drop_interval(pairs)
    assert found.low is not None and found.high is not None
    assert -1 <= found.low <= pairs.drop + 1e-9 and pairs.drop - 1e-9 <= found.high <= 1


@given(pairs=counts())
def test_swapping_the_two_mirrors_the_interval(pairs: Paired) -> None:
    there = stats.drop_interval(pairs)
    back = stats.drop_interval(Paired(pairs.n, pairs.groups, pairs.won, pairs.lost, pairs.cluster_variance))
    assert there.low is not None and back.high is not None and abs(there.low + back.high) < 1e-6


@given(pairs=counts(), more=st.floats(0, 0.1))
def test_more_variance_between_groups_never_narrows(pairs: Paired, more: float) -> None:
    wide = Paired(pairs.n, pairs.groups, pairs.lost, pairs.won, pairs.cluster_variance + more)
    a, b = stats.drop_interval(pairs), stats.drop_interval(wide)
    assert a.high is not None and b.high is not None and b.high >= a.high - 1e-9


@settings(max_examples=20)
@given(seed=st.integers(0, 999), factor=st.floats(0.1, 10))
def test_scaling_both_sides_leaves_the_ratio(seed: int, factor: float) -> None:
    mine, theirs = np.random.default_rng(seed).uniform(1e5, 2e5, (2, 3, 5, 20))
    a, b = stats.ratio_p50(mine, theirs), stats.ratio_p50(mine * factor, theirs * factor)
    assert np.allclose([a.value, a.low, a.high], [b.value, b.low, b.high])
    assert a.low <= a.value <= a.high
