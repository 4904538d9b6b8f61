"""A WebSocket client that costs next to nothing: prebuilt masked frames, text answers, pings answered."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def masked(payload: bytes, opcode: int = BINARY) -> bytes:
    """One client's frame, ready to be written."""
    key = os.urandom(4)
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    data = np.frombuffer(payload, np.uint8)
    return head + key + (data ^ np.resize(np.frombuffer(key, np.uint8), size)).tobytes()


class WebSocketClient(asyncio.Protocol):
    """`said(text)` gets every text message; `ended` is set with the close code (0: none) when it is over."""

    def __init__(self, path: str, said: Callable[[bytes], None]) -> None:
        self._path, self._said, self._rest, self._open = path, said, b"", False
        self._transport: Any = None
        self.code = 0
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, port: int, path: str, said: Callable[[bytes], None]) -> WebSocketClient:
        """On its way: the first message says that it is open."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: cls(path, said), "127.0.0.1", port)
        return client

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        words = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = "Sec-WebSocket-Key: ZnJhbWVnYXRlLWJlbmNoLg==\r\n"
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{words}{key}\r\n".encode())

    def send(self, frame: bytes) -> None:
        """A frame of `masked`."""
        self._transport.write(frame)

    def close(self) -> None:
        """Without a word: the server sees the connection end."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        start = 0
        if not self._open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(f"no WebSocket at {self._path}: {data[:200]!r}")
            self._open, start = True, end + 4
        while len(data) - start >= 2:
            size, head = data[start + 1], 2
            if size == 126:
                size, head = int.from_bytes(data[start + 2 : start + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(data[start + 2 : start + 10], "big"), 10
            if len(data) < start + head + size:
                break
            self._message(data[start] & 15, data[start + head : start + head + size])
            start += head + size
        self._rest = data[start:]

    def _message(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._said(payload)
        elif opcode == PING:
            self.send(masked(payload, PONG))
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big")
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(self.code)
