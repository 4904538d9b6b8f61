"""Measuring: what a measurement holds, and how a worker that goes wrong is written down."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framegate.bench import latency
from framegate.bench.facts import accuracy_facts, confusion
from framegate.bench.latency import Lane, run_process, warm_up
from framegate.bench.measure import BenchSettings, measure
from framegate.bench.phases import video_phases
from framegate.bench.samples import Samples, SplitSamples
from framegate.contract import CandidateName, ClipSpec, Measurement
from framegate.gate import load_evidence
from framegate.runtime.session import FakeSession, Floats, Frames
from tests.bundles import LABELS, SPEC, WEIGHTS, color_clips, fake_reader, make_bundle

QUICK = BenchSettings(pairs=2, blocks=3, calls_per_block=20, timeout_s=60)
DENSE, PRUNED = "tiny-dense-fp32--ort-cpu", "tiny-pruned-fp32--ort-cpu"


def measured(
    tmp_path: Path, name: str = PRUNED, command: tuple[str, ...] | None = None, **changed: object
) -> Measurement:
    candidate = CandidateName.parse(name)
    parent = make_bundle(tmp_path, ballast=800).path
    bundle = parent if candidate.bundle == "tiny-dense-fp32" else make_bundle(tmp_path, candidate.bundle).path
    settings = QUICK.model_copy(update=changed)
    more = {"command": command} if command else {}
    return measure(candidate, bundle, parent, fake_reader(60), settings, tmp_path / "out", **more)


def test_a_measurement_holds_facts_samples_and_what_it_depends_on(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found.status == "measured" and found == Measurement.read(tmp_path / "out" / "measurement.json")
    assert all(found.inputs[key] for key in ("bundle", "parent", "index", "dataset", "host_class", "bench"))
    assert found.session["provider"] == "CPUExecutionProvider" and found.session["threads"] == 1
    assert found.accuracy["test"].n == found.accuracy["val"].n == 60 and found.accuracy["test"].accuracy > 0.8
    assert found.latency and found.latency.calls == 120 and found.latency.p99_ms is None
    assert found.latency.ratio_p50 and found.latency.ratio_p50 < 0.9
    evidence = load_evidence({PRUNED: tmp_path / "out"})[0]
    assert evidence.samples and evidence.samples.candidate_ns.shape == (2, 3, 20)


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
        ("import time; time.sleep(60)", "ran longer than 0.5 s"),
    ],
)
def test_a_worker_that_goes_wrong_is_a_written_failure(tmp_path: Path, code: str, reason: str) -> None:
    found = measured(tmp_path, command=(sys.executable, "-c", code), timeout_s=0.5)
    assert found.status == "failed" and reason in found.reason
    assert Measurement.read(tmp_path / "out" / "measurement.json").status == "failed"


def test_a_damaged_bundle_is_a_written_failure(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path).path
    (bundle / "step.onnx").write_bytes(b"")
    found = measure(CandidateName.parse(DENSE), bundle, bundle, fake_reader(6), QUICK, tmp_path / "out")
    assert found.status == "failed" and "the file was changed after export" in found.reason


def test_logits_that_are_not_finite_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framegate.bench.measure.launch", fake_launch(logits=np.nan))
    found = measured(tmp_path)
    assert found.status == "failed" and found.reason == "logits of 120 of 120 clips are not finite"


def test_answers_that_differ_while_timed_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framegate.bench.measure.launch", fake_launch(answer=1.0))
    found = measured(tmp_path)
    assert found.status == "failed" and "what was timed is not what was judged" in found.reason


def fake_launch(logits: float = 0.0, answer: float = 0.0) -> object:
    """A launch whose accuracy process gives these logits, and whose audit differs by `answer`."""

    def launch(job, out, timeout_s, feed=(), command=()):  # type: ignore[no-untyped-def]
        if job.kind == "accuracy":
            arrays = {"logits": np.full((job.count, 3), logits, np.float32), "answer_logits": np.full((4, 3), answer)}
            return arrays, {}
        ns = np.random.default_rng(job.seed).integers(100, 200, (job.blocks, job.calls))
        lone = {"candidate_first": np.ones(job.blocks, bool), "warmup_calls": np.int64(1), "stable": np.bool_(True)}
        return {"candidate_ns": ns, "parent_ns": ns, "answer_logits": np.zeros((2, 3))} | lone, {}

    return launch


def test_labels_that_differ_from_the_index_fail(tmp_path: Path) -> None:
    reader = fake_reader(6)
    reader.index = reader.index.model_copy(update={"labels": tuple(reversed(LABELS))})
    bundle = make_bundle(tmp_path).path
    found = measure(CandidateName.parse(DENSE), bundle, bundle, reader, QUICK, tmp_path / "out")
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


def test_blocks_are_timed_call_by_call_and_order_is_random() -> None:
    clips = color_clips([0, 1])
    sessions = FakeSession(LABELS, SPEC), FakeSession(LABELS, SPEC)
    found = run_process(*sessions, clips, blocks=40, calls=5, seed=1, clock=Clock(iter(lambda: 7, None)))
    assert found.candidate_ns.shape == found.parent_ns.shape == (40, 5)
    assert (found.candidate_ns == 7).all() and found.stable
    assert 8 < found.candidate_first.sum() < 32
    again = run_process(*sessions, clips, blocks=40, calls=5, seed=1, clock=Clock(iter(lambda: 7, None)))
    assert (found.candidate_first == again.candidate_first).all()


def test_kept_answers_are_those_of_a_session_that_is_asked_again() -> None:
    session = FakeSession(LABELS, SPEC)
    found = run_process(session, FakeSession(LABELS, SPEC), color_clips([0, 1, 2]), blocks=3, calls=9, seed=0)
    assert len(found.answers) == latency.AUDITED_CALLS
    for answer in found.answers:
        assert np.array_equal(session.step(answer.frame, answer.state)[0], answer.logits)


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

    run_process(FakeSession(LABELS, SPEC), FakeSession(LABELS, SPEC), color_clips([0]), 1, 2, 0)
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
    assert found == BenchSettings() and found.blocks * found.calls_per_block >= min_samples(0.99)
    assert found.digest != found.model_copy(update={"blocks": 30}).digest
    assert found.digest == found.model_copy(update={"timeout_s": 1.0}).digest
