"""The words that both sides share: specs, the Bundle, measurements, verdicts, digests, atomic writes, errors.

Imports nothing of ours. No torch, no runtime, no media: those read and write what is defined here.

Errors::

    FramegateError
    +-- ConfigError            a setting that cannot work
    +-- DataError              a data set that cannot work
    |   +-- MediaError         one file that cannot be decoded
    |       +-- MediaTooLarge  ... because it is beyond the limits
    +-- BundleError            a bundle that is not what it says
    +-- ParityError            an exported graph that does not compute what it was exported from
    +-- RuntimeUnavailable     a runtime or device that was asked for and is not here
    +-- NothingShipped         the gate proved nothing that could ship
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Precision = Literal["fp32", "fp16", "int8", "int8_trt"]
Split = Literal["train", "val", "test"]
Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Scenario = Literal["single_stream", "offline", "server", "camera"]


class FramegateError(Exception):
    """Anything that the user can act on; its text says what, where, got, expected, and what to do."""


class ConfigError(FramegateError):
    """A setting that cannot work."""


class DataError(FramegateError):
    """A data set that cannot work."""


class MediaError(DataError):
    """One file that cannot be decoded; `path` and `reason` are kept apart for reports."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class MediaTooLarge(MediaError):
    """A file that asks for more than the limits allow."""


class BundleError(FramegateError):
    """A bundle that is not what it says."""


class ParityError(FramegateError):
    """An exported graph that does not compute what it was exported from."""


class RuntimeUnavailable(FramegateError):
    """A runtime or device that was asked for and is not here."""


class NothingShipped(FramegateError):
    """The gate proved nothing that could ship."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Not possible here, and why: a result, not an error."""

    reason: str


# --- records: what crosses a file -------------------------------------------------------------


class Record(BaseModel):
    """An immutable record at the JSON edge; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="strings")

    def to_json(self) -> str:
        """Indented JSON, keys in the order of declaration."""
        return self.model_dump_json(indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Write atomically as JSON."""
        write_text(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read from JSON; DataError names the file and every wrong key."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run the stage that writes it") from None
        except ValidationError as error:
            raise DataError(f"{path}: not a {cls.__name__}: {explain(error)}") from None


R = TypeVar("R", bound=BaseModel)


def explain(error: ValidationError) -> str:
    """All problems of a validation in one line, each with the place where it stands."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors())


class ClipSpec(Record):
    """What a clip is for a model: T frames of H x W RGB pixels at `fps`.

    The resize rule is part of it: scale the short side, then crop the centre.
    """

    frames: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=8)]
    width: Annotated[int, Field(ge=8)]
    fps: Annotated[float, Field(gt=0)]
    resize: Literal["short_side_center_crop"] = "short_side_center_crop"
    color: Literal["RGB"] = "RGB"


class TensorSpec(Record):
    """One input or output of a graph; a string in `shape` is a symbolic (dynamic) axis."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]


