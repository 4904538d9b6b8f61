"""All candidates are bad: what the gate ships of them, on few seeds. The whole figure: benchmarks.null_gate."""

from benchmarks.null_gate import Setting, run


def test_the_walk_ships_a_bad_one_rarely_where_choosing_the_fastest_does_often() -> None:
    facts = run(range(50), Setting(candidates=8, clips=1200, val_clips=400, groups=40, spread=0.3))
    assert facts["gate"]["bad"] <= 5  # more than that of fifty is seen once in 26 times at 5 %
    assert facts["alone"]["bad"] >= 10 and facts["naive"]["bad"] >= 45
