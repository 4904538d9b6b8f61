"""An upload becomes one file of a known kind in a private folder, and is gone afterwards, however it ends."""

import asyncio
import contextlib
import errno
import io
import logging
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image
from starlette.requests import ClientDisconnect, Request

from framegate.media import IMAGE_FORMATS, SENT_FORMATS, is_image
from framegate.serve import uploads
from framegate.serve.errors import BadRequest, Overloaded, ServeError, TooLarge, Unsupported
from framegate.serve.uploads import received, suffix_of

JPEG = b"\xff\xd8\xff\xe0" + b"j" * 100
MP4 = b"\0\0\0\x20ftypisom" + b"m" * 100
LIMIT = 10_000_000
BOUNDARY = "----of-our-own"


def part(content: bytes, name: str = "file", filename: str = "../../etc/passwd.exe", extra: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
    return (head + (f'; filename="{filename}"' if filename else "") + f"\r\n{extra}\r\n").encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def asked(body: bytes, content_type: str = "", size: int = 65536, leaves: bool = False) -> Request:
    """A request whose body comes in chunks; `leaves`: the client is gone before its end."""
    chunks = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if leaves:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False
    waiting = iter(messages)

    async def pull() -> dict:
        return next(waiting)

    headers = [(b"content-type", content_type.encode())] if content_type else []
    return Request({"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers}, pull)


def asked_form(body: bytes, size: int = 65536, leaves: bool = False) -> Request:
    return asked(body, f"multipart/form-data; boundary={BOUNDARY}", size, leaves)


def stored(request: Request, folder: Path, limit: int = LIMIT) -> tuple[bytes, Path]:
    """What stands in the file, and where it stood; nothing is left."""

    async def main() -> tuple[bytes, Path]:
        async with received(request, folder, limit) as path:
            assert [path] == list(folder.iterdir())
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            return path.read_bytes(), path

    found = asyncio.run(main())
    assert list(folder.iterdir()) == []
    return found


def refused(request: Request, folder: Path, limit: int = LIMIT) -> ServeError:
    with pytest.raises(ServeError) as raised:
        stored(request, folder, limit)
    assert list(folder.iterdir()) == []
    return raised.value


# --- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\xff\xd8\xff\xdb", ".jpg"),
        (b"\x89PNG\r\n\x1a\n\0", ".png"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", ".webp"),
        (b"RIFF\x10\0\0\0AVI LIST", ".avi"),
        (b"\0\0\0\x18ftypmp42", ".mp4"),
        (b"\0\0\0\x14ftypqt  ", ".mov"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", ".webm"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", ".mkv"),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"\0\0\0\x18ftypheic", None),
        (b"#EXTM3U\nhttp://169.254.169.254/", None),
        (b"ffconcat version 1.0", None),
        (b"GIF89a", None),
        (b"\x89PNG", None),
        (b"", None),
    ],
)
def test_the_content_decides_the_suffix(head: bytes, suffix: str | None) -> None:
    assert suffix_of(head) == suffix


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_files_and_live_frames_are_of_the_same_kinds(name: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, name)
    suffix = suffix_of(out.getvalue()[:64])
    assert (suffix is not None and is_image(Path(f"a{suffix}"))) == (name in SENT_FORMATS)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".webm"])
def test_real_clips_keep_their_kind(tmp_path: Path, make_clip: Callable[..., Path], suffix: str) -> None:
    clip = make_clip(tmp_path / f"clip{suffix}", frames=3)
    (tmp_path / "in").mkdir()
    content, path = stored(asked(clip.read_bytes()), tmp_path / "in")
    assert (content, path.suffix) == (clip.read_bytes(), suffix)


# --- what arrives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["", "video/mp4", "application/x-www-form-urlencoded", "text/html"])
def test_a_raw_body_is_the_file_whatever_its_type_says(tmp_path: Path, content_type: str) -> None:
    content, path = stored(asked(MP4, content_type), tmp_path)
    assert (content, path.suffix) == (MP4, ".mp4")


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize("content", [JPEG, MP4 + b"\r\n--" + BOUNDARY.encode()[:-1], JPEG + b"\r\n" * 50])
def test_a_form_gives_the_same_bytes_however_it_is_cut(tmp_path: Path, content: bytes, size: int) -> None:
    assert stored(asked_form(form(part(content)), size), tmp_path)[0] == content


