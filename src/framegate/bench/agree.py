"""Two bundles on clips that nobody labelled: how often they answer otherwise bounds how much accuracy can be lost.

Where a candidate answers as the reference does it loses nothing, whatever the right answer is: drop <= share of
disagreement. What a share proves is the gate's business (`gate.judge`); here clips are found and answered.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from framegate.bench import stats
from framegate.bench.host import host_class, host_digest
from framegate.contract import (
    Bundle,
    CandidateName,
    ClipSpec,
    ConfigError,
    DataError,
    MediaError,
    atomic_folder,
    sha256_file,
)
from framegate.folder import Folder, SourceFile, read_groups, some
from framegate.gate.evidence import Agreed, Agreement
from framegate.gate.judge import disagreement
from framegate.gate.metrics import MIN_GROUPS, why_undecidable
from framegate.index import Index, centre_window
from framegate.media import MediaLimits, is_image, is_video, read_clip
from framegate.runtime.session import Floats, Session, open_session, run_clips


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """A clip of the folder: `id` is its POSIX path there."""

    id: str
    path: Path
    group: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Clips:
    """What a folder holds: each content once; `trained` were learnt from and prove nothing, as `index` says."""

    clips: tuple[Unlabelled, ...]
    duplicates: int
    trained: int
    grouped: bool  # by a groups.csv; else every file is its own group
    index: str  # digest; empty without one


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a bundle on a runtime."""

    name: CandidateName
    bundle: Bundle


# --- clips ------------------------------------------------------------------------------------


