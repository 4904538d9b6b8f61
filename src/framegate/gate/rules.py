"""What a rule may say. A wrong rule is found when the configuration is read, all of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from framegate.contract import (
    CandidateName,
    ConfigError,
    Record,
    Scenario,
    Waiver,
    digest_of,
    explain,
    nearest,
)
from framegate.gate.metrics import METRICS, Bound, Metric
from framegate.runtime.session import RUNTIMES

Against = Literal["reference", "champion", "parent"]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]

BOUNDS: tuple[Bound, ...] = ("max", "min", "drop_max", "ratio_max")
SCENARIOS: tuple[Scenario, ...] = ("single_stream", "offline", "server", "camera")
OPPONENTS: dict[Bound, tuple[Against, ...]] = {"drop_max": ("reference", "champion"), "ratio_max": ("parent",)}
RECALL = "recall of every class"  # the guardrail's name in outcomes and waivers


class Rule(Record):
    """A metric and exactly one bound (inclusive), for all candidates or those on one runtime.

    `drop_max`: points below whom `against` names: the reference, the champion, by default both (the champion where
    there is one that was measured on the same data); `min` of accuracy: per cent; `ratio_max`: candidate time / time
    of its own dense fp32 model on ort-cpu. `scenario`: by default the first that the metric has in METRICS.
    """

    metric: str
    scenario: str | None = None
    runtime: str | None = None
    against: str | None = None
    max: float | None = None
    min: float | None = None
    drop_max: float | None = None
    ratio_max: float | None = None

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        return _one_of("metric", metric, METRICS)

    @field_validator("scenario")
    @classmethod
    def _arrives(cls, scenario: str | None) -> str | None:
        return scenario and _one_of("scenario", scenario, SCENARIOS)

    @field_validator("runtime")
    @classmethod
    def _runs(cls, runtime: str | None) -> str | None:
        return runtime and _one_of("runtime", runtime, RUNTIMES)

    @field_validator("against")
    @classmethod
    def _opposes(cls, against: str | None) -> str | None:
        return against and _one_of("opponent", against, ("reference", "champion", "parent"))

    @field_validator(*BOUNDS, mode="before")
    @classmethod
    def _number(cls, bound: Any) -> Any:
        return _no_switch(bound)

    @field_validator(*BOUNDS)
    @classmethod
    def _finite(cls, bound: float | None) -> float | None:
        if bound is not None and not (math.isfinite(bound) and bound >= 0):
            raise ValueError(f"a bound is a finite number of 0 or more, got {bound}")
        return bound

    @model_validator(mode="after")
    def _possible(self) -> Self:
        metric, given = METRICS[self.metric], self._given()
        if len(given) != 1 or given[0] not in metric.bounds:
            raise ValueError(
                f"{self.metric} takes exactly one of {', '.join(metric.bounds)}; got {', '.join(given) or 'none'}"
            )
        known = metric.scenarios(self.kind)
        if self.scenario and self.scenario not in known:
            names = [name for name in known if name]
            takes = f"the scenario {' or '.join(names)}" if names else "no scenario"
            near = nearest(self.scenario, names)
            raise ValueError(f"{self.kind} of {self.metric} takes {takes}, got {self.scenario!r}{near}")
        allowed = OPPONENTS.get(self.kind, ())
        if self.against and self.against not in allowed:
            takes = f"against {' or '.join(allowed)}" if allowed else "no `against`"
            raise ValueError(f"{self.kind} takes {takes}, got {self.against!r}{nearest(self.against, allowed)}")
        return self

    def _given(self) -> list[Bound]:
        return [kind for kind in BOUNDS if getattr(self, kind) is not None]

    @property
    def about(self) -> Metric:
        """The line of the table."""
        return METRICS[self.metric]

    @property
    def kind(self) -> Bound:
        """Which bound is set."""
        return self._given()[0]

    @property
    def bound(self) -> float:
        """The bound that is set."""
        return float(getattr(self, self.kind))

    @property
    def where(self) -> Scenario | None:
        """The scenario that it speaks of; None for what has none, a size say."""
        known = self.about.scenarios(self.kind)
        return next(name for name in known if self.scenario in (None, name))

    @property
    def needs(self) -> str | None:
        """The key of `bench.scenarios` that it takes; None: what it speaks of is always measured."""
        if self.about.streams:
            return "streams"
        return None if self.where == "single_stream" else self.where

    @property
    def unit(self) -> str:
        """Of its outcome's values."""
        return {"drop_max": "points", "ratio_max": "x"}.get(self.kind, self.about.unit)

    @property
    def opponents(self) -> Sequence[str]:
        """Whom it compares with; one empty name when it compares with nobody."""
        return (self.against,) if self.against else OPPONENTS.get(self.kind, ("",))

    def __str__(self) -> str:
        percent = " %" if self.unit == "%" else ""
        text = {
            "max": f"{self.metric} ≤ {self.bound:g}",
            "min": f"{self.metric} ≥ {self.bound:g}{percent}",
            "drop_max": f"{self.metric} drop ≤ {self.bound:g} points",
            "ratio_max": f"{self.metric} ≤ {self.bound:g} x parent",
        }[self.kind]
        text += f" against {self.against}" if self.against and len(OPPONENTS[self.kind]) > 1 else ""
        text += f" in {self.where}" if self.where != self.about.scenarios(self.kind)[0] else ""
        return text + (f" on {self.runtime}" if self.runtime else "")

    def covers(self, name: CandidateName) -> bool:
        """Whether it speaks of candidates on this runtime, and of more than the candidate itself."""
        alone = self.kind == "ratio_max" and str(name) == name.parent
        return self.runtime in (None, name.runtime) and not alone


