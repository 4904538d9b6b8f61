"""Shipping: from a verdict to exports/shipped, atomically, with the record of what led there.

Reads the verdict and nothing else to decide. MLflow mirrors what was shipped; that is `track`.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framegate.contract import (
    Bundle,
    BundleError,
    CandidateName,
    NothingShipped,
    Record,
    Verdict,
    atomic_folder,
    digest_of,
    sha256_file,
)


class Promotion(Record):
    """promotion.json: what ships, and the digests of all that led there."""

    format: int = 1
    candidate: str
    runtime: str
    threads: int
    bundle: str
    dataset: str
    host_class: str
    verdict: str  # sha256 of verdict.json
    upstream: dict[str, str]  # stage -> digest of its dvc.lock entry
    git_sha: str | None
    git_dirty: bool | None
    previous: str | None  # digest of the promotion before
    version: str | None = None  # of the registered model


def ship(exports: Path, lock: Mapping[str, Any], threads: int) -> Promotion:
    """Copy the bundle that exports/verdict.json names to exports/shipped; gives its promotion.

    `lock` is the parsed dvc.lock. Raises NothingShipped when the verdict names none: what shipped before stays.
    Raises BundleError when the bundle is not the one that was measured.
    """
    verdict = Verdict.read(exports / "verdict.json")
    if verdict.shipped is None:
        raise NothingShipped(f"{verdict.sentence} What shipped before stays; {exports / 'report.html'} shows why.")
    name = CandidateName.parse(verdict.shipped)
    bundle = Bundle.load(exports / name.bundle)
    if bundle.info.digest != verdict.bundle:
        raise BundleError(
            f"{bundle.path}: digest is {bundle.info.digest[:12]}…, the verdict judged {str(verdict.bundle)[:12]}…; "
            "run `dvc repro` so that the bundle that was measured is the one that ships"
        )
    with locked(exports / ".ship.lock"):
        sha, dirty = git_state()
        promotion = Promotion(
            candidate=verdict.shipped,
            runtime=name.runtime,
            threads=threads,
            bundle=bundle.info.digest,
            dataset=verdict.dataset,
            host_class=verdict.host_class,
            verdict=sha256_file(exports / "verdict.json"),
            upstream=upstream(lock, [str(bundle.path), f"work/measurements/{name}"]),
            git_sha=sha,
            git_dirty=dirty,
            previous=previous(exports / "shipped"),
        )
        with atomic_folder(exports / "shipped") as folder:
            for file in ["bundle.json", *bundle.info.files]:
                shutil.copy2(bundle.path / file, folder / file)
            promotion.write(folder / "promotion.json")
    return promotion


def previous(shipped: Path) -> str | None:
    """The digest of the promotion that is shipped now."""
    path = shipped / "promotion.json"
    return digest_of(Promotion.read(path).model_dump(mode="json")) if path.is_file() else None


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One ship at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NothingShipped(f"{path}: another ship is at work; wait for it and run this again") from None
        yield


def git_state() -> tuple[str | None, bool | None]:
    """Commit and whether tracked files were changed; None without git."""
    try:
        sha = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return sha, bool(changed.stdout.strip())
