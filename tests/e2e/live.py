"""What the tests of the live page drive: a server of its own process, clips of plain colours, a camera that is a file."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).parent.parent.parent
COLORS = {"red": (200, 40, 40), "green": (40, 190, 40), "blue": (40, 40, 200)}
START_S = 60


class LiveServer:
    """`framegate serve` over a bundle whose label is the mean colour; `restart` keeps the port."""

    def __init__(self, folder: Path, bundle: Path, key: str | None = None) -> None:
        self.folder, self.bundle, self.key, self.port = folder, bundle, key, 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "framegate.cli", "serve", *self.arguments(), "--ports-file", str(ports)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        self.port = self.wait_for(ports)

    def arguments(self) -> list[str]:
        secured: list[str] = []
        if self.key:
            keys = self.folder / "keys"
            keys.write_text(f"tests:{hashlib.sha256(self.key.encode()).hexdigest()}\n")
            keys.chmod(0o600)
            secured = ["--keys", str(keys)]
        return ["--bundle", str(self.bundle), "--accept-host", "--port", str(self.port), "--grpc-port", "-1", *secured]

    def wait_for(self, ports: Path) -> int:
        for _ in range(10 * START_S):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode} before it wrote {ports}")
            if ports.exists() and (text := ports.read_text()):
                return int(json.loads(text)["http"])
            time.sleep(0.1)
        self.stop()
        raise TimeoutError(f"the server wrote no {ports} in {START_S} s")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def color_clip(
    path: Path, parts: Sequence[tuple[str, float]], fps: int = 30, size: tuple[int, int] = (320, 240)
) -> Path:
    """A video of plain colours, each for its seconds; the suffix says the codec (.webm, .mp4, .mjpeg)."""
    codec, pixels = {".webm": ("libvpx", "yuv420p"), ".mp4": ("libx264", "yuv420p"), ".mjpeg": ("mjpeg", "yuvj420p")}[
        path.suffix
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        names = [name for name, seconds in parts for _ in range(round(seconds * fps))]
        for number, name in enumerate(names):
            plain = np.full((size[1], size[0], 3), COLORS[name], np.uint8)
            frame = av.VideoFrame.from_ndarray(plain, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tone(path: Path, seconds: float = 4, rate: int = 48_000) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=rate, layout="mono")
        for start in range(0, round(seconds * rate), 960):
            wave = 0.1 * np.sin(2 * np.pi * 440 * np.arange(start, start + 960) / rate)
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
