"""Scenarios inside a measurement: what is written down follows from its arrays, and what cannot be measured says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framegate.bench.camera import CameraSettings
from framegate.bench.facts import recomputed
from framegate.bench.measure import measure, measure_again
from framegate.bench.processes import Bench
from framegate.bench.samples import Samples
from framegate.bench.scenario import OfflineSettings, ServerSettings
from framegate.bench.settings import BenchSettings, ScenarioSettings
from framegate.bench.streams import StreamSettings
from framegate.contract import CandidateName, ConfigError, DataError, Measurement
from framegate.gate import Evidence, load_evidence
from pipelines._schema import parse
from pipelines._stage import compose
from tests.bundles import LABELS, fake_reader, make_bundle

NAME = "tiny-dense-fp32--ort-cpu"
CAMERA = CameraSettings(  # so loose that a busy machine still confirms the four streams that are asked for
    streams_max=4, limit=0.4, search_seconds=0.4, confirm_seconds=1, confirm_runs=2, max_batch=4, timeout_s=30
)
SCENARIOS = ScenarioSettings(
    offline=OfflineSettings(batch_sizes=(1, 4), search_calls=5, calls=8, processes=2),
    server=ServerSettings(rate_per_s=200, queries=40, streams=4, max_batch=4, processes=2),
    camera=CAMERA,
    streams=StreamSettings(background="blue", stream_seconds=1, hold_s=0.2),
)
QUICK = BenchSettings(
    pairs=1, blocks=2, calls_per_block=20, solo_processes=1, solo_calls=40, scenarios=SCENARIOS, timeout_s=60
)
ARRAYS = {
    "offline": ("offline_sizes", "offline_search_ns", "offline_ns"),
    "server": ("server_at_ns", "server_ns"),
    "camera": (
        *("camera_streams", "camera_outcome", "camera_ns", "camera_phase_ns", "camera_ids", "camera_logits"),
        "camera_core",
    ),
    "streams": ("stream_top", "stream_confidence", "stream_truth"),
}
JUDGED = sorted({name for names in ARRAYS.values() for name in names} - {"camera_core"})  # which core: no fact


def planned(folder: Path, **changed: object) -> Bench:
    path = make_bundle(folder).path
    return Bench(CandidateName.parse(NAME), path, path, fake_reader(60), QUICK.model_copy(update=changed))


def with_scenario(**changed: object) -> ScenarioSettings:
    return ScenarioSettings().model_copy(update=changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One measurement of every scenario."""
    path = tmp_path_factory.mktemp("measured")
    found = measure(planned(path), path / "out")
    assert found.status == "measured", found.reason
    return path / "out"


@pytest.fixture
def one(folder: Path) -> Evidence:
    return load_evidence({NAME: folder})[0]


def samples_of(one: Evidence) -> Samples:
    assert one.samples
    return one.samples


# --- what is measured -------------------------------------------------------------------------


def test_every_scenario_stands_in_the_measurement_with_what_it_was_made_by(one: Evidence) -> None:
    found = one.measurement.scenarios
    assert set(found) == {"offline", "server", "camera"} and one.measurement.streams
    offline, server, camera, streams = (*(found[key] for key in ARRAYS if key in found), one.measurement.streams)
    assert offline.n == 16 and offline.throughput_fps and offline.settings["batch"] in (1, 4)
    assert server.n == 80 and server.p50_ms and server.settings["overloaded_processes"] == 0
    assert camera.streams == 4 and camera.scheduled == camera.n == 2 * 4 * 10  # runs, streams, frames
    assert camera.accuracy and camera.accuracy.n == 60 and camera.settings["phases_ms"]["infer"] > 0
    assert streams.streams == 12 and streams.background_hours == pytest.approx(4 * 20 / 10 / 3600)  # 4 of 12 are blue
    assert streams.events == streams.detected == 8 and streams.false_alarms == 0
    assert streams.settings["labels"] == list(LABELS) and streams.settings["fps"] == 10
    assert set(samples_of(one).extra) == {name for names in ARRAYS.values() for name in names}


def test_facts_follow_from_the_arrays_on_disk(one: Evidence) -> None:
    again = recomputed(one.measurement, samples_of(one))
    assert again.streams == one.measurement.streams and again.latency == one.measurement.latency
    for name, facts in one.measurement.scenarios.items():
        assert again.scenarios[name].model_copy(update={"accuracy": facts.accuracy}) == facts
    mine, theirs = again.scenarios["camera"].accuracy, one.measurement.scenarios["camera"].accuracy
    assert mine and theirs and list(mine.recall_per_class.values()) == list(theirs.recall_per_class.values())
    assert mine.accuracy == theirs.accuracy and one.fault is None


def test_clips_of_which_every_frame_was_seen_are_answered_as_before(one: Evidence) -> None:
    extra, test = samples_of(one).extra, samples_of(one).splits["test"]
    if (extra["camera_outcome"] == 2).any():
        pytest.skip("this machine dropped frames")
    assert extra["camera_ids"].tolist() == test.ids.tolist()
    assert np.allclose(extra["camera_logits"], test.logits, atol=1e-4)


