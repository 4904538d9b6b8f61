"""A/A: the plan is fixed, runs are resumed, and the tally counts what was claimed."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from framegate.bench.aa import Plan, Run, load_runs, measure_runs, plan_of, run_path, tally
from framegate.bench.launch import WorkerStopped
from framegate.cli import main
from framegate.contract import ConfigError, DataError
from framegate.report.aa import draw
from tests.bundles import make_bundle

SMALL = {"pairs": 2, "blocks": 2, "calls": 5, "power_every": 2}


def planned(folder: Path, runs: int = 3) -> tuple[Path, Plan]:
    bundle = make_bundle(folder / "bundles")
    return bundle.path, plan_of(bundle, "ort-cpu", runs, **SMALL)


def test_runs_are_kept_and_only_what_is_missing_is_made_again(tmp_path: Path) -> None:
    bundle, plan = planned(tmp_path, runs=2)
    assert list(measure_runs(bundle, plan, tmp_path / "aa")) == [0, 1]
    before = [run_path(tmp_path / "aa", number).read_bytes() for number in range(2)]
    run_path(tmp_path / "aa", 1).unlink()
    list(measure_runs(bundle, plan, tmp_path / "aa"))
    after = [run_path(tmp_path / "aa", number).read_bytes() for number in range(2)]
    assert before[0] == after[0] and before[1] != after[1]
    runs = load_runs(tmp_path / "aa", plan)
    assert [run.candidate_ns.shape for run in runs] == [(2, 2, 5)] * 2
    assert [run.slow_ns is None for run in runs] == [False, True]


def test_another_plan_for_the_same_folder_is_refused(tmp_path: Path) -> None:
    bundle, plan = planned(tmp_path)
    plan.write(tmp_path / "aa/plan.json")
    with pytest.raises(ConfigError, match="runs: 3 there, 2 now"):
        list(measure_runs(bundle, plan.model_copy(update={"runs": 2}), tmp_path / "aa"))


def test_a_worker_that_dies_leaves_the_runs_before_it(tmp_path: Path) -> None:
    bundle, plan = planned(tmp_path)
    np.savez(run_path(tmp_path, 0), **{name: np.ones(1) for name in ("candidate_ns", "parent_ns")})
    kept = run_path(tmp_path, 0).read_bytes()
    dying = measure_runs(bundle, plan, tmp_path, (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    assert next(dying) == 0
    with pytest.raises(WorkerStopped, match="SIGKILL"):
        next(dying)
    assert run_path(tmp_path, 0).read_bytes() == kept and not run_path(tmp_path, 1).exists()


def test_a_run_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    _, plan = planned(tmp_path, runs=1)
    run_path(tmp_path, 0).write_bytes(b"PK cut")
    with pytest.raises(DataError, match="run-00000"):
        load_runs(tmp_path, plan)


def made(ratio: float, slow: float | None = None, seed: int = 0) -> Run:
    """Ten pairs of processes that differ by 0.3 %, the candidate `ratio` times as slow."""
    rng = np.random.default_rng(seed)
    shape = (10, 8, 100)

    def times(factor: float) -> np.ndarray:
        spread = rng.normal(1, 0.003, (10, 1, 1))
        return (1e6 * factor * spread * (1 + rng.exponential(0.02, shape))).astype(np.int64)

    slowed = (None, None) if slow is None else (times(slow), times(1.0))
    return Run(times(ratio), times(1.0), times(1.0)[0].ravel(), times(1.05)[0].ravel(), 0.5, *slowed)


def plan(**changed: object) -> Plan:
    return Plan(runs=4, bundle="b", runtime="ort-cpu", host_class="h", pairs=10, **changed)


def test_alarms_are_differences_beyond_the_margin_that_are_proven() -> None:
    runs = [made(1.0, slow=1.04, seed=1), made(1.06, seed=2), made(0.9, slow=1.0, seed=3), made(1.021, seed=5)]
    found = {(one.way, one.slowdown > 0): one for one in tally(runs, plan(), {"p50": 0.02, "p99": 0.1})}
    paired, naive = found["p50, 10 pairs", False], found["p50, one after the other", False]
    assert (paired.runs, paired.alarms, paired.fails, paired.passes) == (4, 3, 2, 1)
    assert naive.alarms == 4
    power = found["p50, 10 pairs", True]
    assert (power.runs, power.alarms, power.fails, power.passes) == (2, 1, 1, 1)
    assert paired.alarm_share_low < 3 / 4 < paired.alarm_share_high and 0 < paired.reach < 0.01


def test_runs_taken_together_have_the_pairs_of_all() -> None:
    found = {one.way: one for one in tally([made(1.0, seed=i) for i in range(9)], plan(), {"p50": 0.02, "p99": 0.1})}
    assert found["p99, 10 pairs"].runs == 9 and found["p99, 40 pairs"].runs == 2
    assert found["p99, 40 pairs"].reach < found["p99, 10 pairs"].reach and "p99, 160 pairs" not in found


def test_a_ratio_far_off_does_not_flatten_the_picture() -> None:
    near = draw([made(1.0, seed=k) for k in range(3)], plan(), 0.02)
    calm = made(1.0, seed=0)
    off = draw([replace(calm, naive_second_ns=2 * calm.naive_first_ns)], plan(), 0.02)
    assert "one after the other, 0 beyond" not in off and "one after the other, 1 beyond the edge" in off
    assert re.findall(r'<line class="grid"[^>]*>', near) == re.findall(r'<line class="grid"[^>]*>', off)


def test_the_command_prints_every_way_and_draws_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, _ = planned(tmp_path)
    words = ["--runs", "1", "--bundle", str(bundle), "--pairs", "2", "--blocks", "2", "--calls", "5"]
    main(["aa", *words, "-o", str(tmp_path / "aa")])
    said = capsys.readouterr().out
    assert all(way in said for way in ("p50, 2 pairs", "p99, 2 pairs", "p50, one after the other", "3% slower"))
    assert ElementTree.parse(tmp_path / "aa/aa.svg").getroot().tag.endswith("svg")
    assert (
        draw(load_runs(tmp_path / "aa", kept := Plan.read(tmp_path / "aa/plan.json")), kept, 0.02).count('class="dot"')
        >= 1
    )
