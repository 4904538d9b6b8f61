"""Bundle -> TensorRT plan for one compute capability, or the reason why not.

TensorRT-RTX builds ahead of time, without a GPU; TensorRT proper needs the GPU that the plan is for. A plan belongs to
one library version and one compute capability: both stand in engine.json, and the loader refuses all others.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate.contract import Bundle, ConfigError, Record, Skipped, atomic_folder, nearest, sha256_file, write_json

log = logging.getLogger(__name__)

LIBRARIES = ("tensorrt", "tensorrt_rtx")  # in the order of preference
WITHOUT_GPU = "SM89"  # what is built for where no GPU and no setting says otherwise
MAX_BATCH = 16


class EngineCard(Record):
    """engine.json: what was built, from what, for what."""

    library: str
    version: str
    compute_capability: str  # e.g. SM89
    bundle: str  # digest
    max_batch: int
    plan_sha256: str
    size_bytes: int
    build_seconds: float


def build_engine(
    bundle: Bundle, out: Path, compute_capability: str | None = None, max_batch: int = MAX_BATCH
) -> EngineCard | Skipped:
    """Write out/step.plan and out/engine.json: the step graph for 1 to `max_batch` streams, tuned for 1.

    `compute_capability`: SM75 to SM121, default that of the GPU here. Skipped where no library can build it; then
    engine.json holds the reason alone. Raises ConfigError for an unknown compute capability or a bundle not in fp32.
    """
    if bundle.info.precision != "fp32":
        raise ConfigError(
            f"engine: {bundle.info.name} is {bundle.info.precision}, a flavour for CPUs; name an fp32 bundle"
        )
    started = time.perf_counter()
    with atomic_folder(out) as folder:
        result = _build(bundle, compute_capability, max_batch)
        if isinstance(result, Skipped):
            write_json(folder / "engine.json", {"skipped": result.reason})
            return result
        (folder / "step.plan").write_bytes(result.plan)
        card = EngineCard(
            library=result.target.library,
            version=result.target.trt.__version__,
            compute_capability=result.target.capability,
            bundle=bundle.info.digest,
            max_batch=max_batch,
            plan_sha256=sha256_file(folder / "step.plan"),
            size_bytes=len(result.plan),
            build_seconds=round(time.perf_counter() - started, 2),
        )
        card.write(folder / "engine.json")
    log.info("%s: %s %s plan of %.0f KiB", bundle.info.name, card.library, card.version, card.size_bytes / 1024)
    return card


@dataclass(frozen=True, slots=True)
class _Target:
    """The library that builds, and the GPU that it builds for."""

    trt: Any
    library: str
    capability: str


@dataclass(frozen=True, slots=True)
class _Plan:
    target: _Target
    plan: bytes


def _build(bundle: Bundle, capability: str | None, max_batch: int) -> _Plan | Skipped:
    target = choose_target(capability)
    if isinstance(target, Skipped):
        return target
    trt, logger = target.trt, _collector(target.trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse((bundle.path / "step.onnx").read_bytes()):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        return Skipped(f"skipped: {target.library} {trt.__version__} refuses {bundle.info.name}: {'; '.join(errors)}")
    config = builder.create_builder_config()
    config.add_optimization_profile(_profile(builder, network, max_batch))
    if target.library == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target.capability), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = "; ".join(logger.errors) or "without a word"
        return Skipped(f"skipped: {target.library} {trt.__version__} cannot build {bundle.info.name}: {said}")
    return _Plan(target, bytes(plan))


def choose_target(capability: str | None) -> _Target | Skipped:
    """The first installed library that can build for the compute capability (default: that of the GPU here)."""
    reasons = []
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is None:
            reasons.append(f"{library} is not installed")
            continue
        trt = importlib.import_module(library)
        found = _tensorrt(trt, capability) if library == "tensorrt" else _tensorrt_rtx(trt, capability)
        if not isinstance(found, Skipped):
            return _Target(trt, library, found)
        reasons.append(found.reason)
    return Skipped(f"skipped: {'; '.join(reasons)}; pip install 'framegate[tensorrt]'")


def _tensorrt(trt: Any, wanted: str | None) -> str | Skipped:
    """TensorRT proper builds for the GPU here and no other."""
    here = local_capability()
    if here is None:
        return Skipped(f"tensorrt {trt.__version__} builds only where an NVIDIA GPU is, and there is none here")
    if wanted not in (None, here):
        return Skipped(f"tensorrt {trt.__version__} builds for the GPU here ({here}), not for {wanted}")
    return here


def _tensorrt_rtx(trt: Any, wanted: str | None) -> str | Skipped:
    """TensorRT-RTX builds for any GPU on its list."""
    known = [name for name in vars(trt.ComputeCapability) if name.startswith("SM")]
    capability = wanted or local_capability() or WITHOUT_GPU
    if capability in known:
        return capability
    if wanted is None:
        return Skipped(f"tensorrt_rtx {trt.__version__} cannot build for the GPU here ({capability})")
    raise ConfigError(
        f"engine.compute_capability: got {wanted!r}{nearest(wanted, known)}; known: {', '.join(sorted(known))}"
    )


def local_capability() -> str | None:
    """`SM89` of the first NVIDIA GPU here, as its driver says; None without one."""
    import shutil
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    except (subprocess.SubprocessError, OSError):
        return None
    return f"SM{answer[0].replace('.', '')}" if answer else None


def _profile(builder: Any, network: Any, max_batch: int) -> Any:
    """Every input for 1 to max_batch streams, tuned for 1."""
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (1, *rest), (max_batch, *rest))
    return profile


def _collector(trt: Any) -> Any:
    """A TensorRT logger that keeps the errors for the reason."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Collector()
