"""What conf/ may say: one record per section. Every problem is found at once, with the nearest known key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from framegate.bench.scenarios import camera_problems
from framegate.bench.settings import BenchSettings
from framegate.contract import ClipSpec, ConfigError, Record, nearest
from framegate.gate import GateRules
from framegate.index import IndexSettings
from framegate.media import MediaLimits
from framegate.splits import SplitShares

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Target = dict[str, Any]  # `_target_` and its arguments


class DataSection(Record):
    """conf/data: where the clips are and what a clip is."""

    root: str
    clip: ClipSpec
    shares: SplitShares
    seed: int
    max_skipped_share: Share
    shard_bytes_limit: int
    workers: Annotated[int, Field(ge=0)] | None
    limits: MediaLimits

    def index_settings(self) -> IndexSettings:
        """The part that decides the index."""
        return IndexSettings(**{key: getattr(self, key) for key in IndexSettings.model_fields})


class AugmentationSection(Record):
    """conf/train: augmentation."""

    shift: Annotated[int, Field(ge=0)]
    gain: Share
    offset: Annotated[float, Field(ge=0, le=255)]
    flip: bool


class TrainSection(Record):
    """conf/train: how to train."""

    max_epochs: Count
    batch_size: Count
    lr: Positive
    optimizer: Target
    scheduler: Target
    precision: str
    accelerator: str
    devices: int | str | list[int]
    strategy: str
    threads: Count | None
    workers: Annotated[int, Field(ge=0)]
    seed: int
    min_steps: Count
    monitor: str
    patience: Count
    carry: Share
    carry_after: Share
    class_weights: bool
    label_smoothing: Share
    gradient_clip: Annotated[float, Field(ge=0)]
    augmentation: AugmentationSection


class VariantSection(Record):
    """conf/variants: a list of compression passes."""

    passes: Annotated[list[Target], Field(min_length=1)]


class ExportSection(Record):
    """conf/export: opset, parity tolerances, calibration."""

    opset: Annotated[int, Field(ge=18)]
    tolerance: Positive
    min_agreement: Share
    embedding: bool
    calibration_clips: Count
    parity_clips: Count


class EngineSection(Record):
    """conf/engine: TensorRT."""

    compute_capability: str | None


class Config(Record):
    """The composed configuration of one stage."""

    data: DataSection
    model: Target
    train: TrainSection
    variants: dict[str, VariantSection]
    export: ExportSection
    engine: EngineSection
    bench: BenchSettings
    gate: GateRules
    out: str | None
    index: str
    net: str | None
    variant: str | None
    bundle: str | None
    parent: str | None
    candidate: str | None

    def need(self, key: str) -> str:
        """The value of a key that this stage cannot do without. ConfigError names it."""
        value = getattr(self, key)
        if value is None:
            raise ConfigError(f"{key}: not set; add {key}=... to the command (dvc.yaml shows each stage's)")
        return str(value)


def parse(plain: Mapping[str, Any]) -> Config:
    """The typed configuration, or a ConfigError that lists all problems."""
    try:
        return Config.model_validate(dict(plain))
    except ValidationError as error:
        raise ConfigError("\n".join(f"  {problem(e)}" for e in error.errors())) from None


def scenario_problems(config: Config) -> list[str]:
    """Rules on scenarios that nobody measures, which could never be proven; camera settings that contradict others."""
    bench = config.bench
    problems = [
        f"gate.rules.{i}: {rule.metric} needs scenario {rule.needs}, which bench.scenarios does not measure; "
        "choose bench: full or add it"
        for i, rule in enumerate(config.gate.rules)
        if rule.needs and getattr(bench.scenarios, rule.needs) is None
    ]
    if bench.scenarios.camera:
        problems += camera_problems(bench.scenarios.camera, config.data.clip, bench.timeout_s)
    return [f"  {text}" for text in problems]


def problem(error: ErrorDetails) -> str:
    """One problem: where it stands, what was got and expected, the nearest known key."""
    place = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "extra_forbidden":
            known = known_keys(error["loc"][:-1])
            return f"{place}: unknown key{nearest(str(error['loc'][-1]), known)}; known: {', '.join(known)}"
        case "missing":
            return f"{place}: missing"
        case _:
            return f"{place}: got {error['input']!r}; {error['msg']}"


def known_keys(place: Sequence[int | str]) -> list[str]:
    """The keys of the section at `place`."""
    model: type[BaseModel] = Config
    for key in place:
        field = model.model_fields.get(str(key))
        inner = [
            t for t in _types(field.annotation if field else None) if isinstance(t, type) and issubclass(t, BaseModel)
        ]
        if inner:
            model = inner[0]
    return list(model.model_fields)


def _types(annotation: Any) -> list[Any]:
    """A type and the types inside of it."""
    return [annotation, *(inner for part in getattr(annotation, "__args__", ()) for inner in _types(part))]