class GraphSpec(Record):
    """Inputs and outputs of one ONNX file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Lineage(Record):
    """Digests of all that made a bundle."""

    dataset: str
    config: str
    weights: str
    parent: str | None = None  # digest of the fp32 bundle that an int8 bundle was made from
    calibration: tuple[str, ...] = ()  # ids of the training clips that an int8 bundle was calibrated on
    golden: tuple[str, ...] = ()  # ids of the clips in golden.npz, never of the test split
    label_counts: tuple[int, ...] = ()  # training clips of each label, in the order of `labels`


class Parity(Record):
    """Errors found at export, on real clips: largest absolute logit difference, or share of equal top-1."""

    torch_onnx_max_abs: float | None = None
    clip_step_max_abs: float
    top1_agreement: float | None = None
    tolerance: float
    clips: int


class BundleInfo(Record):
    """bundle.json: no timestamps, no git sha; `digest` = sha256 of the canonical form without that key."""

    format: Literal[1] = 1
    name: str
    model: str
    variant: str
    precision: Precision
    labels: tuple[str, ...]
    clip: ClipSpec
    state_size: int
    step: GraphSpec
    clip_graph: GraphSpec
    parameters: int
    macs_per_frame: int
    lineage: Lineage
    parity: Parity
    files: dict[str, str]
    digest: str = ""

    def sealed(self) -> BundleInfo:
        """The same record with its digest filled in."""
        body = self.model_dump(mode="json", exclude={"digest"})
        # lists that came to the record later count only when filled: older bundles keep their digest
        body["lineage"] = {key: value for key, value in body["lineage"].items() if value != []}
        return self.model_copy(update={"digest": digest_of(body)})


REFUSED = "refused.json"  # stands in for a bundle that the export stage refused to write: {"reason": ...}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder that explains itself: step.onnx, clip.onnx, bundle.json, golden.npz."""

    path: Path
    info: BundleInfo

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read bundle.json and check its digest and every file's sha256.

        Raises BundleError naming the file that is missing or differs.
        """
        if (path / REFUSED).is_file():
            told = read_json(path / REFUSED)
            raise BundleError(
                f"{path}: the export refused it: {told.get('reason') if isinstance(told, dict) else told}"
            )
        if not (path / "bundle.json").is_file():
            raise BundleError(f"{path}: no bundle.json here; expected a folder written by the export stage")
        try:
            info = BundleInfo.read(path / "bundle.json")
        except DataError as error:
            raise BundleError(str(error)) from None
        if info.sealed().digest != info.digest:
            raise BundleError(f"{path / 'bundle.json'}: digest does not match its content; export it again")
        for name, expected in info.files.items():
            check_inside(path, name)
            if not (path / name).is_file():
                raise BundleError(f"{path / name}: missing; bundle.json lists it; export the bundle again")
            if (got := sha256_file(path / name)) != expected:
                raise BundleError(
                    f"{path / name}: sha256 is {got[:12]}…, bundle.json says {expected[:12]}…; "
                    "the file was changed after export; export the bundle again"
                )
        return cls(path, info)

    @property
    def size_bytes(self) -> int:
        """Bytes of the step graph, the served unit."""
        return (self.path / "step.onnx").stat().st_size


def check_inside(folder: Path, name: str) -> None:
    """BundleError when a file name would leave its folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"{folder}: file name {name!r} leaves the bundle's folder")


# --- names ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CandidateName:
    """`<model>-<variant>-<precision>--<runtime>`: what the gate judges."""

    model: str
    variant: str
    precision: str
    runtime: str

    @classmethod
    def parse(cls, text: str) -> CandidateName:
        """ConfigError unless the text has the four parts."""
        bundle, sep, runtime = text.partition("--")
        parts = bundle.split("-")
        if not sep or len(parts) != 3 or not all((*parts, runtime)):
            raise ConfigError(f"candidate {text!r}: expected <model>-<variant>-<precision>--<runtime>")
        return cls(parts[0], parts[1], parts[2], runtime)

    @property
    def bundle(self) -> str:
        """`<model>-<variant>-<precision>`."""
        return f"{self.model}-{self.variant}-{self.precision}"

    @property
    def parent(self) -> str:
        """The dense fp32 of the same model on ort-cpu."""
        return f"{self.model}-dense-fp32--ort-cpu"

    def __str__(self) -> str:
        return f"{self.bundle}--{self.runtime}"


# --- measurement ------------------------------------------------------------------------------


class AccuracyFacts(Record):
    """Accuracy of one candidate on one split; shares in 0..1."""

    n: int
    groups: int
    accuracy: float
    mean_class_accuracy: float
    macro_f1: float
    f1_per_class: dict[str, float]
    recall_per_class: dict[str, float]
    top5: float | None = None


class LatencyFacts(Record):
    """Latency of one step at N = 1; `None` = too few samples. Bounds are one-sided at 95 %.

    Percentiles: solo and sustained, in `processes` fresh processes (scenario single_stream). Ratios: interleaved with
    the parent in `pairs` other fresh processes. `stable`: every process had warmed up before it was timed.
    """

    calls: int
    pairs: int
    processes: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    parent_p50_ms: float | None
    ratio_p50: float | None
    ratio_p50_low: float | None
    ratio_p50_high: float | None
    ratio_p99: float | None
    ratio_p99_low: float | None
    ratio_p99_high: float | None
    phases_ms: dict[str, float]
    warmup_calls: int = 0
    stable: bool = True


class ScenarioFacts(Record):
    """One arrival pattern besides single_stream; what does not belong to the scenario is None.

    offline: `throughput_fps`. server: percentiles from the scheduled arrival. camera: `streams` at which
    (missed + dropped) / scheduled was confirmed below the limit, and accuracy again under the drops of that point.
    """

    scenario: Scenario
    n: int  # batches, queries or scheduled frames
    processes: int
    settings: dict[str, Any]
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    throughput_fps: float | None = None
    streams: int | None = None
    scheduled: int | None = None
    missed: int | None = None
    dropped: int | None = None
    accuracy: AccuracyFacts | None = None


