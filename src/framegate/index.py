"""What a data set is: the table of its clips, how to build it, how to read its frames.

`index.json` is a function of the files' contents, the tables beside them and the clip spec: never
of decode order, machine or time. What does not live here: names on disk (`folder`), assignment to
splits (`splits`), decoding (`decoding`) and the stored frames (`shards`).
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from framegate.contract import ClipSpec, DataError, Record, Split, digest_of, sha256_file
from framegate.decoding import decode_all, mean_frames
from framegate.folder import Folder, SourceFile, read_flips, read_groups, read_splits, scan, some
from framegate.media import MediaLimits
from framegate.shards import Encoding, Entry, Frames, Store, StoreInfo, open_store, tidy
from framegate.splits import (
    Member,
    SplitShares,
    assign_splits,
    check_classes,
    check_labels,
    check_splits,
)

CLIPS_PER_POINT = 299  # in the test split, for a claim of one percentage point: (1 - .05)^(1/299)
GROUPS_TO_DECIDE = 10  # in the test split, for an interval that can be trusted
COVERED = 2 / 3  # of the median clip; a window that covers less is worth a hint

log = logging.getLogger(__name__)


class Clip(Record):
    """One file of the data set that can be used; its frames are in the shards under `sha256`."""

    id: str  # POSIX, NFC path under data/
    label: str
    group: str
    split: Split
    sha256: str
    fps: float  # of the source; 0 for an image
    frames: int  # on the spec's grid
    duration_s: float  # of the source; 0 for an image


class SkippedFile(Record):
    """One file that is not used, and why."""

    path: str
    reason: str


class IndexSettings(Record):
    """How a folder becomes an index, besides the clip spec."""

    shares: SplitShares = SplitShares()  # without a splits.csv
    seed: int = 0
    max_skipped_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    shard_bytes_limit: Annotated[int, Field(ge=0)] = 8 * 1024**3  # above: JPEG instead of raw
    limits: MediaLimits = MediaLimits()


class Index(Record):
    """index.json."""

    format: Literal[1] = 1
    dataset: str  # digest of contents, labels, groups, splits and flips
    kind: Literal["video", "image"]
    spec: ClipSpec
    labels: tuple[str, ...]  # sorted; the order of the logits
    flips: dict[str, str] | None  # label -> label of its mirror image; None: no horizontal flip
    clips: tuple[Clip, ...]  # sorted by id
    skipped: tuple[SkippedFile, ...]  # sorted by path

    @property
    def digest(self) -> str:
        """sha256 of the whole table, the clip spec included."""
        return digest_of(self.model_dump(mode="json"))

    def split(self, split: Split) -> tuple[int, ...]:
        """Positions in `clips` that stand in one split, in order."""
        return tuple(n for n, clip in enumerate(self.clips) if clip.split == split)


# --- building ---------------------------------------------------------------------------------


def build(root: Path, table: Path, shards: Path, spec: ClipSpec, settings: IndexSettings, workers: int) -> Index:
    """Scan `root`, check it, decode what is new, split; writes `table` and the folder `shards`.

    `workers` = decoding processes, 0 = in this one. Goes on where an interrupted build stopped; an
    unchanged file is not decoded again. DataError when the data set cannot work.
    """
    folder = scan(root)
    _check_kind(folder, spec)
    groups, given, flips = read_groups(folder), read_splits(folder), read_flips(folder)
    hashes, skipped = _hash(folder, workers)
    members = [Member(f.id, f.label, groups[f.id], hashes[f.id]) for f in folder.files if f.id in hashes]
    check_labels(members)
    if given is not None:
        check_splits(members, given)
    found, rejected = _decode(folder, shards, hashes, spec, settings, workers)
    skipped |= {m.id: rejected[m.sha256] for m in members if m.sha256 in rejected}
    skipped |= {m.id: reason for m in members if (reason := _too_short(found.get(m.sha256), spec))}
    _check_skipped(folder, skipped, settings.max_skipped_share)
    used = [member for member in members if member.id not in skipped]
    splits = assign_splits(used, settings.shares, settings.seed) if given is None else given
    check_classes(used, splits)
    clips = tuple(_clip(member, splits[member.id], found[member.sha256]) for member in used)
    index = Index(
        dataset=dataset_digest(clips, flips),
        kind=folder.kind,
        spec=spec,
        labels=folder.labels,
        flips=flips,
        clips=clips,
        skipped=_listed(skipped | dict(folder.ignored)),
    )
    index.write(table)
    tidy(shards, set(hashes.values()) - set(rejected))
    return index


def _check_kind(folder: Folder, spec: ClipSpec) -> None:
    if folder.kind == "image" and spec.frames != 1:
        raise DataError(
            f"{folder.root}: a data set of images has clips of one frame, but data.clip.frames is "
            f"{spec.frames}; set data.clip.frames=1"
        )


def _hash(folder: Folder, workers: int) -> tuple[dict[str, str], dict[str, str]]:
    """id -> sha256 of each readable file, and id -> reason of the others."""

    def content(file: SourceFile) -> tuple[str, str]:
        try:
            return (sha256_file(file.path), "") if file.path.stat().st_size else ("", "empty file")
        except OSError as error:
            return "", f"cannot be read: {error.strerror}"

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        contents = list(zip(folder.files, pool.map(content, folder.files), strict=True))
    hashes = {file.id: sha256 for file, (sha256, _) in contents if sha256}
    return hashes, {file.id: reason for file, (_, reason) in contents if reason}


def _decode(
    folder: Folder,
    shards: Path,
    hashes: Mapping[str, str],
    spec: ClipSpec,
    settings: IndexSettings,
    workers: int,
) -> tuple[dict[str, Entry], dict[str, str]]:
    """sha256 -> what the store has of it, and sha256 -> reason of those that cannot be decoded."""
    files = {hashes[file.id]: file.path for file in reversed(folder.files) if file.id in hashes}
    info = StoreInfo.of(spec, settings.limits, _encoding(tuple(files.values()), spec, settings))
    there = open_store(shards, info)
    pending = {sha256: path for sha256, path in files.items() if sha256 not in there}
    rejected = decode_all(shards, info, dict(reversed(pending.items())), workers)
    log.info(
        "decoded %d of %d files into %s, %d rejected",
        len(pending),
        len(files),
        shards,
        len(rejected),
    )
    found = open_store(shards, info)
    return {sha256: found[sha256].entry for sha256 in files if sha256 in found}, rejected


def _encoding(paths: Sequence[Path], spec: ClipSpec, settings: IndexSettings) -> Encoding:
    """Raw as long as the estimate stays within the limit."""
    frame_bytes = spec.height * spec.width * 3
    estimate = len(paths) * mean_frames(paths, spec.fps) * frame_bytes
    return "raw" if estimate <= settings.shard_bytes_limit else "jpeg"


def _too_short(entry: Entry | None, spec: ClipSpec) -> str:
    if entry is None or entry.frames >= spec.frames:
        return ""
    return f"too short: {entry.frames} frames at {spec.fps:g} fps, clip.frames is {spec.frames}"


def _check_skipped(folder: Folder, skipped: Mapping[str, str], share: float) -> None:
    """DataError when more than the share is unusable, or a class has nothing left."""
    total = len(folder.files)
    if len(skipped) > share * total:
        listed = "\n".join(f"  {name}: {skipped[name]}" for name in sorted(skipped)[:20])
        more = f"\n  and {len(skipped) - 20} more" if len(skipped) > 20 else ""
        raise DataError(
            f"{folder.root}: {len(skipped)} of {total} clips cannot be used, more than "
            f"max_skipped_share {share:g} allows; repair or remove them, or raise the share:\n"
            f"{listed}{more}"
        )
    left = {file.label for file in folder.files if file.id not in skipped}
    if gone := set(folder.labels) - left:
        reason = next(skipped[f.id] for f in folder.files if f.label in gone)
        raise DataError(f"{folder.root}: no usable clip in class {some(gone)}: {reason}")


def _clip(member: Member, split: Split, entry: Entry) -> Clip:
    return Clip(
        id=member.id,
        label=member.label,
        group=member.group,
        split=split,
        sha256=member.sha256,
        fps=entry.fps,
        frames=entry.frames,
        duration_s=entry.duration_s,
    )


def dataset_digest(clips: Sequence[Clip], flips: Mapping[str, str] | None) -> str:
    """Of contents, labels, groups, splits and flips."""
    facts = [(clip.id, clip.sha256, clip.label, clip.group, clip.split) for clip in clips]
    return digest_of({"clips": facts, "flips": flips})


def _listed(skipped: Mapping[str, str]) -> tuple[SkippedFile, ...]:
    return tuple(SkippedFile(path=name, reason=skipped[name]) for name in sorted(skipped))


# --- reading ----------------------------------------------------------------------------------


def centre_window(clip_frames: int, frames: int) -> int:
    """First frame of the centre window of `frames` frames: what evaluation looks at."""
    if clip_frames < frames:
        raise DataError(f"a clip of {clip_frames} frames has no window of {frames}")
    return (clip_frames - frames) // 2


class ShardReader:
    """Frames of an index's clips by position; picklable, opens its files lazily in each process."""

    def __init__(self, table: Path, shards: Path) -> None:
        """`table` is index.json, `shards` the folder that was built with it.

        DataError when one of them is missing or they do not belong together.
        """
        self.index = Index.read(table)
        self.store = Store(shards)
        spec, info = self.index.spec, self.store.info
        if StoreInfo.of(spec, info.limits, info.encoding) != info:
            raise DataError(
                f"{shards}: frames of {info.width} x {info.height} at {info.fps:g} fps, {table} "
                f"says {spec.width} x {spec.height} at {spec.fps:g}; run the index stage again"
            )

    def __len__(self) -> int:
        return len(self.index.clips)

    def clip(self, position: int) -> Frames:
        """u8 [n,H,W,3] of `index.clips[position]`: a read-only view (raw), or new memory (JPEG)."""
        return self.window(position, 0, self.index.clips[position].frames)

    def window(self, position: int, start: int, frames: int) -> Frames:
        """u8 [frames,H,W,3] from frame `start`; DataError when the clip ends before."""
        return self.store.frames(self.index.clips[position].sha256, start, frames)


