"""How many requests of the protocol were answered, in Triton's words; what the engine measures is not repeated here."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Count:
    succeeded: int = 0
    succeeded_s: float = 0.0
    failed: int = 0
    failed_s: float = 0.0
    rows: int = 0
    last_ms: int = 0


@dataclass(slots=True)
class Tally:
    """Counts per version of the model."""

    _counts: dict[str, _Count] = field(default_factory=dict)

    def succeeded(self, version: str, seconds: float, rows: int) -> None:
        """A request was answered."""
        count = self._counts.setdefault(version, _Count())
        count.succeeded += 1
        count.succeeded_s += seconds
        count.rows += rows
        count.last_ms = time.time_ns() // 1_000_000

    def failed(self, version: str, seconds: float) -> None:
        """A request was refused, or left by its client."""
        count = self._counts.setdefault(version, _Count())
        count.failed += 1
        count.failed_s += seconds

    def statistics(self, name: str, version: str) -> dict[str, Any]:
        """One entry of `model_stats`: milliseconds of the last answer, counts, nanoseconds."""
        count = self._counts.get(version, _Count())
        return {
            "name": name,
            "version": version,
            "last_inference": count.last_ms,
            "inference_count": count.rows,
            "inference_stats": {
                "success": {"count": count.succeeded, "ns": round(1e9 * count.succeeded_s)},
                "fail": {"count": count.failed, "ns": round(1e9 * count.failed_s)},
            },
        }
