"""What dvc.lock says, read without DVC: stages, the files they gave, and DVC's hashes of files and folders.

The one place that reads YAML on the serving side. Nothing here decides whether anything is right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from framegate.contract import DataError

LARGEST_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Lock:
    """A parsed dvc.lock."""

    path: Path
    stages: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Lock:
        """DataError when it is no dvc.lock."""
        try:
            if path.stat().st_size > LARGEST_BYTES:
                raise DataError(f"{path}: larger than {LARGEST_BYTES} bytes; not a dvc.lock")
            plain = yaml.load(path.read_bytes(), Plain)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; `dvc repro` writes it") from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        stages = plain.get("stages") if isinstance(plain, dict) else None
        if not isinstance(stages, dict) or not all(_is_stage(stage) for stage in stages.values()):
            raise DataError(f"{path}: not a dvc.lock: expected `stages`, each with lists of deps and outs")
        return cls(path, stages)

    def outs(self) -> dict[str, str]:
        """path -> md5 of everything that a stage gave."""
        return {out["path"]: str(out.get("md5", "")) for stage in self.stages.values() for out in stage.get("outs", [])}

    def deps(self, stage: str) -> dict[str, str]:
        """path -> md5 of everything that a stage read; empty when there is no such stage."""
        return {dep["path"]: str(dep.get("md5", "")) for dep in self.stages.get(stage, {}).get("deps", [])}

    def params(self, prefix: str) -> dict[str, Any]:
        """Parameters of the first stage whose name starts with `prefix`; empty when there is none."""
        for name, stage in self.stages.items():
            files = stage.get("params")
            if name.startswith(prefix) and isinstance(files, dict):
                return {key: value for file in files.values() if isinstance(file, dict) for key, value in file.items()}
        return {}


class Plain(yaml.SafeLoader):
    """YAML without aliases: DVC writes none, and they make a small file a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which DVC does not write")
        return super().compose_node(parent, index)


def _is_stage(stage: Any) -> bool:
    parts = [stage.get(key, []) for key in ("deps", "outs")] if isinstance(stage, dict) else [None]
    return all(
        isinstance(p, list) and all(isinstance(o, dict) and isinstance(o.get("path"), str) for o in p) for p in parts
    )


# --- hashes -----------------------------------------------------------------------------------


def md5_of(path: Path) -> str:
    """As DVC 3 counts it: of a file its md5, of a folder the md5 of the list of its files, with `.dir` behind.

    Source: `dvc_data.hashfile.tree.Tree.as_bytes`, md5 of json.dumps([{"md5", "relpath"}, ...]) sorted by relpath.
    """
    if path.is_file():
        return _md5_of_file(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listed = [{"md5": _md5_of_file(files[name]), "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
