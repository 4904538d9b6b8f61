"""The one seam from the serving side to MLflow: files are the truth, the registry's alias mirrors them.

`installed` is the only place of the serving side that reaches `framegate.track`, and only where MLflow is
installed; tests/test_architecture.py names this file.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from framegate.contract import Skipped
from framegate.promotion.record import CHALLENGER, Promotion, digest_in


class Registry(Protocol):
    """What `framegate.track` offers as module functions."""

    def version_of(self, promotion: str) -> str | None: ...
    def register(self, folder: Path, name: str, tags: Mapping[str, str], description: str) -> str: ...
    def alias_version(self, alias: str) -> str | None: ...
    def set_alias(self, alias: str, version: str) -> None: ...


def installed() -> Registry | Skipped:
    """MLflow's registry, or why there is none here. Makes no store where there is none."""
    if importlib.util.find_spec("mlflow") is None:
        return Skipped("MLflow is not installed here")
    if "MLFLOW_TRACKING_URI" not in os.environ and not Path("mlflow.db").is_file():
        return Skipped("no MLflow store here (no mlflow.db, and MLFLOW_TRACKING_URI is not set)")
    return cast(Registry, importlib.import_module("framegate.track"))


def moved(registry: Registry, alias: str, expected: str | None) -> str | None:
    """A sentence when the alias is not where promotion.json left it: somebody moved it in MLflow."""
    if expected is None or (found := registry.alias_version(alias)) == expected:
        return None
    names = "is gone" if found is None else f"names version {found}"
    return f"alias `{alias}` was moved by hand in MLflow: it {names}, exports/promotion.json says {expected}"


def mirror(
    registry: Registry | Skipped, alias: str, folder: Path, promotion: Promotion, expected: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Register the promotion in `folder` unless it is, then move the alias; gives its version, and what to say.

    `expected`: the version that the alias was left at, None when unknown.
    """
    if isinstance(registry, Skipped):
        again = "run this again where it is" if alias == CHALLENGER else "`dvc repro` moves it"
        return None, (f"{registry.reason}: the alias stays as it is; {again}",)
    note = moved(registry, alias, expected)
    digest = str(digest_in(folder))
    version = registry.version_of(digest)
    if version is None:
        tags = {"promotion": digest, "bundle_digest": promotion.bundle, "candidate": promotion.candidate}
        version = registry.register(folder, f"ship {promotion.candidate}", tags, promotion.sentence)
    registry.set_alias(alias, version)
    return version, (f"{note}; now it names {version}",) if note else ()
