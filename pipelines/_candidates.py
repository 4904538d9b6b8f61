"""conf/candidates.yaml: what a run declares, checked as a whole before anything is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from framegate.contract import CandidateName, ConfigError, Record, explain, nearest
from framegate.runtime.session import RUNTIMES

FILE = Path("conf/candidates.yaml")


class Compressed(Record):
    """One compressed net: a variant applied to a dense model."""

    model: str
    variant: str


class Exported(Record):
    """One net that is exported in every precision."""

    net: str


class Candidate(Record):
    """What the gate judges: a bundle, and the bundle that it is timed against."""

    bundle: str
    parent: str


class Candidates(Record):
    """The whole file."""

    trained: list[str]
    compressed: dict[str, Compressed]
    exported: dict[str, Exported]
    engines: list[str]
    candidates: dict[str, Candidate]


def read_candidates(path: Path = FILE) -> Candidates:
    """The parsed file. ConfigError names every wrong key."""
    try:
        return Candidates.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from None


def check_candidates(declared: Candidates, config: dict[str, Any], models: list[str]) -> list[str]:
    """Every problem of the declarations: unknown models, variants, nets, bundles, runtimes; a missing reference."""
    return [f"  {FILE}: {text}" for text in _problems(declared, config, models)]


def _problems(declared: Candidates, config: dict[str, Any], models: list[str]) -> Iterator[str]:
    for name in declared.trained:
        if name not in models:
            yield f"trained: {name!r} has no conf/model/{name}.yaml{nearest(name, models)}"
    nets = {f"{name}-dense": f"work/{name}/dense" for name in declared.trained}
    for key, line in declared.compressed.items():
        if key != f"{line.model}-{line.variant}":
            yield f"compressed.{key}: expected the key {line.model}-{line.variant}"
        if line.model not in declared.trained:
            yield f"compressed.{key}: model {line.model!r} is not in `trained`{nearest(line.model, declared.trained)}"
        if line.variant not in config["variants"]:
            yield (
                f"compressed.{key}: variant {line.variant!r} is not in the `variants` list of conf/config.yaml"
                f"{nearest(line.variant, config['variants'])}"
            )
        nets[key] = f"work/{line.model}/{line.variant}"
    for key, net in declared.exported.items():
        if nets.get(key) != net.net:
            yield f"exported.{key}: net is {net.net!r}, expected {nets.get(key, 'a trained or compressed net')!r}"
    bundles = [f"{key}-{precision}" for key in declared.exported for precision in ("fp32", "int8")]
    for name in declared.engines:
        if name not in bundles or not name.endswith("-fp32"):
            yield f"engines: {name!r} is no exported fp32 bundle{nearest(name, bundles)}"
    for text, candidate in declared.candidates.items():
        yield from _candidate_problems(text, candidate, bundles)
    for text in sorted(_parents(declared) - declared.candidates.keys()):
        yield f"candidates: {text!r} is not declared, and others are timed beside it: nothing of them could be proven"
    reference = str((config.get("gate") or {}).get("reference"))
    if reference not in declared.candidates:
        yield f"candidates: gate.reference {reference!r} is not declared{nearest(reference, declared.candidates)}"


def _parents(declared: Candidates) -> set[str]:
    """The dense fp32 of every declared candidate's model; names that are wrong are told elsewhere."""
    found = set()
    for text in declared.candidates:
        with contextlib.suppress(ConfigError):
            found.add(CandidateName.parse(text).parent)
    return found


def _candidate_problems(text: str, candidate: Candidate, bundles: list[str]) -> Iterator[str]:
    try:
        name = CandidateName.parse(text)
    except ConfigError as error:
        yield f"candidates: {error}"
        return
    parent = CandidateName.parse(name.parent).bundle
    if name.bundle not in bundles:
        yield f"candidates.{text}: bundle {name.bundle!r} is not exported{nearest(name.bundle, bundles)}"
    if name.runtime not in RUNTIMES:
        yield f"candidates.{text}: unknown runtime {name.runtime!r}{nearest(name.runtime, RUNTIMES)}"
    for key, expected in (("bundle", f"exports/{name.bundle}"), ("parent", f"exports/{parent}")):
        if getattr(candidate, key) != expected:
            yield f"candidates.{text}.{key}: got {getattr(candidate, key)!r}, expected {expected!r}"