def test_only_what_is_asked_for_is_measured_and_a_confirmation_asks_for_none(tmp_path: Path) -> None:
    found = measure(planned(tmp_path, scenarios=with_scenario(offline=SCENARIOS.offline)), tmp_path / "out")
    assert set(found.scenarios) == {"offline"} and found.streams is None
    assert set(Samples.load(tmp_path / "out/samples.npz").extra) == set(ARRAYS["offline"])
    again = measure_again(planned(tmp_path / "again"), tmp_path / "out")
    assert again.status == "measured" and not again.scenarios and again.streams is None


# --- damage -----------------------------------------------------------------------------------


def harmed(one: Evidence, name: str, harm: str) -> Evidence:
    extra = dict(samples_of(one).extra)
    array = extra.pop(name)
    if harm != "missing":
        extra[name] = array[:-1]
    return replace(one, samples=replace(samples_of(one), extra=extra))


@pytest.mark.parametrize("harm", ["missing", "cut"])
@pytest.mark.parametrize("name", JUDGED)
def test_a_damaged_array_is_no_evidence(one: Evidence, name: str, harm: str) -> None:
    assert one.fault is None
    assert "does not follow from its samples" in (harmed(one, name, harm).fault or "")


@pytest.mark.parametrize("name", ["offline_ns", "server_at_ns", "camera_ids", "stream_truth"])
def test_facts_of_a_missing_array_are_an_error_that_names_candidate_and_array(one: Evidence, name: str) -> None:
    with pytest.raises(DataError, match=f"{NAME}: .* missing or damaged .*{name}"):
        recomputed(one.measurement, samples_of(harmed(one, name, "missing")))


def test_an_edited_outcome_is_no_evidence(one: Evidence) -> None:
    outcome = samples_of(one).extra["camera_outcome"].copy()
    outcome[0, 0] = 2 - outcome[0, 0]
    extra = {**samples_of(one).extra, "camera_outcome": outcome}
    fault = replace(one, samples=replace(samples_of(one), extra=extra)).fault or ""
    assert "scenarios.camera" in fault and "it was changed after bench wrote it" in fault


# --- what cannot be measured --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenarios", "words"),
    [
        ({"camera": CAMERA.model_copy(update={"fps": 25.0})}, ["bench.scenarios.camera.fps is 25", "data.clip.fps 10"]),
        (
            {"camera": CAMERA.model_copy(update={"timeout_s": 60.0})},
            ["bench.scenarios.camera.timeout_s is 60", "bench.timeout_s ends the process after 60"],
        ),
        (
            {"camera": CAMERA.model_copy(update={"confirm_seconds": 0.2})},
            ["bench.scenarios.camera.confirm_seconds is 0.2, 2 frames of a stream, but a clip has 4"],
        ),
        ({"streams": StreamSettings()}, ["bench.scenarios.streams", "'nothing' is not one of", "'blue'"]),
        ({"streams": StreamSettings(background="blue", stream_seconds=99)}, ["lasts 99 s", "lower streams.stream_se"]),
        ({"camera": CAMERA.model_copy(update={"fps": 25.0}), "streams": StreamSettings()}, ["data.clip", "'nothing'"]),
    ],
)
def test_what_contradicts_the_clips_is_a_recorded_failure_before_anything_runs(
    tmp_path: Path, scenarios: dict, words: list[str]
) -> None:
    plan = replace(planned(tmp_path, scenarios=with_scenario(**scenarios)), command=("false",))
    found = measure(plan, tmp_path / "out")
    assert found.status == "failed" and found == Measurement.read(tmp_path / "out" / "measurement.json")
    for word in words:
        assert word in found.reason
    assert not (tmp_path / "out" / "samples.npz").exists()


# --- settings ---------------------------------------------------------------------------------


def test_a_scenario_is_asked_for_by_its_name_alone() -> None:
    plain = {"offline": {}, "server": {}, "camera": {"fps": 25, "jitter_ms": 5}, "streams": {}}
    found = BenchSettings.model_validate({"scenarios": plain}).scenarios
    assert found.camera == CameraSettings(fps=25, jitter_ms=5)
    assert (found.offline, found.server, found.streams) == (OfflineSettings(), ServerSettings(), StreamSettings())
    assert BenchSettings().scenarios == ScenarioSettings(offline=None, server=None, camera=None, streams=None)


def test_what_is_measured_decides_the_digest() -> None:
    digests = {BenchSettings(scenarios=with_scenario(**{key: getattr(SCENARIOS, key)})).digest for key in ARRAYS}
    assert len(digests | {BenchSettings().digest}) == 5


@pytest.mark.parametrize(
    ("scenarios", "words"),
    [
        ({"camera": {"jiter_ms": 3}}, "bench.scenarios.camera.jiter_ms: unknown key; did you mean 'jitter_ms'?"),
        ({"camra": {}}, "bench.scenarios.camra: unknown key; did you mean 'camera'?"),
        ({"offline": {"batch_sizes": []}}, "bench.scenarios.offline.batch_sizes: got []"),
        ({"server": {"rate_per_s": 0}}, "bench.scenarios.server.rate_per_s: got 0"),
        ({"camera": {"jitter_ms": 100}}, "jitter_ms 100 must be less than a period, 100 ms"),
        ({"streams": {"threshold": 2}}, "bench.scenarios.streams.threshold: got 2"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(scenarios: dict, words: str) -> None:
    config = compose("config")
    config["bench"]["scenarios"] = scenarios
    with pytest.raises(ConfigError) as error:
        parse(config)
    assert words in str(error.value)
