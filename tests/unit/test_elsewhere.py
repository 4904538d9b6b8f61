"""Bundles on another machine: what is measured, what is kept, what is brought home."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from framegate.bench.collected import collect, host_cases
from framegate.bench.elsewhere import confirm, find_bundles, finished, make_plan, measure_all, settings_of
from framegate.bench.samples import Samples
from framegate.bench.settings import BenchSettings
from framegate.cli import main
from framegate.contract import BundleError, ConfigError, DataError, Measurement
from framegate.index import Index
from framegate.media import MediaLimits
from framegate.shards import Entry, ShardWriter, StoreInfo, open_store
from tests import judged
from tests.judged import DENSE, INT8, PRUNED, Project


def write_shards(project: Project) -> Path:
    """The frames of the project's index, as the index stage stores them; the folder of both."""
    folder = project.root / "work" / "index"
    index = Index.read(folder / "index.json")
    shards = folder / "shards"
    shards.mkdir()
    open_store(shards, StoreInfo.of(index.spec, MediaLimits(), "raw"))
    with ShardWriter(shards, [clip.sha256 for clip in index.clips]) as shard:
        for clip, frames in zip(index.clips, judged.frames_of(index), strict=True):
            offset, size = shard.end, shard.write(frames.tobytes())
            shard.commit(
                Entry(sha256=clip.sha256, offset=offset, size_bytes=size, frames=clip.frames, fps=10, duration_s=0.4)
            )
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = judged.make_project(tmp_path_factory.mktemp("project"))
    write_shards(project)
    return project


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    shutil.copytree(original.root, tmp_path / "copy")
    return Project(tmp_path / "copy")


def everything(project: Project) -> list[Path]:
    """What a shell makes of exports/*."""
    return sorted(project.exports.glob("*"))


# --- what is asked for ------------------------------------------------------------------------


def test_everything_in_exports_may_be_named_and_only_bundles_are_taken(project: Project) -> None:
    (project.exports / "refused-one-int8").mkdir()
    (project.exports / "refused-one-int8" / "refused.json").write_text('{"reason": "no"}')
    (project.exports / "report.html").write_text("")
    found = find_bundles(everything(project))
    assert [path.name for path in found] == ["tiny-dense-fp32", "tiny-pruned-fp32", "tiny-pruned-int8"]


def test_a_folder_that_is_no_bundle_is_named(project: Project) -> None:
    (project.exports / "notes").mkdir()
    with pytest.raises(ConfigError, match="notes': no bundle"):
        find_bundles(everything(project))
    with pytest.raises(ConfigError, match="no bundle among"):
        find_bundles([project.exports / "verdict.json"])
    with pytest.raises(ConfigError, match="nowhere': no bundle"):
        find_bundles([project.root / "nowhere"])


def test_candidates_settings_and_gate_are_those_of_the_pipeline(project: Project) -> None:
    plan = make_plan(everything(project), project.root / "out", project.root / "work" / "index")
    assert [str(name) for name in plan.candidates] == [DENSE, PRUNED, INT8]
    assert plan.settings == BenchSettings(**judged.BENCH) and plan.rules == judged.RULES
    assert settings_of(project.exports, {"pairs": 7, "threads": None}).pairs == 7


def test_other_runtimes_bring_what_they_are_judged_against(project: Project) -> None:
    chosen = [project.exports / "tiny-pruned-int8"]
    plan = make_plan(chosen, project.root / "out", project.root / "work" / "index", ["openvino", "ort-cuda"])
    assert [str(name) for name in plan.candidates] == [
        DENSE,
        "tiny-pruned-int8--openvino",
        "tiny-pruned-int8--ort-cuda",
    ]
    with pytest.raises(ConfigError, match="'openvin' is unknown; did you mean 'openvino'"):
        make_plan(chosen, project.root / "out", project.root / "work" / "index", ["openvin"])


