"""Whether the server was told to end: by SIGTERM or Ctrl-C, at any time after its command began."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Remembers the signals from when it is made; until then SIGTERM kills, or does nothing to a PID 1."""

    def __init__(self) -> None:
        self.asked = False
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