class StreamFacts(Record):
    """Alarms on untrimmed streams: clips of a camera in a row, the state carried through.

    An alarm is a run of at least `hold_s` of one label that is not `background`. Bounds are one-sided at 95 %.
    """

    background: str
    hold_s: float
    streams: int
    background_hours: float
    false_alarms: int
    false_alarms_per_hour: float
    false_alarms_per_hour_low: float
    false_alarms_per_hour_high: float
    events: int
    detected: int
    time_to_detect_s: float | None  # median over events, an undetected one counting as infinite
    time_to_detect_s_low: float | None
    time_to_detect_s_high: float | None
    settings: dict[str, Any] = {}  # with `fps` and `labels`: what it takes to compute this again


class Measurement(Record):
    """What was measured of one candidate on one host; raw samples lie beside it in samples.npz."""

    format: Literal[1] = 1
    candidate: str
    status: Literal["measured", "skipped", "failed"]
    reason: str = ""
    inputs: dict[str, str]  # digests: bundle, parent, index, dataset, host_class, bench
    host_class: dict[str, Any]
    host_conditions: dict[str, Any]
    session: dict[str, Any] = {}  # what really ran: runtime, provider, device, threads, version
    accuracy: dict[Split, AccuracyFacts] = {}
    latency: LatencyFacts | None = None
    scenarios: dict[Scenario, ScenarioFacts] = {}
    streams: StreamFacts | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None  # peak resident set of a process that holds this one session
    parameters: int | None = None
    macs_per_frame: int | None = None
    samples_sha256: str = ""


# --- verdict ----------------------------------------------------------------------------------


class RuleOutcome(Record):
    """One rule applied to one candidate: the evidence and what it proves."""

    rule: str
    metric: str
    status: Status
    value: float | None
    bound: float
    low: float | None
    high: float | None
    n: int
    unit: str
    reason: str
    kind: str = ""  # the rule's bound (max, min, drop_max, ratio_max), or guardrail, effect, chance
    against: str = ""  # reference, parent, champion: what a drop or ratio is counted from
    scenario: str = ""  # where it was measured: single_stream, camera, ...; empty for what has none


class CandidateVerdict(Record):
    """All rules of one candidate; PASS only when every rule passes."""

    candidate: str
    status: Status
    reason: str
    shortlisted: bool
    walked: bool
    outcomes: tuple[RuleOutcome, ...] = ()


class Waiver(Record):
    """A rule that a person set aside, and why; what ships by it is a challenger, never the champion."""

    rule: str
    reason: str


class Verdict(Record):
    """Why this one ships, or why nothing does. Everything that it was computed from is named by digest."""

    format: Literal[1] = 1
    status: Status  # PASS: something ships; FAIL: every candidate is proven harmful; else INCONCLUSIVE
    sentence: str
    shipped: str | None
    bundle: str | None = None  # digest of the bundle that ships, as it was measured
    chosen: str | None = None  # what the walk chose, before its latency was measured again
    reference: str
    compressed: bool
    candidates: tuple[CandidateVerdict, ...]
    warnings: tuple[str, ...] = ()
    walk: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()  # within the indifference zone of the fastest proven one
    incumbent: str | None = None  # candidate that ships now
    openings: int = 1  # of the test split, by different evidence or rules, since its digest changed
    waived: tuple[Waiver, ...] = ()
    dataset: str
    host_class: str
    rules: str  # digest of `gate`
    gate: dict[str, Any] = {}  # the gate section, whole
    measurements: dict[str, str]  # candidate -> digest of its measurement
    evidence: dict[str, str] = {}  # confirmation, champion, index, agreement/<candidate> -> digest


# --- digests ----------------------------------------------------------------------------------


def sha256_bytes(data: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON form."""
    return sha256_bytes(canonical_json(value))


# --- atomic writes ----------------------------------------------------------------------------


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it on success, remove it on any failure.

    A full disk or Ctrl-C leaves what stood there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically write bytes."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Atomically write UTF-8 text."""
    write_bytes(path, text.encode())


def read_json(path: Path) -> Any:
    """Any JSON; DataError when it is none."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); run the stage that writes it") from None


def write_json(path: Path, value: Any) -> None:
    """Atomically write indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success swap it in by two renames, else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    temporary.chmod(0o755)
    try:
        yield temporary
        old = temporary.with_suffix(".old")
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or the empty string."""
    import difflib

    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
