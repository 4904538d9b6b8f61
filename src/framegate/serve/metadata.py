"""What the server and its model are, as the protocol says it: plain dicts, which gRPC turns into messages."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version as installed
from typing import Any

from framegate.serve.errors import BadRequest
from framegate.serve.infer import Inference
from framegate.serve.model import Model
from framegate.serve.tensors import shown

EXTENSIONS = ["sequence", "binary_tensor_data", "parameters", "model_configuration", "statistics"]


def server_metadata() -> dict[str, Any]:
    """Name, version of framegate, extensions of the protocol."""
    return {"name": "framegate", "version": _installed(), "extensions": EXTENSIONS}


@cache
def _installed() -> str:
    return installed("framegate")


def model_metadata(inference: Inference, name: str, version: str = "") -> dict[str, Any]:
    """Tensors and versions of a model. Raises UnknownModel."""
    engine = inference.engine
    model = engine.find(name, version)
    return {
        "name": engine.name,
        "versions": [version] if version else [one.version for one in engine.versions],
        "platform": f"framegate_{model.runtime}",
        "inputs": [
            {"name": "frame", "datatype": "UINT8", "shape": [-1, *_frame_dims(model)]},
            {"name": "state", "datatype": "FP32", "shape": [-1, model.state_size]},
        ],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, len(model.labels)]},
            {"name": "next_state", "datatype": "FP32", "shape": [-1, model.state_size]},
        ],
    }


def model_config(inference: Inference, name: str, version: str = "") -> dict[str, Any]:
    """A ModelConfig of Triton's as far as it applies; labels, fps and digest are `parameters`. Raises UnknownModel."""
    engine = inference.engine
    model, limits = engine.find(name, version), engine.limits
    state = {"data_type": "TYPE_FP32", "dims": [model.state_size]}
    facts = {"labels": json.dumps(model.labels), "fps": f"{model.clip.fps:g}", "digest": model.digest}
    return {
        "name": engine.name,
        "platform": f"framegate_{model.runtime}",
        "backend": "framegate",
        "max_batch_size": limits.max_batch,
        "input": [
            {"name": "frame", "data_type": "TYPE_UINT8", "dims": _frame_dims(model)},
            {"name": "state", **state, "optional": True},
        ],
        "output": [
            {"name": "logits", "data_type": "TYPE_FP32", "dims": [len(model.labels)]},
            {"name": "next_state", **state},
        ],
        "sequence_batching": {
            "max_sequence_idle_microseconds": round(limits.sequence_idle_s * 1e6),
            "oldest": {"max_candidate_sequences": limits.max_streams},
        },
        "parameters": {key: {"string_value": value} for key, value in facts.items()},
    }


def _frame_dims(model: Model) -> list[int]:
    return [model.clip.height, model.clip.width, 3]


def statistics(inference: Inference, name: str = "", version: str = "") -> dict[str, Any]:
    """Counts of one version, of all that are open, or of every model. Raises BadRequest, as Triton does here."""
    engine = inference.engine
    if name not in ("", engine.name):
        raise BadRequest(f"requested model '{shown(name)}' is not available")
    versions = [model.version for model in engine.versions if version in ("", model.version)]
    if not versions:
        raise BadRequest(f"requested model version is not available for model '{engine.name}'")
    return {"model_stats": [inference.tally.statistics(engine.name, one) for one in versions]}


def repository_index(inference: Inference) -> list[dict[str, str]]:
    """Every open version."""
    engine = inference.engine
    return [{"name": engine.name, "version": model.version, "state": "READY"} for model in engine.versions]
