"""`WS /v1/streams/{model}`: frames in, answers out, one live stream per connection.

Client: binary messages are frames (JPEG, PNG, WebP); text is control: `t` (seconds), `"reset": true`, `"end": true`.
Server: `{"event": "ready"}`, then answers `{"seq", "t", "labels", "dropped", "version", "latency_ms"}`, between them
`{"event": "reset" | "error" | "end"}`. Close codes: 1000 after the end, 1008 wrong control, 1009 too big (below the
application), 1012 the server stops, 1013 too many streams, 4404 unknown model.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from framegate.contract import MediaError
from framegate.media import SENT_FORMATS, decode_image, resize
from framegate.runtime.session import Frames
from framegate.serve.engine import Engine, Stream
from framegate.serve.errors import BadRequest, Overloaded, ServeError, Stopping, UnknownModel
from framegate.serve.live import Answer, Event, Live, Refused, Reset
from framegate.timeline import Shares

SEND_TIMEOUT_S = 30.0  # a client that reads nothing for so long is gone
GIVEN_UP_AFTER = 100  # frames in a row that are none
FPS = (0.001, 1000.0)  # from, to
TOP = (1.0, 1e6)
TIME_S = 1e10  # at most, either way of 0: Unix time is less, and differences are exact to microseconds
CLOSED = {UnknownModel: 4404, Stopping: 1012, Overloaded: 1013, BadRequest: 1008}


def ranked(shares: Shares, labels: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The `top` labels by falling probability, as JSON has them."""
    order = shares.argsort()[::-1][:top]
    return [{"name": labels[i], "probability": round(float(shares[i]), 4)} for i in order]


async def serve_stream(socket: WebSocket, engine: Engine, name: str) -> None:
    """One connection, from accept to close."""
    await socket.accept()  # the guard says which subprotocol
    try:
        engine.refuse_when_stopping()
        engine.find(name)
        fps, top = _number(socket, "fps", *FPS), _number(socket, "top", *TOP) or 3
        stream = engine.open_stream("live")
    except ServeError as error:
        return await _close(socket, CLOSED[type(error)], str(error))
    try:
        await _Connection(socket, engine, stream, fps, int(top)).run()
    finally:
        stream.close()


