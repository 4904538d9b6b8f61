"""Engines: built ahead of time where TensorRT-RTX is, a recorded reason elsewhere."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from framegate import engine
from framegate.contract import BundleInfo, ConfigError, Skipped, sha256_file
from framegate.engine import EngineCard, build_engine, choose_target
from tests.exported import bundle

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(engine, "LIBRARIES", ("tensorrt_rtx",))
    monkeypatch.setattr(engine, "local_capability", lambda: None)


def fake(monkeypatch, **modules) -> None:
    """Only these libraries are installed."""
    monkeypatch.setattr(engine.importlib.util, "find_spec", modules.get)
    monkeypatch.setattr(engine.importlib, "import_module", modules.__getitem__)


@needs_rtx
@pytest.mark.parametrize("model", ["cnn", "cnn_gru", "cnn_lstm"])
def test_an_engine_builds_without_a_gpu(model: str, no_gpu, tmp_path: Path) -> None:
    backbone = "textbook" if model == "cnn_lstm" else "small"
    made = bundle(model, backbone, "pruned" if model == "cnn_lstm" else "dense")
    card = build_engine(made, tmp_path / "e", None)
    assert isinstance(card, EngineCard)
    assert EngineCard.read(tmp_path / "e" / "engine.json") == card
    assert (card.library, card.compute_capability, card.bundle) == ("tensorrt_rtx", "SM89", made.info.digest)
    plan = tmp_path / "e" / "step.plan"
    assert (card.plan_sha256, card.size_bytes) == (sha256_file(plan), plan.stat().st_size)


@needs_rtx
def test_the_compute_capability_is_a_choice(no_gpu, tmp_path: Path) -> None:
    card = build_engine(bundle("cnn"), tmp_path, "SM120")
    assert isinstance(card, EngineCard)
    assert card.compute_capability == "SM120"


@needs_rtx
def test_an_unknown_compute_capability_is_refused(no_gpu, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'SM88'; did you mean 'SM8\d'\?; known: .*SM120"):
        build_engine(bundle("cnn"), tmp_path / "e", "SM88")
    assert not (tmp_path / "e").exists()


@needs_rtx
def test_a_graph_that_the_parser_refuses_is_a_reason(no_gpu, tmp_path: Path) -> None:
    int8 = bundle("cnn", precision="int8")
    as_fp32 = BundleInfo.model_validate({**int8.info.model_dump(), "precision": "fp32"})
    found = build_engine(type(int8)(int8.path, as_fp32), tmp_path / "e", None)
    assert isinstance(found, Skipped)
    assert "tensorrt_rtx" in found.reason
    assert "refuses cnn-dense-int8: " in found.reason
    assert json.loads((tmp_path / "e" / "engine.json").read_text()) == {"skipped": found.reason}


def test_without_a_library_it_is_skipped_and_a_stale_plan_goes(monkeypatch, tmp_path: Path) -> None:
    fake(monkeypatch)
    (tmp_path / "step.plan").write_bytes(b"old")
    found = build_engine(bundle("cnn"), tmp_path, None)
    assert isinstance(found, Skipped)
    assert found.reason == (
        "skipped: tensorrt is not installed; tensorrt_rtx is not installed; pip install 'framegate[tensorrt]'"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["engine.json"]


def test_int8_for_cpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cnn-dense-int8 is int8"):
        build_engine(bundle("cnn", precision="int8"), tmp_path / "e")


RTX = SimpleNamespace(__version__="1.7", ComputeCapability=SimpleNamespace(SM89=1, SM120=2))
TRT = SimpleNamespace(__version__="10.9")


@pytest.mark.parametrize(
    ("here", "wanted", "expected"),
    [
        ("SM90", None, ("tensorrt", "SM90")),
        ("SM89", "SM120", ("tensorrt_rtx", "SM120")),
        (None, None, ("tensorrt_rtx", "SM89")),
    ],
)
def test_tensorrt_is_preferred_where_it_can(monkeypatch, here, wanted, expected) -> None:
    fake(monkeypatch, tensorrt=TRT, tensorrt_rtx=RTX)
    monkeypatch.setattr(engine, "local_capability", lambda: here)
    target = choose_target(wanted)
    assert not isinstance(target, Skipped)
    assert (target.library, target.capability) == expected


def test_reasons_of_all_libraries_are_given(monkeypatch) -> None:
    fake(monkeypatch, tensorrt_rtx=RTX)
    monkeypatch.setattr(engine, "local_capability", lambda: "SM90")
    found = choose_target(None)
    assert isinstance(found, Skipped)
    assert "tensorrt is not installed; tensorrt_rtx 1.7 cannot build for the GPU here (SM90)" in found.reason
    fake(monkeypatch, tensorrt=TRT)
    monkeypatch.setattr(engine, "local_capability", lambda: None)
    found = choose_target(None)
    assert isinstance(found, Skipped)
    assert "tensorrt 10.9 builds only where an NVIDIA GPU is" in found.reason


def test_the_capability_comes_from_the_driver(monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert engine.local_capability() is None
    monkeypatch.setattr("shutil.which", lambda _: "nvidia-smi")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(stdout="8.9\n8.6\n"))
    assert engine.local_capability() == "SM89"

    def broken(*_, **__):
        raise OSError("no driver")

    monkeypatch.setattr("subprocess.run", broken)
    assert engine.local_capability() is None
