"""The files of a foreign model, and what is left of a measurement on disk."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np

from framegate.bench.foreign.facts import Found
from framegate.contract import FramegateError, atomic_path, sha256_file

# A StringStringEntryProto (onnx.proto) whose key is `location`: where a tensor's bytes lie outside the file.
LOCATION = re.compile(rb"\x0a\x08location\x12(?P<length>[\x00-\x7f]|[\x80-\xff][\x00-\x7f])")


def check_file(path: Path) -> None:
    """FramegateError unless there is a file with something in it."""
    if not path.is_file():
        raise FramegateError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; expected an ONNX file")
    if path.stat().st_size == 0:
        raise FramegateError(f"{path}: empty; expected an ONNX file")


def size_bytes(path: Path) -> int:
    """Bytes of an ONNX file and of the external data files that it names and that are there."""
    return sum(file.stat().st_size for file in {path, *external_files(path)} if file.is_file())


def external_files(path: Path) -> set[Path]:
    """The files beside an ONNX file that hold its weights."""
    found = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in LOCATION.finditer(data):
            length = match["length"]
            count = length[0] if len(length) == 1 else (length[0] & 0x7F) | length[1] << 7  # a protobuf varint
            found.add(path.parent / data[match.end() : match.end() + count].decode(errors="replace"))
    return found


def save(found: Found, arrays: dict[str, Any], folder: Path) -> Found:
    """Write samples.npz, then bench.json, which names it by its digest; other files in the folder stay."""
    with atomic_path(folder / "samples.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    sealed = found.model_copy(update={"samples_sha256": sha256_file(folder / "samples.npz")})
    sealed.write(folder / "bench.json")
    return sealed
