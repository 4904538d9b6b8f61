"""`--show`: a window with all cameras. Tk lives in the thread of the event loop; pictures come from others."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from framegate.contract import ConfigError
from framegate.video import Pixels
from framegate.watch.picture import Picture, draw

if TYPE_CHECKING:  # it needs tkinter, which is needed for a window only
    from PIL import ImageTk

PAUSE_S = 0.03
PANE = (640, 360)  # width, height of one camera among several; one alone has twice as much


class Window:
    """A pane for each camera. ConfigError without Tk or a display."""

    def __init__(self, cameras: Sequence[str]) -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError:
            raise ConfigError("--show needs tkinter: install python3-tk, or write a video with --annotate") from None
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise ConfigError(f"--show needs a display: {error}; write a video with --annotate instead") from None
        self._photo = ImageTk.PhotoImage
        self._root.title("framegate watch")
        self.closed = False
        self._root.protocol("WM_DELETE_WINDOW", self._shut)
        columns = math.ceil(math.sqrt(len(cameras)))
        self.panes = [Pane(2 if len(cameras) == 1 else 1) for _ in cameras]
        self._labels = [
            tkinter.Label(self._root, text=name, background="black", foreground="white") for name in cameras
        ]
        for number, label in enumerate(self._labels):
            label.grid(row=number // columns, column=number % columns, sticky="nsew")

    async def run(self, stop: asyncio.Event) -> None:
        """Show what comes until stopped; closing the window stops the watching."""
        while not stop.is_set():
            self.refresh()
            if self.closed:
                stop.set()
            await asyncio.sleep(PAUSE_S)

    def refresh(self) -> None:
        """The newest picture of each camera, and what the user did."""
        for pane, label in zip(self.panes, self._labels, strict=True):
            newest, pane.newest = pane.newest, None
            if newest is not None:
                photo = self._photo(Image.fromarray(newest), master=self._root)
                label.configure(image=photo)
                pane.photo = photo  # Tk keeps none
        self._root.update()

    def close(self) -> None:
        """The window goes away, and with it Tk: freed later, from another thread, it would abort the program."""
        for pane in self.panes:
            pane.photo = None
        self._root.destroy()
        self._labels.clear()
        del self._root

    def _shut(self) -> None:
        self.closed = True


class Pane:
    """One camera's place in the window: a Screen."""

    def __init__(self, scale: int) -> None:
        self.newest: Pixels | None = None
        self.photo: ImageTk.PhotoImage | None = None
        self._scale = scale

    def add(self, picture: Picture) -> None:
        """Keep the newest."""
        canvas = draw(picture)
        height, width = canvas.shape[:2]
        scale = self._scale * min(PANE[0] / width, PANE[1] / height)
        if scale < 1:
            size = (round(width * scale), round(height * scale))
            canvas = np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
        self.newest = canvas

    def close(self) -> None:
        """The last picture stays."""
