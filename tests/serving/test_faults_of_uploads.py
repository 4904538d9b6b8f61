"""Files that are damaged, no videos, too large or bombs: refused with a reason; the next one is answered."""

import gzip
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from framegate.cli.predict import predict
from framegate.runtime.session import open_session
from tests.bundles import LABELS
from tests.planted_images import jpegs
from tests.running import PREDICT, Server, audio_only, eventually, video
from tests.served import color, jpeg

RED_THEN_BLUE = [2] * 12 + [0] * 28


def form(content: bytes, boundary: str = "edge", end: bool = True) -> dict[str, Any]:
    """A multipart body, perhaps without its end."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="../x.mp4"\r\n\r\n'.encode()
    tail = f"\r\n--{boundary}--\r\n".encode() if end else b""
    return {
        "content": head + content + tail,
        "headers": {"content-type": f"multipart/form-data; boundary={boundary}"},
    }


def test_a_clip_is_answered_as_predict_answers_it(server: Server, bundle: Path, tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.mp4", RED_THEN_BLUE)
    right = [(one.start_s, one.end_s, one.label, one.probability) for one in predict(open_session(bundle), clip)]
    assert len(right) > 1
    for more in ({"files": {"file": clip.read_bytes()}}, {"content": clip.read_bytes()}, form(clip.read_bytes())):
        answer = server.post(PREDICT, params={"top": 2}, **more)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert [(one["start_s"], one["end_s"], *one["labels"][0].values()) for one in said] == right
        assert {len(one["labels"]) for one in said} == {2}
    assert answer.headers["framegate-version"] == server.version
    (span,) = server.post(PREDICT, content=jpeg(color(1))).json()
    assert span["labels"][0]["name"] == "green"
    shares = [one["probability"] for one in span["labels"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == len(LABELS)


def whole(path: Path) -> bytes:
    return video(path, RED_THEN_BLUE).read_bytes()


def cut(path: Path) -> bytes:
    return whole(path)[:-300]


def another_codec(path: Path) -> bytes:
    return whole(path).replace(b"avc1", b"zzzz")


def garbage(path: Path) -> bytes:
    data = whole(path)
    return data[:40] + bytes(len(data) - 40)


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], int, str]] = {
    "audio only": (lambda p: {"content": audio_only(p).read_bytes()}, 400, "no video stream"),
    "garbage with a good start": (lambda p: {"content": garbage(p)}, 400, "the file: "),
    "truncated": (lambda p: {"content": cut(p)}, 400, "the file: "),
    "an unknown codec": (lambda p: {"content": another_codec(p)}, 400, "codec that is not known"),
    "text": (lambda p: {"content": b"hello " * 100}, 415, "none of JPEG"),
    "a playlist": (lambda p: {"content": b"#EXTM3U\n/etc/passwd\n" * 9}, 415, "none of JPEG"),
    "nothing": (lambda p: {"content": b""}, 400, "empty"),
    "truncated multipart": (lambda p: form(whole(p), end=False), 400, "truncated"),
    "multipart without a file": (
        lambda p: {"data": {"name": "x"}, "files": {"other": b"x"}}, 400, "send one field `file`"
    ),
    "multipart without boundary": (
        lambda p: {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"
    ),
    "beyond the limit": (lambda p: {"content": bytes(4_100_000)}, 413, "limit"),
    "a gzip bomb": (
        lambda p: {"content": gzip.compress(b"\xff\xd8\xff" + bytes(200_000_000), 1), "headers": {"content-encoding": "gzip"}}, 413,
        "decompresses to more than the limit",
    ),
    "half a gzip": (
        lambda p: {"content": gzip.compress(whole(p))[:-90], "headers": {"content-encoding": "gzip"}}, 400, "truncated"
    ),
    "no gzip": (lambda p: {"content": whole(p), "headers": {"content-encoding": "gzip"}}, 400, "not gzip"),
    "another encoding": (lambda p: {"content": whole(p), "headers": {"content-encoding": "br"}}, 415, "gzip, deflate"),
    "half a JPEG": (lambda p: {"content": jpeg(color(0))[:400]}, 400, "cannot be decoded"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_answered_is_refused_with_its_reason(server: Server, tmp_path: Path, name: str) -> None:
    make, status, words = BAD[name]
    more, memory = make(tmp_path / "bad.mp4"), server.rss_bytes
    for accept in ("application/json", "application/x-ndjson"):
        answer = server.post(PREDICT, **{**more, "headers": {**more.get("headers", {}), "accept": accept}})
        assert answer.status_code == status, answer.text
        assert words in answer.json()["error"]
        assert str(server.scratch) not in answer.text
    assert server.rss_bytes < memory + 60e6
    assert server.post(PREDICT, content=whole(tmp_path / "good.mp4")).status_code == 200
    assert not list(server.scratch.rglob("*.mp4"))


def test_a_compressed_clip_is_the_clip(server: Server, tmp_path: Path) -> None:
    data = whole(tmp_path / "clip.mp4")
    packed = server.post(PREDICT, content=gzip.compress(data), headers={"content-encoding": "gzip"})
    assert packed.json() == server.post(PREDICT, content=data).json()


def test_spans_come_while_the_file_is_still_in_work(start, slow_bundle: Path, tmp_path: Path) -> None:
    """And a second file waits for its turn no longer than the deadline."""
    server = start(slow_bundle, "--max-uploads", "1", "--deadline-ms", "200")
    long = video(tmp_path / "long.mp4", [2] * 10 + [0] * 290).read_bytes()
    with (
        httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client,
        client.stream("POST", PREDICT, content=long, headers={"accept": "application/x-ndjson"}) as answer,
    ):
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.iter_lines()
        spans = [json.loads(next(lines))]
        assert server.metric("framegate_streams", kind="upload") == 1, "it is still in work"
        busy = server.post(PREDICT, content=jpeg(color(0)))
        assert busy.status_code == 503
        assert "1 files are in work" in busy.json()["error"]
        assert int(busy.headers["retry-after"]) >= 1
        spans += [json.loads(line) for line in lines]
    assert spans[0]["start_s"] == 0.0
    assert spans[-1]["end_s"] == 30.0
    assert [one["start_s"] for one in spans[1:]] == [one["end_s"] for one in spans[:-1]]
    assert server.post(PREDICT, content=jpeg(color(0))).status_code == 200


@pytest.mark.parametrize(
    ("accept", "lines"),
    [("APPLICATION/X-NDJSON", True), ("application/x-ndjson;q=0", False), ("application/json, */*;q=0.1", False)],
)
def test_the_form_of_the_answer_is_the_one_that_is_preferred(server: Server, accept: str, lines: bool) -> None:
    answer = server.post(PREDICT, content=jpeg(color(0)), headers={"accept": accept})
    assert answer.headers["content-type"] == ("application/x-ndjson" if lines else "application/json")
    assert isinstance(json.loads(answer.text), dict if lines else list)
    assert answer.headers["framegate-version"] == server.version


def test_a_film_whose_frames_outgrow_its_header_is_too_large(server: Server, tmp_path: Path) -> None:
    large, memory = jpeg(np.zeros((8000, 8000, 3), np.uint8)), server.rss_bytes
    film = jpegs(tmp_path / "a.mkv", [jpeg(color(0).repeat(4, axis=0).repeat(4, axis=1))] * 9 + [large]).read_bytes()
    answer = server.post(PREDICT, content=film)
    assert answer.status_code == 413, answer.text
    error = "the file: a frame is far larger than 9,437,184 pixels, the limit, or of no size that can be"
    assert answer.json()["error"] == error
    assert server.rss_bytes < memory + 60e6


def test_what_fails_after_the_first_span_is_the_last_line(server: Server, tmp_path: Path) -> None:
    data = video(tmp_path / "long.mkv", [2] * 20 + [0] * 180, codec="mpeg4").read_bytes()
    answer = server.post(PREDICT, content=data[: len(data) // 2], headers={"accept": "application/x-ndjson"})
    assert answer.status_code == 200
    *spans, last = map(json.loads, answer.text.splitlines())
    assert spans[0]["start_s"] == 0.0
    assert last["error"].startswith("the file: truncated: ")
    assert server.post(PREDICT, content=data[: len(data) // 2]).status_code == 400


def test_files_at_once_are_answered_each_for_itself(server: Server, bundle: Path, tmp_path: Path) -> None:
    clips = [video(tmp_path / f"{k}.mp4", [(k + j // 5) % 3 for j in range(15)], seed=k) for k in range(6)]
    said: dict[int, Any] = {}

    def one(k: int) -> None:
        said[k] = server.post(PREDICT, content=clips[k].read_bytes()).json()

    threads = [threading.Thread(target=one, args=(k,)) for k in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    session = open_session(bundle)
    for k, clip in enumerate(clips):
        right = [(found.start_s, found.end_s, found.label) for found in predict(session, clip)]
        assert [(found["start_s"], found["end_s"], found["labels"][0]["name"]) for found in said[k]] == right
    eventually(lambda: server.metric("framegate_streams", kind="upload") == 0, "all are closed")
