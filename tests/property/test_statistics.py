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


@settings(max_examples=20)
@given(seed=st.integers(0, 999), factor=st.floats(0.1, 10))
def test_scaling_both_sides_leaves_the_p99_ratio(seed: int, factor: float) -> None:
    mine, theirs = np.random.default_rng(seed).uniform(1e5, 2e5, (2, 3, 6, 40))
    a, b = stats.ratio_p99(mine, theirs), stats.ratio_p99(mine * factor, theirs * factor)
    assert np.allclose([a.value, a.low, a.high], [b.value, b.low, b.high])
    assert a.low <= a.value <= a.high


@settings(max_examples=20)
@given(seed=st.integers(0, 999), share=st.sampled_from([0.5, 0.9]), slower=st.integers(0, 10**5))
def test_bounds_over_processes_enclose_the_value_and_never_fall(seed: int, share: float, slower: int) -> None:
    ns = np.random.default_rng(seed).integers(10**5, 10**6, (10, 80))
    a, b = stats.process_percentile(ns, share), stats.process_percentile(ns + slower, share)
    assert a.low <= a.value <= a.high
    assert b.low >= a.low - 1e-9 and b.high >= a.high - 1e-9


@given(samples=SAMPLES, share=st.sampled_from([0.5, 0.9, 0.99]))
def test_the_lower_estimate_is_never_above_the_upper_one(samples: np.ndarray, share: float) -> None:
    low, high = stats.percentile_low(samples, share), stats.percentile(samples, share)
    assert low is None or high is None or low <= high


CLUSTERS = st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=2, max_size=30)


@given(clusters=CLUSTERS)
def test_a_clustered_share_is_never_surer_than_an_independent_one(clusters: list) -> None:
    sizes = np.array([size for size, _ in clusters])
    hits = np.array([round(size * part) for size, part in clusters])
    low, high = stats.clustered_proportion(hits, sizes)
    plain_low, plain_high = stats.proportion(int(hits.sum()), int(sizes.sum()))
    assert 0 <= low <= plain_low + 1e-9 and plain_high - 1e-9 <= high <= 1


@given(p=st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: list) -> None:
    adjusted = stats.holm(p)
    known = sorted((a, b) for a, b in zip(p, adjusted, strict=True) if a is not None)
    assert all(b >= a for a, b in known) and [b for _, b in known] == sorted(b for _, b in known)
    assert [a is None for a in p] == [b is None for b in adjusted]


@given(events=st.integers(0, 500), hours=st.floats(0.1, 100))
def test_more_hours_without_more_alarms_lower_the_rate(events: int, hours: float) -> None:
    a, b = stats.rate(events, hours), stats.rate(events, 2 * hours)
    assert a.low <= a.value <= a.high and b.high < a.high
