"""`--webhook`: events as JSON by POST, from a thread of its own. Nothing here ever holds up video."""

from __future__ import annotations

import json
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from framegate.contract import ConfigError, nearest
from framegate.watch.address import readable
from framegate.watch.backoff import Backoff

WAITING = 1000  # events; more are dropped
ATTEMPTS = 6  # of one event, about half a minute
TIMEOUT_S = 10.0
QUIET_S = 0.5  # for the thread to notice that it is to stop
AGAIN = frozenset({408, 425, 429})  # and every 5xx
SCHEMES = ("http", "https")


def check_url(url: str) -> str:
    """ConfigError unless it is http or https, with a host."""
    scheme = url.partition("://")[0].lower()
    if "://" not in url or scheme not in SCHEMES:
        hint = nearest(scheme, SCHEMES)
        raise ConfigError(f"--webhook {shown(url)!r}: expected http://HOST/PATH or https://HOST/PATH{hint}")
    try:
        host, _ = urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        host = None
    if not host:
        raise ConfigError(f"--webhook {shown(url)!r}: no host, or no port that there is")
    try:
        httpx.Request("POST", url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(f"--webhook {shown(url)!r}: no URL that can be posted to: {type(error).__name__}") from None
    return url


def shown(url: str) -> str:
    """Scheme and host only: the path of a webhook is as secret as a password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    host = re.split(r"[/?#\\]", rest)[0]
    hidden = "@" in rest[len(host) :]  # a password may hold anything
    return scheme + separator + ("***" if hidden else host.rpartition("@")[2])


def as_json(event: Mapping[str, Any]) -> bytes:
    """UTF-8, whatever file names it holds."""
    return readable(json.dumps(event, ensure_ascii=False)).encode()


@dataclass(slots=True)
class Sent:
    """Events that the receiver took, and those that it never will."""

    sent: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Letter:
    body: bytes
    key: str  # the same at every attempt, so that the receiver can tell a repetition


class Webhook:
    """Sends events in order, each until it is taken or refused, ATTEMPTS times at most.

    `report` is called from the thread with a reason when sending begins to fail, and with "" when it works again.
    Redirects are not followed.
    """

    def __init__(
        self,
        url: str,
        report: Callable[[str], None],
        waiting: int = WAITING,
        backoff: Callable[[], Backoff] = lambda: Backoff(1.0, 30.0),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.count = Sent()
        self._url, self._report, self._backoff = check_url(url), report, backoff
        self._queue: queue.Queue[_Letter] = queue.Queue(waiting)
        self._stop = threading.Event()
        self._failing = False
        try:
            self._client = httpx.Client(timeout=timeout_s, follow_redirects=False)
        except (httpx.InvalidURL, ValueError, OSError) as error:  # of HTTP_PROXY, SSL_CERT_FILE and the like
            raise ConfigError(f"--webhook: the environment's proxy or certificates: {type(error).__name__}") from None
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def offer(self, event: Mapping[str, Any]) -> None:
        """Queue an event; it is dropped, and counted, where too many wait. Never waits."""
        letter = _Letter(as_json(event), uuid.uuid4().hex)
        try:
            self._queue.put_nowait(letter)
        except queue.Full:
            self.count.dropped += 1

    def close(self, within_s: float = 5.0) -> None:
        """Send what waits, for so long; the rest is counted as dropped, and reported."""
        until = time.monotonic() + within_s
        while self._queue.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)
        self._stop.set()
        self._thread.join(QUIET_S)
        if left := self._queue.unfinished_tasks:
            self.count.dropped += left
            if not self._failing:
                self._report(f"{shown(self._url)}: {left} not taken within {within_s:g} s of the end")

    def _work(self) -> None:
        with self._client as client:
            while not self._stop.is_set():
                try:
                    letter = self._queue.get(timeout=0.2)
                except queue.Empty:
                    continue
                if self._deliver(client, letter):
                    self._queue.task_done()

    def _deliver(self, client: httpx.Client, letter: _Letter) -> bool:
        """False when it was stopped on the way."""
        backoff = self._backoff()
        for attempt in range(1, ATTEMPTS + 1):
            problem, again = self._post(client, letter)
            if self._stop.is_set() and problem:
                return False
            self._tell(problem)
            if not problem:
                self.count.sent += 1
                return True
            if not again or attempt == ATTEMPTS:
                break
            if self._stop.wait(backoff.next()):
                return False
        self.count.dropped += 1
        return True

    def _post(self, client: httpx.Client, letter: _Letter) -> tuple[str, bool]:
        """What went wrong, and whether another attempt makes sense. The answer's body is not read."""
        headers = {"content-type": "application/json", "idempotency-key": letter.key, "user-agent": "framegate"}
        try:
            with client.stream("POST", self._url, content=letter.body, headers=headers) as response:
                status = response.status_code
        except Exception as error:  # whatever it is, the thread goes on
            return f"{shown(self._url)}: {type(error).__name__}", isinstance(error, httpx.HTTPError)
        if 200 <= status < 300:
            return "", False
        return f"{shown(self._url)}: status {status}", status in AGAIN or status >= 500

    def _tell(self, problem: str) -> None:
        if bool(problem) != self._failing:
            self._failing = bool(problem)
            self._report(problem)
