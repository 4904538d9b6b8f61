"""What a promotion is on disk: its record, the numbered archive, the hold. Reads; moves nothing.

Layout under `exports` (or exports/hosts/<class12>, for another host class)::

    promotions/<N>/   every promotion, whole: bundle, promotion.json (.sig), verdict.json, measurement.json, samples.npz
    shipped/          a copy of the one that ships; serving follows it
    promotion.json    its record, with the registered version and the hold; DVC's out of stage ship
    hold.json         there after a rollback, until `framegate promotions release`
    challenger/       what shipped by a waiver
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from framegate.contract import DataError, Record, Waiver, sha256_file

FILE, HOLD, SHIPPED, CHALLENGER = "promotion.json", "hold.json", "shipped", "challenger"


class Hold(Record):
    """hold.json: a promotion that stays, whatever the verdict says, since somebody rolled back to it."""

    promotion: int
    rolled_back_from: int | None
    reason: str = ""
    time: str

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"held at promotion {self.promotion} (rolled back from {self.rolled_back_from} on {self.time}{why})"


class Promotion(Record):
    """promotion.json: what ships, and the digests of all that led there.

    `version` and `hold` are known after it was signed: only exports/promotion.json has them.
    """

    format: int = 1
    number: int | None = None  # None: a challenger
    candidate: str
    runtime: str
    threads: int
    sentence: str = ""  # the verdict's
    waived: tuple[Waiver, ...] = ()
    bundle: str
    dataset: str
    host_class: str
    host: dict[str, Any] = Field(default_factory=dict)  # the facts behind `host_class`
    verdict: str  # sha256 of verdict.json
    evidence: dict[str, str] = Field(default_factory=dict)  # digests of all that the verdict was computed from
    upstream: dict[str, str]  # stage -> digest of its dvc.lock entry
    git_sha: str | None
    git_dirty: bool | None
    time: str = ""  # UTC, ISO 8601
    previous: str | None  # sha256 of the promotion.json that shipped before
    version: str | None = None  # of the registered model
    hold: Hold | None = None

    def serves_like(self, other: Promotion) -> bool:
        """Whether both answer alike: the same bundle, runtime and threads."""
        return (self.bundle, self.runtime, self.threads) == (other.bundle, other.runtime, other.threads)


def archived(exports: Path) -> dict[int, Path]:
    """Number -> folder of every promotion that was kept, in order."""
    folders = (exports / "promotions").glob("*")
    return dict(sorted((int(one.name), one) for one in folders if one.name.isdecimal()))


def archive_of(exports: Path, number: int) -> Path:
    """The folder of one promotion. DataError names those that there are."""
    known = archived(exports)
    if number not in known:
        raise DataError(
            f"promotion {number} is not in {exports / 'promotions'}; kept: {', '.join(map(str, known)) or 'none'}"
        )
    return known[number]


def read_record(path: Path) -> Promotion | None:
    """The record at `path` (promotion.json); None when nothing is there."""
    return Promotion.read(path) if path.is_file() else None


def read_hold(exports: Path) -> Hold | None:
    """The hold, if somebody rolled back."""
    return Hold.read(exports / HOLD) if (exports / HOLD).is_file() else None


def digest_in(folder: Path) -> str | None:
    """sha256 of the promotion.json in a folder: what names a promotion."""
    return sha256_file(folder / FILE) if (folder / FILE).is_file() else None


def is_of_host(exports: Path) -> bool:
    """Whether the folder is exports/hosts/<class12>, of another host class."""
    return exports.parent.name == "hosts"


def bundles_of(exports: Path) -> Path:
    """The folder of the exported bundles: `exports` itself; all host classes share those of exports/."""
    return exports.parent.parent if is_of_host(exports) else exports


def alias_of(exports: Path) -> str:
    """The registry's alias for what ships: `champion`, or `champion-<class12>` under exports/hosts/<class12>."""
    return f"champion-{exports.name}" if is_of_host(exports) else "champion"
