"""A client process of `benchmarks.serving`: keep-alive HTTP/1.1, one request's bytes over and over.

Reads its orders as JSON from standard input, writes what it saw as JSON. No parsing but of status and length: the
client must not be what is measured. Closed loop: each connection sends again when it is answered. Open loop: arrivals
on a clock, on whatever connection is free, on a new one, or lost when there are too many.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.processes import cpu_seconds

OPEN_EVERY_S = 0.001  # arrivals of one millisecond are sent together
QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}


@dataclass(frozen=True, slots=True)
class Orders:
    """What to send, how, for how long; seconds, bytes per request in `request` (a file)."""

    port: int
    request: str
    seconds: float
    session: int  # of the server, for its CPU time
    warm_s: float = 0.5
    connections: int = 1
    rate: float = 0.0  # arrivals per second; 0: closed loop
    most_connections: int = 1000
    limit_s: float = 0.5  # a later answer is none


@dataclass(slots=True)
class Seen:
    """Of the measured window."""

    latencies_s: list[float] = field(default_factory=list)  # of 200s
    statuses: Counter[int] = field(default_factory=Counter)
    arrivals: int = 0  # by the clock, when there is a rate
    sent: int = 0  # of those
    lost: int = 0  # of those: all connections were busy
    broken: int = 0  # connections that the server closed
    lag_s: float = 0.0  # how late an arrival was sent, at most


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds of the wall, of the server's CPU and of this process's."""

    wall_s: float
    server_s: float
    own_s: float

    @classmethod
    def now(cls, session: int) -> Clocks:
        """Read them."""
        return cls(time.monotonic(), cpu_seconds(session), time.process_time())


class Connection(asyncio.Protocol):
    """One request at a time; `answered(self, status, latency_s)`."""

    def __init__(
        self, request: bytes, answered: Callable[[Connection, int, float], None], broken: Callable[[], None]
    ) -> None:
        self._request, self._answered, self._broken = request, answered, broken
        self._rest, self._sent_at = b"", 0.0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, at: float) -> None:
        """Send the request; its latency counts from `at`, a time of time.monotonic()."""
        self._sent_at = at
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        end = data.find(b"\r\n\r\n")
        start = data.lower().find(b"content-length:", 0, end) if end >= 0 else -1
        if start < 0 or len(data) < end + 4 + int(data[start + 15 : data.find(b"\r\n", start)]):
            self._rest = data
            return
        self._rest = b""
        self._answered(self, int(data[9:12]), time.monotonic() - self._sent_at)

    def connection_lost(self, error: Exception | None) -> None:
        self._broken()

    @property
    def open(self) -> bool:
        """Whether it can be written to."""
        return not self._transport.is_closing()


class Load:
    """Drives connections; what comes in the warm-up is not counted."""

    def __init__(self, orders: Orders, request: bytes) -> None:
        self._orders, self._request = orders, request
        self._loop = asyncio.get_running_loop()
        self._free: list[Connection] = []
        self._all = 0
        self.seen = Seen()
        self.running = True

    async def connect(self) -> Connection:
        """A connection that is open."""
        self._all += 1
        _, one = await self._loop.create_connection(
            lambda: Connection(self._request, self._answered, self._broken), "127.0.0.1", self._orders.port
        )
        return one

    def _broken(self) -> None:
        self._all -= 1
        self.seen.broken += self.running

    def _answered(self, one: Connection, status: int, latency_s: float) -> None:
        self.seen.statuses[status] += 1
        if status == 200:
            self.seen.latencies_s.append(latency_s)
        if self._orders.rate:
            self._free.append(one)
        elif self.running:
            one.send(time.monotonic())

    async def run(self) -> dict[str, Any]:
        """Warm up, then measure."""
        orders = self._orders
        ones = [await self.connect() for _ in range(orders.connections)]
        if orders.rate:
            self._free = list(ones)
            arrivals = asyncio.create_task(self._arrive())
        else:
            for one in ones:
                one.send(time.monotonic())
        await asyncio.sleep(orders.warm_s)
        self.seen = Seen()
        before = Clocks.now(orders.session)
        await asyncio.sleep(orders.seconds)
        after, self.running = Clocks.now(orders.session), False
        if orders.rate:
            arrivals.cancel()
        return report(self.seen, orders, before, after)

    async def _arrive(self) -> None:
        start, sent = time.monotonic(), 0
        connecting: set[asyncio.Task[None]] = set()
        while True:
            now = time.monotonic()
            due = int((now - start) * self._orders.rate)
            if due > sent:
                self.seen.lag_s = max(self.seen.lag_s, now - start - (sent + 1) / self._orders.rate)
            for number in range(sent + 1, due + 1):
                at = start + number / self._orders.rate
                self.seen.arrivals += 1
                if free := self._take():
                    self._send(free, at)
                elif self._all < self._orders.most_connections:
                    task = asyncio.create_task(self._send_on_new(at))
                    connecting.add(task)
                    task.add_done_callback(connecting.discard)
                else:
                    self.seen.lost += 1
            sent = due
            await asyncio.sleep(OPEN_EVERY_S)

    def _take(self) -> Connection | None:
        while self._free:
            if (one := self._free.pop()).open:
                return one
        return None

    async def _send_on_new(self, at: float) -> None:
        try:
            self._send(await self.connect(), at)
        except OSError:
            self._broken()

    def _send(self, one: Connection, at: float) -> None:
        one.send(at)
        self.seen.sent += 1


def report(seen: Seen, orders: Orders, before: Clocks, after: Clocks) -> dict[str, Any]:
    """Per second and per answer; latencies are those of status 200."""
    seconds, server_s = after.wall_s - before.wall_s, after.server_s - before.server_s
    latencies = sorted(seen.latencies_s)
    answered = sum(seen.statuses.values())
    quantiles = {
        name: round(1000 * latencies[int(q * (len(latencies) - 1))], 3) for name, q in QUANTILES.items() if latencies
    }
    return {
        "requests_per_s": len(latencies) / seconds,
        "good_per_s": sum(latency <= orders.limit_s for latency in latencies) / seconds,
        "cpu_ms": 1000 * server_s / max(answered, 1),
        "server_cores": server_s / seconds,
        "client_cores": (after.own_s - before.own_s) / seconds,
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "arrivals": seen.arrivals,
        "sent_per_s": seen.sent / seconds,
        "lost": seen.lost,
        "broken": seen.broken,
        "lag_ms": round(1000 * seen.lag_s, 1),
        **quantiles,
    }


async def _run(orders: Orders) -> dict[str, Any]:
    return await Load(orders, Path(orders.request).read_bytes()).run()


def main() -> None:
    """Orders in, report out."""
    orders = Orders(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_run(orders))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
