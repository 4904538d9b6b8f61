"""Cameras on a network: pulled, lost, found again, silent, wrong; and what is never shown of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import simplejpeg

from tests.streamed import Script, closed_port, mjpeg, rtsp
from tests.watched import Event, events_of, film, named, picture, settings, watch_until

SERVERS = pytest.mark.parametrize("serve", [mjpeg, rtsp])
Serve = Any
FOREVER = "g" * 2000


def has(name: str, count: int = 1, **facts: Any) -> Callable[[list[Event]], bool]:
    """So many events of a name with these facts."""
    return lambda events: sum(facts.items() <= e.items() for e in named(events, name)) >= count


@SERVERS
def test_a_stream_is_answered_as_it_comes(serve: Serve, tiny_bundle: Path) -> None:
    with serve(Script(["b" * 20 + FOREVER])) as url:
        found = settings(tiny_bundle, [url], {"background": "blue", "hold_s": 0.3})
        events = watch_until(found, has("alert"))
    connected = named(events, "connected")[0]
    assert (connected["source"], connected["width"], connected["height"]) == (url, 64, 48)
    assert named(events, "alert")[0]["label"] == "green"
    assert [e["event"] for e in events[-3:]] == ["alert_end", "end", "summary"]
    assert "error" not in events[-2]


@SERVERS
def test_a_stream_that_breaks_off_is_connected_anew_and_its_time_goes_on(serve: Serve, tiny_bundle: Path) -> None:
    with serve(Script(["r" * 30 + "!", FOREVER])) as url:
        enough = has("connected", 2)
        events = watch_until(
            settings(tiny_bundle, [url], answers=True),
            lambda e: enough(e) and named(e, "answer")[-1]["label"] == "green",
        )
    order = [e["event"] for e in named(events, "connected", "disconnected", "end")]
    assert order == ["connected", "disconnected", "connected", "end"]
    lost = named(events, "disconnected")[0]
    assert lost["reason"] and 0.4 <= lost["retry_s"] <= 1.0
    times = [e["t"] for e in named(events, "answer")]
    assert times == sorted(times) and len(set(times)) == len(times)
    assert events[-1]["cameras"][lost["camera"]]["disconnections"] == 1


@SERVERS
def test_a_long_silence_starts_the_state_anew(serve: Serve, tiny_bundle: Path) -> None:
    with serve(Script(["r" * 30 + "~", "x", FOREVER], fps=20)) as url:
        found = settings(tiny_bundle, [url], {"timeout_s": 2.0}, answers=True)
        events = watch_until(found, has("answer", label="green"))
    assert "no frame for 2 s" in named(events, "disconnected")[0]["reason"]
    assert {e["reason"] for e in named(events, "reset")} == {"gap"}
    first = named(events, "answer")[[e["label"] for e in named(events, "answer")].index("green")]
    assert first["probability"] > 0.8  # 30 red frames before are forgotten


def test_a_source_that_hangs_from_the_start_is_given_up_for_now(tiny_bundle: Path) -> None:
    with mjpeg(Script(["~"])) as url:
        events = watch_until(settings(tiny_bundle, [url], {"timeout_s": 0.5}), has("disconnected", 2))
    assert all("no frame for 0.5 s" in e["reason"] for e in named(events, "disconnected"))


def test_a_server_that_is_not_there_is_tried_with_growing_pauses_and_given_up_where_told_to(tiny_bundle: Path) -> None:
    url = f"rtsp://127.0.0.1:{closed_port()}/stream"
    found = settings(tiny_bundle, [url], {"attempts": 3})
    events = events_of(found, code=1)
    pauses = [e["retry_s"] for e in named(events, "disconnected")]
    assert len(pauses) == 2 and 0.5 <= pauses[0] <= 1 and 1 <= pauses[1] <= 2
    assert "refused" in named(events, "end")[0]["error"]


def test_pictures_that_cannot_be_decoded_are_passed_over(tiny_bundle: Path) -> None:
    with mjpeg(Script(["g" * 10 + "?" * 3 + "b" * 2000])) as url:
        events = watch_until(settings(tiny_bundle, [url], answers=True), has("answer", label="blue"))
    assert not named(events, "disconnected")


def test_a_stream_without_a_picture_in_it_is_connected_anew(tiny_bundle: Path) -> None:
    with mjpeg(Script(["g" * 10 + "?" * 2000, FOREVER])) as url:
        events = watch_until(settings(tiny_bundle, [url], {"timeout_s": 1.0}), has("connected", 2))
    assert "no frame" in named(events, "disconnected")[0]["reason"]


@SERVERS
def test_a_password_is_used_and_never_shown(serve: Serve, tiny_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serve(Script(["g" * 15 + "!", "x", FOREVER], password="s3cret")) as url:
        right = url.replace("://", "://me:s3cret@") + "?token=t0ken"
        wrong = url.replace("://", "://me:wr0ng@")
        found = settings(tiny_bundle, [right, wrong])
        enough = has("connected", 2)
        events = watch_until(found, lambda e: enough(e) and has("disconnected", 2)(e))
    whole = f"{events}{capfd.readouterr()}"
    assert "s3cret" not in whole and "t0ken" not in whole and "wr0ng" not in whole
    assert any("401" in e["reason"] for e in named(events, "disconnected"))
    assert all("***@" in e["source"] for e in named(events, "connected"))


@SERVERS
def test_a_password_of_the_environment_may_hold_anything(
    serve: Serve, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "p@127.0.0.1:1/w%41?#= é"
    monkeypatch.setenv("LOGIN", f"me:{password}")
    monkeypatch.setenv("DOOR_PASSWORD", password)
    with serve(Script([FOREVER], password=password)) as url:
        sources = [url.replace("://", f"://{user}@") for user in ("me:${DOOR_PASSWORD}", "${LOGIN}")]
        found = settings(tiny_bundle, sources, {"attempts": 1})
        events = watch_until(found, has("connected", 2))
    assert {e["source"] for e in named(events, "connected")} == {url.replace("://", "://***@")}


def test_a_stream_cannot_lead_to_a_file_or_a_playlist(tmp_path: Path, tiny_bundle: Path) -> None:
    film(tmp_path / "a.mp4", "rrr")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.mp4\n")
    with _files(tmp_path) as url:
        events = events_of(settings(tiny_bundle, [f"{url}/list.m3u8"], {"attempts": 1}), code=1)
    assert named(events, "end")[0]["frames"] == 0 and named(events, "end")[0]["error"]


@contextmanager
def _files(folder: Path) -> Iterator[str]:
    """The URL of a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_what_is_no_stream_is_told_what_is_expected(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "login.html").write_text("<html><body>Log in</body></html>")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n")
    (tmp_path / "snapshot.jpg").write_bytes(simplejpeg.encode_jpeg(picture("r", 1)))
    names = ("login.html", "list.m3u8", "snapshot.jpg", "missing")
    with _files(tmp_path) as url:
        events = events_of(settings(tiny_bundle, [f"{url}/{name}" for name in names], {"attempts": 1}), code=1)
    errors = {e["camera"].rpartition("/")[2]: e["error"] for e in named(events, "end")}
    assert "404" in errors.pop("missing")
    assert len(errors) == 3 and all("multipart/x-mixed-replace), MPEG-TS or Matroska" in e for e in errors.values())


def test_a_stream_over_http_says_its_rate(tmp_path: Path, tiny_bundle: Path) -> None:
    film(tmp_path / "a.mkv", "r" * 40, fps=24)
    with _files(tmp_path) as url:
        events = watch_until(settings(tiny_bundle, [f"{url}/a.mkv"]), has("connected"))
    assert named(events, "connected")[0]["fps"] == 24


def test_a_camera_that_breaks_off_disturbs_no_other(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r" * 30)
    with mjpeg(Script(["g!"])) as url, mjpeg(Script([FOREVER])) as good:
        events = watch_until(settings(tiny_bundle, [clip, url, good]), has("end", camera="a"))
    tallies = events[-1]["cameras"]
    assert tallies["a"]["frames"] == 30
    lost = next(t for t in tallies.values() if t["disconnections"])
    assert [t["disconnections"] for t in tallies.values() if t is not lost] == [0, 0]
    assert max(t["answers"] for t in tallies.values()) >= 5
