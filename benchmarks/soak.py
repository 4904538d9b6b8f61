"""One server under mixed load for a while, every answer compared with an offline replay.

    python -m benchmarks.soak [--minutes 30] [--streams 16] [--bundle exports/shipped]

Streams play labelled test clips in a row over WebSocket, `{"reset": true}` between them, three times as fast as they
were taken, each in an order of its own. Their answers are compared with a replay of the very same JPEG frames through
framegate.runtime.session: a stream that saw another's state or frames cannot agree. Clips with dropped frames are no
exception: their answers are compared with a replay of the frames that were answered. Meanwhile files go to /v1/predict,
compared with `framegate predict`, and sequences through gRPC, compared with the replay. At the end these must hold,
else the exit code is 1: no answer with another top label where the replay's leads at all, at most 0.1 % of answers with
another where it does not, no probability more than 0.05 apart, at most 1 % of the frames dropped, no error, uploads
alike, accuracy of the last third within 2 points of the first, memory level (last third less than 1 % above the middle
one, slope below 5 MB/h), never more than 8 open files above those after the first third.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import simplejpeg
import uvloop
from numpy.typing import NDArray

from benchmarks.camera import HEIGHT, WIDTH, promoted_runtime
from benchmarks.clip_streams import ClipStream, Compared, Found, Partial, Played
from benchmarks.live_serving import QUALITY
from benchmarks.processes import ServerProcess, framegate_serve, two_cores
from benchmarks.websocket_client import masked
from framegate.cli.predict import predict
from framegate.index import ShardReader, centre_window
from framegate.media import MediaLimits, decode_image, resize
from framegate.runtime.session import Session, iterate_steps, open_session
from framegate.timeline import softmax

CLIPS = 240
FASTER = 3.0  # than the clips were taken
SAMPLE_S, TELL_S = 5.0, 60.0
OTHERS_S = 2.0  # from one upload and sequence to the next
LONG_ENOUGH_MIN = 10.0  # before that, memory is still finding its level
MEMORY_MB_PER_HOUR = 5.0  # slope over the last two thirds: 1.7 MB of some 184 in a default run; 0.72 was measured
MEMORY_SHARE = 0.01  # of the last third's median above the middle third's: what still climbs, whatever its slope
FILES_APART = 8  # open files at most against those after the first third: connections of uploads and sequences
DROPPED_SHARE = 0.01  # of frames: 16 streams at three times their rate are no overload, but the host may stumble
DIFFERENCE = 0.05  # of a probability: int8 steps of other batch sizes round differently, another state is far off
UNSURE_SHARE = 0.001  # of answers: another top label where the replay's hardly leads
ACCURACY_POINTS = 2.0
SHARES_APART = 0.02  # of an upload's probability
Report = dict[str, Any]


@dataclass(slots=True)
class Others:
    """What uploads and sequences saw, and what the server took meanwhile."""

    uploads: int = 0
    uploads_unlike: list[str] = field(default_factory=list)
    sequences: Compared = field(default_factory=Compared)
    sequence_count: int = 0
    samples: list[tuple[float, int, int]] = field(default_factory=list)  # (time, resident bytes, open files)


def main() -> int:
    """Print what was found, last one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--bundle", type=Path, default=Path("exports/shipped"))
    parser.add_argument("--index", type=Path, default=Path("work/index"), help="folder of index.json and shards/")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the clips' folder: what is uploaded")
    parser.add_argument("--no-pin", action="store_true", help="let the scheduler choose cores")
    given = parser.parse_args()
    client, core = (None, None) if given.no_pin else two_cores()
    session = open_session(given.bundle, promoted_runtime(given.bundle), threads=1)
    clips, files = prepared(given.index, given.data, session)
    print(f"{given.streams} streams, {given.minutes:g} minutes, load average before: {os.getloadavg()[0]:.2f}")
    with TemporaryDirectory() as scratch:
        options = ["--runtime", session.info.runtime, "--threads", "1", "--accept-host"]
        server, ports = framegate_serve(given.bundle, Path(scratch), core, options)
        if client is not None:
            os.sched_setaffinity(0, {client})
        with server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            start = time.monotonic()
            found, others = runner.run(soak(server, ports, session, clips, files, given))
            end = time.monotonic()
            exit_code = server.stop()
        for partial in found.partial:
            compare_partial(partial, session, found.compared)
        result = {**facts(found, others, start, end), "exit_code": exit_code}
    held = checks(result, given.minutes)
    for name, value in result.items():
        print(f"{name:28}{value}")
    print("\n".join(f"{'holds ' if ok else 'BROKEN'} {text}" for text, ok in held.items()))
    print(json.dumps({**result, "held": all(held.values())}))
    return 0 if all(held.values()) else 1


