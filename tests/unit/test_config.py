"""Wrong keys, choices and values: all problems at once, each with its place and the nearest thing that exists."""

from pathlib import Path

import pytest
import yaml

from framegate.bench.camera import CameraSettings
from framegate.bench.scenario import OfflineSettings, ServerSettings
from framegate.bench.settings import BenchSettings, ScenarioSettings
from framegate.bench.streams import StreamSettings
from framegate.contract import ConfigError
from pipelines import _candidates, compose
from pipelines._candidates import check_candidates, read_candidates
from pipelines._schema import parse, scenario_problems
from pipelines._stage import check_overrides, check_params
from pipelines._stage import compose as hydra_compose


@pytest.fixture(scope="module")
def config() -> dict:
    return hydra_compose("config")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["model=nope"], ["model=nope: no such choice", "cnn_gru"]),
        (["model=cnn_gur"], ["did you mean 'cnn_gru'"]),
        (["train.max_epoch=3"], ["train.max_epoch: unknown key", "did you mean 'max_epochs'"]),
        (["trian.lr=1"], ["trian: unknown key", "did you mean 'train'"]),
        (["model=cnn", "model.cell=lstm"], ["model.cell: unknown key"]),
        (
            ["model=nope", "train.lrr=1", "data.clip.hieght=3"],
            ["model=nope", "did you mean 'lr'", "did you mean 'height'"],
        ),
        (["-m", "model=cnn,cnn_gur"], ["did you mean 'cnn_gru'"]),
        (["train.lr==="], ["override"]),
        (["experiment=quik"], ["did you mean 'quick'"]),
    ],
)
def test_wrong_overrides_are_all_named(arguments: list[str], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_overrides(arguments)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model=cnn_gru", "train.max_epochs=3"],
        ["-m", "model=cnn,cnn_gru", "train.lr=1e-3,3e-3"],
        ["model.backbone=resnet18", "+model.extra=1", "experiment=quick"],
        ["variants=[pruned,pruned70]", "hydra.verbose=true"],
        ["--cfg", "job"],
    ],
)
def test_right_overrides_pass(arguments: list[str]) -> None:
    check_overrides(arguments)


def test_wrong_values_and_keys_in_files_are_all_named(config: dict) -> None:
    config = yaml.safe_load(yaml.safe_dump(config))
    config["train"]["batch_size"] = 0
    config["train"]["epochz"] = 3
    config["data"]["clip"]["fps"] = "fast"
    config["data"]["shares"]["trian"] = 0.5
    with pytest.raises(ConfigError) as caught:
        parse(config)
    text = str(caught.value)
    for fragment in (
        "train.batch_size: got 0",
        "train.epochz: unknown key",
        "data.clip.fps: got 'fast'",
        "did you mean 'train'",
    ):
        assert fragment in text


def test_the_committed_candidates_are_sound(config: dict) -> None:
    models = [file.stem for file in Path("conf/model").glob("*.yaml")]
    assert check_candidates(read_candidates(), config, models) == []


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (lambda d: d["trained"].append("cnn_gur"), "did you mean 'cnn_gru'"),
        (lambda d: d["compressed"]["cnn_gru-pruned"].update(variant="prund"), "did you mean 'pruned'"),
        (
            lambda d: d["compressed"].update({"cnn_gru-x": {"model": "cnn_gru", "variant": "pruned"}}),
            "expected the key cnn_gru-pruned",
        ),
        (lambda d: d["exported"]["cnn_gru-dense"].update(net="work/elsewhere"), "expected 'work/cnn_gru/dense'"),
        (lambda d: d["engines"].append("cnn_gru-dense-int8"), "no exported fp32 bundle"),
        (lambda d: d["candidates"].update({"a-b--c": {"bundle": "x", "parent": "y"}}), "expected <model>-<variant>"),
        (
            lambda d: d["candidates"].update({"cnn_gru-dense-fp32--ort-cpuu": {"bundle": "x", "parent": "y"}}),
            "did you mean 'ort-cpu'",
        ),
        (lambda d: d["candidates"].pop("cnn_gru-dense-fp32--ort-cpu"), "gate.reference"),
    ],
)
def test_wrong_declarations_are_named(config: dict, tmp_path: Path, edit: object, fragment: str) -> None:
    declared = yaml.safe_load(_candidates.FILE.read_text())
    edit(declared)  # type: ignore[operator]
    file = tmp_path / "candidates.yaml"
    file.write_text(yaml.safe_dump(declared))
    problems = check_candidates(read_candidates(file), config, ["cnn", "cnn_gru", "cnn_lstm"])
    assert any(fragment in problem for problem in problems), problems


