"""What goes into a foreign model: arrays made up from what it declares, or the user's own, checked against it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from framegate.contract import ConfigError, DataError, nearest
from framegate.runtime.raw import Declared

Shape = tuple[int, ...]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Feeds:
    """Arrays by input name, where they came from, and the dynamic axes whose length nobody told."""

    arrays: Arrays
    source: str
    assumed: tuple[str, ...] = ()


def parse_shape(text: str) -> tuple[str, Shape]:
    """`name=1,3,224,224`; a scalar is `name=`."""
    name, sep, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    except ValueError:
        shape = (0,)
    if not sep or not name or any(size < 1 for size in shape):
        raise ConfigError(f"--shape {text!r}: expected name=1,3,224,224 with lengths of 1 or more")
    return name, shape


def words(dtype: object, shape: Sequence[int | str | None]) -> str:
    """`float32 [N,3,?]`."""
    return f"{dtype} [{','.join('?' if size is None else str(size) for size in shape)}]"


def described(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Names, dtypes and shapes in one line."""
    return ", ".join(f"{name} {words(array.dtype, array.shape)}" for name, array in arrays.items()) or "nothing"


# --- made up ----------------------------------------------------------------------------------


def made_up(declared: Sequence[Declared], given: Mapping[str, Shape], seed: int, keys: Mapping[str, str]) -> Feeds:
    """Random arrays of the declared dtypes; a dynamic axis has length 1 unless `given` says otherwise.

    `keys`: an input of another name whose values this one shares. Raises ConfigError with every shape that cannot be.
    """
    shapes, assumed = settle_shapes(declared, given)
    arrays = {one.name: draw(one, shapes[one.name], seed, keys.get(one.name, one.name)) for one in declared}
    return Feeds(arrays, f"random, seed {seed}", assumed)


def settle_shapes(declared: Sequence[Declared], given: Mapping[str, Shape]) -> tuple[dict[str, Shape], tuple[str, ...]]:
    """A length for every axis, and those that were assumed. A named axis has one length wherever it stands."""
    lengths, problems = _named_lengths(declared, given)
    if problems:
        raise ConfigError("; ".join(problems))
    shapes, assumed = {}, []
    for one in declared:
        if one.name in given:
            shapes[one.name] = given[one.name]
            continue
        shapes[one.name] = tuple(size if isinstance(size, int) else lengths.get(size, 1) for size in one.shape)
        untold = [n for n, size in enumerate(one.shape) if not isinstance(size, int) and size not in lengths]
        assumed += [f"{one.name}: axis {n}{f' ({one.shape[n]})' if one.shape[n] else ''}" for n in untold]
    return shapes, tuple(assumed)


def _named_lengths(
    declared: Sequence[Declared], given: Mapping[str, Shape]
) -> tuple[dict[int | str | None, int], list[str]]:
    """Lengths of the named axes of the given shapes, and what is wrong with those."""
    lengths: dict[int | str | None, int] = {}
    problems = []
    for one in declared:
        shape = given.get(one.name)
        if shape is None:
            continue
        if not fits(one, shape):
            problems.append(f"--shape of {one.name}: got {list(shape)}, expected {words(one.dtype, one.shape)}")
            continue
        for axis, size in zip(one.shape, shape, strict=False):  # of unknown rank: no axis has a name
            if isinstance(axis, str) and lengths.setdefault(axis, size) != size:
                problems.append(f"--shape of {one.name}: axis {axis} is {size} here and {lengths[axis]} elsewhere")
    return lengths, problems


def fits(declared: Declared, shape: Sequence[int]) -> bool:
    """Whether a shape is one of those that the file declares. ONNX Runtime tells a scalar and any rank alike: []."""
    if not declared.shape:
        return True
    pairs = zip(declared.shape, shape, strict=False)
    return len(shape) == len(declared.shape) and all(not isinstance(a, int) or a == b for a, b in pairs)