# --- what is played ---------------------------------------------------------------------------


def prepared(index: Path, data: Path, session: Session) -> tuple[list[Played], list[Path]]:
    """Test clips as JPEG with their replay, and the files that they came from."""
    reader = ShardReader(index / "index.json", index / "shards")
    drawn = np.random.default_rng(0).permutation(reader.index.split("test"))[:CLIPS]
    clips = []
    for position in map(int, drawn):
        clip, frames = reader.index.clips[position], session.clip.frames
        pixels = reader.window(position, centre_window(clip.frames, frames), frames)
        clips.append(played(pixels, session.labels.index(clip.label), session))
    return clips, [data / reader.index.clips[int(position)].id for position in drawn]


def played(frames: NDArray[np.uint8], label: int, session: Session) -> Played:
    """A clip u8 [T,H,W,3] as JPEG frames of 320x240, and what the session says of them."""
    large = [cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for frame in frames]
    images = [simplejpeg.encode_jpeg(frame, quality=QUALITY) for frame in large]
    seen = np.stack([resize(decode_image(one, MediaLimits(), "a frame"), session.clip) for one in images])
    return replayed(label, tuple(masked(one) for one in images), seen, session)


def replayed(label: int, messages: tuple[bytes, ...], seen: NDArray[np.uint8], session: Session) -> Played:
    """What the session says of the frames, from a fresh state on."""
    logits = np.concatenate(list(iterate_steps(session, seen[None])))
    ordered = np.sort(logits, axis=1)
    leads = (ordered[:, -1] - ordered[:, -2]).astype(np.float64)
    return Played(label, messages, seen, softmax(logits), leads)


def compare_partial(partial: Partial, session: Session, compared: Compared) -> None:
    """A clip with drops: what was answered against a replay of just those frames."""
    numbers = sorted(partial.shares)
    if numbers:
        replay = replayed(partial.clip.label, (), partial.clip.pixels[numbers], session)
        for position, number in enumerate(numbers):
            compared.add(partial.shares[number], replay, position)


# --- the load ---------------------------------------------------------------------------------


async def soak(
    server: ServerProcess,
    ports: dict[str, int],
    session: Session,
    clips: list[Played],
    files: list[Path],
    given: argparse.Namespace,
) -> tuple[Found, Others]:
    """Streams, uploads and sequences at once."""
    found, others, until = Found(), Others(), time.monotonic() + 60 * given.minutes
    fps = session.clip.fps
    streams = [ClipStream(clips, session.labels, found, seed) for seed in range(given.streams)]
    draw = random.Random(0)

    def upload() -> None:
        compare_upload(ports["http"], draw.choice(files), session, others)

    def sequence() -> None:
        step_sequence(ports["grpc"], draw.choice(clips), others)

    def sample() -> None:
        others.samples.append((time.monotonic(), server.rss_bytes, server.open_files))

    def tell() -> None:
        left, mb = max(0.0, until - time.monotonic()) / 60, server.rss_bytes / 1e6
        wrong = found.compared.wrong + others.sequences.wrong + len(others.uploads_unlike) + len(found.errors)
        print(
            f"{left:5.1f} min left: {found.compared.answers} answers, {wrong} wrong, {found.dropped} frames dropped, "
            f"{others.uploads} uploads, {others.sequence_count} sequences, {mb:.0f} MB",
            flush=True,
        )

    await asyncio.gather(
        *(stream.play(ports["http"], fps, FASTER * fps, until) for stream in streams),
        again(upload, OTHERS_S, until),
        again(sequence, OTHERS_S, until),
        again(sample, SAMPLE_S, until),
        again(tell, TELL_S, until),
    )
    return found, others


async def again(work: Callable[[], None], every_s: float, until: float) -> None:
    """Work in a thread, over and over."""
    while time.monotonic() < until:
        await asyncio.to_thread(work)
        await asyncio.sleep(min(every_s, max(0.0, until - time.monotonic())))


