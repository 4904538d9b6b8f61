"""API keys: a file of names and SHA-256 digests, checked in constant time, read again when it changes.

A line is `name:sha256` in hex; empty lines and lines that start with `#` are skipped. Several keys are valid at once,
also under one name, so that a key is replaced without a gap: add the new line, move the clients, remove the old line.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

from framegate.contract import ConfigError

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}")
FILE_BYTES = 1 << 20
LOOK_EVERY_S = 1.0

Entry = tuple[str, str]  # name, hex digest
Signature = tuple[int, int, int, int]  # device, inode, size, mtime in ns


def new_key(name: str) -> tuple[str, str]:
    """A new key, 32 random bytes in URL-safe base64, and the line of the key file that admits it.

    Plain SHA-256 without salt or stretching is right here: those protect guessable passwords, and 256 random bits can
    neither be guessed nor be looked up in a table. It costs a microsecond a request; a slow hash would be a way to
    keep the server busy.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"key name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-'")
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{_digest(key)}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def parse(text: str, source: str) -> tuple[Entry, ...]:
    """The entries of a key file's text; ConfigError names the source and every line that cannot work."""
    entries: list[Entry] = []
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, digest = line.strip().partition(":")
        digest = digest.strip().lower()
        if not NAME.fullmatch(name) or not DIGEST.fullmatch(digest):  # never quotes the line: it may hold a key
            wrong.append(f"{source}:{number}: not `name:sha256` (64 hex digits)")
        elif digest in seen:
            wrong.append(f"{source}:{number}: the same key as in line {seen[digest]}")
        else:
            seen[digest] = number
            entries.append((name, digest))
    if wrong:
        raise ConfigError("; ".join(wrong))
    if not entries:
        raise ConfigError(f"{source}: holds no key; add a line `name:sha256`")
    return tuple(entries)


class Keys:
    """The keys of a file. ConfigError when it cannot be read at first; later a broken file keeps the keys it had."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self._signature: Signature | None = None
        self._looked_s = clock()
        self._complaint = ""
        try:
            self._signature = _signature(path)
            self._entries = _read(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); --keys names a file of keys") from None

    def check(self, key: str | None) -> str | None:
        """The name of a valid key, else None; compares with every entry, so that the time does not tell which."""
        self._refresh()
        if not key:
            return None
        digest, found = _digest(key), None
        for name, known in self._entries:
            if hmac.compare_digest(digest, known):
                found = name
        return found

    def __len__(self) -> int:
        return len(self._entries)

    def _refresh(self) -> None:
        """Look at most once a second whether the file is another one; read it then."""
        now = self._clock()
        if now - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now
        try:
            signature = _signature(self.path)
            if signature == self._signature:
                return
            self._signature = signature  # also of a broken file: it is read once
            if not self.path.is_file():  # the server would wait for whoever writes to a pipe
                raise ConfigError(f"{self.path}: not a file any more")
            self._entries = _read(self.path)
            warn_if_open(self.path)
        except OSError as error:
            self._signature = None  # when it is back it is read, even if it is the same file
            self._complain(f"{self.path}: cannot be read ({error.strerror})")
        except ConfigError as error:
            self._complain(str(error))
        else:
            self._complaint = ""
            logger.info("%s: %d keys", self.path, len(self._entries))

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            logger.error("%s; the %d keys read before stay valid", reason, len(self._entries))
        self._complaint = reason


def _signature(path: Path) -> Signature:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> tuple[Entry, ...]:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise ConfigError(f"{path}: more than {FILE_BYTES} bytes; a key file has a line a key")
    try:
        return parse(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None


def readable_by_others(path: Path) -> bool:
    """Whether users outside of the file's owner and group may read or write it."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


def warn_if_open(path: Path) -> None:
    """Log a warning when others may read the key file: once at the start, and when it changes."""
    if readable_by_others(path):
        logger.warning("%s: other users may read or write it; chmod 640 it", path)
