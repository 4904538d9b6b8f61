"""What stands in data/: files by class, and the tables beside them (groups.csv, splits.csv, flips.csv).

Looks at names only; no file of the data set is opened. What does not live here: decoding (`shards`), and which
clip stands in which split when the data set does not say (`splits`).
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from framegate.contract import DataError, Split, nearest
from framegate.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image, is_video

Kind = Literal["video", "image"]
SHOWN = 5  # names in an error before "and N more"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One video or image: `id` is its POSIX, NFC path under data/, `path` where it lies on this machine."""

    id: str
    label: str
    path: Path


@dataclass(frozen=True, slots=True)
class Folder:
    """All files of a data set, sorted by id; `ignored` maps names that are no clips to the reason."""

    root: Path
    kind: Kind
    labels: tuple[str, ...]
    files: tuple[SourceFile, ...]
    ignored: tuple[tuple[str, str], ...]


def some(names: Iterable[str]) -> str:
    """`'a', 'b' and 3 more`: enough of a list to act on."""
    listed = sorted(names)
    rest = len(listed) - SHOWN
    return ", ".join(map(repr, listed[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


# --- files ------------------------------------------------------------------------------------


def scan(root: Path) -> Folder:
    """List a data set: a folder per class, of videos or of images, at any depth below it.

    Hidden names are ignored. DataError: no folder, fewer than two classes, an empty class, videos and images
    mixed, two names that are one after Unicode normalisation.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; put the data set there: a folder per class, clips inside")
    names = sorted((_nfc(entry.name), entry) for entry in root.iterdir() if not entry.name.startswith("."))
    classes = [(name, entry) for name, entry in names if entry.is_dir()]
    files = sorted((file for name, entry in classes for file in _walk(root, name, entry)), key=lambda f: f.id)
    clips = tuple(file for file in files if is_video(file.path) or is_image(file.path))
    labels = tuple(sorted({name for name, _ in classes}))
    _check_classes(root, labels, clips)
    _check_distinct(root, clips)
    return Folder(root, _kind(root, clips), labels, clips, tuple(_ignored(names, files)))


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _walk(root: Path, label: str, folder: Path) -> Iterator[SourceFile]:
    """Every file below a class folder; linked folders are entered, each real folder once."""
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(where)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if not name.startswith("."):
                yield SourceFile(_nfc(path.relative_to(root).as_posix()), label, path)


def _check_classes(root: Path, labels: tuple[str, ...], clips: tuple[SourceFile, ...]) -> None:
    if not labels:
        raise DataError(f"{root}: no class folders; make one folder per class and put its videos or images inside")
    filled = Counter(file.label for file in clips)
    if empty := [label for label in labels if not filled[label]]:
        raise DataError(f"{root}: no videos or images in class folder {some(empty)}; add clips or remove the folder")
    if len(labels) == 1:
        raise DataError(f"{root}: only one class, {labels[0]!r}; a classifier needs at least two class folders")


def _check_distinct(root: Path, clips: tuple[SourceFile, ...]) -> None:
    if twice := [name for name, count in Counter(file.id for file in clips).items() if count > 1]:
        raise DataError(f"{root}: two files have one name after Unicode normalisation: {some(twice)}; rename one")


def _kind(root: Path, clips: tuple[SourceFile, ...]) -> Kind:
    videos = sum(is_video(file.path) for file in clips)
    images = len(clips) - videos
    if videos and images:
        raise DataError(
            f"{root}: {videos} videos and {images} images are mixed; a data set is all videos or all images: "
            f"move one kind out (the first image is {next(f.id for f in clips if is_image(f.path))!r})"
        )
    return "video" if videos else "image"


def _ignored(names: list[tuple[str, Path]], files: list[SourceFile]) -> Iterator[tuple[str, str]]:
    for name, path in names:
        if path.is_file() and (is_video(path) or is_image(path)):
            yield name, "stands beside the class folders; its class would be the folder it is in"
    known = " ".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
    for file in files:
        if not (is_video(file.path) or is_image(file.path)):
            yield file.id, f"unknown suffix {file.path.suffix!r}; known are {known}"


# --- tables beside them -----------------------------------------------------------------------


def read_groups(folder: Folder) -> dict[str, str]:
    """id -> group, from groups.csv; without the file each clip is its own group.

    DataError unless the table names every file once and nothing else.
    """
    path = folder.root / "groups.csv"
    if not path.exists():
        return {file.id: file.id for file in folder.files}
    return _table_of_files(path, "group", folder)


def read_splits(folder: Folder) -> dict[str, Split] | None:
    """id -> split, from splits.csv; None without the file. DataError as for groups, or for another word."""
    path = folder.root / "splits.csv"
    if not path.exists():
        return None
    table = _table_of_files(path, "split", folder)
    known: dict[str, Split] = {split: split for split in get_args(Split)}
    if wrong := sorted(set(table.values()) - set(known)):
        raise DataError(f"{path}: unknown split {some(wrong)}; expected train, val or test{nearest(wrong[0], known)}")
    return {name: known[split] for name, split in table.items()}


def read_flips(folder: Folder) -> dict[str, str] | None:
    """label -> label of its mirror image, from flips.csv; None without the file.

    DataError unless every label is named and flipping twice gives each label back.
    """
    path = folder.root / "flips.csv"
    if not path.exists():
        return None
    flips = _table(path, "label", "flipped")
    words = set(flips) | set(flips.values())
    if slashed := [word for word in words if "/" in word]:
        raise DataError(f"{path}: {some(slashed)} cannot be a label: a label is a folder name, without a slash")
    if unknown := sorted(words - set(folder.labels)):
        raise DataError(f"{path}: {some(unknown)} is no class folder{nearest(unknown[0], folder.labels)}")
    if missing := set(folder.labels) - set(flips):
        raise DataError(f"{path}: no row for {some(missing)}; a class that mirrors onto itself has its name twice")
    for label, flipped in flips.items():
        if flips[flipped] != label:
            raise DataError(
                f"{path}: {label!r} flips to {flipped!r}, but {flipped!r} flips to {flips[flipped]!r}; "
                "flipping twice must give the same label"
            )
    return dict(sorted(flips.items()))


def _table_of_files(path: Path, column: str, folder: Folder) -> dict[str, str]:
    table = _table(path, "path", column)
    files = {file.id for file in folder.files}
    if unknown := sorted(set(table) - files):
        hint = nearest(unknown[0], sorted(files)) if len(files) <= 10_000 else ""
        raise DataError(f"{path}: {len(unknown)} rows name no clip of the data set: {some(unknown)}{hint}")
    if missing := files - set(table):
        raise DataError(f"{path}: {len(missing)} of {len(files)} clips have no row: {some(missing)}; list every file")
    return table


def _table(path: Path, key: str, value: str) -> dict[str, str]:
    """A two-column CSV with a header, as a mapping; DataError names the line that is wrong."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            _check_header(path, rows.fieldnames or [], key, value)
            return _mapping(path, rows, key, value)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _check_header(path: Path, header: Iterable[str], key: str, value: str) -> None:
    got = ",".join(header)
    if not {key, value} <= set(got.split(",")):
        raise DataError(f"{path}: the header is {got!r}; expected '{key},{value}'")


def _mapping(path: Path, rows: csv.DictReader[str], key: str, value: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for row in rows:
        name, content = _cell(row, key), _cell(row, value)
        if not name or not content:
            raise DataError(f"{path}, line {rows.line_num}: {key} or {value} is empty; fill both in")
        if name in table:
            raise DataError(f"{path}, line {rows.line_num}: {name!r} has a row already; keep one")
        table[name] = content
    return table


def _cell(row: Mapping[str, str | None], column: str) -> str:
    return _nfc((row.get(column) or "").strip())
