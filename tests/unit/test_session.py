"""Opening a session: what is refused, and in which words."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from framegate.contract import BundleError, RuntimeUnavailable, Skipped
from framegate.runtime import ort
from framegate.runtime.session import (
    RUNTIMES,
    FakeSession,
    available_runtimes,
    open_session,
    replay,
    run_clips,
)
from tests.bundles import LABELS, SPEC, WEIGHTS, color_clips, make_bundle

OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
CUDA = ort.loads("libcuda.so.1", "nvcuda.dll")


def test_a_bundle_with_one_byte_changed_does_not_open(tiny_bundle: Path) -> None:
    for name in ("step.onnx", "clip.onnx", "golden.npz", "bundle.json"):
        data = bytearray((tiny_bundle / name).read_bytes())
        data[len(data) // 2] ^= 1
        original = (tiny_bundle / name).read_bytes()
        (tiny_bundle / name).write_bytes(bytes(data))
        with pytest.raises(BundleError, match=name):
            open_session(tiny_bundle)
        (tiny_bundle / name).write_bytes(original)
    open_session(tiny_bundle).close()


def test_golden_logits_that_disagree_do_not_open(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, golden_shift=0.01)
    with pytest.raises(BundleError, match=r"logits differ by 0\.01"):
        open_session(bundle.path)
    open_session(bundle, replay_golden=False).close()


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="no openvino")
def test_another_runtime_may_round_but_not_answer_otherwise(tmp_path: Path) -> None:
    open_session(make_bundle(tmp_path / "a", golden_shift=0.01).path, "openvino").close()
    with pytest.raises(BundleError, match="another top label in"):
        open_session(make_bundle(tmp_path / "b", golden_shift=9.0).path, "openvino")


def test_golden_logits_that_are_not_finite_do_not_open(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(BundleError, match="finite: False"):
        replay(FakeSession(LABELS, SPEC, weights=WEIGHTS * np.nan), bundle)


def test_the_served_unit_is_replayed_first(tmp_path: Path) -> None:
    sizes = []

    class Spy(FakeSession):
        def step(self, frames, state):  # type: ignore[no-untyped-def]
            sizes.append(len(frames))
            return super().step(frames, state)

    replay(Spy(LABELS, SPEC, weights=WEIGHTS), make_bundle(tmp_path))
    assert sizes == [1] * SPEC.frames + [4] * SPEC.frames


@pytest.mark.skipif(CUDA, reason="an NVIDIA driver is here")
@pytest.mark.parametrize("runtime", ["ort-cuda", "ort-tensorrt"])
def test_cuda_without_a_gpu_is_unavailable_and_never_cpu(tiny_bundle: Path, runtime: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"'{runtime}': .*--runtime ort-cpu"):
        open_session(tiny_bundle, runtime)


def test_a_provider_that_falls_back_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "probe", lambda runtime: "pretends to be here")
    monkeypatch.setattr(ort, "_chain", lambda runtime: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeUnavailable, match="asked for CUDAExecutionProvider, ONNX Runtime would run CPU"):
        open_session(tiny_bundle, "ort-cuda")


def test_an_unknown_runtime_is_named_with_the_nearest(tiny_bundle: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="did you mean 'openvino'"):
        open_session(tiny_bundle, "openvno")


def test_every_runtime_is_here_or_says_why_not() -> None:
    found = available_runtimes()
    assert set(found) == set(RUNTIMES)
    assert isinstance(found["ort-cpu"], str) and "CPUExecutionProvider" in found["ort-cpu"]
    assert all(value.reason if isinstance(value, Skipped) else value for value in found.values())


def test_missing_openvino_names_the_extra(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    with pytest.raises(RuntimeUnavailable, match=r"framegate\[openvino\]"):
        open_session(tiny_bundle, "openvino")


def test_a_graph_that_is_no_graph_is_the_bundles_fault(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "step.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot open"):
        open_session(bundle)


def test_threads_below_one_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        open_session(tiny_bundle, threads=0)


def test_batches_do_not_change_what_clips_get(tiny_bundle: Path) -> None:
    clips = color_clips([0, 1, 2, 2, 1])
    session = open_session(tiny_bundle)
    assert np.allclose(run_clips(session, clips, batch=2), run_clips(session, clips, batch=5), atol=1e-5)


@OPENVINO
@pytest.mark.parametrize("last", ["opened here, closed in a thread", "closed in the order of opening"])
def test_signals_still_arrive_after_sessions_were_closed(tiny_bundle: Path, last: str) -> None:
    run = """
import os, pathlib, signal, sys, threading
from framegate.runtime.session import open_session
sessions = [open_session(pathlib.Path(sys.argv[1]), "openvino") for _ in range(2)]
def close():
    while sessions:
        sessions.pop(0).close()
close() if sys.argv[2].startswith("closed") else None
thread = threading.Thread(target=close); thread.start(); thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("arrived"))
signal.raise_signal(signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", run, tiny_bundle, last], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "arrived\n"), done.stderr


@pytest.mark.parametrize("runtime", ["ort-cpu", pytest.param("openvino", marks=OPENVINO)])
def test_nothing_is_reported_to_anybody(tiny_bundle: Path, tmp_path: Path, runtime: str) -> None:
    """ONNX Runtime and OpenVINO write the id that they report with at their import, before anything can be called."""
    own = ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    home = tmp_path / "home"
    home.mkdir()
    run = "import sys, pathlib, framegate.runtime.session as s; s.open_session(pathlib.Path(sys.argv[1]), sys.argv[2]).close()"
    subprocess.run(
        [sys.executable, "-c", run, tiny_bundle, runtime],
        env={key: value for key, value in os.environ.items() if key not in own} | {"HOME": str(home)},
        check=True,
    )
    assert list(home.iterdir()) == []