def test_the_clients_file_name_is_never_used(tmp_path: Path) -> None:
    _, path = stored(asked_form(form(part(JPEG, filename="../../evil.mp4"))), tmp_path)
    assert path.parent == tmp_path and path.suffix == ".jpg" and len(path.stem) == 32


def test_two_uploads_never_share_a_name(tmp_path: Path) -> None:
    assert stored(asked(JPEG), tmp_path)[1] != stored(asked(JPEG), tmp_path)[1]


def test_a_field_without_a_file_name_is_a_file_too(tmp_path: Path) -> None:
    assert stored(asked_form(form(part(JPEG, filename=""))), tmp_path)[0] == JPEG


def test_a_long_file_is_written_in_threads_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, writers = MP4 + os.urandom(3_000_000), []
    real = os.write

    def write(file: int, data: memoryview) -> int:
        writers.append((threading.current_thread() is threading.main_thread(), len(data)))
        return real(file, data)

    monkeypatch.setattr(uploads.os, "write", write)
    assert stored(asked_form(form(part(content))), tmp_path)[0] == content
    assert [size for on_loop, size in writers if on_loop and size > 65536] == []
    assert len([size for on_loop, size in writers if not on_loop]) >= 5


def test_a_write_that_the_disk_takes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(uploads.os, "write", lambda file, data: real(file, data[:1000]))
    content = MP4 + os.urandom(200_000)
    assert stored(asked(content), tmp_path)[0] == content


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form(), "no field `file`"),
        (form(part(JPEG), part(JPEG)), "two fields"),
        (form(part(JPEG, name="video")), "'video'"),
        (form(part(b"3", name="top", filename=""), part(JPEG)), "'top'.*query string"),
        (form(part(b"")), "empty"),
        (form(part(JPEG))[: -len(BOUNDARY) - 6], "truncated"),
        (form(part(JPEG))[:-4], "truncated"),
        (part(JPEG)[:60], "truncated"),
        (part(JPEG), "truncated"),
        (b"", "truncated"),
        (b"no form at all", "multipart"),
        (form(part(JPEG)).replace(b"Content-Disposition", b"X-Other"), "field ''"),
        (form(part(JPEG, extra="A: b\r\n" * 100)), "multipart"),
        (form(part(JPEG, extra="A: " + "b" * 100_000 + "\r\n")), "multipart"),
    ],
)
def test_a_form_that_is_not_one_whole_file_is_a_bad_request(tmp_path: Path, body: bytes, words: str) -> None:
    error = refused(asked_form(body), tmp_path)
    assert type(error) is BadRequest
    with pytest.raises(BadRequest, match=words):
        raise error


@pytest.mark.parametrize(
    "body",
    [b"\0" * 99, form(part(JPEG)) + b"more", form(part(JPEG)).replace(b"\r\n\r\n", b"\r")],
    ids=["no form", "more after its end", "no end of its headers"],
)
def test_a_form_that_is_none_leaves_no_line_in_the_log(
    tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.suppress(BadRequest):
        stored(asked_form(body), tmp_path)
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 300}"])
def test_a_form_without_a_usable_boundary_is_a_bad_request(tmp_path: Path, kind: str) -> None:
    assert type(refused(asked(form(part(JPEG)), kind), tmp_path)) is BadRequest


def test_another_multipart_type_is_unsupported(tmp_path: Path) -> None:
    assert type(refused(asked(form(part(JPEG)), f"multipart/mixed; boundary={BOUNDARY}"), tmp_path)) is Unsupported


def test_an_empty_body_is_a_bad_request(tmp_path: Path) -> None:
    error = refused(asked(b""), tmp_path)
    assert type(error) is BadRequest and "empty" in str(error)


