"""Keys admit whom their file names, follow its changes, and never stand in a log."""

import hashlib
import hmac
import logging
import os
import re
import threading
from pathlib import Path

import pytest

from framegate.contract import ConfigError
from framegate.serve import keys as module
from framegate.serve.keys import Keys, new_key, parse


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def write(path: Path, *lines: str) -> Path:
    """A fresh file in the place of the old one, for its owner only."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"{line}\n" for line in lines))
    new.chmod(0o600)
    new.replace(path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_new_key_is_admitted_by_its_line(file: Path) -> None:
    key, line = new_key("camera-1")
    assert line == f"camera-1:{hashlib.sha256(key.encode()).hexdigest()}"
    assert Keys(write(file, line)).check(key) == "camera-1"


def test_a_new_key_has_256_bits_and_fits_a_websocket_subprotocol() -> None:
    made = {new_key("a")[0] for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", key) for key in made)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 65, "a\n"])
def test_a_key_name_that_would_break_the_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="key name"):
        new_key(name)


def test_several_keys_are_valid_at_once_also_under_one_name(file: Path) -> None:
    old, new, other = new_key("camera"), new_key("camera"), new_key("robot")
    keys = Keys(write(file, "# the cameras", old[1], "", f"  {new[1].upper().replace('CAMERA', 'camera')}", other[1]))
    assert [keys.check(key) for key, _ in (old, new, other)] == ["camera", "camera", "robot"]
    assert len(keys) == 3


@pytest.mark.parametrize("key", [None, "", "wrong", "ключ", "\udcff", "a" * 100_000])
def test_any_other_key_is_refused(file: Path, key: str | None) -> None:
    assert Keys(write(file, new_key("a")[1])).check(key) is None


def test_the_digest_is_not_a_key(file: Path) -> None:
    line = new_key("a")[1]
    assert Keys(write(file, line)).check(line.split(":")[1]) is None


def test_a_key_is_compared_with_every_entry(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_key(f"k{n}") for n in range(5)]
    keys = Keys(write(file, *(line for _, line in made)))
    compared = []

    def compare(a: str, b: str) -> bool:
        compared.append(b)
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(module, "hmac", type("Counted", (), {"compare_digest": staticmethod(compare)}))
    assert keys.check(made[0][0]) == "k0"
    assert compared == [line.split(":")[1] for _, line in made]


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (["# only words"], ": holds no key"),
        (["a:" + "0" * 64, "no colon"], ":2: not"),
        (["a:0123"], ":1: not"),
        (["a b:" + "0" * 64], ":1: not"),
        (["a:" + "g" * 64], ":1: not"),
        (["a:" + "0" * 64, "b:" + "0" * 64], ":2: the same key as in line 1"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number(file: Path, lines: list[str], where: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{file}{where}")):
        Keys(write(file, *lines))


def test_all_wrong_lines_are_reported_at_once() -> None:
    with pytest.raises(ConfigError, match=r"k:1: .*; k:3: "):
        parse("x\na:" + "0" * 64 + "\ny", "k")


def test_a_key_in_clear_in_the_file_is_not_quoted(file: Path) -> None:
    key, _ = new_key("a")
    with pytest.raises(ConfigError) as raised:
        Keys(write(file, f"a:{key}"))
    assert key not in str(raised.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"#" * (module.FILE_BYTES + 1)])
def test_a_file_that_is_no_key_file_is_refused_by_name(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        Keys(file)


def test_a_missing_file_is_refused_by_name(file: Path) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(str(file))}: cannot be read"):
        Keys(file)


def test_a_changed_file_is_read_after_a_second_and_not_before(file: Path) -> None:
    clock, old, new = Clock(), new_key("old"), new_key("new")
    keys = Keys(write(file, old[1]), clock)
    write(file, new[1])
    clock.now_s = 0.9
    assert keys.check(old[0]) == "old"
    clock.now_s = 1.0
    assert (keys.check(old[0]), keys.check(new[0])) == (None, "new")


def test_an_unchanged_file_is_looked_at_once_a_second_and_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), []
    keys = Keys(write(file, new_key("a")[1]), clock)
    real = module._signature
    monkeypatch.setattr(module, "_signature", lambda path: looks.append(path) or real(path))
    monkeypatch.setattr(module, "_read", lambda path: pytest.fail("read again"))
    for tick in range(1, 31):
        clock.now_s = tick / 10
        keys.check("x")
    assert len(looks) == 3


def test_an_edit_in_place_within_one_tick_of_the_clock_is_seen_by_its_size(file: Path) -> None:
    clock, one, two = Clock(), new_key("a"), new_key("b")
    keys = Keys(write(file, one[1]), clock)
    before = file.stat()
    with file.open("a") as appended:
        appended.write(two[1] + "\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now_s = 2
    assert keys.check(two[0]) == "b"


@pytest.mark.parametrize("broken", ["not a line", "", None])
def test_a_file_that_breaks_later_keeps_its_keys_and_says_so_once(
    file: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    clock, (key, line) = Clock(), new_key("a")
    keys = Keys(write(file, line), clock)
    if broken is None:
        file.unlink()
    else:
        write(file, broken)
    for clock.now_s in (1, 2, 3):
        assert keys.check(key) == "a"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert str(file) in errors[0].getMessage() and "1 keys read before stay valid" in errors[0].getMessage()


def test_nobody_waits_for_what_is_no_file_any_more(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The event loop would, for whoever writes to a pipe."""
    clock, (key, line) = Clock(), new_key("a")
    keys = Keys(write(file, line), clock)
    file.unlink()
    os.mkfifo(file)
    clock.now_s = 1
    known: list[str | None] = []
    checking = threading.Thread(target=lambda: known.append(keys.check(key)), daemon=True)
    checking.start()
    checking.join(10)
    assert known == ["a"]
    assert "not a file any more; the 1 keys read before stay valid" in caplog.text


def test_a_file_that_is_mended_is_read_again(file: Path) -> None:
    clock, (key, line), new = Clock(), new_key("a"), new_key("b")
    keys = Keys(write(file, line), clock)
    kept = file.rename(file.with_name("aside"))
    clock.now_s = 1
    assert keys.check(key) == "a"
    kept.rename(file)
    write(file, new[1])
    clock.now_s = 2
    assert (keys.check(key), keys.check(new[0])) == (None, "b")


def test_a_file_that_others_may_read_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(file, new_key("a")[1])
    clock = Clock()
    keys = Keys(file, clock)
    for clock.now_s, mode in ((10, 0o600), (20, 0o640), (30, 0o644)):
        assert not caplog.records
        file.chmod(mode)
        os.utime(file, (clock.now_s, clock.now_s))
        keys.check(None)
    assert "other users may read" in caplog.text


def test_no_key_is_ever_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock, (key, line) = Clock(), new_key("a")
    keys = Keys(write(file, line), clock)
    keys.check(key)
    clock.now_s = 1
    write(file, line, key)
    keys.check(key)
    clock.now_s = 2
    write(file, line, new_key("b")[1])
    keys.check(key)
    assert "2 keys" in caplog.text and key not in caplog.text and line.split(":")[1] not in caplog.text
