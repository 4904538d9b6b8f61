"""Decode once: every clip's frames as uint8, in a few large files, found by the sha256 of its video.

A store is a folder::

    store.json      what the frames are (size, fps, limits, encoding); another one starts afresh
    <name>.bin      frames of several clips, one after the other
    <name>.jsonl    its journal: one `Entry` per clip, written after the clip's bytes

What a journal does not name does not exist, so an interrupted build loses the clips in flight and
nothing else. Where a clip lies is nobody's business but this module's: an index names contents
only, and stays the same however the store was filled.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from framegate.contract import ClipSpec, DataError, Record, digest_of
from framegate.media import MediaLimits, Pixels

Frames = NDArray[np.uint8]  # u8 [T,H,W,3] RGB, 0..255
Encoding = Literal["raw", "jpeg"]

JPEG_QUALITY = 90
SHARD_BYTES = 256 * 1024**2
SHARDS = 64  # a fresh store has about as many, so that all processes have work to the end
DEAD_SHARE = 0.3  # of a store's bytes; above, it is rewritten


class StoreInfo(Record):
    """What the frames of a store are. The number of frames of a window is not part of it."""

    format: Literal[1] = 1
    height: int
    width: int
    fps: float
    resize: str
    limits: MediaLimits
    encoding: Encoding

    @classmethod
    def of(cls, spec: ClipSpec, limits: MediaLimits, encoding: Encoding) -> StoreInfo:
        """The store that a clip spec needs."""
        return cls(
            height=spec.height,
            width=spec.width,
            fps=spec.fps,
            resize=spec.resize,
            limits=limits,
            encoding=encoding,
        )

    @property
    def spec(self) -> ClipSpec:
        """The clip spec of one frame."""
        return ClipSpec(frames=1, height=self.height, width=self.width, fps=self.fps)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one raw frame."""
        return self.height * self.width * 3


class Entry(Record):
    """One clip of a shard: where its bytes lie, and what its source was."""

    sha256: str
    offset: int
    size_bytes: int
    frames: int
    sizes: tuple[int, ...] = ()  # JPEG: bytes of each frame
    fps: float  # of the source; 0 when it has one frame
    duration_s: float  # of the source


@dataclass(frozen=True, slots=True)
class Located:
    """An entry and the shard it is in."""

    shard: str
    entry: Entry


# --- the folder -------------------------------------------------------------------------------


def open_store(folder: Path, info: StoreInfo) -> dict[str, Located]:
    """sha256 -> place of each clip that is there; frames of another kind and torn files are removed."""
    path = folder / "store.json"
    if not path.exists() or path.read_text("utf-8") != info.to_json():
        for stem in _stems(folder):
            _remove(folder, stem)
        info.write(path)
    for stem in _stems(folder):
        if not _journal(folder, stem):
            _remove(folder, stem)
    return entries(folder)


def entries(folder: Path) -> dict[str, Located]:
    """sha256 -> place of each clip in a store."""
    return {entry.sha256: Located(stem, entry) for stem in sorted(_stems(folder)) for entry in _journal(folder, stem)}


def _stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.bin")} | {p.stem for p in folder.glob("*.jsonl")}


def _remove(folder: Path, stem: str) -> None:
    (folder / f"{stem}.jsonl").unlink(missing_ok=True)
    (folder / f"{stem}.bin").unlink(missing_ok=True)


def _journal(folder: Path, stem: str) -> list[Entry]:
    """Entries of one shard, up to the first that is torn or reaches beyond the shard's end."""
    data, journal = folder / f"{stem}.bin", folder / f"{stem}.jsonl"
    if not (data.exists() and journal.exists()):
        return []
    size, found = data.stat().st_size, list[Entry]()
    for line in journal.read_bytes().splitlines():
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            break
        if entry.offset + entry.size_bytes > size:
            break
        found.append(entry)
    return found


# --- writing ----------------------------------------------------------------------------------


class ShardWriter:
    """Appends clips to one new shard; a clip exists once its line is in the journal."""

    def __init__(self, folder: Path, contents: Sequence[str]) -> None:
        """`contents`: the sha256 of the clips to come; the shard's name follows from them."""
        name = _new_name(folder, contents)
        self.data: BinaryIO = (folder / f"{name}.bin").open("xb")
        self.journal: BinaryIO = (folder / f"{name}.jsonl").open("xb")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self.journal, self.data:
            pass

    def write(self, data: bytes) -> int:
        """Append bytes that belong to no clip yet; gives their number."""
        return self.data.write(data)

    @property
    def end(self) -> int:
        """Where the next byte will lie."""
        return self.data.tell()

    def cut(self, end: int) -> None:
        """Forget what was written behind `end`."""
        self.data.seek(end)
        self.data.truncate()

    def commit(self, entry: Entry) -> None:
        """The bytes first, then the line that names them."""
        self.data.flush()
        self.journal.write(entry.model_dump_json().encode() + b"\n")
        self.journal.flush()


