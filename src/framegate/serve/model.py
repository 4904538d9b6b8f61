"""One open version of the model: checked, warmed, with the batcher that steps it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from framegate.bench.host import host_class
from framegate.contract import Bundle, BundleInfo, ClipSpec, FramegateError
from framegate.promotion.archive import check_promotion
from framegate.promotion.record import FILE, Promotion
from framegate.promotion.serving import check_host, check_there, remarks
from framegate.runtime.session import Session, open_session
from framegate.serve.batcher import Batch, Batcher
from framegate.signature import check_signature


@dataclass(frozen=True, slots=True)
class Source:
    """Which folder is served, and how: None = as its promotion says, else ort-cpu on one thread."""

    folder: Path
    runtime: str | None = None
    threads: int | None = None
    accept_host: bool = False
    public_key: Path | None = None  # then only what its owner signed is served


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder that holds what it says: its session has replayed the golden clips and met every batch size."""

    info: BundleInfo
    session: Session
    promotion: Promotion | None
    remarks: tuple[str, ...]

    @property
    def runtime(self) -> str:
        """The one that really runs."""
        return self.session.info.runtime

    @property
    def version(self) -> str:
        """The promotion's number; without one the start of the bundle's digest."""
        number = self.promotion.number if self.promotion else None
        return str(number) if number is not None else self.info.digest[:12]

    def close(self) -> None:
        """It will not serve."""
        self.session.close()


def open_folder(source: Source, max_batch: int) -> Opened:
    """Check, open and warm a copy of the folder, so that what was checked is what runs. Takes seconds.

    FramegateError of any kind: files or verdict do not fit (check_promotion), not signed by the key, another host
    class, the runtime is missing, golden clips disagree.
    """
    check_there(source.folder)
    with _private_copy(source.folder) as copy:
        promotion = check_promotion(copy) if (copy / FILE).is_file() else None
        if source.public_key:
            check_signature(copy, source.public_key)
        if source.accept_host:
            notes = remarks(promotion, source.runtime) if promotion else ()
        else:
            _, notes = check_host(source.folder, host_class(), source.runtime)
        runtime = source.runtime or (promotion.runtime if promotion else "ort-cpu")
        bundle = Bundle.load(copy)
        session = open_session(bundle, runtime, source.threads or (promotion.threads if promotion else 1))
        warm(session, max_batch)
        return Opened(bundle.info, session, promotion, notes)


@contextmanager
def _private_copy(folder: Path) -> Iterator[Path]:
    """A copy that nobody else writes to; errors name the folder, not the copy."""
    try:
        with TemporaryDirectory(prefix="framegate-") as scratch:
            copy = Path(scratch) / "bundle"
            shutil.copytree(folder, copy, copy_function=_copy)
            try:
                yield copy
            except FramegateError as error:
                raise type(error)(str(error).replace(str(copy), str(folder))) from error.__cause__
    except OSError as error:
        raise FramegateError(f"{folder}: cannot be read whole: {error}") from error


def _copy(source: str, target: str) -> None:
    """Of one file; a device never ends, and a pipe that nobody writes to never begins."""
    if not Path(source).is_file():
        raise FramegateError(f"{source}: neither a file nor a link to one")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise FramegateError(f"{source}: cannot be copied: {error.strerror or error}") from error


def warm(session: Session, max_batch: int) -> None:
    """Two steps at every batch size: the first one of a shape allocates or compiles."""
    for n in range(1, max_batch + 1):
        frames = np.zeros((n, session.clip.height, session.clip.width, 3), np.uint8)
        for _ in range(2):
            session.step(frames, session.init_state(n))


class Model:
    """An open version, on the event loop. `held` counts the streams on it; a replaced one closes when it is 0."""

    def __init__(
        self, opened: Opened, max_batch: int, loop: asyncio.AbstractEventLoop, seen: Callable[[Batch], None]
    ) -> None:
        self.info, self.version = opened.info, opened.version
        self.runtime = opened.runtime
        self.batcher = Batcher(opened.session, max_batch, loop, seen)
        self.held = 0
        self.replaced_at: float | None = None  # seconds of the engine's clock

    @property
    def digest(self) -> str:
        """The bundle's."""
        return self.info.digest

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.info.labels

    @property
    def clip(self) -> ClipSpec:
        """Size and rate of its frames."""
        return self.info.clip

    @property
    def state_size(self) -> int:
        """S of its state f32 [N,S]."""
        return self.info.state_size
