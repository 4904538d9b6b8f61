"""Statistics: minimum sizes, exact small cases, and simulated error rates (seeds fixed)."""

import numpy as np
import pytest
from scipy import special

from framegate.bench import stats
from framegate.bench.stats import Paired


@pytest.mark.parametrize(("share", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_percentiles_need_the_samples_that_loadgen_asks_for(share: float, n: int) -> None:
    assert stats.min_samples(share) == n
    assert stats.percentile(np.arange(n - 1), share) is None
    assert stats.percentile(np.arange(n), share) == n - 1


def test_no_samples_have_no_percentile() -> None:
    assert stats.percentile(np.array([], np.int64), 0.5) is None


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentile_is_an_upper_bound_at_99_percent(share: float) -> None:
    rng = np.random.default_rng(1)
    found = [stats.percentile(rng.random(1050), share) or 0.0 for _ in range(600)]
    assert np.mean(np.array(found) < share) <= 0.02
    assert np.mean(found) < share + 0.06


def test_a_process_with_too_few_calls_makes_the_bounds_unknown() -> None:
    ns = np.random.default_rng(0).integers(1, 9, (3, 10, 50))
    assert stats.process_percentile(ns, 0.5).high is not None
    assert stats.process_percentile(ns, 0.99).high is None  # 500 calls each, 662 needed
    assert stats.process_percentile(ns[:1], 0.5).high is None


def simulated_pairs(rng: np.random.Generator, ratio: float, processes: int) -> tuple[np.ndarray, np.ndarray]:
    """Sessions that differ by 1 % from process to process, calls that vary by 5 %."""
    shape = (processes, 21, 10)
    theirs, mine = (rng.normal(1, 0.01, (2, processes, 1, 1)) * rng.normal(1, 0.05, (2, *shape))) * 1e6
    return mine * ratio, theirs


@pytest.mark.parametrize("processes", [3, 10])
def test_ratio_bounds_err_in_at_most_five_percent(processes: int) -> None:
    rng = np.random.default_rng(2)
    found = [stats.ratio_p50(*simulated_pairs(rng, 0.8, processes)) for _ in range(200)]
    assert np.mean([f.high < 0.8 for f in found if f.high]) <= 0.08  # nominal 5 %, +- 2 sigma
    assert np.mean([f.low > 0.8 for f in found if f.low]) <= 0.08
    width = np.median([f.high - f.low for f in found if f.high and f.low])
    assert width < (0.08 if processes == 3 else 0.03)


def test_one_process_bounds_no_ratio() -> None:
    ns = np.full((1, 5, 50), 7)
    found = stats.ratio_p50(ns, ns)
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_tango_variance_equals_the_constrained_likelihood() -> None:
    pairs = Paired(n=200, groups=20, lost=9, won=4, cluster_variance=0.0)
    for drop in (-0.05, 0.0, 0.01, 0.2):
        grid = np.linspace(max(0.0, -drop) + 1e-7, (1 - drop) / 2 - 1e-7, 2_000_001)
        likelihood = 9 * np.log(grid + drop) + 4 * np.log(grid) + 187 * np.log(1 - 2 * grid - drop)
        q = grid[likelihood.argmax()]
        assert stats.tango_variance(pairs, drop) == pytest.approx((2 * q + drop - drop**2) / 200, rel=1e-4)


def test_clips_that_never_disagree_still_have_an_interval() -> None:
    right, groups = np.ones(1000, bool), np.arange(1000).astype(str)
    found = stats.drop_interval(stats.paired(right, right, groups))
    assert found.value == 0.0 and found.high == pytest.approx(0.0027, abs=2e-4) and found.low == -found.high


def test_bounds_are_those_of_the_z_rule() -> None:
    rng = np.random.default_rng(3)
    reference, candidate = rng.random(2000) < 0.95, rng.random(2000) < 0.94
    pairs = stats.paired(reference, candidate, rng.integers(0, 30, 2000).astype(str))
    found = stats.drop_interval(pairs)
    assert found.low is not None and found.high is not None and found.low < pairs.drop < found.high
    for bound in (found.low, found.high):
        variance = max(pairs.cluster_variance, stats.tango_variance(pairs, bound))
        assert abs(bound - pairs.drop) / np.sqrt(variance) == pytest.approx(special.stdtrit(29, 0.95))


def test_one_group_has_no_bounds_and_no_clips_no_value() -> None:
    right = np.ones(5, bool)
    assert stats.drop_interval(stats.paired(right, right, np.full(5, "a"))).high is None
    assert stats.drop_interval(Paired(0, 0, 0, 0, 0.0)).value is None


def test_clips_that_fail_together_widen_the_interval() -> None:
    right, candidate = np.ones(1000, bool), np.ones(1000, bool)
    candidate[:20] = False
    together = stats.drop_interval(stats.paired(right, candidate, (np.arange(1000) // 25).astype(str)))
    apart = stats.drop_interval(stats.paired(right, candidate, (np.arange(1000) % 40).astype(str)))
    assert together.high and apart.high and together.high - 0.02 > 1.5 * (apart.high - 0.02)


@pytest.mark.parametrize(("n", "groups", "spread"), [(1000, 40, 0.0), (1000, 40, 0.6), (600, 12, 0.6), (3000, 10, 0.3)])
def test_a_candidate_exactly_at_the_margin_rarely_passes(n: int, groups: int, spread: float) -> None:
    """False PASS at a drop of 1 point with 3 % disagreement; `spread`: how unlike the groups are."""
    rng, runs, passed = np.random.default_rng(4), 800, 0
    which = np.arange(n) % groups
    reference = np.ones(n, bool)
    for _ in range(runs):
        factor = rng.gamma(1 / spread**2, spread**2, groups) if spread else np.ones(groups)
        lost = rng.random(n) < np.clip(0.02 * factor, 0, 1)[which]
        won = rng.random(n) < 0.01
        found = stats.drop_interval(stats.paired(reference & ~(won & ~lost), ~lost, which.astype(str)))
        passed += found.high is not None and found.high <= 0.01
    assert passed / runs <= 0.075  # nominal 5 %; the measuring note allows 6.5 %, here + 1 sigma


@pytest.mark.parametrize(("margin", "clips"), [(0.01, 299), (0.076, 38), (0.0, None), (1.0, 1)])
def test_a_margin_needs_a_number_of_clips(margin: float, clips: int | None) -> None:
    assert stats.min_clips(margin) == clips
