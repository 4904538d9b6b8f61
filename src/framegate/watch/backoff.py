"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """1 s, 2 s, 4 s ... `most_s`, each shortened by chance by up to a half so that not all come back at once."""

    def __init__(self, first_s: float = 1.0, most_s: float = 60.0, draw: Callable[[], float] = random.random) -> None:
        self._first_s, self._most_s, self._draw = first_s, most_s, draw
        self._wait_s = 0.0

    def next(self, lasted_s: float = 0.0) -> float:
        """Seconds to wait; `lasted_s`: how long it went well. Longer than the last wait, and it begins at the start."""
        again = 0 < self._wait_s >= lasted_s
        self._wait_s = min(2 * self._wait_s, self._most_s) if again else self._first_s
        return self._wait_s * (1 - self._draw() / 2)