def _number(socket: WebSocket, key: str, least: float, most: float) -> float | None:
    """A number of the query string, None without one; BadRequest beyond its ends."""
    text = socket.query_params.get(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise BadRequest(f"{key}={text[:40]!r}: expected a number from {least:g} to {most:.0f}")
    return value


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    await socket.close(code, reason.encode()[:120].decode(errors="ignore"))  # a close frame holds 123 bytes


def _is_control(said: Any) -> bool:
    if not isinstance(said, dict):
        return False
    time_s, others = said.get("t", 0.0), said.keys() - {"t"}
    timed = isinstance(time_s, int | float) and not isinstance(time_s, bool) and abs(time_s) <= TIME_S
    return bool(said) and timed and all(key in ("reset", "end") and said[key] is True for key in others)


class _Connection:
    def __init__(self, socket: WebSocket, engine: Engine, stream: Stream, fps: float | None, top: int) -> None:
        self._socket, self._engine, self._stream = socket, engine, stream
        self._fps, self._top = fps, top
        self._live = Live(engine, stream)
        self._time_s: float | None = None  # of the next frame, when the client says it
        self._timed = False  # it does
        self._start_s = 0.0  # of the first frame, on the client's clock
        self._refused = 0

    async def run(self) -> None:
        ready = {"event": "ready", "model": self._engine.name, **self._facts()}
        writer = asyncio.create_task(self._write(ready))
        reader = asyncio.create_task(self._read())
        stopping = asyncio.create_task(self._engine.stopping.wait())
        try:
            done, _ = await asyncio.wait({writer, reader, stopping}, return_when=asyncio.FIRST_COMPLETED)
            code, reason = 1000, "" if reader not in done else reader.result()
            if reason:
                code = 1008
            elif writer in done:
                code, reason = 1008, f"{GIVEN_UP_AFTER} frames in a row were none"
            elif stopping in done:
                code, reason = 1012, "the server stops; connect again"
            reader.cancel()  # what comes now is not accepted any more
            self._live.finish()
            await writer  # what was accepted is answered
            await _close(self._socket, code, reason)
        except (WebSocketDisconnect, RuntimeError, TimeoutError) as error:
            # The client is gone: RuntimeError is Starlette's for a send after that. A task keeps it, by its traceback
            # this call, and so the task: a circle, with the last frame in it
            error.__traceback__ = None
        finally:
            for task in (writer, reader, stopping):
                task.cancel()
            await asyncio.gather(writer, reader, stopping, return_exceptions=True)

    def _facts(self) -> dict[str, Any]:
        model = self._stream.model
        clip = {"height": model.clip.height, "width": model.clip.width, "fps": model.clip.fps}
        return {"version": model.version, "labels": model.labels, "clip": clip}

    # --- in -----------------------------------------------------------------------------------

    async def _read(self) -> str:
        """Take messages until the end; why the client is to be told to go, or an empty string."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            try:
                if (data := message.get("bytes")) is not None:
                    self._frame(data)
                elif self._control(message.get("text") or ""):
                    return ""
            except ValueError as error:
                return str(error)

    def _frame(self, data: bytes) -> None:
        time_s, self._time_s = self._time_s, None
        seq = self._live.received
        self._check_timed(seq, time_s is not None)
        if seq == 0 and time_s is not None:
            self._start_s = time_s
        if time_s is None and self._fps is not None:
            time_s = seq / self._fps

        stream, limits = self._stream, self._engine.limits.media  # not self: a circle would keep the last frame

        def load() -> Frames:
            return resize(decode_image(data, limits, f"frame {seq}", SENT_FORMATS), stream.model.clip)

        self._live.offer(time.monotonic() if time_s is None else time_s, load, exact=time_s is not None)

    def _check_timed(self, seq: int, timed: bool) -> None:
        """ValueError when a client says the times of some frames only: two clocks cannot be put in order."""
        if seq and timed != self._timed:
            raise ValueError(f'frame {seq} came with{"" if timed else "out"} "t", those before the other way round')
        self._timed = timed

    def _control(self, text: str) -> bool:
        """Whether it is the end. ValueError for anything that is no control message."""
        try:
            said = orjson.loads(text)
        except orjson.JSONDecodeError:
            said = None
        if not _is_control(said):
            times = f"{-TIME_S:g} to {TIME_S:g}"
            raise ValueError(
                f'{text[:60]!r}: expected {{"t": seconds}} ({times}), {{"reset": true}} or {{"end": true}}'
            )
        if "reset" in said:
            self._live.restart("client")
        if "t" in said:
            self._time_s = float(said["t"])
        return "end" in said

    # --- out ----------------------------------------------------------------------------------

    async def _write(self, ready: dict[str, Any]) -> None:
        await self._send(ready)
        async with aclosing(self._live.events()) as events:
            async for event in events:
                await self._send(self._words(event))
                if self._refused >= GIVEN_UP_AFTER:
                    break
        await self._send({"event": "end", "frames": self._live.received, "dropped": self._live.dropped})

    async def _send(self, message: dict[str, Any]) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._socket.send_text(orjson.dumps(message).decode())

    def _words(self, event: Event) -> dict[str, Any]:
        match event:
            case Answer():
                self._refused = 0
                return {
                    "seq": event.seq,
                    "t": self._clock(event.time_s),
                    "labels": ranked(event.shares, self._stream.model.labels, self._top),
                    "dropped": event.dropped,
                    "version": event.version,
                    "latency_ms": round(1000 * event.latency_s, 2),
                }
            case Reset():
                return {"event": "reset", "reason": event.reason, "t": self._clock(event.time_s), **self._facts()}
            case Refused():
                self._refused += isinstance(event.error, MediaError)
                return {"event": "error", "seq": event.seq, "error": str(event.error)}

    def _clock(self, since_first_s: float) -> float:
        """The client's time."""
        return round(self._start_s + since_first_s, 3)
