"""Measuring: what a measurement holds, and how a worker that goes wrong is written down."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framegate.bench.facts import accuracy_facts, confusion
from framegate.bench.latency import Lane, Slowed, time_pair, time_solo, warm_up
from framegate.bench.measure import measure, measure_again
from framegate.bench.phases import video_phases
from framegate.bench.processes import Bench
from framegate.bench.samples import Samples, SplitSamples
from framegate.bench.settings import BenchSettings
from framegate.contract import CandidateName, ClipSpec, Measurement
from framegate.gate import load_evidence
from framegate.runtime.session import FakeSession, Floats, Frames, run_clips
from tests.bundles import LABELS, SPEC, WEIGHTS, color_clips, fake_reader, make_bundle

QUICK = BenchSettings(pairs=2, blocks=3, calls_per_block=20, solo_processes=2, solo_calls=40, timeout_s=60)
DENSE, PRUNED = "tiny-dense-fp32--ort-cpu", "tiny-pruned-fp32--ort-cpu"


def planned(tmp_path: Path, name: str = PRUNED, **changed: object) -> Bench:
    candidate = CandidateName.parse(name)
    parent = make_bundle(tmp_path, ballast=800).path
    bundle = parent if candidate.bundle == "tiny-dense-fp32" else make_bundle(tmp_path, candidate.bundle).path
    return Bench(candidate, bundle, parent, fake_reader(60), QUICK.model_copy(update=changed))


def measured(tmp_path: Path, name: str = PRUNED, **changed: object) -> Measurement:
    return measure(planned(tmp_path, name, **changed), tmp_path / "out")


def test_a_measurement_holds_facts_samples_and_what_it_depends_on(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found.status == "measured" and found == Measurement.read(tmp_path / "out" / "measurement.json")
    assert all(found.inputs[key] for key in ("bundle", "parent", "index", "dataset", "host_class", "bench"))
    assert found.session["provider"] == "CPUExecutionProvider" and found.session["threads"] == 1
    assert found.accuracy["test"].n == found.accuracy["val"].n == 60 and found.accuracy["test"].accuracy > 0.8
    assert found.latency and found.latency.calls == 80 and found.latency.p99_ms is None
    assert (found.latency.pairs, found.latency.processes) == (2, 2) and found.memory_bytes > 20_000_000
    assert found.latency.ratio_p50 and found.latency.ratio_p50 < 0.9
    evidence = load_evidence({PRUNED: tmp_path / "out"})[0]
    assert evidence.samples and evidence.samples.candidate_ns.shape == (2, 3, 20)
    assert evidence.samples.solo_ns.shape == (2, 40) and len(evidence.samples.audit_ids) > 40


def test_measuring_again_takes_the_time_alone(tmp_path: Path) -> None:
    found = measure_again(planned(tmp_path), tmp_path / "out")
    assert found.status == "measured" and not found.accuracy and found.latency.calls == 80
    assert Samples.load(tmp_path / "out/samples.npz").splits == {}


def test_accuracy_is_that_of_the_formula(tmp_path: Path) -> None:
    measured(tmp_path)
    samples, reader = Samples.load(tmp_path / "out" / "samples.npz"), fake_reader(60)
    clips = reader.frames[list(reader.index.split("test"))]
    expected = clips.mean(axis=(1, 2, 3)) / 255 @ WEIGHTS
    assert np.allclose(samples.splits["test"].logits, expected, atol=1e-3)
    assert samples.splits["test"].ids.tolist() == [reader.index.clips[i].id for i in reader.index.split("test")]


def test_a_runtime_that_is_not_here_is_skipped(tmp_path: Path) -> None:
    from framegate.runtime import ort

    if ort.loads("libcuda.so.1", "nvcuda.dll"):
        pytest.skip("an NVIDIA driver is here")
    found = measured(tmp_path, "tiny-pruned-fp32--ort-cuda")
    assert found.status == "skipped" and "no NVIDIA driver" in found.reason
    assert not (tmp_path / "out" / "samples.npz").exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "process of ort-cpu was killed by SIGKILL"),
        ("raise SystemExit('out of memory')", "ended with exit code 1: out of memory"),
        ("pass", "ended with exit code 0"),
        ("import time; time.sleep(60)", "ran longer than bench.timeout_s, 0.5 s"),
    ],
)
def test_a_worker_that_goes_wrong_is_a_written_failure(tmp_path: Path, code: str, reason: str) -> None:
    plan = replace(planned(tmp_path, timeout_s=0.5), command=(sys.executable, "-c", code))
    found = measure(plan, tmp_path / "out")
    assert found.status == "failed" and reason in found.reason
    assert Measurement.read(tmp_path / "out" / "measurement.json").status == "failed"


@pytest.mark.parametrize("start", [2, 3], ids=["the second pair", "the first alone"])
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "time.sleep(60)"], ids=["killed", "hangs"])
def test_a_later_worker_that_goes_wrong_brings_no_earlier_result(tmp_path: Path, start: int, end: str) -> None:
    """What the process before left in the same file is not taken for its result."""
    dies = tmp_path / "dies.py"
    dies.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom framegate.bench import worker\n"
        f"count = Path({str(tmp_path / 'count')!r})\n"
        "count.write_text('x' + (count.read_text() if count.is_file() else ''))\n"
        f"if len(count.read_text()) == {start}: {end}\n"
        "worker.main(sys.argv[1:])\n"
    )
    plan = replace(planned(tmp_path, timeout_s=6), command=(sys.executable, str(dies)))
    found = measure(plan, tmp_path / "out")
    assert found.status == "failed" and ("SIGKILL" in found.reason or "ran longer than" in found.reason)
    assert (tmp_path / "count").read_text() == "x" * start


def test_the_parent_meets_itself_while_a_choice_is_confirmed(tmp_path: Path) -> None:
    measure_again(planned(tmp_path), tmp_path / "out")
    extra = Samples.load(tmp_path / "out/samples.npz").extra
    assert extra["self_candidate_ns"].shape == extra["self_parent_ns"].shape == (2, 3, 20)


def test_the_dense_parent_meets_itself_in_as_many_pairs_as_confirm_a_choice(tmp_path: Path) -> None:
    found = measured(tmp_path, DENSE, confirm_pairs=4)
    assert found.latency and found.latency.pairs == 4


def test_a_damaged_bundle_is_a_written_failure(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path).path
    (bundle / "step.onnx").write_bytes(b"")
    found = measure(Bench(CandidateName.parse(DENSE), bundle, bundle, fake_reader(6), QUICK), tmp_path / "out")
    assert found.status == "failed" and "the file was changed after export" in found.reason


def test_logits_that_are_not_finite_fail(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, weights=np.where(WEIGHTS > 0.5, np.nan, WEIGHTS)).path
    found = measure(Bench(CandidateName.parse(DENSE), bundle, bundle, fake_reader(60), QUICK), tmp_path / "out")
    assert found.status == "failed" and "finite" in found.reason


def test_answers_that_differ_while_timed_fail(tmp_path: Path) -> None:
    """A worker that is another program while it is timed: it answers other logits than in the accuracy run."""
    cheat = tmp_path / "cheat.py"
    cheat.write_text(
        "import sys\nfrom framegate.bench import latency, worker\n"
        "inner = latency.Lane.block\n"
        "def block(self, calls):\n"
        "    ns = inner(self, calls)\n"
        "    self.answers = [(clip, logits[::-1] + 1) for clip, logits in self.answers]\n"
        "    return ns\n"
        "latency.Lane.block = block\nworker.main(sys.argv[1:])\n"
    )
    plan = replace(planned(tmp_path), command=(sys.executable, str(cheat)))
    found = measure(plan, tmp_path / "out")
    assert found.status == "failed" and "what was timed is not what was judged" in found.reason


def test_a_state_that_is_not_carried_is_found(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, forgetful=True).path
    found = measure(Bench(CandidateName.parse(DENSE), bundle, bundle, fake_reader(6), QUICK), tmp_path / "out")
    assert found.status == "failed" and "clip.onnx against step.onnx with its state carried" in found.reason


def test_labels_that_differ_from_the_index_fail(tmp_path: Path) -> None:
    reader = fake_reader(6)
    reader.index = reader.index.model_copy(update={"labels": tuple(reversed(LABELS))})
    bundle = make_bundle(tmp_path).path
    found = measure(Bench(CandidateName.parse(DENSE), bundle, bundle, reader, QUICK), tmp_path / "out")
    assert found.status == "failed" and "train and export again" in found.reason


# --- inside a process -------------------------------------------------------------------------


class Clock:
    """Nanoseconds that advance by a script."""

    def __init__(self, steps: Iterator[int]) -> None:
        self.now, self._steps, self._odd = 0, steps, False

    def __call__(self) -> int:
        self._odd = not self._odd
        if not self._odd:
            self.now += next(self._steps)
        return self.now


def lanes(clock: Clock | None = None) -> tuple[Lane, Lane]:
    clips, clock = color_clips([0, 1]), clock or Clock(iter(lambda: 7, None))
    return Lane(FakeSession(LABELS, SPEC), clips, clock), Lane(FakeSession(LABELS, SPEC), clips, clock)


def test_blocks_are_timed_call_by_call_and_order_is_random() -> None:
    found = time_pair(*lanes(), blocks=40, calls=5, seed=1)
    assert found.candidate_ns.shape == found.parent_ns.shape == (40, 5)
    assert (found.candidate_ns == 7).all() and found.stable
    assert 8 < found.candidate_first.sum() < 32
    assert (found.candidate_first == time_pair(*lanes(), blocks=40, calls=5, seed=1).candidate_first).all()


def test_alone_every_call_in_a_row_is_timed() -> None:
    ns, warmup, stable = time_solo(lanes()[0], calls=33, warmup_block=5)
    assert ns.tolist() == [7] * 33 and (warmup, stable) == (15, True)


def test_answers_given_while_timed_are_those_of_whole_clips() -> None:
    clips = color_clips([0, 1, 2])
    lane = Lane(FakeSession(LABELS, SPEC), clips, Clock(iter(lambda: 1, None)))
    lane.block(2 * SPEC.frames + 3)
    expected = run_clips(FakeSession(LABELS, SPEC), clips)
    assert [clip for clip, _ in lane.answers] == [0, 1]
    assert all(np.allclose(logits, expected[clip]) for clip, logits in lane.answers)


def test_a_slowed_session_answers_the_same_and_takes_its_share_more() -> None:
    times = iter(range(0, 10_000, 100))
    slow = Slowed(FakeSession(LABELS, SPEC), 0.5, clock=lambda: next(times))
    frames, state = color_clips([0])[:, 0], slow.init_state(1)
    assert np.array_equal(slow.step(frames, state)[0], FakeSession(LABELS, SPEC).step(frames, state)[0])
    assert next(times) == 400  # asked at 0, at 100 when it was done: 50 more from 200, over when asked at 300


def test_the_state_is_fed_back_and_starts_anew_with_each_clip() -> None:
    counts: list[float] = []

    class Spy(FakeSession):
        def step(self, frames: Frames, state: Floats) -> tuple[Floats, Floats]:
            counts.append(float(state[0, 3]))
            return super().step(frames, state)

    Lane(Spy(LABELS, SPEC), color_clips([0, 1]), Clock(iter(lambda: 1, None))).block(2 * SPEC.frames + 1)
    assert counts == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_warming_up_ends_when_blocks_agree_or_says_that_they_do_not() -> None:
    clips = color_clips([0])
    settling = [100] * 5 + [50] * 5 + [20] * 1000
    assert warm_up(Lane(FakeSession(LABELS, SPEC), clips, Clock(iter(settling))), 5) == (25, True)
    never = Clock(iter([10 * (1 + i // 5) for i in range(1000)]))
    calls, stable = warm_up(Lane(FakeSession(LABELS, SPEC), clips, never), 5)
    assert (calls, stable) == (50 if stable else 100, stable)


def test_garbage_collection_comes_back() -> None:
    import gc

    time_pair(*lanes(), blocks=1, calls=2, seed=0)
    assert gc.isenabled()


# --- facts ------------------------------------------------------------------------------------


def split(labels: list[int], answers: list[int], classes: int) -> SplitSamples:
    n = len(labels)
    logits = np.eye(classes, dtype=np.float32)[answers]
    return SplitSamples(np.arange(n).astype(str), np.array(["g"] * n), np.array(labels), logits)


def test_accuracy_facts_equal_a_worked_example() -> None:
    facts = accuracy_facts(split([0, 0, 0, 1], [0, 0, 1, 1], 3), ("a", "b", "never"))
    assert facts.accuracy == 0.75 and facts.recall_per_class == {"a": pytest.approx(2 / 3), "b": 1.0}
    assert facts.f1_per_class == {"a": pytest.approx(0.8), "b": pytest.approx(2 / 3)}
    assert facts.mean_class_accuracy == pytest.approx(5 / 6) and facts.top5 is None


def test_top_five_counts_only_with_more_classes() -> None:
    clips = split([0, 5], [1, 5], 6)
    assert accuracy_facts(clips, tuple("abcdef")).top5 is not None
    assert confusion(clips, 6).sum() == 2


def test_phases_are_per_step_and_add_up(tmp_path: Path, make_clip: object) -> None:
    spec = ClipSpec(frames=4, height=16, width=16, fps=10)
    videos = [make_clip(tmp_path / f"{i}.mp4", fps=20, frames=20) for i in range(3)]  # type: ignore[operator]
    found = video_phases(videos, spec)
    assert set(found) == {"decode", "resize"} and all(0 < ms < 50 for ms in found.values())
    assert video_phases([], spec) == {}


def test_the_default_settings_are_those_of_conf_and_give_a_p99() -> None:
    import yaml

    from framegate.bench.stats import min_samples

    found = BenchSettings.model_validate(
        yaml.safe_load((Path(__file__).parents[2] / "conf/bench/default.yaml").read_text())
    )
    assert found == BenchSettings() and found.solo_calls >= min_samples(0.99)
    assert found.digest != found.model_copy(update={"blocks": 30}).digest
    assert found.digest == found.model_copy(update={"timeout_s": 1.0}).digest
