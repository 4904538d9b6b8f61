"""Videos whose colour is their label, and `framegate watch` on them in this process."""

import asyncio
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from framegate.serve.model import Source
from framegate.watch.cameras import find_cameras
from framegate.watch.run import Settings, watch

COLORS = {"r": (200, 40, 40), "g": (40, 200, 40), "b": (40, 40, 200), "k": (0, 0, 0)}
Event = dict[str, Any]


def picture(color: str, number: int, size: tuple[int, int] = (64, 48), noise: int = 20) -> NDArray[np.uint8]:
    """u8 [h,w,3] in a colour of COLORS, every number a little different."""
    rng = np.random.default_rng(number)
    pixels = np.array(COLORS[color]) + rng.integers(-noise, noise + 1, (size[1], size[0], 1))
    return pixels.clip(0, 255).astype(np.uint8)


def film(
    path: Path, colors: str, fps: float = 10, size: tuple[int, int] = (64, 48), noise: int = 20, same: bool = False
) -> Path:
    """A video, a letter of COLORS a frame; `same`: all frames of a colour are one picture."""
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, color in enumerate(colors):
            pixels = picture(color, 0 if same else number, size, noise)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def settings(bundle: Path, sources: Sequence[str | Path], given: dict[str, Any] | None = None, **more: Any) -> Settings:
    """As `framegate watch --accept-host` makes them."""
    cameras = find_cameras([str(source) for source in sources], given or {})
    return Settings(Source(bundle, accept_host=True), cameras, **more)


def events_of(found: Settings, code: int = 0) -> list[Event]:
    """Watch to the end."""
    out = io.StringIO()
    assert asyncio.run(watch(found, out)) == code
    return [json.loads(line) for line in out.getvalue().splitlines()]


class Listener(io.StringIO):
    """Collects lines; when they fulfil the condition this process gets SIGTERM, once, as by `kill`."""

    def __init__(self, enough: Callable[[list[Event]], object]) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.enough = self._killed = False
        self._condition = enough

    def write(self, text: str) -> int:
        if text.strip():
            self.events.append(json.loads(text))
            if not self._killed and self._condition(self.events):
                self.enough = True
                self.kill()
        return len(text)

    def kill(self) -> None:
        self._killed = True
        os.kill(os.getpid(), signal.SIGTERM)


def watch_until(found: Settings, enough: Callable[[list[Event]], object], code: int = 0) -> list[Event]:
    """Watch until the events so far are enough; fails when a minute was not long enough."""
    listener = Listener(enough)
    late = threading.Timer(60, listener.kill)
    late.start()
    try:
        assert asyncio.run(watch(found, listener)) == code
        assert listener.enough, listener.events
    finally:
        late.cancel()
        late.join()
    return listener.events


def named(events: Sequence[Event], *names: str) -> list[Event]:
    """Only events of these names."""
    return [event for event in events if event["event"] in names]