def compare_upload(port: int, file: Path, session: Session, others: Others) -> None:
    """One file to /v1/predict; the same spans as `framegate predict` gives, by another session of this process."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/predict?top=1", file.read_bytes(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        spans = json.load(answer)
    got = [(one["start_s"], one["end_s"], one["labels"][0]["name"]) for one in spans]
    segments = list(predict(session, file))
    expected = [(one.start_s, one.end_s, one.label) for one in segments]
    apart = [abs(a["labels"][0]["probability"] - b.probability) for a, b in zip(spans, segments, strict=False)]
    others.uploads += 1
    if got != expected or max(apart) > SHARES_APART:
        others.uploads_unlike.append(f"{file.name}: {got}, framegate predict says {expected}")


def step_sequence(port: int, clip: Played, others: Others) -> None:
    """One clip as a sequence over gRPC, the server keeps the state."""
    from tritonclient.grpc import InferenceServerClient, InferInput

    others.sequence_count += 1
    with InferenceServerClient(f"127.0.0.1:{port}") as client:
        for number, frame in enumerate(clip.pixels):
            tensor = InferInput("frame", [1, *frame.shape], "UINT8")
            tensor.set_data_from_numpy(frame[None])
            first, last = number == 0, number == len(clip.pixels) - 1
            answer = client.infer(
                "framegate", [tensor], sequence_id=others.sequence_count, sequence_start=first, sequence_end=last
            )
            others.sequences.add(softmax(answer.as_numpy("logits")[0]), clip, number)


# --- what it says -----------------------------------------------------------------------------


def facts(found: Found, others: Others, start: float, end: float) -> Report:
    """Everything by name."""
    third = (end - start) / 3
    first = [hit for at, hit in found.hits if at < start + third]
    last = [hit for at, hit in found.hits if at > end - third]
    later = [(at, rss, files) for at, rss, files in others.samples if at > start + third]
    hours, rss_mb = (np.array(values) for values in zip(*((at / 3600, rss / 1e6) for at, rss, _ in later), strict=True))
    middle, final = (rss_mb[hours * 3600 <= end - third], rss_mb[hours * 3600 > end - third])
    accuracy = [float(np.mean(part)) if part else float("nan") for part in (first, last)]
    return {
        "minutes": round((end - start) / 60, 1),
        "answers": found.compared.answers,
        "clips": found.clips,
        "clips_with_drops": len(found.partial),
        "dropped_share": round(found.dropped / max(found.frames, 1), 5),
        "other_label": int(found.compared.wrong),
        "other_label_unsure": int(found.compared.unsure),
        "largest_difference": round(found.compared.worst, 4),
        "errors": found.errors[:5],
        "uploads": others.uploads,
        "uploads_unlike": others.uploads_unlike[:5],
        "sequences": others.sequence_count,
        "sequences_other_label": int(others.sequences.wrong),
        "sequences_difference": round(others.sequences.worst, 4),
        "accuracy_first_third": round(accuracy[0], 4),
        "accuracy_last_third": round(accuracy[1], 4),
        "memory_mb": [round(others.samples[0][1] / 1e6, 1), round(float(rss_mb[0]), 1), round(float(rss_mb[-1]), 1)],
        "memory_mb_per_hour": round(float(np.polyfit(hours, rss_mb, 1)[0]), 2),
        "memory_last_third": round(float(np.median(final) / np.median(middle) - 1), 4) if len(final) else None,
        "open_files": [later[0][2], max(files for _, _, files in later), later[-1][2]],
        "ratio": round(accuracy[1] / accuracy[0], 4),
    }


def checks(result: Report, minutes: float) -> dict[str, bool]:
    """What must hold."""
    files, unsure = result["open_files"], result["other_label_unsure"] / max(result["answers"], 1)
    difference = max(result["largest_difference"], result["sequences_difference"])
    apart = 100 * abs(result["accuracy_last_third"] - result["accuracy_first_third"])
    if minutes < LONG_ENOUGH_MIN:
        memory = {f"(memory is judged from {LONG_ENOUGH_MIN:g} minutes on)": True}
    else:
        slope = f"memory rises by less than {MEMORY_MB_PER_HOUR:g} MB/h over the last two thirds"
        level = f"its last third is less than {MEMORY_SHARE:.0%} above the middle one"
        above = result["memory_last_third"]
        memory = {slope: result["memory_mb_per_hour"] < MEMORY_MB_PER_HOUR, level: above < MEMORY_SHARE}
    return {
        "every stream's answers are those of its own replay": result["other_label"] == 0 and result["answers"] > 0,
        f"no probability of a stream or sequence is more than {DIFFERENCE:g} apart": difference <= DIFFERENCE,
        f"unsure labels turn in at most {UNSURE_SHARE:.1%} of answers": unsure <= UNSURE_SHARE,
        f"at most {DROPPED_SHARE:.0%} of frames are dropped": result["dropped_share"] <= DROPPED_SHARE,
        "every sequence's answers are those of its replay": result["sequences_other_label"] == 0
        and result["sequences"] > 0,
        "uploads are answered as by `framegate predict`": not result["uploads_unlike"] and result["uploads"] > 0,
        "no error on a stream": not result["errors"],
        f"accuracy of the last third within {ACCURACY_POINTS:g} points of the first": apart <= ACCURACY_POINTS,
        **memory,
        f"never more than {FILES_APART} files above the first third's": files[1] - files[0] <= FILES_APART,
        "the server ends with code 0": result["exit_code"] == 0,
    }


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