def find_clips(root: Path, index: Index | None) -> Clips:
    """Videos and images at any depth of `root`, groups from its groups.csv (path,group: every clip, once).

    DataError when there is none, or groups.csv does not name them.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; name one with clips in it")
    paths = sorted(path for path in root.rglob("*") if (is_video(path) or is_image(path)) and path.is_file())
    named = [(path.relative_to(root).as_posix(), path) for path in paths]
    files = tuple(SourceFile(name, "", path) for name, path in named if not _is_hidden(name))
    groups = read_groups(Folder(root, "video", (), files, ()))
    learnt = {clip.sha256 for clip in index.clips if clip.split != "test"} if index else set()
    seen: dict[str, Unlabelled] = {}
    contents = [(file, sha256_file(file.path)) for file in files]
    for file, sha256 in contents:
        if sha256 not in learnt:
            seen.setdefault(sha256, Unlabelled(file.id, file.path, groups[file.id], sha256))
    trained = sum(sha256 in learnt for _, sha256 in contents)
    if not seen:
        told = f"{len(files)} found, {trained} of the training or validation split"
        raise DataError(f"{root}: no clip that can be asked ({told})")
    grouped, digest = (root / "groups.csv").is_file(), index.digest if index else ""
    return Clips(tuple(seen.values()), len(files) - trained - len(seen), trained, grouped, digest)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


# --- answers ----------------------------------------------------------------------------------


def compare(candidate: Side, reference: Side, found: Clips, threads: int = 1) -> tuple[Agreed, dict[str, str]]:
    """Ask both about every clip; the answers, and id -> reason of the clips that cannot be read.

    ConfigError when they answer different questions; DataError when no clip can be read.
    """
    _check_same_question(candidate, reference)
    mine, theirs = (open_session(side.bundle, side.name.runtime, threads) for side in (candidate, reference))
    skipped: dict[str, str] = {}
    answered: list[tuple[Unlabelled, int, int]] = []
    try:
        for clip in tqdm(found.clips, unit="clip", desc="agree", disable=not sys.stderr.isatty()):
            try:
                answered.append((clip, *_tops(mine, theirs, clip.path)))
            except MediaError as error:
                skipped[clip.id] = error.reason
    finally:
        mine.close()
        theirs.close()
    if not answered:
        told = some(f"{name}: {reason}" for name, reason in skipped.items())
        raise DataError(f"none of {len(found.clips)} clips can be read: {told}")
    return _agreed(candidate, reference, answered, found.index), skipped


def _check_same_question(candidate: Side, reference: Side) -> None:
    for what in ("labels", "clip"):
        mine, theirs = getattr(candidate.bundle.info, what), getattr(reference.bundle.info, what)
        if mine != theirs:
            raise ConfigError(f"{candidate.name} and {reference.name} have other {what}: {mine} and {theirs}")
    if candidate.name == reference.name:
        raise ConfigError(f"{candidate.name} is the reference itself; name another with --candidate")


def _tops(mine: Session, theirs: Session, path: Path) -> tuple[int, int]:
    """Position of the top label of both on the centre window of a file, as accuracy is judged; -1: not finite.

    MediaError also for a file that is shorter than a clip.
    """
    spec = mine.clip
    frames = [frame.pixels for frame in read_clip(path, spec, MediaLimits())]
    if len(frames) < spec.frames:
        raise MediaError(path, _too_short(len(frames), spec))
    start = centre_window(len(frames), spec.frames)
    window = np.stack(frames[start : start + spec.frames])[None]
    return _top(run_clips(mine, window)), _top(run_clips(theirs, window))


def _too_short(count: int, spec: ClipSpec) -> str:
    return f"too short: {count} frames at {spec.fps:g} fps, a clip has {spec.frames}"


def _top(logits: Floats) -> int:
    return int(logits[0].argmax()) if np.isfinite(logits).all() else -1


def _agreed(candidate: Side, reference: Side, answered: Sequence[tuple[Unlabelled, int, int]], index: str) -> Agreed:
    """The record with its numbers, over the answers that they follow from."""
    clips, mine, theirs = zip(*answered, strict=True)
    empty = Agreement(
        candidate=str(candidate.name),
        reference=str(reference.name),
        bundle=candidate.bundle.info.digest,
        reference_bundle=reference.bundle.info.digest,
        index=index,
        host_class=host_digest(host_class()),
        n=0,
        groups=0,
        disagreements=0,
    )
    told = (np.array([getattr(clip, name) for clip in clips]) for name in ("id", "group", "sha256"))
    arrays = *told, np.array(mine), np.array(theirs)
    found = Agreed(empty, *arrays)
    numbers = {"n": len(found.ids), "groups": len(np.unique(found.groups)), "disagreements": int(found.disagrees.sum())}
    return Agreed(empty.model_copy(update=numbers), *arrays)


def write(agreed: Agreed, out: Path) -> Path:
    """out/<candidate>/agreement.json and samples.npz, swapped in together; gives the folder."""
    folder = out / agreed.record.candidate
    with atomic_folder(folder) as empty:
        agreed.write(empty)
    return folder


# --- what it proves ---------------------------------------------------------------------------


def conclude(agreed: Agreed, margin: float) -> tuple[bool, str]:
    """Whether a drop of at most `margin` points is proven, as the gate sees it; a sentence on it."""
    said, share = agreed.record, disagreement(agreed)
    few = why_undecidable(said.n, said.groups, margin / 100)
    if not few and share.high is not None and share.high <= margin:
        return (
            True,
            f"PASS: at most {share.high:.2f} points of accuracy are lost, whatever the labels; margin {margin:g}",
        )
    return False, f"cannot tell at a margin of {margin:g} points: {'; '.join(_lacks(said, share, margin, few))}"


def _lacks(said: Agreement, share: stats.Estimate, margin: float, few: str) -> Iterator[str]:
    if few:
        yield few
    if share.value is not None and share.value >= margin:
        yield f"{share.value:.2f} % are answered otherwise, no number of clips proves less; label some"
    elif share.high is not None and share.high > margin and not few:
        yield f"at most {share.high:.2f} points; about {_would_do(said, share, margin)} clips like these would do"


def _would_do(said: Agreement, share: stats.Estimate, margin: float) -> int:
    """Clips at which the bound would meet the margin: its reach goes with one over the root of their number."""
    assert share.value is not None and share.high is not None
    scaled = said.n * ((share.high - share.value) / (margin - share.value)) ** 2
    return max(math.ceil(scaled), stats.min_clips(margin / 100, max(said.groups, MIN_GROUPS)) or 0)
