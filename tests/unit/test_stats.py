"""Statistics: minimum sizes, worked examples, and what is unknown. Simulated error rates: test_simulations.py."""

import time
import timeit
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from framegate.bench import stats
from framegate.bench.stats import Paired, bounds, ratios


@pytest.mark.parametrize(("share", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_percentiles_need_the_samples_that_loadgen_asks_for(share: float, n: int) -> None:
    assert stats.min_samples(share) == n
    assert stats.percentile(np.arange(n - 1), share) is None
    assert stats.percentile(np.arange(n), share) == n - 1


def test_no_samples_have_no_percentile() -> None:
    assert stats.percentile(np.array([], np.int64), 0.5) is None


@pytest.mark.parametrize(("share", "n"), [(0.5, 7), (0.9, 44), (0.95, 90), (0.99, 459), (0.999, 4603)])
def test_a_deadline_that_was_never_missed_needs_fewer_calls(share: float, n: int) -> None:
    assert stats.min_samples_without_miss(share) == n
    assert share**n <= 0.01 < share ** (n - 1)


def test_the_lower_estimate_mirrors_the_upper_one() -> None:
    samples = np.random.default_rng(5).random(1000)
    for share in (0.3, 0.5, 0.9):
        assert stats.percentile_low(samples, share) == -(stats.percentile(-samples, 1 - share) or 0.0)
    assert stats.percentile_low(np.arange(10), 0.5) is None and stats.percentile_low(np.arange(11), 0.5) == 0


# --- over processes ---------------------------------------------------------------------------


def solo(processes: int, calls: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(400_000, 500_000, (processes, calls))


def test_nine_processes_prove_no_absolute_percentile() -> None:
    few, enough = (stats.process_percentile(solo(n, 700), 0.99) for n in (9, 10))
    assert few.value is not None and few.low is None and few.high is None
    assert enough.low is not None and enough.high is not None and enough.low <= enough.value <= enough.high


def test_every_process_needs_calls_enough_for_its_own_percentile() -> None:
    found = stats.process_percentile(solo(10, 661), 0.99)
    assert found.value is not None and found.high is None
    assert stats.process_percentile(solo(10, 60), 0.99).value is None


def test_blocks_of_calls_are_calls() -> None:
    ns = solo(10, 800)
    assert stats.process_percentile(ns, 0.9) == stats.process_percentile(ns.reshape(10, 16, 50), 0.9)


def test_bounds_over_processes_enclose_the_t_bounds_of_their_estimates() -> None:
    ns = solo(12, 900) * np.linspace(1, 1.2, 12)[:, None]
    found = stats.process_percentile(ns, 0.9)
    highs = np.array([stats.percentile(one / 1e6, 0.9) for one in ns])
    lows = np.array([stats.percentile_low(one / 1e6, 0.9) for one in ns])
    reach = special.stdtrit(11, 0.95) / np.sqrt(12)
    assert found.high is not None and found.high >= highs.mean() + reach * highs.std(ddof=1) - 1e-12
    assert found.low is not None and found.low <= lows.mean() - reach * lows.std(ddof=1) + 1e-12


def test_one_burst_in_one_process_is_seen_in_the_upper_bound() -> None:
    ns = solo(10, 1500)
    before = stats.process_percentile(ns, 0.99).high
    ns[3, 200:300] *= 4
    after = stats.process_percentile(ns, 0.99).high
    assert before is not None and before < 0.51 and after is not None and after > 1.6


# --- ratios -----------------------------------------------------------------------------------


def drawn_again(blocks: int) -> np.ndarray:
    """Block counts as the ratio's bootstrap draws them, [resample, 3 * blocks]."""
    return ratios._draws(3, blocks, 0)


def test_the_weighted_quantile_equals_laying_the_blocks_out() -> None:
    ns = np.random.default_rng(6).integers(1, 10**6, (3, 8, 37))
    ns[1] *= 5  # the tail is one process's, so some resamples have none of it
    weights = drawn_again(8)
    for share in (0.5, 0.9, 0.99):
        found = ratios._weighted_quantiles(ns, weights, share)
        for row in range(0, 300, 7):
            laid_out = np.repeat(ns.reshape(24, 37), weights[row], axis=0)
            assert found[row] == np.quantile(laid_out, share, method="inverted_cdf")


@pytest.mark.parametrize("blocks", [5, 6])
def test_the_weighted_median_equals_laying_the_values_out(blocks: int) -> None:
    values, weights = np.random.default_rng(7).random(3 * blocks), drawn_again(blocks)
    found = ratios._weighted_medians(values, weights)
    assert [np.median(np.repeat(values, row)) for row in weights[:200]] == pytest.approx(found[:200])


def test_processes_are_drawn_first_then_their_blocks() -> None:
    processes = drawn_again(6).reshape(-1, 3, 6).sum(axis=2)  # blocks drawn of each process
    assert set(np.unique(processes)) == {0, 6, 12, 18}
    assert (processes == 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.02)


def test_fewer_than_662_calls_a_side_have_no_p99_ratio() -> None:
    mine, theirs = np.random.default_rng(8).integers(10**5, 2 * 10**5, (2, 10, 1, 67))
    assert stats.ratio_p99(mine, theirs).value is not None
    assert stats.ratio_p99(mine[:, :, :66], theirs[:, :, :66]) == stats.Estimate(None, None, None, 660)


def test_the_p99_ratio_is_that_of_pooled_quantiles() -> None:
    mine, theirs = np.random.default_rng(9).integers(10**5, 2 * 10**5, (2, 10, 4, 50))
    mine[0, 0] *= 10  # one slow block: pooled, 50 of 2000 calls, it is the p99; a median of block p99s would hide it
    assert (stats.ratio_p99(mine, theirs).value or 0) > 5


@pytest.mark.parametrize("ratio", [stats.ratio_p50, stats.ratio_p99])
def test_a_clock_that_stood_still_or_ran_backwards_proves_no_ratio(ratio: Callable) -> None:
    for wrong in (0, -5):
        ns = np.full((10, 4, 50), 100)
        ns[2, 1, 3] = wrong
        assert ratio(ns, np.full((10, 4, 50), 100)).value is None
        assert ratio(np.full((10, 4, 50), 100), ns).value is None


@pytest.mark.parametrize(("ratio", "limit_s"), [(stats.ratio_p50, 0.03), (stats.ratio_p99, 0.3)])
def test_ratios_are_fast_enough_to_be_asked_thousands_of_times(ratio: Callable, limit_s: float) -> None:
    mine, theirs = np.random.default_rng(0).integers(10**5, 2 * 10**5, (2, 10, 16, 50))
    found = timeit.repeat(lambda: ratio(mine, theirs), timer=time.process_time, number=1, repeat=7)
    assert min(found) < limit_s  # ten times what a quiet core takes


def test_one_process_bounds_no_ratio() -> None:
    ns = np.full((1, 14, 50), 7)
    for found in (stats.ratio_p50(ns, ns), stats.ratio_p99(ns, ns)):
        assert (found.value, found.low, found.high) == (1.0, None, None)


# --- accuracy ---------------------------------------------------------------------------------


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
        between = special.stdtrit(pairs.effective_groups - 1, 0.95) * np.sqrt(pairs.cluster_variance)
        within = special.stdtrit(29, 0.95) * np.sqrt(stats.tango_variance(pairs, bound))
        assert abs(bound - pairs.drop) == pytest.approx(max(between, within))


def test_groups_count_by_what_they_carry() -> None:
    right, groups = np.ones(1200, bool), np.repeat(np.arange(12), 100).astype(str)
    evenly, alone = right.copy(), right.copy()
    evenly[::50] = False
    alone[:20] = False
    assert stats.paired(right, evenly, groups).effective_groups == pytest.approx(12, abs=0.01)
    one = stats.paired(right, alone, groups)
    assert one.effective_groups < 2 and one.cluster_df == 1
    assert stats.drop_interval(one).high > 6 * one.drop  # t with one degree of freedom


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


@pytest.mark.parametrize(("margin", "clips"), [(0.01, 299), (0.076, 38), (0.0, None), (1.0, 1)])
def test_a_margin_needs_a_number_of_clips(margin: float, clips: int | None) -> None:
    assert stats.min_clips(margin) == clips


def test_a_group_that_decides_is_told_by_the_drop_without_it() -> None:
    reference, candidate = np.ones(400, bool), np.ones(400, bool)
    groups = np.repeat([f"camera {g}" for g in range(10)], 40)
    candidate[:20] = False  # half of camera 0
    pairs = stats.paired(reference, candidate, groups)
    assert pairs.rests_on_few_groups and pairs.design_effect == pytest.approx(20, rel=0.1)
    without = stats.drop_without(reference, candidate, groups)
    assert without["camera 0"] == 0.0 and without["camera 1"] == pytest.approx(20 / 360) and len(without) == 10
    spread = stats.paired(reference, candidate[np.random.default_rng(0).permutation(400)], groups)
    assert not spread.rests_on_few_groups
    assert stats.drop_without(reference, candidate, np.full(400, "one")) == {}


def test_the_variance_of_independent_clips_is_the_multinomial_one() -> None:
    pairs = stats.paired(np.arange(100) >= 5, (np.arange(100) >= 15) | (np.arange(100) < 5), np.arange(100).astype(str))
    assert (pairs.lost, pairs.won) == (10, 5)
    assert pairs.iid_variance == pytest.approx((0.15 - 0.05**2) / 100)
    assert pairs.cluster_variance == pytest.approx(pairs.iid_variance * 100 / 99)  # each clip its own group


# --- sizes ------------------------------------------------------------------------------------


def test_the_smallest_decidable_margin_is_the_inverse_of_the_clips_it_takes() -> None:
    assert stats.smallest_margin(38) == pytest.approx(0.0758, abs=1e-4)
    assert stats.smallest_margin(38, 2) == pytest.approx(0.512, abs=1e-3)
    for groups in (None, 10, 40):
        clips = stats.min_clips(0.01, groups)
        assert clips is not None
        assert (stats.smallest_margin(clips, groups) or 1) <= 0.01 < (stats.smallest_margin(clips - 1, groups) or 0)
    assert stats.smallest_margin(0) is None and stats.smallest_margin(38, 1) is None and stats.min_clips(0.1, 1) is None


@pytest.mark.parametrize("groups", [10, 40])
def test_clips_that_never_disagree_prove_the_smallest_margin_and_no_less(groups: int) -> None:
    high = stats.drop_interval(Paired(300, groups, 0, 0, 0.0)).high
    margin = stats.smallest_margin(300, groups)
    assert high is not None and margin is not None and high <= margin + 1e-9


def test_the_size_that_would_do_does_and_a_smaller_one_does_not() -> None:
    pairs = Paired(n=1000, groups=40, lost=12, won=8, cluster_variance=2.5e-5)
    size = stats.enough(pairs, 0.01)
    assert size is not None and size.clips > 1000

    def high(clips: int) -> float:
        k = clips / 1000
        more = Paired(clips, round(40 * k), round(12 * k), round(8 * k), 2.5e-5 / k)
        return stats.drop_interval(more).high or 1.0

    assert high(size.clips) <= 0.0102 < high(size.clips * 9 // 10)


def test_no_size_would_do_for_a_drop_beyond_the_margin() -> None:
    assert stats.enough(Paired(1000, 40, 20, 8, 2e-5), 0.01) is None
    assert (
        stats.enough(Paired(1000, 1, 2, 2, 0.0), 0.01) is None and stats.enough(Paired(0, 0, 0, 0, 0.0), 0.01) is None
    )
    assert stats.enough(Paired(20, 10, 0, 0, 0.0), 0.01) == stats.Size(299, 150)


@pytest.mark.parametrize(
    ("clips", "disagreement", "drop", "expected"),
    [(1000, 0.02, 0.0, 0.69), (1000, 0.02, 0.003, 0.43), (3000, 0.03, 0.0, 0.93), (3000, 0.03, 0.003, 0.70)],
)
def test_power_at_a_margin_of_one_point(clips: int, disagreement: float, drop: float, expected: float) -> None:
    assert stats.power(clips, disagreement, drop, 0.01) == pytest.approx(expected, abs=0.005)
    assert stats.power(clips, disagreement, drop, 0.01, groups=10) < expected


def test_power_refuses_a_drop_beyond_all_disagreement() -> None:
    with pytest.raises(ValueError, match=r"a drop of 0\.03 takes a disagreement of 0\.03"):
        stats.power(1000, 0.02, 0.03, 0.01)


# --- agreement --------------------------------------------------------------------------------


def test_299_independent_clips_that_agree_prove_one_point() -> None:
    own = np.arange(299).astype(str)
    assert (stats.agreement(np.zeros(299, bool), own).high or 1) <= 0.01
    assert (stats.agreement(np.zeros(298, bool), own[:298]).high or 0) > 0.01
    assert (stats.agreement(np.zeros(299, bool), (np.arange(299) % 10).astype(str)).high or 0) > 0.01  # not independent


def test_disagreements_that_come_together_weigh_more() -> None:
    groups = (np.arange(3000) // 75).astype(str)
    together, apart = np.zeros(3000, bool), np.zeros(3000, bool)
    together[:15], apart[::200] = True, True
    a, b = stats.agreement(together, groups), stats.agreement(apart, groups)
    assert a.value == b.value == 0.005 and a.high is not None and b.high is not None and a.high > 1.5 * b.high


def test_one_group_or_no_clip_bounds_no_disagreement() -> None:
    assert stats.agreement(np.zeros(400, bool), np.full(400, "a")) == stats.Estimate(0.0, None, None, 400)
    assert stats.agreement(np.zeros(0, bool), np.zeros(0, "<U1")).value is None


# --- classes ----------------------------------------------------------------------------------


def test_holm_steps_down_from_the_smallest() -> None:
    assert stats.holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0] and stats.holm([None]) == [None]


def guarded(lost: dict[int, int], tolerance: float = 0.0, groups: int = 20) -> tuple[stats.ClassRecall, ...]:
    """Three classes of 125 clips; of class k `lost[k]` are lost."""
    labels, order = np.repeat(np.arange(3), 125), np.tile(np.arange(125), 3)
    candidate = order >= np.array([lost.get(k, 0) for k in labels])
    names = (order % groups).astype(str)
    return stats.recall_guardrails(np.ones(375, bool), candidate, labels, names, ("a", "b", "c"), tolerance)


def test_a_class_that_lost_much_is_harmed_and_no_other() -> None:
    assert [one.harmed for one in guarded({1: 15})] == [False, True, False]


def test_a_class_is_harmed_only_beyond_the_tolerance() -> None:
    assert guarded({1: 15}, 0.02)[1].harmed and not guarded({1: 15}, 0.1)[1].harmed


def test_three_lost_clips_are_no_more_evidence_than_the_sign_test_gives() -> None:
    assert guarded({0: 3})[0].p == pytest.approx(0.125)
    assert guarded({})[0].p == 1.0


def test_a_class_of_one_group_or_without_clips_says_nothing() -> None:
    assert [one.adjusted for one in guarded({1: 60}, groups=1)] == [None] * 3
    labels = np.zeros(40, np.int64)
    found = stats.recall_guardrails(np.ones(40, bool), labels > 0, labels, np.arange(40).astype(str), ("a", "b"))
    assert found[0].harmed and found[0].adjusted == found[0].p  # a family of one
    assert (found[1].pairs, found[1].p, found[1].harmed) == (None, None, False)


# --- alarms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("events", "low", "high"), [(0, 0.0, 2.996), (1, 0.0513, 4.744), (10, 5.425, 16.962)])
def test_a_rate_has_the_exact_poisson_bounds_of_the_tables(events: int, low: float, high: float) -> None:
    found = stats.rate(events, 2.0)
    assert found.value == events / 2 and found.n == events
    assert (found.low, found.high) == (pytest.approx(low / 2, abs=1e-3), pytest.approx(high / 2, abs=1e-3))


def test_no_hour_has_no_rate() -> None:
    assert stats.rate(3, 0.0) == stats.Estimate(None, None, None, 3)


def test_alarms_of_one_stream_weigh_less_than_alarms_of_all() -> None:
    hours = np.ones(20)
    one, all_ = stats.rate(np.eye(20, dtype=np.int64)[0] * 40, hours), stats.rate(np.full(20, 2), hours)
    assert one.value == all_.value == 2.0 and one.high is not None and all_.high is not None
    assert one.high > 2 * all_.high and all_.high >= (stats.rate(40, 20.0).high or 9)


def test_an_undetected_event_takes_for_ever() -> None:
    found = stats.median_time(np.array([3.0, np.inf, 1.0, 2.0, np.inf, 4.0, 5.0]))
    assert (found.value, found.low, found.high, found.n) == (4.0, 1.0, np.inf, 7)
    assert stats.median_time(np.array([1.0, np.inf])).value == np.inf
    assert stats.median_time(np.arange(4.0)) == stats.Estimate(1.5, None, None, 4)
    assert stats.median_time(np.array([])).value is None


@pytest.mark.parametrize(("n", "k"), [(5, 1), (8, 2), (11, 3), (20, 6), (100, 42)])
def test_the_median_has_the_order_statistics_of_the_tables(n: int, k: int) -> None:
    found = stats.median_time(np.arange(1.0, n + 1))
    assert (found.low, found.high) == (k, n + 1 - k)


@pytest.mark.parametrize(("alarms", "runs"), [(0, 299), (1, 473), (2, 628)])
def test_so_few_alarms_in_so_many_runs_show_one_percent(alarms: int, runs: int) -> None:
    assert stats.min_runs(alarms) == runs
    assert (stats.alarm_rate(alarms, runs).high or 1) <= 0.01 < (stats.alarm_rate(alarms, runs - 1).high or 0)


def test_alarm_rates_are_exact_and_no_run_has_none() -> None:
    found = stats.alarm_rate(3, 50)
    assert special.bdtr(3, 50, found.high) == pytest.approx(0.05)
    assert special.bdtrc(2, 50, found.low) == pytest.approx(0.05)
    assert stats.alarm_rate(0, 0).value is None and stats.alarm_rate(7, 7).high == 1.0


def test_the_signed_rank_bounds_are_those_of_the_tables() -> None:
    values = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])
    walsh = sorted((values[i] + values[j]) / 2 for i in range(10) for j in range(i, 10))
    assert bounds.center_low(values) == walsh[10] and bounds.center_high(values) == walsh[-11]  # W <= 10 at 5 %, n = 10
    few = values[:4]
    assert bounds.center_low(few) == bounds.mean_low(few)


def test_one_process_that_met_a_neighbour_does_not_hide_a_slowdown() -> None:
    logs = np.log([0.82, 1.024, 1.026, 1.028, 1.029, 1.03, 1.031, 1.033, 1.034, 1.036])
    assert np.exp(bounds.mean_low(logs)) < 1 < 1.02 < np.exp(bounds.center_low(logs))


def test_what_was_never_answered_is_slower_than_anything() -> None:
    ms = np.random.default_rng(0).gamma(4, 1, (3, 3000))
    found = stats.clustered_percentile(ms, 0.99)
    assert found.low < np.quantile(ms, 0.99) < found.high < np.quantile(ms, 0.999)
    ms[:, :60] = np.inf
    assert stats.clustered_percentile(ms, 0.99).value == np.inf
    few = stats.clustered_percentile(ms[:, 100:110], 0.99)
    assert (few.value, few.low, few.high) == (None, None, None)
