"""Error rates by simulation, fast variants of `python -m benchmarks.statistics` (seeds fixed, thresholds 2-3 sigma).

Each also shows that the naive way fails on the same runs: else the noise would be too tame to prove anything.
"""

from functools import partial

import pytest

from benchmarks.noise import BURSTS, RESTLESS, Cameras, Machine
from benchmarks.statistics import (
    DRIFTING,
    MARGIN,
    P50_MARGIN,
    P99_MARGIN,
    agreement_of,
    alarms_of,
    alone,
    beside,
    bootstrapped_drop_of,
    classes_of,
    detections_of,
    drop_of,
    one_trace,
    over_processes,
    simulate,
)
from framegate.bench import stats


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentiles_of_one_trace_hold_at_99_percent_both_ways(share: float) -> None:
    found = simulate(partial(one_trace, share, 1050), 1000)
    assert found["high misses"] <= 0.02 and found["low misses"] <= 0.02


def test_percentiles_over_processes_hold_in_bursts_where_one_trace_does_not() -> None:
    found = simulate(partial(over_processes, BURSTS, 10, 1500, 0.99), 70)
    assert found["high misses"] <= 0.11 and found["low misses"] <= 0.11
    assert found["high as one trace misses"] >= 0.12 and found["high by t alone misses"] >= 0.08


@pytest.mark.parametrize("pairs", [3, 10])
def test_p50_ratio_bounds_err_in_five_percent_on_a_restless_machine(pairs: int) -> None:
    found = simulate(partial(beside, stats.ratio_p50, P50_MARGIN, RESTLESS, pairs, 1.0), 200)
    assert found["high misses"] <= 0.085 and found["low misses"] <= 0.085
    assert found[f"FAIL at {P50_MARGIN}"] == 0.0
    assert found[f"PASS at {P50_MARGIN}"] >= (0.35 if pairs == 3 else 0.9)  # 3 pairs resolve +- 3 %, 10 +- 1 %


def test_ten_pairs_see_a_slowdown_of_three_percent() -> None:
    found = simulate(partial(beside, stats.ratio_p50, P50_MARGIN, RESTLESS, 10, 1.03), 100)
    assert found["seen as slower"] >= 0.93 and found[f"PASS at {P50_MARGIN}"] <= 0.01


def test_measured_one_after_the_other_equals_look_slower() -> None:
    assert simulate(partial(alone, DRIFTING, 1.0), 200)[f"over {P50_MARGIN}"] >= 0.1


@pytest.mark.parametrize(("machine", "pairs"), [(RESTLESS, 10), (BURSTS, 3), (BURSTS, 10)])
def test_p99_ratio_bounds_err_in_five_percent(machine: Machine, pairs: int) -> None:
    found = simulate(partial(beside, stats.ratio_p99, P99_MARGIN, machine, pairs, 1.0), 30)
    assert found["high misses"] <= 0.17 and found["low misses"] <= 0.17
    assert found[f"PASS at {P99_MARGIN}"] >= (0.95 if machine is RESTLESS else 0.0)


@pytest.mark.parametrize(
    ("cameras", "disagreement"),
    [(Cameras(50, g), MARGIN) for g in (2, 9, 40)]
    + [(Cameras(1000, g, spread), 0.03) for g in (2, 9, 40) for spread in (0.0, 0.6)],
)
def test_a_candidate_exactly_at_the_margin_rarely_passes(cameras: Cameras, disagreement: float) -> None:
    found = simulate(partial(drop_of, cameras, MARGIN, disagreement), 300)
    assert found["PASS"] <= 0.085 and found["FAIL"] <= 0.085


@pytest.mark.parametrize(("cameras", "least"), [(Cameras(50, 9), 0.4), (Cameras(1000, 2, 0.6), 0.15)])
def test_a_bootstrap_over_groups_passes_what_it_should_not(cameras: Cameras, least: float) -> None:
    disagreement = MARGIN if cameras.clips == 50 else 0.03
    assert simulate(partial(bootstrapped_drop_of, cameras, MARGIN, disagreement), 100)["PASS"] >= least


def test_the_drop_rule_has_the_power_that_the_exact_sum_gives() -> None:
    found = simulate(partial(drop_of, Cameras(1000, 1000), 0.0, 0.02), 400)["PASS"]
    assert found == pytest.approx(stats.power(1000, 0.02, 0.0, 0.01), abs=0.07)


@pytest.mark.parametrize("cameras", [Cameras(299, 299), Cameras(1000, 40, 0.6), Cameras(1000, 40, 1.5)])
def test_a_disagreement_exactly_at_the_margin_rarely_passes(cameras: Cameras) -> None:
    assert simulate(partial(agreement_of, cameras, MARGIN), 400)["PASS"] <= 0.085


def test_a_small_disagreement_passes_without_labels() -> None:
    assert simulate(partial(agreement_of, Cameras(1000, 40), 0.002), 150)["PASS"] >= 0.8


def test_unharmed_classes_are_rarely_called_harmed_and_a_harmed_one_is_found() -> None:
    unharmed = simulate(partial(classes_of, Cameras(1125, 40, 0.6), 0.0), 150)
    assert unharmed["first class harmed"] + unharmed["another class harmed"] <= 0.08
    harmed = simulate(partial(classes_of, Cameras(1125, 40), 0.15), 80)
    assert harmed["first class harmed"] >= 0.8 and harmed["another class harmed"] <= 0.08


def test_alarm_rates_by_stream_hold_where_their_sum_does_not() -> None:
    found = simulate(partial(alarms_of, 20, 5.0, 1.0, 1.0), 1000)
    assert found["high misses"] <= 0.1 and found["low misses"] <= 0.1
    assert found["high of the sum misses"] >= 0.15
    alike = simulate(partial(alarms_of, 20, 5.0, 1.0, 0.0), 1000)
    assert all(share <= 0.07 for share in alike.values())


@pytest.mark.parametrize(("events", "never"), [(5, 0.0), (10, 0.3), (50, 0.3)])
def test_bounds_of_the_median_time_hold_with_events_that_are_never_detected(events: int, never: float) -> None:
    found = simulate(partial(detections_of, events, never), 1500)
    assert found["high misses"] <= 0.065 and found["low misses"] <= 0.065