# --- what it can decide -----------------------------------------------------------------------


def decidability(index: Index) -> str:
    """What the test split can decide, one fact a line, to be read before anything is trained."""
    test = [index.clips[n] for n in index.split("test")]
    groups = len({clip.group for clip in test})
    lines = [
        f"{len(index.clips)} clips, {len({clip.group for clip in index.clips})} groups, test "
        f"{len(test)} clips from {groups} groups: smallest decidable margin "
        f"{CLIPS_PER_POINT / len(test):.1f} points"
    ]
    if groups < GROUPS_TO_DECIDE:
        lines.append(f"accuracy cannot be decided: {groups} test groups, {GROUPS_TO_DECIDE} needed")
    if hint := _window_hint(index):
        lines.append(hint)
    return "\n".join(lines)


def _window_hint(index: Index) -> str:
    window_s = index.spec.frames / index.spec.fps
    durations = sorted(clip.duration_s for clip in index.clips)
    median_s, short_s = statistics.median(durations), durations[len(durations) // 20]
    if window_s >= COVERED * median_s or short_s <= 0:
        return ""
    fps = math.ceil(10 * index.spec.frames / short_s) / 10  # rounded up: 95 % of the clips stay long enough
    return (
        f"a window of {index.spec.frames} frames at {index.spec.fps:g} fps covers {window_s:.1f} s "
        f"of clips that last {median_s:.1f} s (median); "
        f"data.clip.fps={fps:g} would cover them"
    )
