"""Sessions over any ONNX file: named arrays in, arrays out. No bundle, no state, no golden clips.

Here: the protocol, what a tensor is declared to be, opening on exactly the runtime that was asked for.
Not here: backends; they are the files that open bundles, and share the way they do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from framegate.contract import FramegateError, Record, RuntimeUnavailable, Skipped, nearest
from framegate.runtime.session import RUNTIMES, SessionInfo


class ModelError(FramegateError):
    """An ONNX file that does not open, or does not run on what it is given."""


class Declared(Record):
    """One input or output as the file declares it.

    `dtype` is numpy's name, or ONNX's word where numpy has none (`bfloat16`, `seq(map(...))`). In `shape` a word is a
    named dynamic axis, None an unnamed one.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class RawSession(Protocol):
    """A graph ready to run."""

    @property
    def info(self) -> SessionInfo: ...
    @property
    def inputs(self) -> tuple[Declared, ...]: ...
    @property
    def outputs(self) -> tuple[Declared, ...]: ...
    @property
    def note(self) -> str:
        """What a reader of its figures must know, or nothing."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        """All outputs, in the order of `outputs`; they are the caller's to keep."""
        ...


class RawBackend(Protocol):
    """What a backend file offers for this."""

    def probe(self, runtime: str) -> str | Skipped: ...
    def open_raw(self, path: Path, runtime: str, threads: int, shapes: Mapping[str, tuple[int, ...]]) -> RawSession: ...


def open_raw(path: Path, runtime: str, threads: int, shapes: Mapping[str, tuple[int, ...]]) -> RawSession:
    """A session over any ONNX file; `shapes` are those of the inputs to come, by name.

    Raises ModelError (the file) or RuntimeUnavailable (unknown, not installed, another provider would run).
    """
    return raw_backend(runtime).open_raw(path, runtime, threads, shapes)


def raw_backend(runtime: str) -> RawBackend:
    """The backend of a runtime; RuntimeUnavailable when it is unknown, or opens bundles only."""
    known = [name for name, one in RUNTIMES.items() if hasattr(one.backend(), "open_raw")]
    if runtime not in RUNTIMES:
        raise RuntimeUnavailable(f"runtime {runtime!r} is unknown{nearest(runtime, known)} known: {', '.join(known)}")
    if runtime not in known:
        raise RuntimeUnavailable(f"runtime {runtime!r} opens no foreign ONNX file; use one of {', '.join(known)}")
    return cast(RawBackend, RUNTIMES[runtime].backend())
