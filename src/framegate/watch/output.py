"""Where events go: JSON lines for programs, and the webhook."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from framegate.watch.webhook import Webhook, as_json

NOT_POSTED = frozenset({"answer", "status", "webhook", "summary"})  # the last one counts what was posted


class Output:
    """Prints events, and posts the rarer ones. A reader that went away sets `stop`; `check` says so."""

    def __init__(self, stream: TextIO, answers: bool, stop: asyncio.Event) -> None:
        self.webhook: Webhook | None = None
        self._error: OSError | None = None
        self._stream, self._answers, self._stop = stream, answers, stop

    def tell(self, event: str, **facts: Any) -> None:
        """One event, with the time of the clock on the wall."""
        if event == "answer" and not self._answers:
            return
        line = {"event": event, **facts, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        if self.webhook and event not in NOT_POSTED:
            self.webhook.offer(line)
        if self._error:
            return
        try:
            print(as_json(line).decode(), file=self._stream, flush=True)
        except OSError as error:
            self._error = error
            self._stop.set()

    def post_to(self, url: str) -> None:
        """Also send events there; that it fails, or works again, is an event of its own."""
        loop = asyncio.get_running_loop()

        def report(problem: str) -> None:
            told = {"ok": False, "error": problem} if problem else {"ok": True}
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda: self.tell("webhook", **told))

        self.webhook = Webhook(url, report)

    async def close(self) -> dict[str, int]:
        """What waits is sent, within seconds; how much was and was not."""
        if not self.webhook:
            return {}
        await asyncio.to_thread(self.webhook.close)
        return {"posted": self.webhook.count.sent, "not_posted": self.webhook.count.dropped}

    def check(self) -> None:
        """OSError, once, where nobody reads the output."""
        if self._error is None:
            return
        try:
            raise self._error
        finally:
            self._error = None  # it knows this frame, and so all that the frame knows
