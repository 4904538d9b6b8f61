"""`dvc repro` on tiny clips, from nothing to a shipped model; then edits that re-run what they touch and no more."""

import json
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from framegate.contract import Bundle, Measurement, Verdict
from framegate.promotion import Promotion
from tests.e2e.conftest import CANDIDATES, ROOT, Clone

pytestmark = pytest.mark.slow
Reproduced = tuple[Clone, str]


def test_everything_that_is_declared_is_made(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    verdict = Verdict.read(clone.path / "exports/verdict.json")
    assert {one.candidate for one in verdict.candidates} == set(CANDIDATES["candidates"])
    assert verdict.shipped is not None
    for name in CANDIDATES["candidates"]:
        found = Measurement.read(clone.path / "work/measurements" / name / "measurement.json")
        assert found.status == ("skipped" if name.endswith("cuda") else "measured"), found.reason
    assert "<svg" in (clone.path / "exports/report.html").read_text()
    engine = json.loads((clone.path / "work/engines/cnn_gru-pruned-fp32/engine.json").read_text())
    assert "skipped" in engine or (clone.path / "work/engines/cnn_gru-pruned-fp32/step.plan").stat().st_size > 1000
    assert (clone.path / "work/cnn_gru/dense/confusion.png").is_file()
    assert json.loads((clone.path / "work/cnn_gru/pruned/net.json").read_text())["passes"]


def test_what_is_shipped_is_what_the_verdict_names(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    verdict = Verdict.read(clone.path / "exports/verdict.json")
    promotion = Promotion.read(clone.path / "exports/promotion.json")
    assert promotion.candidate == verdict.shipped
    assert Bundle.load(clone.path / "exports/shipped").info.digest == promotion.bundle
    assert {"index", "train@cnn_gru", f"bench@{verdict.shipped}"} <= promotion.upstream.keys()
    lock = yaml.safe_load((clone.path / "dvc.lock").read_text())["stages"]
    assert promotion.upstream.keys() < lock.keys() and promotion.version == "1"


def test_mlflow_shows_every_candidate_and_the_champion(reproduced: Reproduced) -> None:
    from mlflow import MlflowClient

    clone, _ = reproduced
    client = MlflowClient(f"sqlite:///{clone.path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("framegate-candidates")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(CANDIDATES["candidates"]) <= runs.keys()
    shipped = Verdict.read(clone.path / "exports/verdict.json").shipped
    assert runs[shipped].data.tags["shipped"] == "true"
    assert {"test_accuracy", "step_p50_ms", "size_bytes"} <= runs[shipped].data.metrics.keys()
    champion = client.get_model_version_by_alias("framegate", "champion")
    files = {Path(item.path).name for item in client.list_artifacts(champion.run_id, "bundle")}
    assert {"step.onnx", "clip.onnx", "bundle.json", "golden.npz"} <= files
    training = client.get_experiment_by_name("framegate-training")
    (dense,) = (run for run in client.search_runs([training.experiment_id]) if run.info.run_name == "cnn_gru-dense")
    assert len(client.get_metric_history(dense.info.run_id, "val/accuracy")) >= 1


def test_what_was_decided_can_be_verified_and_a_sabotage_is_found(reproduced: Reproduced, tmp_path: Path) -> None:
    clone, _ = reproduced
    said = clone.run("framegate", "verify")
    assert "FAILED" not in said
    copy = Clone(tmp_path / "copy")
    shutil.copytree(clone.path / "exports", copy.path / "exports", symlinks=True)
    shutil.copy2(clone.path / "dvc.lock", copy.path / "dvc.lock")
    verdict = copy.path / "exports/verdict.json"
    verdict.write_text(
        verdict.read_text().replace('"status": "FAIL"', '"status": "PASS"').replace("INCONCLUSIVE", "PASS")
    )
    assert "FAILED" in copy.run("framegate", "verify", code=2)


def test_the_report_as_markdown_names_the_winner(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    shipped = Verdict.read(clone.path / "exports/verdict.json").shipped
    assert shipped.replace("_", "\\_") in clone.run("framegate", "report", "--format", "md")


def test_predict_answers_from_the_shipped_model(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    segments = json.loads(clone.run("framegate", "predict", "data/left/000.mp4", "--json").splitlines()[-1])
    assert segments[0]["start_s"] == 0 and segments[-1]["end_s"] == pytest.approx(0.6, abs=0.01)
    for before, after in pairwise(segments):
        assert before["end_s"] == after["start_s"] and before["label"] != after["label"]
    assert {s["label"] for s in segments} <= {"left", "right"}


def test_the_second_run_executes_only_host(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    assert clone.stages(clone.run("dvc", "repro")) == ["host"]


def test_an_edit_runs_what_it_touches(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    clone.edit(
        "conf/gate/default.yaml",
        rules=[{"metric": "accuracy", "drop_max": 55.0}, {"metric": "latency_p50_ms", "max": 900}],
    )
    assert clone.stages(clone.run("dvc", "repro")) == ["compose", "host", "choose", "gate", "ship"]
    clone.edit(
        "conf/variants/pruned.yaml",
        passes=[{"_target_": "framegate.compress.prune.Prune", "ratio": 0.3, "round_to": 1}],
    )
    ran = clone.stages(clone.run("dvc", "repro"))
    assert "compress@cnn_gru-pruned" in ran and "bench@cnn_gru-pruned-fp32--ort-cpu" in ran
    assert not {"index", "train@cnn_gru", "export@cnn_gru-dense", "bench@cnn_gru-dense-fp32--ort-cpu"} & set(ran)


def test_a_stage_run_by_hand_never_touches_what_dvc_keeps(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    before = (clone.path / "work/cnn_gru/dense/weights.pt").read_bytes()
    clone.run("python", "-m", "pipelines.train", "train.max_epochs=1", "model.hidden=8")
    assert (clone.path / "work/cnn_gru/dense/weights.pt").read_bytes() == before
    assert len(list((clone.path / "runs").glob("*/net.json"))) == 1


def test_nothing_ships_when_the_labels_say_nothing(reproduced: Reproduced) -> None:
    """Labels shuffled: the gate writes its verdict, ship exits non-zero, what shipped before stays."""
    clone, _ = reproduced
    shipped = (clone.path / "exports/shipped/promotion.json").read_bytes()
    copy = Clone(clone.path.parent / "shuffled")
    shutil.copytree(clone.path, copy.path, symlinks=True)
    left, right = (sorted((copy.path / "data" / label).iterdir()) for label in ("left", "right"))
    for one, other in list(zip(left, right, strict=True))[::2]:
        one.rename(one.with_suffix(".tmp"))
        other.rename(one)
        one.with_suffix(".tmp").rename(other)
    dense = "cnn_gru-dense-fp32--ort-cpu"
    declared = yaml.safe_load((copy.path / "conf/candidates.yaml").read_text())
    exported = {"cnn_gru-dense": declared["exported"]["cnn_gru-dense"]}
    fewer = {
        "compressed": {},
        "exported": exported,
        "engines": [],
        "candidates": {dense: declared["candidates"][dense]},
    }
    (copy.path / "conf/candidates.yaml").write_text(yaml.safe_dump(declared | fewer, sort_keys=False))
    output = copy.run("dvc", "repro", code=255)
    assert "reference not above chance" in output
    verdict = Verdict.read(copy.path / "exports/verdict.json")
    assert verdict.shipped is None
    assert (copy.path / "exports/shipped/promotion.json").read_bytes() == shipped


# --- README -------------------------------------------------------------------------------------

AS_DRY_RUN = ("make ",)  # what installs an environment or runs for minutes is checked by `make -n`
NOT_RUN = (
    "git clone",
    "cd ",
    "source ",
    "pip install",
    "dvc remote",
    "dvc push",
    "mlflow ui",
    "framegate promotions rollback",
    "framegate serve",  # these two by the test after
    "curl",
)
SHORTER = {  # the same commands on less: an hour as printed, or more than one bundle
    "framegate aa --runs 299": "framegate aa --runs 1 --pairs 2 --blocks 1 --calls 5",
    "framegate bench model.onnx other.onnx": "framegate bench model.onnx other.onnx --processes 2 --pairs 2 --calls 11",
    "framegate bench model.onnx": "framegate bench model.onnx --processes 2 --calls 11",
    "framegate bench exports/* ": "framegate bench exports/cnn_gru-dense-fp32 --runtime ort-cpu --pairs 2 ",
}
JUDGES = ("framegate bench model", "framegate agree", "framegate report")  # exit codes 2 and 3 are answers as well


def readme_commands() -> list[str]:
    """Every line of the README's ```bash blocks."""
    blocks = (ROOT / "README.md").read_text().split("```bash\n")[1:]
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.split("```")[0].splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_readme_commands_work(reproduced: Reproduced) -> None:
    clone, _ = reproduced
    shutil.copy2(clone.path / "data/left/001.mp4", clone.path / "clip.mp4")
    shutil.copytree(clone.path / "data/left", clone.path / "more_clips", dirs_exist_ok=True)
    for name in ("model.onnx", "other.onnx"):
        shutil.copy2(clone.path / "exports/cnn_gru-dense-fp32/step.onnx", clone.path / name)
    commands = readme_commands()
    assert len(commands) >= 10
    for command in commands:
        if command.startswith(AS_DRY_RUN):
            clone.run("bash", "-c", command.replace("make ", "make -n ", 1))
        elif not command.startswith(NOT_RUN):
            text = next((command.replace(*pair) for pair in SHORTER.items() if pair[0] in command), command)
            clone.run("bash", "-c", text, code=(0, 2, 3) if command.startswith(JUDGES) else 0)


def test_readme_clients_are_answered_by_the_server_that_it_starts(reproduced: Reproduced) -> None:
    """`framegate serve` as printed but for the ports, then curl and the snippets in Python as printed."""
    clone, _ = reproduced
    shutil.copy2(clone.path / "data/left/001.mp4", clone.path / "clip.mp4")
    ports = clone.path / "ports.json"
    (serve,) = (command for command in readme_commands() if command.startswith("framegate serve"))
    with clone.started(*serve.split(), "--port", "0", "--grpc-port", "0", "--ports-file", str(ports)) as process:
        wait_for(ports, process)
        port = str(json.loads(ports.read_text())["http"])
        (curl,) = (command for command in readme_commands() if command.startswith("curl"))
        spans = json.loads(clone.run("bash", "-c", f"{curl.replace('8000', port)} --silent"))
        said = json.loads(clone.run("framegate", "predict", "clip.mp4", "--json").splitlines()[-1])
        assert [span["labels"][0]["name"] for span in spans] == [segment["label"] for segment in said]
        snippets = [part.split("```")[0] for part in (ROOT / "README.md").read_text().split("```python\n")[1:]]
        stream, sequence = (clone.run("python", "-c", code.replace("8000", port)) for code in snippets)
        answers = [json.loads(line) for line in stream.splitlines()]
        assert [one.get("event") for one in answers] == ["ready", *[None] * 6, "end"]
        assert set(sequence.split()) <= {"left", "right"} and len(sequence.split()) == 6


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the file is there; a process that ends before is a failure."""
    deadline = time.monotonic() + 60
    while not path.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