def shard_name(contents: Sequence[str]) -> str:
    """The name of a shard that is to hold these clips."""
    return digest_of(list(contents))[:16]


def _new_name(folder: Path, contents: Sequence[str]) -> str:
    """The shard's name, with a number when an interrupted run left one like it."""
    base = name = shard_name(contents)
    turn, taken = 0, _stems(folder)
    while name in taken:
        turn += 1
        name = f"{base}-{turn}"
    return name


def encode(pixels: Pixels, encoding: Encoding) -> bytes:
    """One frame, u8 [H,W,3], as it lies in a shard."""
    if encoding == "raw":
        return pixels.tobytes()
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
    return data.tobytes()


def tidy(folder: Path, live: Set[str]) -> None:
    """Drop the bytes of clips that no longer belong: empty shards at once, the rest when it is worth it."""
    found = entries(folder)
    kept = {located.shard for sha256, located in found.items() if sha256 in live}
    for stem in _stems(folder) - kept:
        _remove(folder, stem)
    total = sum((folder / f"{stem}.bin").stat().st_size for stem in kept)
    used = sum(found[sha256].entry.size_bytes for sha256 in live & found.keys())
    if total - used > DEAD_SHARE * total or len(kept) > 4 * SHARDS + 2 * total // SHARD_BYTES:
        _rewrite(folder, [found[sha256] for sha256 in sorted(live & found.keys())], used)
        for stem in kept:
            _remove(folder, stem)


def _rewrite(folder: Path, clips: Sequence[Located], size_bytes: int) -> None:
    """Copy clips into new shards; until the old ones are removed both are valid."""
    shards = max(SHARDS, size_bytes // SHARD_BYTES)
    step = max(1, -(-len(clips) // shards))
    for start in range(0, len(clips), step):
        part = clips[start : start + step]
        with ShardWriter(folder, [located.entry.sha256 for located in part]) as shard:
            for located in part:
                entry = located.entry.model_copy(update={"offset": shard.end})
                shard.write(_bytes(folder, located))
                shard.commit(entry)


def _bytes(folder: Path, located: Located) -> bytes:
    with (folder / f"{located.shard}.bin").open("rb") as file:
        file.seek(located.entry.offset)
        return file.read(located.entry.size_bytes)


# --- reading ----------------------------------------------------------------------------------


class Store:
    """Frames by sha256; opens its files as they are asked for, afresh in each process it is sent to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = StoreInfo.read(folder / "store.json")
        self.clips = entries(folder)
        self._maps: dict[str, NDArray[np.uint8]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def frames(self, sha256: str, start: int, count: int) -> Frames:
        """u8 [count,H,W,3] from frame `start`: a read-only view (raw), or new memory (JPEG).

        DataError when the store has no such clip, or the clip no such frames.
        """
        located = self.clips.get(sha256)
        if located is None:
            raise DataError(f"{self.folder}: no clip {sha256[:12]}…; run the index stage again")
        entry = located.entry
        if start < 0 or count < 0 or start + count > entry.frames:
            raise DataError(
                f"{self.folder}: clip {sha256[:12]}… has {entry.frames} frames, asked for {start}..{start + count}"
            )
        shard = self._shard(located.shard)
        if self.info.encoding == "jpeg":
            return self._decode(shard, entry, start, count)
        size = self.info.frame_bytes
        view = shard[entry.offset + start * size : entry.offset + (start + count) * size]
        return view.reshape(count, self.info.height, self.info.width, 3)

    def _shard(self, name: str) -> NDArray[np.uint8]:
        if name not in self._maps:
            data = np.memmap(self.folder / f"{name}.bin", np.uint8, "r")
            self._maps[name] = data.view(np.ndarray)
        return self._maps[name]

    def _decode(self, shard: NDArray[np.uint8], entry: Entry, start: int, count: int) -> Frames:
        ends = entry.offset + np.cumsum((0, *entry.sizes))
        out = np.empty((count, self.info.height, self.info.width, 3), np.uint8)
        for number in range(count):
            data = shard[ends[start + number] : ends[start + number + 1]]
            image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise DataError(f"{self.folder}: clip {entry.sha256[:12]}… is damaged; delete the folder")
            out[number] = image
        return out
