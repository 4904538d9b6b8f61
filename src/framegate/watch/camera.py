"""One camera at work: its frames on their way to the model, and what is told of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from framegate.alerts import Alert, AlertEnd, Alerts
from framegate.contract import FramegateError, MediaError
from framegate.media import resize
from framegate.runtime.session import Frames
from framegate.serve.engine import Engine
from framegate.serve.live import Answer, Live, Load, Refused, Reset
from framegate.video import Pixels, TimedFrame
from framegate.watch.cameras import Camera, check_labels
from framegate.watch.feed import FAILURES, why
from framegate.watch.health import Change, Health, Look, look_at
from framegate.watch.line import Line, Pace
from framegate.watch.picture import PICTURE_WIDTH, Picture, Screen


class Tell(Protocol):
    """Where events go."""

    def __call__(self, event: str, **facts: Any) -> None: ...


@dataclass(slots=True)
class Tally:
    """What a camera did so far."""

    connected: bool = False
    frames: int = 0
    answers: int = 0
    dropped: int = 0
    refused: int = 0
    alerts: int = 0
    disconnections: int = 0
    fps: float | None = None
    problems: list[str] = field(default_factory=list)


class Watched:
    """Runs one camera until it ends, fails for good, or `stop` is set."""

    def __init__(
        self,
        engine: Engine,
        camera: Camera,
        pace: Pace,
        tell: Tell,
        stop: asyncio.Event,
        screens: Sequence[Screen] = (),
    ) -> None:
        self.camera, self.tally, self.time_s = camera, Tally(), 0.0
        self._tell, self._screens = tell, list(screens)
        self._stream = engine.open_stream("camera")
        self._live = Live(engine, self._stream)
        self._line = Line(camera, pace, stop, self)
        self._health = Health(camera.bounds(self._stream.model.clip.fps, None))
        self._nominal_fps: float | None = None
        self._alerts = self._new_alerts()
        self._alert: str | None = None  # the label of the one that is on
        self._look: Look | None = None
        self._pixels: Pixels | None = None
        self._said = ""  # the last refusal, told once
        self._version = self._stream.model.version  # of the last answer

    def _new_alerts(self) -> Alerts:
        model = self._stream.model
        return Alerts(model.labels, model.clip.fps, self.camera.rules(model.labels))

    async def run(self) -> bool:
        """Whether it ended well. Whatever goes wrong with one camera stays its own."""
        try:
            error = await self._run()
        except Exception as raised:
            error = raised
        self._stream.close()
        for screen in self._screens:
            await self._on_screen(screen, None)
        self.tally.connected = False
        counts = {name: getattr(self.tally, name) for name in ("frames", "answers", "dropped", "alerts")}
        self._tell("end", **counts, **({"error": text(error)} if error else {}))
        return error is None

    async def _run(self) -> Exception | None:
        answering, reading = asyncio.create_task(self._answer_all()), asyncio.create_task(self._line.run())
        await asyncio.wait({answering, reading}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():  # before the frames ended: the model broke down
            reading.cancel()
            await asyncio.wait({reading})
        else:
            self._live.finish()
        await answering
        self._told(self._alerts.end())
        return await reading

    # --- what the line gives ------------------------------------------------------------------

    def connected(self, frame: TimedFrame, nominal_fps: float | None) -> None:
        """See Taker."""
        again, self.tally.connected = self.tally.connected, True
        self._nominal_fps = nominal_fps if self.camera.address.live else None  # a file gives all that it has
        self._health.bounds = self.camera.bounds(self._stream.model.clip.fps, self._nominal_fps)
        self._health.restart()
        if again:  # a file in a loop
            return
        height, width = frame.size
        self._tell("connected", source=self.camera.address.shown, width=width, height=height, fps=nominal_fps)

    def disconnected(self, error: Exception, retry_s: float) -> None:
        """See Taker."""
        self.tally.connected = False
        self.tally.disconnections += 1
        self._tell("disconnected", reason=text(error), retry_s=round(retry_s, 1))

    def again(self) -> None:
        """See Taker."""
        self._live.restart("gap")

    async def room(self) -> None:
        """See Taker."""
        await self._live.room()

    def take(self, time_s: float, frame: TimedFrame, received: int) -> None:
        """See Taker."""
        self.time_s, self.tally.frames = time_s, received
        self._changed(self._health.count(time_s, received), time_s)
        self._live.offer(time_s, self._load(time_s, frame), exact=not self.camera.address.live)

    def _load(self, time_s: float, frame: TimedFrame) -> Load:
        """Runs in a thread, for the frames that the model gets, one at a time."""

        def load() -> Frames:
            try:
                whole = frame.rgb()
                pixels = resize(whole, self._stream.model.clip)
            except (*FAILURES, cv2.error) as error:
                raise MediaError(self.camera.address.shown, why(error)) from None
            self._look = look_at(pixels, time_s)
            self._pixels = _shrunk(whole) if self._screens else None
            return pixels

        return load

    # --- what the model answers ---------------------------------------------------------------

    async def _answer_all(self) -> None:
        async for event in self._live.events():
            match event:
                case Answer():
                    await self._answered(event)
                case Reset():
                    self._restarted(event)
                case Refused():
                    self._refused(event)

    async def _answered(self, answer: Answer) -> None:
        labels = self._stream.model.labels
        self._version = answer.version
        self.tally.answers, self.tally.dropped = self.tally.answers + 1, answer.dropped
        if self._look:
            self._changed(self._health.see(self._look), answer.time_s)
            self._look = None
        top = int(answer.shares.argmax())
        confidence = float(answer.shares[top])
        self._tell(
            "answer",
            t=round(answer.time_s, 3),
            label=labels[top],
            probability=round(confidence, 4),
            dropped=answer.dropped,
            version=answer.version,
            latency_ms=round(1000 * answer.latency_s, 1),
        )
        self._told(self._alerts.push(answer.time_s, top, confidence))
        if self._screens and self._pixels is not None:
            shares = tuple(zip(labels, map(float, answer.shares), strict=True))
            picture = Picture(self.camera.name, self._pixels, answer.time_s, shares, self._alert)
            for screen in list(self._screens):
                await self._on_screen(screen, picture)

    async def _on_screen(self, screen: Screen, picture: Picture | None) -> None:
        """A picture, or the end of them; a screen that fails is given up, the camera goes on."""
        try:
            await asyncio.to_thread(*((screen.add, picture) if picture else (screen.close,)))
        except (FramegateError, OSError, ValueError, cv2.error) as error:
            self._screens.remove(screen)
            self._tell("error", error=f"no more pictures: {text(error)}")

    def _restarted(self, reset: Reset) -> None:
        self._told(self._alerts.end())
        self._tell("reset", reason=reset.reason, t=round(reset.time_s, 3), version=reset.version)
        if reset.reason == "version":
            self._alerts = self._new_alerts()
            self._health.bounds = self.camera.bounds(self._stream.model.clip.fps, self._nominal_fps)
            try:
                check_labels([self.camera], self._stream.model.labels)
            except FramegateError as error:
                self._tell("error", error=str(error))

    def _refused(self, refused: Refused) -> None:
        self.tally.refused += 1
        if (said := text(refused.error)) != self._said:
            self._said = said
            self._tell("error", error=said)

    def _told(self, events: Sequence[Alert | AlertEnd]) -> None:
        version = self._version
        for event in events:
            start_s = round(event.start_s, 3)
            if isinstance(event, Alert):
                self.tally.alerts += 1
                self._alert, probability, t = event.label, round(event.confidence, 4), round(event.time_s, 3)
                self._tell("alert", label=event.label, probability=probability, start_s=start_s, t=t, version=version)
            else:
                self._alert, t = None, round(event.end_s, 3)
                length_s = round(event.end_s - event.start_s, 3)
                self._tell("alert_end", label=event.label, start_s=start_s, t=t, duration_s=length_s, version=version)

    def _changed(self, changes: Sequence[Change], time_s: float) -> None:
        self.tally.fps = None if self._health.fps is None else round(self._health.fps, 2)
        self.tally.problems = sorted(self._health.problems)
        for change in changes:
            self._tell("health", **asdict(change), t=round(time_s, 3))


def text(error: Exception) -> str:
    """One line about it; what is not ours with its type."""
    if isinstance(error, FramegateError):
        return str(error)
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"


def _shrunk(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    if width <= PICTURE_WIDTH:
        return pixels
    size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