def _no_switch(value: Any) -> Any:
    """YAML reads `yes` and `on` as true, and true would be 1."""
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, got {value} (YAML reads yes, no, on and off as that)")
    return value


def _one_of(what: str, word: str, known: Iterable[str]) -> str:
    names = list(known)
    if word not in names:
        raise ValueError(f"unknown {what} {word!r}{nearest(word, names)}; known: {', '.join(names)}")
    return word


class GateRules(Record):
    """The `gate` section: the candidate that accuracy is compared with, and what must be proven.

    `indifference`: candidates within this share of the fastest proven one's time are tied.
    `restless`: how far from 1 the interval of the reference against itself may reach before no time is believed.
    Of simulated runs 0.05 stops none where processes differ by 0.3 %, and where they differ by 1 % one in twenty with
    three pairs and none with ten; at 2 % six in ten and none, at 4 % nine in ten and half.
    `guardrail_points`: no class may be proven to lose more than this; 0 = any harm that is proven, None = no
    guardrail. With very many clips a loss far inside the margin is proven too: give it the margin then.
    """

    reference: str
    rules: tuple[Rule, ...]
    indifference: Share = 0.02
    restless: Annotated[float, Field(gt=0, lt=1)] = 0.05
    guardrail_points: Annotated[float, Field(ge=0, le=100)] | None = 0.0

    @field_validator("indifference", "restless", "guardrail_points", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return _no_switch(value)

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

    def waived(self, waivers: Sequence[Waiver]) -> dict[str, str]:
        """Rule text -> why a person set it aside. `<=` and `>=` are read as `≤` and `≥`.

        ConfigError for a text that is no rule: what makes a measurement no evidence cannot be waived.
        """
        known = [str(rule) for rule in self.rules] + ([RECALL] if self.guardrail_points is not None else [])
        found = {one.rule.replace("<=", "≤").replace(">=", "≥"): one.reason for one in waivers}
        unknown = [f"{text!r} is no rule{nearest(text, known)}" for text in found if text not in known]
        if unknown:
            raise ConfigError(f"waiver: {'; '.join(unknown)}; rules: {'; '.join(known)}")
        if empty := [text for text, reason in found.items() if not reason.strip()]:
            raise ConfigError(f"waiver of {empty[0]!r}: give a reason; it stands in the verdict for all to read")
        return found
