"""Where a promotion comes from, besides its verdict: dvc.lock, git, the clock, the signing key."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from framegate.contract import digest_of
from framegate.signature import SIGNING_KEY, SigningKey, load_private


@dataclass(frozen=True, slots=True)
class Origin:
    """What the verdict does not say. `lock`: the parsed dvc.lock; `key`: to sign with."""

    time: str  # UTC, ISO 8601
    lock: Mapping[str, Any] = field(default_factory=dict)
    git_sha: str | None = None
    git_dirty: bool | None = None
    key: SigningKey | None = None

    @classmethod
    def here(cls, lock: Mapping[str, Any]) -> Self:
        """Now, in this working tree, with the key that FRAMEGATE_SIGNING_KEY names. ConfigError when it is no key."""
        sha, dirty = git_state()
        key = os.environ.get(SIGNING_KEY)
        return cls(utc_now(), lock, sha, dirty, load_private(Path(key)) if key else None)


def utc_now() -> str:
    """`2026-01-31T12:00:00+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def upstream(lock: Mapping[str, Any], paths: list[str]) -> dict[str, str]:
    """Digest of every dvc.lock entry that led to `paths`, found from outputs back to dependencies."""
    stages, wanted, found = dict(lock.get("stages", {})), list(paths), dict[str, str]()
    while wanted:
        path = wanted.pop()
        for name, entry in stages.items():
            if name not in found and any(_covers(out["path"], path) for out in entry.get("outs", [])):
                found[name] = digest_of(entry)
                wanted += [dep["path"] for dep in entry.get("deps", [])]
    return dict(sorted(found.items()))


def _covers(out: str, path: str) -> bool:
    return path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/")


def git_state() -> tuple[str | None, bool | None]:
    """Commit and whether tracked files were changed; None without git."""
    try:
        sha = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return sha, bool(changed.stdout.strip())
