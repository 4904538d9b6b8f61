"""What the OpenAPI page says of routes that parse for themselves, so that it is written here: /v2 and /v1/predict."""

from __future__ import annotations

import re
from typing import Any

ANY: dict[str, Any] = {"description": "OK", "content": {"application/json": {"schema": {}}}}
REASONS = {
    400: "The request cannot be meant",
    401: "No valid key, where the server wants one",
    403: "Another site's page asks",
    404: "No such model or version",
    413: "Beyond a limit on size",
    415: "Content of a kind, or in a coding, that is not read here",
    421: "Not a name that a server on loopback answers to",
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
NDJSON = "application/x-ndjson"
FILE = {"type": "string", "format": "binary"}
TOP = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}
PREDICT: dict[str, Any] = {
    "parameters": [{"name": "top", "in": "query", "schema": TOP}],
    "requestBody": {
        "required": True,
        "description": "A form with one field `file`, or the file itself under any other media type",
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": FILE}}},
            "application/octet-stream": {"schema": FILE},
        },
    },
}
SPANS: dict[str, Any] = {
    "description": "The spans; as NDJSON one on a line, and an error as the last line",
    "headers": {"Framegate-Version": {"description": "The version that answers", "schema": {"type": "string"}}},
    "content": {NDJSON: {"schema": {"type": "string"}}},
}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error answers of a route."""
    return {
        status: {"description": REASONS[status], "content": {"application/json": {"schema": ERROR}}}
        for status in statuses
    }


GUARDED = failures(401, 403, 421)  # what `guard` refuses before any route


def path_parameters(path: str) -> list[dict[str, Any]]:
    """The names in braces, each a string."""
    names = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
