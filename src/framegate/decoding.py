"""Decoding in parallel: files into a store of shards, each once, so that an interrupted run goes on."""

from __future__ import annotations

import errno
import math
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
from tqdm import tqdm

from framegate.contract import DataError, MediaError
from framegate.media import TimedFrame, is_video, probe_seconds, read_frames, to_clip
from framegate.shards import (
    SHARD_BYTES,
    SHARDS,
    Entry,
    ShardWriter,
    StoreInfo,
    encode,
    entries,
    shard_name,
)

PROBED = 64  # files whose headers are read to estimate the length of all


@dataclass(frozen=True, slots=True)
class Chunk:
    """Work for one process: files, by sha256, that become one shard."""

    folder: Path
    info: StoreInfo
    files: tuple[tuple[str, Path], ...]


class _Tally:
    """Passes frames on and keeps what the source's rate and length follow from."""

    def __init__(self, frames: Iterable[TimedFrame]) -> None:
        self.frames, self.count, self.last_s = frames, 0, 0.0

    def __iter__(self) -> Iterator[TimedFrame]:
        for frame in self.frames:
            self.count, self.last_s = self.count + 1, frame.time_s
            yield frame

    @property
    def fps(self) -> float:
        return (self.count - 1) / self.last_s if self.last_s > 0 else 0.0

    @property
    def duration_s(self) -> float:
        return self.count / self.fps if self.fps else 0.0


# --- one process ------------------------------------------------------------------------------

_stop: Event | None = None  # in a decoding process: set when the build was interrupted


def _start_process(stop: Event) -> None:
    """Ctrl-C reaches every process of a terminal: only the first one answers it."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def decode_chunk(chunk: Chunk) -> dict[str, str]:
    """Decode a chunk's files into one shard; gives sha256 -> reason for those that cannot be."""
    rejected: dict[str, str] = {}
    with ShardWriter(chunk.folder, [sha256 for sha256, _ in chunk.files]) as shard:
        for sha256, path in chunk.files:
            if _stop is not None and _stop.is_set():
                break
            try:
                decode_file(shard, sha256, path, chunk.info)
            except MediaError as error:
                rejected[sha256] = error.reason
    return rejected


def decode_file(shard: ShardWriter, sha256: str, path: Path, info: StoreInfo) -> None:
    """Decode one file to the end of a shard, frame by frame; MediaError leaves no trace of it."""
    offset = shard.end
    source = _Tally(read_frames(path, info.limits))
    try:
        clip = to_clip(source, info.spec)
        sizes = [shard.write(encode(frame.pixels, info.encoding)) for frame in clip]
    except MediaError:
        shard.cut(offset)
        raise
    entry = Entry(
        sha256=sha256,
        offset=offset,
        size_bytes=sum(sizes),
        frames=len(sizes),
        sizes=tuple(sizes) if info.encoding == "jpeg" else (),
        fps=round(source.fps, 3),
        duration_s=round(source.duration_s, 3),
    )
    shard.commit(entry)


# --- all of them ------------------------------------------------------------------------------


def decode_all(folder: Path, info: StoreInfo, files: Mapping[str, Path], workers: int) -> dict[str, str]:
    """Decode files (sha256 -> path) into the store in parallel; sha256 -> reason for the rejected.

    `workers` = processes, 0 = in this one. DataError when the disk is full or a decoder crashes;
    then, and after Ctrl-C, every finished clip is in the store and the next call goes on.
    """
    rejected: dict[str, str] = {}
    bar = tqdm(total=len(files), unit="clip", desc="decode", disable=not sys.stderr.isatty())
    try:
        with bar, closing(_run(_chunks(folder, info, files), workers)) as outcomes:
            for count, outcome in outcomes:
                rejected |= outcome
                bar.update(count)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        done = len(entries(folder).keys() & files.keys())
        raise DataError(
            f"{folder}: the disk is full after {done} of {len(files)} clips; free some space, or "
            "set a smaller clip size or shard_bytes_limit; the next run goes on from here"
        ) from error
    return rejected


def _chunks(folder: Path, info: StoreInfo, files: Mapping[str, Path]) -> list[Chunk]:
    """Files in order, as many to a shard as give about 64 shards, or 256 MB if that is less."""
    pending = list(files.items())
    clip_bytes = info.frame_bytes * mean_frames(list(files.values()), info.fps)
    size = max(1, min(math.ceil(len(pending) / SHARDS), int(SHARD_BYTES / clip_bytes)))
    parts = [tuple(pending[start : start + size]) for start in range(0, len(pending), size)]
    return [Chunk(folder, info, part) for part in parts]


def mean_frames(paths: Sequence[Path], fps: float) -> float:
    """Estimated frames of a clip at `fps`, by the headers of at most 64 files."""
    probed = paths[:: math.ceil(len(paths) / PROBED) or 1]
    return sum(_ticks(path, fps) for path in probed) / max(len(probed), 1) or 1.0


def _ticks(path: Path, fps: float) -> float:
    return max(1.0, probe_seconds(path) * fps) if is_video(path) else 1.0


def _run(chunks: Sequence[Chunk], workers: int) -> Generator[tuple[int, dict[str, str]], None, None]:
    """(files done with, those rejected) of each chunk, as they end."""
    if workers == 0:
        yield from ((len(chunk.files), decode_chunk(chunk)) for chunk in chunks)
    elif chunks:
        yield from _run_in_processes(chunks, workers)


def _run_in_processes(chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[int, dict[str, str]]]:
    context = get_context("spawn")
    stop = context.Event()
    processes = min(workers, len(chunks))
    with ProcessPoolExecutor(processes, context, _start_process, (stop,)) as pool:
        futures = {pool.submit(decode_chunk, chunk): chunk for chunk in chunks}
        try:
            for future in as_completed(futures):
                yield len(futures[future].files), future.result()
        except BrokenProcessPool:
            names = ", ".join(path.name for chunk in chunks for path in _suspect(chunk)[:1])
            raise DataError(
                "a decoding process died (a crashed decoder, or no memory left) at one of: "
                f"{names}; move the file out of the data set; the next run goes on from here"
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _suspect(chunk: Chunk) -> list[Path]:
    """The file that a shard stopped at, if it was begun and is not complete."""
    if not (chunk.folder / f"{shard_name([sha256 for sha256, _ in chunk.files])}.bin").exists():
        return []
    done = entries(chunk.folder)
    last = max((n for n, (sha256, _) in enumerate(chunk.files) if sha256 in done), default=-1)
    return [path for _, path in chunk.files[last + 1 :]]
