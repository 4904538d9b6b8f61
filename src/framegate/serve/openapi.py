"""What the OpenAPI page says of the routes under /v2: they parse for themselves, so it is written here."""

from __future__ import annotations

import re
from typing import Any

ANY: dict[str, Any] = {"description": "OK", "content": {"application/json": {"schema": {}}}}
REASONS = {
    400: "The request cannot be meant",
    404: "No such model or version",
    413: "Beyond a limit on size",
    501: "What this server does not offer",
    503: "Too busy, too many streams, or shutting down; Retry-After says when to come back",
    504: "Its turn came after its deadline",
}
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
PARAMETERS = {"type": "object", "description": "sequence_id, sequence_start, sequence_end, timeout (microseconds)"}
INPUT = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "enum": ["frame", "state"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": ["UINT8", "FP32"]},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "enum": ["logits", "next_state"]}, "parameters": {"type": "object"}},
}
REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": PARAMETERS,
        "inputs": {"type": "array", "minItems": 1, "maxItems": 2, "items": INPUT},
        "outputs": {"type": "array", "items": OUTPUT},
    },
}
INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "JSON; with the header Inference-Header-Content-Length: so much JSON, then binary tensors",
        "content": {
            "application/json": {"schema": REQUEST},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error answers of a route."""
    return {
        status: {"description": REASONS[status], "content": {"application/json": {"schema": ERROR}}}
        for status in statuses
    }


def path_parameters(path: str) -> list[dict[str, Any]]:
    """The names in braces, each a string."""
    names = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
