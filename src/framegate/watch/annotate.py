"""`--annotate`: answered frames as an H.264 video that is there, whole, once the camera ends or is stopped."""

from __future__ import annotations

import re
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from framegate.contract import ConfigError, MediaError, atomic_path
from framegate.video import Pixels
from framegate.watch.feed import FAILURES, why
from framegate.watch.picture import Picture, draw

MILLISECONDS = Fraction(1, 1000)


class Annotation:
    """One video; it has the size of the first picture."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._stack = ExitStack()
        self._container: av.container.OutputContainer | None = None
        self._last_ms = -1

    def add(self, picture: Picture) -> None:
        """MediaError when it cannot be written: then nothing is left behind."""
        canvas = draw(picture)
        try:
            if self._container is None:
                self._open(*canvas.shape[:2])
            self._encode(canvas, picture.time_s)
        except FAILURES as error:
            self._give_up(error)

    def _open(self, height: int, width: int) -> None:
        scratch = self._stack.enter_context(atomic_path(self._path))
        self._container = av.open(str(scratch), "w", format="mp4")
        rate = Fraction(self._fps).limit_denominator(1000)
        self._stream = self._container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "26"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = MILLISECONDS
        self._stream.codec_context.thread_count = 1

    def _encode(self, canvas: Pixels, time_s: float) -> None:
        assert self._container
        size = (self._stream.width, self._stream.height)
        if canvas.shape[1::-1] != size:
            canvas = np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
        frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
        self._last_ms = max(round(1000 * time_s), self._last_ms + 1)
        frame.pts, frame.time_base = self._last_ms, MILLISECONDS
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name; nothing when there was no picture. MediaError when it cannot be."""
        container, self._container = self._container, None
        if container is None:
            return
        try:
            container.mux(self._stream.encode(None))
            container.close()
            self._stack.close()
        except FAILURES as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        found = MediaError(self._path, f"cannot be written: {why(error)}")
        self._container = None
        self._stack.__exit__(MediaError, found, None)
        raise found from None


def annotation_paths(target: Path, cameras: list[str], sources: list[Path]) -> list[Path]:
    """A file for one camera, or one for each in a folder, named after it. ConfigError where one cannot be."""
    if target.suffix.lower() not in ("", ".mp4") and not target.is_dir():
        raise ConfigError(
            f"--annotate {target}: {target.suffix} cannot be written; name a .mp4, or a folder without a dot"
        )
    if target.suffix.lower() != ".mp4":
        paths = [target / f"{_file_name(name)}.mp4" for name in cameras]
    elif len(cameras) == 1:
        paths = [target]
    else:
        raise ConfigError(f"--annotate {target}: there are {len(cameras)} cameras; name a folder, not a file")
    twice = {path for path in paths if paths.count(path) > 1}
    if twice:
        raise ConfigError(f"--annotate: several cameras would write {min(twice)}; give them clearer names")
    own = {source.resolve() for source in sources}
    if wrong := [path for path in paths if path.resolve() in own]:
        raise ConfigError(f"--annotate: {wrong[0]} is what is watched; name another file")
    return paths


def _file_name(camera: str) -> str:
    return re.sub(r"[^\w.-]+", "-", camera).strip("-.") or "camera"
