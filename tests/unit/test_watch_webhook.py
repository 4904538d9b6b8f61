"""Events by POST: taken, refused, tried again, dropped; video goes on whatever the receiver does."""

import asyncio
import io
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from framegate.contract import ConfigError
from framegate.watch.backoff import Backoff
from framegate.watch.line import Pace
from framegate.watch.run import watch
from framegate.watch.webhook import ATTEMPTS, Webhook, check_url, shown
from tests.streamed import closed_port
from tests.watched import events_of, film, named, settings


@dataclass
class Receiver:
    """Answers with these statuses in turn, the last one again and again; 0: waits until the test ends."""

    statuses: Sequence[int] = (204,)
    got: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)  # (path, event, key)
    ended: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.got.append((self.path, body, self.headers["idempotency-key"]))
            status = receiver.statuses[min(len(receiver.got), len(receiver.statuses)) - 1]
            if not status:
                receiver.ended.wait(30)
                return
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def quick() -> Backoff:
    return Backoff(0.01, 0.02)


def post(url: str, events: int = 1, within_s: float = 10.0, **more: Any) -> tuple[Webhook, list[str]]:
    reports: list[str] = []
    webhook = Webhook(url, reports.append, backoff=quick, **more)
    for number in range(events):
        webhook.offer({"event": "alert", "number": number, "label": "größer"})
    webhook.close(within_s)
    return webhook, reports


def test_events_come_in_order_each_with_a_key_of_its_own() -> None:
    with receiving(Receiver()) as receiver:
        webhook, reports = post(receiver.url, events=20)
    assert [event["number"] for _, event, _ in receiver.got] == list(range(20))
    assert receiver.got[0][1]["label"] == "größer"
    assert len({key for _, _, key in receiver.got}) == 20
    assert (webhook.count.sent, webhook.count.dropped, reports) == (20, 0, [])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_may_pass_is_tried_again_under_the_same_key(status: int) -> None:
    with receiving(Receiver((status, status, 200))) as receiver:
        webhook, reports = post(receiver.url)
    assert len(receiver.got) == 3 and len({key for _, _, key in receiver.got}) == 1
    assert (webhook.count.sent, webhook.count.dropped) == (1, 0)
    assert [bool(text) for text in reports] == [True, False] and str(status) in reports[0]


@pytest.mark.parametrize("status", [400, 401, 404, 302, 307])
def test_what_is_refused_is_dropped_and_no_redirect_is_followed(status: int) -> None:
    with receiving(Receiver((status,))) as receiver:
        webhook, reports = post(receiver.url)
    assert [path for path, _, _ in receiver.got] == ["/hook"]
    assert (webhook.count.sent, webhook.count.dropped) == (0, 1) and str(status) in reports[0]


def test_a_receiver_that_is_down_costs_the_event_after_all_attempts() -> None:
    webhook, reports = post(f"http://me:s3cret@127.0.0.1:{closed_port()}/hook?key=t0ken")
    assert (webhook.count.sent, webhook.count.dropped, len(reports)) == (0, 1, 1)
    assert "s3cret" not in reports[0] and "t0ken" not in reports[0]
    with receiving(Receiver((500,))) as receiver:
        post(receiver.url)
    assert len(receiver.got) == ATTEMPTS


def test_a_receiver_that_hangs_holds_up_nothing_and_what_waits_too_long_is_counted() -> None:
    with receiving(Receiver((0,))) as receiver:
        reports: list[str] = []
        webhook = Webhook(receiver.url, reports.append, waiting=5)
        for number in range(100):
            webhook.offer({"number": number})
        webhook.close(within_s=0.2)
        assert not receiver.ended.is_set()  # it still has not answered the first one
    assert len(reports) == 1 and "not taken within 0.2 s of the end" in reports[0]
    assert webhook.count.sent == 0 and webhook.count.dropped == 100


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "host/x",
        "http://",
        "https:///x",
        "http://host:99999/x",
        "http://ü..de/",
        "http://xn--/",
    ],
)
def test_only_http_and_https_with_a_host_are_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="--webhook"):
        check_url(url)


def test_a_proxy_that_cannot_be_meant_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://me:s3cret@host")
    with pytest.raises(ConfigError, match="proxy") as caught:
        Webhook("http://host/x", print)
    assert "s3cret" not in str(caught.value)


def test_a_url_that_is_refused_shows_no_password() -> None:
    with pytest.raises(ConfigError) as caught:
        check_url("htp://me:s3cret@host/x")
    assert "s3cret" not in str(caught.value) and "did you mean 'http'?" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hooks.example.org/services/T0/s3cret", "https://hooks.example.org"),
        ("http://me:s3cret@host:9000/x?key=s3cret", "http://host:9000"),
        ("http://me:s3/s3cret@host/x", "http://***"),
        ("hooks.example.org/s3cret", "hooks.example.org"),
    ],
)
def test_of_a_url_only_its_host_is_shown(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_an_error_that_nobody_thought_of_costs_an_event_and_not_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(Receiver()) as receiver:
        real, calls = httpx.Client.stream, []

        def stream(self: httpx.Client, *args: Any, **more: Any) -> Any:
            calls.append(args)
            if len(calls) == 1:
                raise UnicodeError("s3cret")
            return real(self, *args, **more)

        monkeypatch.setattr(httpx.Client, "stream", stream)
        webhook, reports = post(receiver.url, events=2)
    assert (webhook.count.sent, webhook.count.dropped) == (1, 1)
    assert reports == [f"http://127.0.0.1:{receiver.port}: UnicodeError", ""]


def test_a_file_name_that_is_no_text_ends_nothing(tmp_path: Path, tiny_bundle: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    film(tmp_path / "a.mp4", "r" * 5).rename(folder / os.fsdecode(b"a\xff\xe6\x97.mp4"))
    film(folder / "b.mp4", "r" * 5)
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with receiving(Receiver()) as receiver:
        found = settings(tiny_bundle, [folder], pace=Pace(fast=True), webhook=receiver.url)
        assert asyncio.run(watch(found, out)) == 0
    out.seek(0)
    events = [json.loads(line) for line in out]
    assert {e["camera"] for e in named(events, "end")} == {"films/a\ufffd\ufffd\ufffd", "films/b"}
    for e in named(events, "connected"):
        assert e["source"].endswith(f"/{e['camera'].removeprefix('films/')}.mp4")
    assert {e["camera"] for _, e, _ in receiver.got} == {e["camera"] for e in named(events, "end")}


def test_watching_posts_what_matters_and_counts_it(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r" * 20)
    with receiving(Receiver()) as receiver:
        found = settings(tiny_bundle, [clip], pace=Pace(fast=True), answers=True, webhook=receiver.url)
        events = events_of(found)
    posted = [event for _, event, _ in receiver.got]
    assert [e["event"] for e in posted] == ["connected", "alert", "alert_end", "end"]
    assert posted == [e for e in events if e["event"] not in ("answer", "summary")]
    assert (events[-1]["posted"], events[-1]["not_posted"]) == (4, 0)


def test_watching_goes_on_without_a_receiver_and_says_so(tmp_path: Path, tiny_bundle: Path) -> None:
    clip = film(tmp_path / "a.mp4", "r" * 20)
    url = f"http://127.0.0.1:{closed_port()}/hook"
    events = events_of(settings(tiny_bundle, [clip], pace=Pace(fast=True), webhook=url))
    assert [e["event"] for e in named(events, "alert", "end")] == ["alert", "end"]
    assert [e["ok"] for e in named(events, "webhook")] == [False]
    assert (events[-1]["posted"], events[-1]["not_posted"]) == (0, 4)
