"""Streams per core of a bundle, live: from frames in memory, and end to end from 320x240 H.264.

    python -m benchmarks.camera [--bundle exports/shipped] [--index work/index] [--confirm-seconds 60]

One process, pinned to one core, one thread. Every stream sends frames at the clip's rate with a phase and jitter of its
own; the newest frame wins; (missed + dropped) / scheduled must be proved below 0.1 %. Video: every stream has a decoder
of its own and plays test clips, enlarged to 320x240, from packets in memory. The runtime is the promotion's.
"""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import cv2
import numpy as np

from framegate.bench.camera import CameraFound, CameraSettings, capacity, find_frame_streams, find_streams
from framegate.bench.clock import WallClock
from framegate.bench.footage import VideoSource, read_footage
from framegate.bench.host import host_class
from framegate.bench.scenario import FrameSource, Lanes, pin_to_one_core, warm_up
from framegate.bench.scenario_facts import camera_facts
from framegate.index import ShardReader, centre_window
from framegate.runtime.session import Frames, Session, open_session

CLIPS = 64
VIDEO_CLIPS = 20
WIDTH, HEIGHT = 320, 240
X264 = {"crf": "23", "bf": "0", "x264-params": "keyint=20:scenecut=0"}  # a key frame every two seconds


def main() -> None:
    """Print a table, last one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("exports/shipped"))
    parser.add_argument("--runtime", help="default: the promotion's, else ort-cpu")
    parser.add_argument("--index", type=Path, default=Path("work/index"), help="folder of index.json and shards/")
    parser.add_argument("--confirm-seconds", type=float, default=60, help="of each of three confirming runs")
    parser.add_argument("--search-seconds", type=float, default=2)
    parser.add_argument("--deadline-ms", type=float, default=100)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--video-fps", type=int, help="of the encoded video; default: the clip's")
    arguments = parser.parse_args()
    core = pin_to_one_core()  # before anything starts a thread
    cv2.setNumThreads(1)
    runtime = arguments.runtime or promoted_runtime(arguments.bundle)
    session = open_session(arguments.bundle, runtime, threads=1)
    settings = CameraSettings(
        fps=session.clip.fps,
        deadline_ms=arguments.deadline_ms,
        max_batch=arguments.max_batch,
        search_seconds=arguments.search_seconds,
        confirm_seconds=arguments.confirm_seconds,
    )
    clips = some_clips(arguments.index, session)
    print(f"{arguments.bundle} on {runtime}, core {core} of {host_class()['cpu']}, {settings.fps:g} fps per stream")
    found = {"frames": find_frame_streams(session, clips, settings, WallClock())}
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "camera.mp4"
        encode(clips[:VIDEO_CLIPS], path, settings.fps, arguments.video_fps)
        found["video"] = find_video_streams(session, clips, path, settings)
    rows = {name: summary(each, settings) for name, each in found.items()}
    print_table(rows)
    ratio = None if None in (streams := [row["streams"] for row in rows.values()]) else streams[0] / max(streams[1], 1)
    print(
        json.dumps({"runtime": runtime, "core": core, "fps": settings.fps, **rows, "ratio": ratio and round(ratio, 2)})
    )


def promoted_runtime(bundle: Path) -> str:
    """What promotion.json beside the bundle names."""
    promotion = bundle / "promotion.json"
    return str(json.loads(promotion.read_text())["runtime"]) if promotion.is_file() else "ort-cpu"


def some_clips(folder: Path, session: Session) -> Frames:
    """u8 [V,T,H,W,3]: test clips, drawn by a fixed seed."""
    reader = ShardReader(folder / "index.json", folder / "shards")
    index, frames = reader.index, session.clip.frames
    drawn = np.random.default_rng(0).permutation(index.split("test"))[:CLIPS]
    return np.stack([reader.window(int(p), centre_window(index.clips[p].frames, frames), frames) for p in drawn])


def encode(clips: Frames, path: Path, fps: float, video_fps: int | None) -> None:
    """Clips u8 [V,T,H,W,3] in a row as 320x240 H.264 without B-frames, as a camera would send it."""
    rate = Fraction(video_fps or fps).limit_denominator(1000)
    pool = clips.reshape(-1, *clips.shape[2:])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=X264)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for tick in range(int(len(pool) * rate / Fraction(fps))):
            large = cv2.resize(pool[int(tick * fps / rate)], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        container.mux(stream.encode())


def find_video_streams(session: Session, clips: Frames, path: Path, settings: CameraSettings) -> CameraFound:
    """As `find_frame_streams`, with a decoder for every stream."""
    clock, footage = WallClock(), read_footage(path)

    def open_lanes(streams: int) -> Lanes:
        return Lanes(session, VideoSource(footage, session.clip, streams, clock), streams)

    size = sum(map(len, footage.packets))
    print(
        f"video: {footage.width}x{footage.height} {footage.codec}, {footage.fps:g} fps, "
        f"{8 * size * footage.fps / len(footage.packets) / 1000:.0f} kbit/s, key frame every {footage.keys[1]} frames"
    )
    warm_up(session, FrameSource(clips), settings.max_batch)
    return find_streams(open_lanes, settings, clock, capacity(open_lanes(settings.max_batch), settings, clock))


def summary(found: CameraFound, settings: CameraSettings) -> dict[str, Any]:
    """What was confirmed, and how close it was."""
    facts = camera_facts(found.arrays(), settings)
    failed = (facts.missed or 0) + (facts.dropped or 0)
    return {
        "streams": facts.streams,
        "reason": found.reason,
        "tried": found.tried,
        "scheduled": facts.scheduled,
        "missed": facts.missed,
        "dropped": facts.dropped,
        "failed_share": failed / facts.n if facts.n else None,
        "p50_ms": facts.p50_ms,
        "p99_ms": facts.p99_ms,
        "phases_ms": {name: round(ms, 4) for name, ms in facts.settings["phases_ms"].items()},
    }


def show(value: float | None) -> str:
    """Four digits, or unknown."""
    return "unknown" if value is None else f"{value:.4g}"


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """One line per source of frames."""
    print(
        f"{'from':8}{'streams':>9}{'scheduled':>11}{'missed':>8}{'dropped':>9}{'failed':>10}{'p50 ms':>9}{'p99 ms':>9}"
        "  ms per frame"
    )
    for name, row in rows.items():
        phases = ", ".join(f"{phase} {ms:.3f}" for phase, ms in row["phases_ms"].items() if ms)
        print(
            f"{name:8}{show(row['streams']):>9}{row['scheduled']:>11}{row['missed']:>8}{row['dropped']:>9}"
            f"{show(row['failed_share']):>10}{show(row['p50_ms']):>9}{show(row['p99_ms']):>9}  {phases}"
        )
        if row["reason"]:
            print(f"         {row['tried']} streams: {row['reason']}")


if __name__ == "__main__":
    main()