def test_a_wrong_key_of_the_candidates_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "candidates.yaml"
    file.write_text("traind: []\n")
    with pytest.raises(ConfigError, match="traind"):
        read_candidates(file)


def test_a_pass_with_a_wrong_argument_is_found_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, overrides: object = ()) -> dict:
        config = hydra_compose("config", *([overrides] if overrides else []))  # type: ignore[list-item]
        config["variants"]["pruned"]["passes"][0]["ratoi"] = 0.3
        config["train"]["optimizer"]["wieght_decay"] = 0.1
        return config

    monkeypatch.setattr(compose, "compose", broken)
    with pytest.raises(ConfigError) as caught:
        compose.composed()
    assert "did you mean 'ratio'" in str(caught.value)
    assert "did you mean 'weight_decay'" in str(caught.value)


# --- scenarios ----------------------------------------------------------------------------------


def full() -> dict:
    return hydra_compose("config", ["bench=full"])


def test_full_measures_everything_by_the_settings_of_the_code() -> None:
    config = parse(full())
    scenarios = config.bench.scenarios
    assert scenarios == ScenarioSettings(
        offline=OfflineSettings(), server=ServerSettings(), camera=CameraSettings(), streams=StreamSettings()
    )
    assert config.bench == BenchSettings(scenarios=scenarios, timeout_s=config.bench.timeout_s)
    assert scenarios.camera and config.bench.timeout_s > scenarios.camera.timeout_s
    assert scenario_problems(config) == []


def test_the_frame_rate_of_full_is_that_of_the_clips() -> None:
    config = hydra_compose("config", ["bench=full", "data.clip.fps=25"])
    assert config["bench"]["scenarios"]["camera"]["fps"] == 25
    check_overrides(["bench=full", "bench.scenarios.camera.deadline_ms=50"])
    with pytest.raises(ConfigError, match="did you mean 'deadline_ms'"):
        check_overrides(["bench=full", "bench.scenarios.camera.dedline_ms=50"])


def composing(monkeypatch: pytest.MonkeyPatch, config: dict) -> dict:
    """What compose makes of such a configuration."""
    monkeypatch.setattr(
        compose, "compose", lambda name, overrides=(): {**config, "model": hydra_compose(name)["model"]}
    )
    return compose.composed()


NEEDING = [
    {"metric": "streams", "min": 16},
    {"metric": "latency_p99_ms", "max": 50, "scenario": "server"},
    {"metric": "throughput_fps", "min": 100},
    {"metric": "accuracy", "drop_max": 2, "scenario": "camera"},
    {"metric": "false_alarms_per_hour", "max": 1},
]


def test_rules_on_scenarios_that_are_not_measured_are_all_named(monkeypatch: pytest.MonkeyPatch, config: dict) -> None:
    rules = [*config["gate"]["rules"], *NEEDING, {"metric": "size_bytes", "max": 1e9}]
    with pytest.raises(ConfigError) as caught:
        composing(monkeypatch, {**config, "gate": {**config["gate"], "rules": rules}})
    assert str(caught.value).splitlines() == [
        f"  gate.rules.{i}: {metric} needs scenario {scenario}, which bench.scenarios does not measure; "
        "choose bench: full or add it"
        for i, metric, scenario in (
            (4, "streams", "camera"),
            (5, "latency_p99_ms", "server"),
            (6, "throughput_fps", "offline"),
            (7, "accuracy", "camera"),
            (8, "false_alarms_per_hour", "streams"),
        )
    ]


def test_rules_on_scenarios_are_composed_where_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    config = full()
    config["gate"]["rules"] += NEEDING
    assert composing(monkeypatch, config)["bench"]["scenarios"]["streams"]["background"] == "nothing"


def test_camera_settings_that_contradict_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = full()
    config["bench"]["scenarios"]["camera"] |= {"fps": 25, "search_seconds": 0.1}
    config["bench"]["timeout_s"] = 900
    with pytest.raises(ConfigError) as caught:
        composing(monkeypatch, config)
    for words in ("camera.fps is 25, data.clip.fps 10", "raise bench.timeout_s", "camera.search_seconds is 0.1"):
        assert words in str(caught.value)


def test_a_stage_refuses_parameters_that_dvc_did_not_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict
) -> None:
    params = {**config, "models": {"cnn_gru": config["model"]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    check_params(config, ("train", "model"), "cnn_gru")
    params["train"] = {**params["train"], "lr": 0.5}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    check_params(config, ("model",), "cnn_gru")
    with pytest.raises(ConfigError, match=r"differ in train"):
        check_params(config, ("train", "model"), "cnn_gru")
