"""Which host this is: the class that decides speed (stable), and the conditions of the moment.

`host_class` is what measurements depend on; load, clocks and temperature are kept apart, inside each
measurement, or every `dvc repro` would measure again. Light: a stage that runs always calls this.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from framegate.contract import digest_of

FLAGS = (
    "asimd",
    "asimddp",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "bf16",
    "i8mm",
    "sve",
)
RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")
CPU = ("system", "machine", "cpu", "cpu_flags", "cores")  # what every runtime's speed depends on
GPU_RUNTIMES = ("ort-cuda", "ort-tensorrt", "tensorrt")
PACKAGES_OF = {
    "ort-cpu": ("onnxruntime", "onnxruntime-gpu"),
    "ort-cuda": ("onnxruntime-gpu",),
    "ort-tensorrt": ("onnxruntime-gpu",),
    "openvino": ("openvino",),
    "openvino-bf16": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-rtx"),
}


def host_class(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """CPU model and the flags that matter, cores, GPUs with driver, runtime versions."""
    facts = _cpu_facts(cpuinfo)
    present = set((facts.get("flags") or facts.get("Features") or "").split())
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": facts.get("model name") or platform.processor() or "unknown",
        "cpu_flags": [flag for flag in FLAGS if flag in present],
        "cores": _cores(),
        "gpus": _gpus(),
        "runtimes": {name: found for name in RUNTIME_PACKAGES if (found := _version(name))},
    }


def host_digest(facts: dict[str, Any]) -> str:
    """The name of a host class in files."""
    return digest_of(facts)


def serving_class(facts: Mapping[str, Any], runtime: str) -> dict[str, Any]:
    """The part of a host class that decides one runtime's speed: CPU, its own package, and GPUs if it uses them.

    A key that `facts` lacks is None.
    """
    found = {key: facts.get(key) for key in CPU}
    if runtime in GPU_RUNTIMES:
        found["gpus"] = facts.get("gpus")
    versions = facts.get("runtimes") or {}
    return found | {name: versions[name] for name in PACKAGES_OF[runtime] if name in versions}


def host_conditions() -> dict[str, Any]:
    """Load average, clocks in MHz, the highest temperature; a key is absent where it cannot be read."""
    facts: dict[str, Any] = {}
    if hasattr(os, "getloadavg"):
        facts["load_1_5_15"] = [round(value, 2) for value in os.getloadavg()]
    if clocks := _clocks(Path("/proc/cpuinfo")):
        facts["clock_mhz_min"], facts["clock_mhz_max"] = min(clocks), max(clocks)
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    if readings := [value for zone in zones if (value := _read_number(zone)) is not None]:
        facts["temperature_c_max"] = max(readings) / 1000
    return facts


def peak_memory_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The largest resident set of this process so far (VmHWM); None where the kernel does not say.

    Not getrusage: its maximum is inherited from the process that started this one.
    """
    line = next((line for line in _read_text(status).splitlines() if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else None


def _cpu_facts(cpuinfo: Path) -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is no such file."""
    facts: dict[str, str] = {}
    for line in _read_text(cpuinfo).split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        facts[key.strip()] = value.strip()
    return facts


def _clocks(cpuinfo: Path) -> list[float]:
    lines = (line for line in _read_text(cpuinfo).splitlines() if line.startswith("cpu MHz"))
    return [float(line.partition(":")[2]) for line in lines]


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[str]:
    """`name, driver` of each NVIDIA GPU; empty without nvidia-smi."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
