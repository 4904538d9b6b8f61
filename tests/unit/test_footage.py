"""Streams of encoded video: which frame is decoded when, and what is refused."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from framegate.bench.camera import (
    CameraSettings,
    drive,
)
from framegate.bench.clock import VirtualClock, WallClock
from framegate.bench.footage import VideoSource, read_footage
from framegate.bench.load import cameras
from framegate.bench.scenario import (
    Lanes,
)
from framegate.contract import MediaError
from tests.bundles import SPEC
from tests.paced import fake

FAST = CameraSettings(jitter_ms=0, confirm_seconds=25, confirm_runs=3, search_seconds=2, resolution=0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames at 20 fps, each of its own grey; a key frame every 8."""
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"crf": "10", "bf": "0", "g": "8", "x264-params": "scenecut=0"}
        for k in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 5 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_streams_of_video_decode_the_frame_of_their_tick(video: Path) -> None:
    footage = read_footage(video)
    assert footage.codec == "h264" and len(footage.packets) == 40 and footage.keys == (0, 8, 16, 24, 32)
    source = VideoSource(footage, SPEC, 3, VirtualClock())
    starts = [0, 7919 % 40, 2 * 7919 % 40]
    for numbers in ([0, 0, 0], [1, 4, 2], [25, 5, 30]):  # frames between them were dropped
        frames = source.take([0, 1, 2], numbers)
        for frame, start, number in zip(frames, starts, numbers, strict=True):
            expected = 20 + 5 * ((start + 2 * number) % 40)  # 20 fps of video, 10 of the clip: every other frame
            assert frame.shape == (16, 16, 3) and abs(float(frame.mean()) - expected) < 3


def test_a_stream_of_video_does_not_catch_up_in_its_first_frame(video: Path) -> None:
    class Counted(tuple):
        asked = 0

        def __getitem__(self, number: int) -> bytes:
            self.asked += 1
            return super().__getitem__(number)

    packets = Counted(read_footage(video).packets)
    source = VideoSource(replace(read_footage(video), packets=packets), SPEC, 2, VirtualClock())
    before = packets.asked
    source.take([1], [0])
    assert before > 0 and packets.asked == before + 1
    source.take([1], [3])  # three ticks of 10 fps are six packets of 20
    assert packets.asked == before + 7


def test_video_with_b_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"bf": "3", "b-adapt": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="B-frames"):
        read_footage(path)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"x.mp4: not a video"):
        read_footage(tmp_path / "x.mp4")


def test_video_streams_take_time_to_decode(video: Path) -> None:
    lanes = Lanes(fake(), VideoSource(read_footage(video), SPEC, 2, WallClock()), 2)
    run = drive(lanes, cameras(2, 10, 5, 0, np.random.default_rng(0)), FAST, WallClock())
    assert run.failed_share < 1 and run.phase_ns["decode"] > 0 and run.phase_ns["resize"] > 0
