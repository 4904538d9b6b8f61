"""What a rule may say. A wrong rule is found when the configuration is read, all of them at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ValidationError, field_validator, model_validator

from framegate.contract import CandidateName, ConfigError, Record, digest_of, explain, nearest
from framegate.runtime.session import RUNTIMES

Bound = Literal["max", "min", "drop_max", "ratio_max"]

METRICS: dict[str, tuple[Bound, ...]] = {
    "accuracy": ("drop_max", "min"),
    "latency_p50_ms": ("max", "ratio_max"),
    "latency_p90_ms": ("max",),
    "latency_p99_ms": ("max",),
    "size_bytes": ("max",),
    "parameters": ("max",),
}
SHARES = {"latency_p50_ms": 0.5, "latency_p90_ms": 0.9, "latency_p99_ms": 0.99}


class Rule(Record):
    """A metric and exactly one bound (inclusive), for all candidates or those on one runtime.

    `drop_max`: points below the reference; `min` of accuracy: per cent; `ratio_max`: candidate time / time
    of its own dense fp32 model on ort-cpu.
    """

    metric: str
    runtime: str | None = None
    max: float | None = None
    min: float | None = None
    drop_max: float | None = None
    ratio_max: float | None = None

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}{nearest(metric, METRICS)}; known: {', '.join(METRICS)}")
        return metric

    @field_validator("runtime")
    @classmethod
    def _runs(cls, runtime: str | None) -> str | None:
        if runtime is not None and runtime not in RUNTIMES:
            raise ValueError(f"unknown runtime {runtime!r}{nearest(runtime, RUNTIMES)}; known: {', '.join(RUNTIMES)}")
        return runtime

    @field_validator("max", "min", "drop_max", "ratio_max")
    @classmethod
    def _finite(cls, bound: float | None) -> float | None:
        if bound is not None and not (math.isfinite(bound) and bound >= 0):
            raise ValueError(f"a bound is a finite number of 0 or more, got {bound}")
        return bound

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        allowed = METRICS[self.metric]
        given = self._given()
        if len(given) != 1 or given[0] not in allowed:
            raise ValueError(
                f"{self.metric} takes exactly one of {', '.join(allowed)}; got {', '.join(given) or 'none'}"
            )
        return self

    def _given(self) -> list[Bound]:
        kinds: tuple[Bound, ...] = ("max", "min", "drop_max", "ratio_max")
        return [kind for kind in kinds if getattr(self, kind) is not None]

    @property
    def kind(self) -> Bound:
        """Which bound is set."""
        return self._given()[0]

    @property
    def bound(self) -> float:
        """The bound that is set."""
        return float(getattr(self, self.kind))

    def __str__(self) -> str:
        text = {
            "max": f"{self.metric} ≤ {self.bound:g}",
            "min": f"{self.metric} ≥ {self.bound:g} %",
            "drop_max": f"{self.metric} drop ≤ {self.bound:g} points",
            "ratio_max": f"{self.metric} ≤ {self.bound:g} x parent",
        }[self.kind]
        return text + (f" on {self.runtime}" if self.runtime else "")

    def applies_to(self, name: CandidateName, reference: str) -> bool:
        """Whether it says anything of a candidate: nothing is compared with itself."""
        if self.runtime not in (None, name.runtime):
            return False
        match self.kind:
            case "drop_max":
                return str(name) != reference
            case "ratio_max":
                return str(name) != name.parent
            case _:
                return True


class GateRules(Record):
    """The `gate` section: the candidate that accuracy is compared with, and what must be proven."""

    reference: str
    rules: tuple[Rule, ...]

    @field_validator("reference")
    @classmethod
    def _named(cls, reference: str) -> str:
        try:
            CandidateName.parse(reference)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return reference

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> Self:
        """From plain dicts; ConfigError with every problem."""
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise ConfigError(f"gate: {explain(error)}") from None

    @property
    def digest(self) -> str:
        """Of all rules."""
        return digest_of(self.model_dump(mode="json"))
