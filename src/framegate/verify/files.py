"""Nothing leaves the folder and nothing is too large: looked at first, before any content is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from framegate.bench.samples import Samples
from framegate.contract import DataError

LARGEST_JSON = 512 * 1024**2
LARGEST_SAMPLES = 4 * 1024**3  # bytes of all arrays together, unpacked


def strays(root: Path) -> Iterator[str]:
    """Links that leave `root`, files that are none (pipes, devices), absurdly large tables. No link is followed."""
    inside = root.resolve()
    for where, folders, names in os.walk(root):
        for name in sorted((*folders, *names)):
            path = Path(where, name)
            kind = path.lstat().st_mode
            if stat.S_ISLNK(kind):
                if not path.resolve().is_relative_to(inside):
                    yield f"{path}: a link that leaves the folder; put the file itself there"
            elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                yield f"{path}: neither a file nor a folder"
            elif path.suffix == ".json" and path.lstat().st_size > LARGEST_JSON:
                yield f"{path}: larger than {LARGEST_JSON} bytes"


def read_samples(path: Path) -> Samples:
    """Samples whose unpacked size was looked at first. DataError when they are cut, absurd or none at all."""
    try:
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (OSError, BadZipFile, ValueError) as error:
        raise DataError(f"{path}: not readable as samples ({error}); it was cut or is another file") from None
    if size > LARGEST_SAMPLES:
        raise DataError(
            f"{path}: {size} bytes when unpacked, more than {LARGEST_SAMPLES}; no measurement is that large"
        )
    return Samples.load(path)