@pytest.mark.parametrize("content", [b"%PDF-1.7 and so on" * 10, b"x", b"<html>"])
@pytest.mark.parametrize("wrap", [asked, lambda content: asked_form(form(part(content)))])
def test_unknown_content_is_named_with_the_known_kinds(tmp_path: Path, content: bytes, wrap: Callable) -> None:
    error = refused(wrap(content), tmp_path)
    assert type(error) is Unsupported
    assert repr(content[:12]) in str(error) and "JPEG, PNG, WebP, MP4" in str(error)


def test_unknown_content_is_refused_before_it_has_all_come(tmp_path: Path) -> None:
    assert type(refused(asked(b"%PDF" * 100_000, leaves=True), tmp_path)) is Unsupported


@pytest.mark.parametrize("wrap", [asked, lambda content: asked_form(form(part(content)))])
def test_a_file_over_the_limit_is_too_large_and_one_of_it_is_not(tmp_path: Path, wrap: Callable) -> None:
    content = MP4 + b"m" * 1_000_000
    assert stored(wrap(content), tmp_path, len(content))[0] == content
    error = refused(wrap(content), tmp_path, len(content) - 1)
    assert type(error) is TooLarge and str(len(content) - 1) in str(error)


def test_a_limit_is_met_before_the_end_of_the_body(tmp_path: Path) -> None:
    assert type(refused(asked(MP4 + b"m" * 1_000_000, leaves=True), tmp_path, 300_000)) is TooLarge


@pytest.mark.parametrize("wrap", [asked, asked_form])
def test_a_client_that_leaves_leaves_no_file(tmp_path: Path, wrap: Callable) -> None:
    body = MP4 + b"m" * 1_000_000
    with pytest.raises(ClientDisconnect):
        stored(wrap(body if wrap is asked else part(body), leaves=True), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- and afterwards -------------------------------------------------------------------------------


def test_the_file_goes_when_the_work_on_it_fails(tmp_path: Path) -> None:
    async def main() -> None:
        async with received(asked(JPEG), tmp_path, LIMIT) as path:
            raise ValueError(path.name)

    with pytest.raises(ValueError, match=r"\.jpg"):
        asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_the_file_goes_when_it_was_removed_already(tmp_path: Path) -> None:
    async def main() -> None:
        async with received(asked(JPEG), tmp_path, LIMIT) as path:
            path.unlink()

    asyncio.run(main())


def test_a_request_that_is_cancelled_while_it_writes_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write ends in its thread after the cancellation; the descriptor is closed and the file removed after it."""
    writing, go_on, real = threading.Event(), threading.Event(), os.write

    def slow(file: int, data: memoryview) -> int:
        writing.set()
        assert go_on.wait(5)
        return real(file, data)

    monkeypatch.setattr(uploads.os, "write", slow)

    async def main() -> None:
        async def upload() -> None:
            async with received(asked(MP4 + b"m" * 1_000_000), tmp_path, LIMIT):
                pytest.fail("it was cancelled")

        task = asyncio.create_task(upload())
        assert await asyncio.to_thread(writing.wait, 5)
        task.cancel()
        await asyncio.sleep(0)
        assert len(list(tmp_path.iterdir())) == 1
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_overload_and_logged_without_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads.os, "write", full)
    error = refused(asked(MP4), tmp_path)
    assert isinstance(error, Overloaded) and error.retry_after_s == 10
    assert str(tmp_path) not in str(error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "No space left" in caplog.text and "mmmm" not in caplog.text


def test_a_stream_that_outlives_the_route_keeps_its_file(tmp_path: Path) -> None:
    """A long answer holds the context open while it is sent."""

    @asynccontextmanager
    async def route() -> AsyncIterator[AsyncIterator[bytes]]:
        async with received(asked(JPEG), tmp_path, LIMIT) as path:

            async def lines() -> AsyncIterator[bytes]:
                for _ in range(3):
                    await asyncio.sleep(0)
                    yield path.read_bytes()

            yield lines()

    async def main() -> list[bytes]:
        async with route() as lines:
            return [line async for line in lines]

    assert asyncio.run(main()) == [JPEG] * 3
    assert list(tmp_path.iterdir()) == []
