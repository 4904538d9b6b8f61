"""An answered frame with what was answered drawn on it. ASCII only: the letters are OpenCV's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from framegate.video import Pixels

PICTURE_WIDTH = 1280  # at most
SMALLEST = (320, 240)  # width, height: below it letters cannot be read
BARS = 3
FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, PALE, BAR, ALARM = (255, 255, 255), (150, 150, 150), (64, 160, 255), (255, 72, 72)


@dataclass(frozen=True, slots=True)
class Picture:
    """An answered frame u8 [h,w,3] RGB: all labels with their shares, and the label of the alert that is on."""

    camera: str
    pixels: Pixels
    time_s: float
    shares: tuple[tuple[str, float], ...]
    alert: str | None


class Screen(Protocol):
    """Where pictures go: a file or a window. Called from a thread, one call at a time."""

    def add(self, picture: Picture) -> None:
        """Show or write it; FramegateError, OSError or ValueError: no more can be."""
        ...

    def close(self) -> None:
        """No more pictures."""
        ...


def draw(picture: Picture) -> Pixels:
    """u8 [h,w,3] RGB: camera and time above, bars of the likeliest labels below, a red frame while an alert is on."""
    canvas = _enlarged(picture.pixels)
    height, width = canvas.shape[:2]
    line = max(16, height // 20)
    top = sorted(picture.shares, key=lambda share: -share[1])[:BARS]
    canvas[:line] //= 3
    canvas[height - line * len(top) :] //= 3
    minutes, seconds = divmod(picture.time_s, 60)
    _write(canvas, f"{picture.camera}  {int(minutes):02d}:{seconds:04.1f}", 4, line - 4, line, WHITE)
    if picture.alert:
        words = f"ALERT {picture.alert}"
        _write(canvas, words, width - _width(words, line) - 4, line - 4, line, ALARM)
        cv2.rectangle(canvas, (0, 0), (width - 1, height - 1), ALARM, max(2, line // 6))
    longest = max(_width(f"{100:5.1f} % {label}", line) for label, _ in picture.shares)
    left = min(max(width // 2, 4 + longest + 8), width * 3 // 4)  # of the bars: the same in all pictures of a camera
    for row, (label, share) in enumerate(top):
        base = height - line * (len(top) - row)
        length = round((width - left - 4) * share)
        if length:
            cv2.rectangle(canvas, (left, base + 4), (left + length, base + line - 4), BAR, -1)
        _write(canvas, f"{100 * share:5.1f} % {label}", 4, base + line - 4, line, WHITE if row == 0 else PALE)
    return canvas


def _enlarged(pixels: Pixels) -> Pixels:
    """A copy, at least SMALLEST, with even sides, as H.264 wants them."""
    height, width = pixels.shape[:2]
    scale = max(1.0, SMALLEST[0] / width, SMALLEST[1] / height)
    size = (round(width * scale) // 2 * 2, round(height * scale) // 2 * 2)
    if size == (width, height):
        return pixels.copy()
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _write(canvas: Pixels, words: str, x: int, y: int, line: int, color: tuple[int, int, int]) -> None:
    cv2.putText(canvas, _ascii(words), (x, y), FONT, line / 32, color, 1, cv2.LINE_AA)


def _width(words: str, line: int) -> int:
    return int(cv2.getTextSize(_ascii(words), FONT, line / 32, 1)[0][0])


def _ascii(words: str) -> str:
    return words.encode("ascii", "replace").decode()
