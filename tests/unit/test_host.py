"""Which host this is: stable where it must be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from framegate.bench import host


def test_the_class_is_stable_and_can_be_written() -> None:
    first, second = host.host_class(), host.host_class()
    assert first == second == json.loads(json.dumps(first))
    assert host.host_digest(first) == host.host_digest(second)
    assert first["cores"] >= 1 and first["runtimes"]


def test_flags_that_matter_and_the_model_come_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "model name\t: A CPU\ncpu MHz\t: 1200.5\nflags\t: fpu avx2 amx_bf16 sse\n\nmodel name\t: other\n"
    )
    facts = host.host_class(cpuinfo)
    assert facts["cpu"] == "A CPU" and facts["cpu_flags"] == ["avx2", "amx_bf16"]
    assert host.host_class(tmp_path / "none")["cpu_flags"] == []


def test_conditions_do_not_change_the_class() -> None:
    conditions = host.host_conditions()
    assert "load_1_5_15" in conditions and not set(conditions) & set(host.host_class())


def test_a_gpu_tool_that_fails_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.shutil, "which", lambda name: "/bin/false")
    assert host.host_class()["gpus"] == []


def test_gpus_are_listed_with_their_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Some GPU, 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(host.shutil, "which", lambda name: str(tool))
    assert host.host_class()["gpus"] == ["Some GPU, 570.1"]


def test_nothing_heavy_is_imported() -> None:
    heavy = "('scipy', 'onnxruntime', 'torch')"
    code = f"import sys, framegate.bench.host as h; h.host_class(); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
