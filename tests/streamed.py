"""Cameras on this machine: MJPEG over HTTP and H.264 over RTSP, that play a script and can break off."""

import base64
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import simplejpeg

from tests.watched import picture


@dataclass
class Script:
    """What each connection does, in turn, the last one again and again: letters are frames of that colour.

    `!` cuts the connection, `~` keeps it open and silent, `x` at the start refuses it, `?` sends what is no picture.
    """

    connections: Sequence[str]
    fps: float = 20.0
    password: str = ""  # of the user `me`
    asked: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def next(self) -> str:
        self.asked += 1
        return self.connections[min(self.asked, len(self.connections)) - 1]

    def play(self, letters: str, send: Callable[[str, int], None]) -> None:
        for number, letter in enumerate(letters):
            if self.stop.is_set() or letter == "!":
                return
            if letter == "~":
                self.stop.wait(60)
                return
            send(letter, number)
            self.stop.wait(1 / self.fps)

    def allows(self, headers: str) -> bool:
        token = base64.b64encode(f"me:{self.password}".encode()).decode()
        return not self.password or f"Basic {token}" in headers


@contextmanager
def mjpeg(script: Script) -> Iterator[str]:
    """The URL of a server that sends pictures as most cheap cameras do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = script.allows(str(self.headers))
            letters = script.next() if allowed else ""
            if letters.startswith("x") or not allowed:
                self.send_response(503 if letters.startswith("x") else 401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with suppress(OSError):
                script.play(letters, self.send)

        def send(self, letter: str, number: int) -> None:
            data = b"no picture" if letter == "?" else simplejpeg.encode_jpeg(picture(letter, number), 95)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with _running(server, script):
        yield f"http://127.0.0.1:{server.server_address[1]}/video"


@contextmanager
def _running(server: socketserver.TCPServer, script: Script) -> Iterator[None]:
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        script.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


# --- RTSP ---------------------------------------------------------------------------------------

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n"
)


class Encoder:
    """Pictures -> RTP packets of H.264 (RFC 6184, single NAL units), every frame a key frame."""

    def __init__(self, fps: float) -> None:
        self.codec = av.CodecContext.create("libx264", "w")
        self.codec.width, self.codec.height, self.codec.pix_fmt = 64, 48, "yuv420p"
        self.codec.time_base, self.codec.framerate = Fraction(1, 90000), Fraction(fps).limit_denominator(1000)
        self.codec.options = {"tune": "zerolatency", "g": "1", "bf": "0"}
        self.sequence, self.step = 0, round(90000 / fps)

    def packets(self, letter: str, number: int) -> Iterator[bytes]:
        frame = av.VideoFrame.from_ndarray(picture(letter, number), format="rgb24")
        frame.pts = number * self.step
        for packet in self.codec.encode(frame):
            units = [unit for unit in bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
            for position, unit in enumerate(units):
                marker = 0x80 if position == len(units) - 1 else 0
                yield struct.pack(">BBHII", 0x80, 96 | marker, self.sequence & 0xFFFF, number * self.step, 7) + unit
                self.sequence += 1


@contextmanager
def rtsp(script: Script) -> Iterator[str]:
    """The URL of an RTSP server (RFC 2326) that sends RTP within its TCP connection."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            letters = script.next()
            with suppress(OSError):
                while not script.stop.is_set() and self.answer(letters):
                    pass

        def answer(self, letters: str) -> bool:
            lines = []
            while line := self.rfile.readline().decode().strip():
                lines.append(line)
            if not lines:
                return False
            method, sequence = lines[0].split()[0], next(line for line in lines if line.startswith("CSeq"))
            if letters.startswith("x"):
                self.reply("503 Service Unavailable", sequence)
                return False
            if not script.allows("\n".join(lines)):
                self.reply("401 Unauthorized", sequence, 'WWW-Authenticate: Basic realm="camera"')
                return True
            told = {
                "OPTIONS": ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"],
                "SETUP": ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 12345678"],
                "PLAY": ["Session: 12345678"],
            }
            body = SDP if method == "DESCRIBE" else ""
            self.reply("200 OK", sequence, *told.get(method, []), body=body)
            if method == "PLAY":
                encoder = Encoder(script.fps)
                script.play(letters, lambda letter, number: self.send(encoder, letter, number))
            return method not in ("PLAY", "TEARDOWN")

        def reply(self, status: str, *headers: str, body: str = "") -> None:
            more = ["Content-Type: application/sdp", f"Content-Length: {len(body)}"] if body else []
            self.wfile.write("\r\n".join([f"RTSP/1.0 {status}", *headers, *more, "", body]).encode())

        def send(self, encoder: Encoder, letter: str, number: int) -> None:
            for packet in encoder.packets(letter, number):
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

    server = Server(("127.0.0.1", 0), Handler)
    with _running(server, script):
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/stream"


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