def draw(declared: Declared, shape: Shape, seed: int, key: str) -> NDArray[Any]:
    """Values that nearly any model takes: floats in 0..1, bytes over their range, other integers (ids, masks) 0 or 1.

    They depend on seed, key and shape, so that an fp16 model is given the values of its fp32 twin, rounded.
    """
    random = np.random.default_rng([seed, zlib.crc32(key.encode())])
    try:
        dtype = np.dtype(declared.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind == "f":
        return np.asarray(random.random(shape, np.float32)).astype(dtype)  # via float32: fp16 is rounded once
    if dtype.kind not in "biu":
        way = "only tensors can be given" if "(" in declared.dtype else "give --input"
        raise ConfigError(f"input {declared.name!r} is {declared.dtype}: no values can be made up for it; {way}")
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.itemsize == 1 and dtype.kind != "b" else (0, 1)
    return np.asarray(random.integers(low, high, shape, endpoint=True)).astype(dtype)


def unknown_shapes(given: Mapping[str, Shape], declared: Sequence[Declared]) -> None:
    """ConfigError for a --shape of an input that no model has."""
    names = [one.name for one in declared]
    for name in given:
        if name not in names:
            raise ConfigError(f"--shape {name}=…: no such input{nearest(name, names)} known: {', '.join(names)}")


# --- the user's own ---------------------------------------------------------------------------


def from_file(path: Path, model: Path, declared: Sequence[Declared], elsewhere: Sequence[Declared] = ()) -> Feeds:
    """The arrays of an npz, each as the model declares it; DataError lists all that differ, got against expected.

    An array that neither this model nor one with the inputs `elsewhere` takes is an error too.
    """
    arrays = _load(path)
    others = {one.name for one in elsewhere} - {one.name for one in declared}
    problems = [found for one in declared if (found := _mismatch(one, arrays.get(one.name)))]
    for name in arrays.keys() - {one.name for one in declared} - others:
        problems.append(f"  {name}: got {words(arrays[name].dtype, arrays[name].shape)}, the model has no such input")
    if problems:
        raise DataError("\n".join([f"{path} does not fit {model}:", *sorted(problems)]))
    return Feeds({one.name: _native(arrays[one.name]) for one in declared}, str(path))


def _load(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {str(name): array for name, array in arrays.items()}
    except (OSError, ValueError, AttributeError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: not an npz of plain arrays ({error}); write one by numpy.savez(path, **{{name: array}})"
        ) from error


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """In this machine's byte order and in one piece; the values stay."""
    return np.require(array, array.dtype.newbyteorder("="), "C")


def _mismatch(declared: Declared, array: NDArray[Any] | None) -> str | None:
    """What differs between an array and what is declared, or None."""
    expected = words(declared.dtype, declared.shape)
    if array is None:
        return f"  {declared.name}: missing, expected {expected}"
    name = "string" if array.dtype.kind == "U" else array.dtype.name
    if name == declared.dtype and fits(declared, array.shape):
        return None
    return f"  {declared.name}: got {words(name, array.shape)}, expected {expected}"


# --- two models -------------------------------------------------------------------------------


def matched(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    """Which name of one model is which of the other: the same name, or without any in common the same place."""
    common = [(name, name) for name in ours if name in theirs]
    if common or len(ours) != len(theirs):
        return common
    return list(zip(ours, theirs, strict=True))


def why_not_same(ours: Arrays, theirs: Arrays) -> str:
    """Why two models were not asked the same; empty when they were, up to rounding to another dtype."""
    pairs = matched(list(ours), list(theirs))
    if len(pairs) < max(len(ours), len(theirs)):
        return f"A takes {described(ours)}; B takes {described(theirs)}"
    for mine, other in pairs:
        a, b = ours[mine], theirs[other]
        if a.shape != b.shape:
            return f"{mine} is {words(a.dtype, a.shape)} in A and {words(b.dtype, b.shape)} in B"
        if not (np.array_equal(a.astype(b.dtype), b) or np.array_equal(b.astype(a.dtype), a)):
            return f"{mine} has other values in B"
    return ""
