"""MLflow, the window: training curves, one flat run per candidate, the registered Bundle and its alias.

The only module that imports mlflow. Files are the truth: no decision reads MLflow back.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from framegate.contract import FramegateError, Measurement, Verdict

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel
    from pytorch_lightning.loggers import MLFlowLogger

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # table by table, at the first run
DEFAULT_URI = "sqlite:///mlflow.db"
TRAINING, CANDIDATES, MODEL = "framegate-training", "framegate-candidates", "framegate"


@dataclass(frozen=True, slots=True)
class Run:
    """One MLflow run that is being written."""

    client: MlflowClient
    run_id: str
    logger: MLFlowLogger

    def log_folder(self, folder: Path) -> None:
        """Keep the files of a folder as artifacts."""
        self.client.log_artifacts(self.run_id, str(folder))


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else a sqlite file in the project."""
    return os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_URI)


@contextmanager
def tracking() -> Iterator[MlflowClient]:
    """A client; a server that cannot be reached is one readable error."""
    try:
        yield MlflowClient(tracking_uri())
    except MlflowException as error:
        raise FramegateError(
            f"MLflow at {tracking_uri()}: {error}; check MLFLOW_TRACKING_URI, or unset it to use {DEFAULT_URI}"
        ) from None


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made when missing."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    location = Path("mlruns").absolute().as_uri() if tracking_uri().startswith("sqlite") else None
    return str(client.create_experiment(name, location))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined with dots: MLflow's parameters are flat."""
    pairs: dict[str, Any] = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return pairs


@contextmanager
def training_run(name: str, parameters: Mapping[str, Any]) -> Iterator[Run]:
    """A run for training curves; it ends FAILED or KILLED when the block does not end well."""
    from pytorch_lightning.loggers import MLFlowLogger

    with tracking() as client:
        run_id = client.create_run(experiment_id(client, TRAINING), run_name=name).info.run_id
        for key, value in flat(parameters).items():
            client.log_param(run_id, key, str(value)[:500])
        logger = MLFlowLogger(TRAINING, tracking_uri=tracking_uri(), run_id=run_id, log_model=False)
    try:
        yield Run(client, run_id, logger)
    except KeyboardInterrupt:
        client.set_terminated(run_id, "KILLED")
        raise
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def log_candidates(verdict: Verdict, measurements: Sequence[Measurement], report: Path) -> None:
    """One flat run per candidate: what was measured, its verdict and reason, and the report."""
    by_name = {m.candidate: m for m in measurements}
    with tracking() as client:
        experiment = experiment_id(client, CANDIDATES)
        for judged in verdict.candidates:
            tags = {
                "verdict": judged.status,
                "reason": judged.reason[:5000],
                "shipped": str(judged.candidate == verdict.shipped).lower(),
                "dataset": verdict.dataset[:12],
                "host_class": verdict.host_class[:12],
            }
            run = client.create_run(experiment, run_name=judged.candidate, tags=tags)
            for key, value in candidate_metrics(by_name.get(judged.candidate)).items():
                client.log_metric(run.info.run_id, key, value)
            for key, part in zip(("bundle", "runtime"), judged.candidate.split("--"), strict=False):
                client.log_param(run.info.run_id, key, part)
            client.log_artifact(run.info.run_id, str(report))
            client.set_terminated(run.info.run_id)


def candidate_metrics(measurement: Measurement | None) -> dict[str, float]:
    """The numbers of a measurement that a comparison wants in columns."""
    if measurement is None or measurement.status != "measured":
        return {}
    values: dict[str, float | None] = {"size_bytes": measurement.size_bytes, "parameters": measurement.parameters}
    for split, facts in measurement.accuracy.items():
        for key in ("accuracy", "mean_class_accuracy", "macro_f1"):
            values[f"{split}_{key}"] = getattr(facts, key)
    if measurement.latency:
        for key in ("p50_ms", "p90_ms", "p99_ms", "ratio_p50"):
            values[f"step_{key}"] = getattr(measurement.latency, key)
    return {key: float(value) for key, value in values.items() if value is not None}


# --- the registered model: what `promotion.registry.Registry` asks for ----------------------------


def version_of(promotion: str) -> str | None:
    """The registered version of a promotion (sha256 of its promotion.json); None when it is not registered."""
    with tracking() as client:
        found = client.search_model_versions(f"name = '{MODEL}' and tags.promotion = '{promotion}'")
    return max((str(one.version) for one in found), key=int, default=None)


def register(folder: Path, name: str, tags: Mapping[str, str], description: str) -> str:
    """Register a folder, whole, as a new model version, under a run called `name`; gives the version."""
    with tracking() as client:
        run = client.create_run(experiment_id(client, CANDIDATES), run_name=name, tags={"verdict": "SHIPPED"})
        client.log_artifacts(run.info.run_id, str(folder), "bundle")
        client.set_terminated(run.info.run_id)
        if _model(client) is None:
            client.create_registered_model(MODEL)
        source = f"{run.info.artifact_uri}/bundle"
        version = client.create_model_version(MODEL, source, run.info.run_id, dict(tags), description=description)
        return str(version.version)


def alias_version(alias: str) -> str | None:
    """The version that an alias names; None when there is no such alias."""
    with tracking() as client:
        model = _model(client)
    found = model.aliases.get(alias) if model else None
    return None if found is None else str(found)


def set_alias(alias: str, version: str) -> None:
    """Move an alias to a version."""
    with tracking() as client:
        client.set_registered_model_alias(MODEL, alias, version)


def _model(client: MlflowClient) -> RegisteredModel | None:
    return next(iter(client.search_registered_models(f"name = '{MODEL}'")), None)