def test_what_is_missing_says_how_to_bring_it(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"rsync -aR work/index/index\.json work/index/shards exports"):
        make_plan(everything(project), project.root / "out", project.root / "elsewhere")
    with pytest.raises(ConfigError, match=r"pairs: Input should be greater"):
        make_plan(everything(project), project.root / "out", project.root / "work" / "index", (), {"pairs": 0})
    shutil.rmtree(project.exports / "tiny-dense-fp32")
    with pytest.raises(ConfigError, match="lacks the bundle of 'tiny-dense-fp32--ort-cpu'"):
        make_plan(everything(project), project.root / "out", project.root / "work" / "index")


def test_a_damaged_bundle_is_refused_before_anything_runs(project: Project) -> None:
    (project.exports / "tiny-pruned-int8" / "step.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="changed after export"):
        make_plan(everything(project), project.root / "out", project.root / "work" / "index")


# --- measuring --------------------------------------------------------------------------------


def quick_plan(project: Project):
    return make_plan(everything(project), project.root / "out", project.root / "work" / "index")


def test_measured_kept_confirmed_collected_and_found_by_the_gate(project: Project) -> None:
    plan = quick_plan(project)
    found = [one for one, _ in measure_all(plan)]
    assert [(one.candidate, one.status) for one in found] == [
        (DENSE, "measured"),
        (PRUNED, "measured"),
        (INT8, "measured"),
    ]
    before = {path: path.stat().st_mtime_ns for path in plan.out.rglob("*.json")}
    assert all(line.endswith("(kept)") for _, line in measure_all(plan))
    assert before == {path: path.stat().st_mtime_ns for path in plan.out.rglob("*.json")}

    sentence = confirm(plan)
    assert "no candidate is proven" in sentence or "its latency again: measured" in sentence
    target, count = collect(plan.out, project.root / "work" / "hosts")
    assert count in (3, 4) and target.name == found[0].inputs["host_class"][:12]
    assert host_cases(project.root / "work" / "hosts") == {
        target.name: {name: target / name for name in (DENSE, INT8, PRUNED)}
    }


def test_a_measurement_with_other_digests_or_damaged_samples_is_made_again(project: Project) -> None:
    plan = quick_plan(project)
    next(iter(measure_all(plan)))
    bench, folder = plan.bench(plan.candidates[0], plan.settings), plan.out / DENSE
    assert finished(bench, folder)
    assert finished(plan.bench(plan.candidates[0], plan.settings.model_copy(update={"seed": 5})), folder) is None
    (folder / "samples.npz").write_bytes(b"cut")
    assert finished(bench, folder) is None


def test_ctrl_c_keeps_what_was_measured(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, seen = quick_plan(project), []

    def interrupted(bench, out):  # type: ignore[no-untyped-def]
        if seen:
            raise KeyboardInterrupt
        seen.append(str(bench.candidate))
        index = Index.read(project.root / "work" / "index" / "index.json")
        return judged.write_measurement(
            out, DENSE, judged.samples_of(index, 1, 1, 0, ("val", "test")), index, project.exports
        )

    monkeypatch.setattr("framegate.bench.elsewhere.measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(measure_all(plan))
    assert [path.name for path in plan.out.iterdir()] == [DENSE]


def test_a_runtime_that_kills_its_process_is_recorded_and_the_others_go_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from framegate.bench import elsewhere
    from framegate.bench import measure as measuring

    killer = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")

    def killed(bench, out):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        return measuring.measure(replace(bench, command=killer) if bench.candidate.precision == "int8" else bench, out)

    monkeypatch.setattr(elsewhere, "measure", killed)
    shutil.rmtree(project.exports / "tiny-pruned-fp32")
    found = {one.candidate: one for one, _ in measure_all(quick_plan(project))}
    assert found[INT8].status == "failed" and "SIGKILL" in found[INT8].reason
    assert found[DENSE].status == "measured"


def test_the_command_measures_and_says_what_to_do_next(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(project.exports / "tiny-dense-fp32"), "-o", str(project.root / "out")]
    main(["bench", *words, "--index", str(project.root / "work" / "index"), "--threads", "1"])
    said = capsys.readouterr().out
    assert f"[1/1] {DENSE}: val 9" in said and "1 measured, 0 skipped, 0 failed" in said
    assert f"framegate collect {project.root / 'out'}" in said
    main(["collect", str(project.root / "out"), "--into", str(project.root / "work" / "hosts")])
    assert "1 measurements of host class" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="-o DIR"):
        main(["bench", words[0]])


# --- bringing it home -------------------------------------------------------------------------


def brought(project: Project) -> Path:
    """Three measurements and a confirmation, as another machine wrote them."""
    folder = project.root / "brought"
    shutil.copytree(project.root / "work" / "measurements", folder)
    shutil.copytree(project.root / "work" / "confirmation", folder / "confirmation")
    return folder


def test_collecting_again_replaces_what_the_class_had(project: Project) -> None:
    folder, into = brought(project), project.root / "hosts"
    target, count = collect(folder, into)
    assert count == 4 and (target / "confirmation" / "samples.npz").is_file()
    shutil.rmtree(folder / PRUNED)
    assert collect(folder, into) == (target, 3) and not (target / PRUNED).exists()
    assert list(host_cases(into)) == [target.name] and set(host_cases(into)[target.name]) == {DENSE, INT8}
    assert host_cases(project.root / "nowhere") == {}


def on_another_host(project: Project, folder: Path) -> None:
    index = Index.read(project.root / "work" / "index" / "index.json")
    samples = Samples.load(folder / PRUNED / "samples.npz")
    judged.write_measurement(folder / PRUNED, PRUNED, samples, index, project.exports, {**judged.HOST, "cores": 9})


def with_another_host_claimed(project: Project, folder: Path) -> None:
    path = folder / PRUNED / "measurement.json"
    plain = json.loads(path.read_text())
    plain["host_class"]["cores"] = 64
    path.write_text(json.dumps(plain))


def renamed(project: Project, folder: Path) -> None:
    (folder / PRUNED).rename(folder / "tiny-other-fp32--ort-cpu")


def cut(project: Project, folder: Path) -> None:
    path = folder / PRUNED / "samples.npz"
    path.write_bytes(path.read_bytes()[:1000])


def without_samples(project: Project, folder: Path) -> None:
    (folder / PRUNED / "samples.npz").unlink()


def half_a_table(project: Project, folder: Path) -> None:
    path = folder / PRUNED / "measurement.json"
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (on_another_host, "measured on 2 host classes"),
        (with_another_host_claimed, "does not follow from the host that it describes"),
        (renamed, "the folder was renamed"),
        (cut, "not the samples of measurement.json"),
        (without_samples, "samples.npz: missing"),
        (half_a_table, "not a Measurement"),
    ],
)
def test_what_cannot_be_judged_together_is_not_collected(project: Project, change, reason: str) -> None:  # type: ignore[no-untyped-def]
    folder = brought(project)
    change(project, folder)
    with pytest.raises(DataError, match=reason):
        collect(folder, project.root / "hosts")
    assert not (project.root / "hosts").exists()


def test_all_problems_of_a_folder_are_said_at_once(project: Project) -> None:
    folder = brought(project)
    cut(project, folder)
    (folder / INT8 / "samples.npz").unlink()
    with pytest.raises(DataError) as caught:
        collect(folder, project.root / "hosts")
    assert str(caught.value).count("\n") == 2
    with pytest.raises(DataError, match="no measurements here"):
        collect(project.root / "nowhere")


def test_a_skipped_runtime_is_collected_as_a_result(project: Project) -> None:
    folder = brought(project)
    told = Measurement.read(folder / PRUNED / "measurement.json")
    skipped = told.model_copy(
        update={"status": "skipped", "reason": "no driver", "samples_sha256": "", "latency": None}
    )
    skipped.write(folder / PRUNED / "measurement.json")
    (folder / PRUNED / "samples.npz").unlink()
    target, count = collect(folder, project.root / "hosts")
    assert count == 4 and Measurement.read(target / PRUNED / "measurement.json").status == "skipped"
    assert not (target / PRUNED / "samples.npz").exists()
