"""SIGINT and SIGTERM as a wish: what was begun is brought to its end. Light, so that it can be there first."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NUMBERS = (signal.SIGINT, signal.SIGTERM)
Asked = Callable[[], bool]


@contextmanager
def noted() -> Iterator[Asked]:
    """Whether one of them came so far; without it SIGTERM kills, or does nothing to a PID 1."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda got, _: came.append(got)) for number in NUMBERS}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def setting(event: asyncio.Event) -> Iterator[None]:
    """Each of them sets the event, on the running loop; what was done about them before is done again afterwards."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        loop.add_signal_handler(number, event.set)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # at once: by itself another signal would end the program
