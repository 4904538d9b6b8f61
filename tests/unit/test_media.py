"""Decoding, times, rotation, the resize rule, and files that lie."""

import io
import random
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from framegate.contract import ClipSpec, MediaError, MediaTooLarge
from framegate.media import (
    MediaLimits,
    decode_image,
    is_image,
    is_video,
    probe_seconds,
    read_clip,
    read_image,
    read_video,
    resize,
)
from framegate.video import probe_fps
from tests.planted_images import jpegs, scanned, tiff

LIMITS = MediaLimits()
MakeClip = Callable[..., Path]


def spec(height: int = 48, width: int = 64, fps: float = 10, frames: int = 16) -> ClipSpec:
    return ClipSpec(frames=frames, height=height, width=width, fps=fps)


def refused(path: Path, limits: MediaLimits = LIMITS) -> str:
    with pytest.raises(MediaError) as caught:
        list(read_clip(path, spec(), limits))
    assert caught.value.path == str(path)
    return caught.value.reason


# --- videos -----------------------------------------------------------------------------------


def test_an_m4v_is_an_mp4(tmp_path: Path, make_clip: MakeClip) -> None:
    clip = make_clip(tmp_path / "a.mp4").rename(tmp_path / "a.m4v")
    assert is_video(clip) and len(list(read_clip(clip, spec(), LIMITS))) == 16


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.webm", "A.MP4", "空 clip.mkv"])
def test_every_container_gives_each_frame_once_in_order(tmp_path: Path, make_clip: MakeClip, name: str) -> None:
    path = make_clip(tmp_path / name, frames=20, fps=25, pattern="levels")
    frames = list(read_video(path, LIMITS))
    levels = [frame.rgb().mean() for frame in frames]
    assert levels == pytest.approx([8 * k for k in range(20)], abs=6)
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(20)], abs=0.0011)


def test_colours_survive_the_fast_and_the_general_conversion(tmp_path: Path, make_clip: MakeClip) -> None:
    fast = next(read_video(make_clip(tmp_path / "a.mp4", pattern="halves"), LIMITS))
    frame = av.VideoFrame.from_ndarray(fast.rgb(), format="rgb24")
    general = type(fast)(0.0, frame.reformat(format="yuv444p")).rgb()
    for pixels in (fast.rgb(), general):
        assert np.abs(pixels[24, 8].astype(int) - (255, 0, 0)).max() < 12
        assert np.abs(pixels[24, 56].astype(int) - (0, 0, 255)).max() < 12


@pytest.mark.parametrize(
    ("rotation", "shape", "red", "blue"),
    [
        (0, (48, 64, 3), (24, 4), (24, 60)),
        (90, (64, 48, 3), (4, 24), (60, 24)),  # clockwise: what was left is on top
        (180, (48, 64, 3), (24, 60), (24, 4)),
        (270, (64, 48, 3), (60, 24), (4, 24)),
    ],
)
def test_a_turned_video_comes_out_upright(
    tmp_path: Path,
    make_clip: MakeClip,
    rotation: int,
    shape: tuple[int, ...],
    red: tuple[int, int],
    blue: tuple[int, int],
) -> None:
    path = make_clip(tmp_path / "a.mp4", rotation=rotation, pattern="halves", frames=3)
    pixels = next(read_video(path, LIMITS)).rgb()
    assert pixels.shape == shape
    assert pixels[red].argmax() == 0
    assert pixels[blue].argmax() == 2


def test_sound_is_no_obstacle(tmp_path: Path, make_clip: MakeClip) -> None:
    silent = make_clip(tmp_path / "silent.mp4", frames=10)
    path = tmp_path / "loud.mkv"
    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        audio = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 40_000), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        target.mux(audio.encode(sound))
    assert len(list(read_video(path, LIMITS))) == 10


def test_times_without_order_go_forward_by_the_nominal_frame() -> None:
    from framegate.video import _Clock

    clock = _Clock(0.1)
    assert [round(clock.place(t), 3) for t in (5.0, 5.1, None, 5.15, 2.0, 5.6)] == [0, 0.1, 0.2, 0.3, 0.4, 0.6]
    late = _Clock(0.1)
    assert [round(late.place(t), 3) for t in (None, None, 7.0, 7.1)] == [0, 0.1, 0.2, 0.3]


# --- the grid ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "fps", "at", "ticks"), [(16, 10, 10, 16), (256, 25, 1.6, 17), (30, 30, 10, 10)])
def test_a_clip_has_a_frame_per_tick(
    tmp_path: Path, make_clip: MakeClip, frames: int, fps: float, at: float, ticks: int
) -> None:
    path = make_clip(tmp_path / "a.mkv", frames=frames, fps=fps)
    clip = list(read_clip(path, spec(fps=at), LIMITS))
    assert [frame.time_s for frame in clip] == pytest.approx([k / at for k in range(ticks)])
    assert {frame.pixels.shape for frame in clip} == {(48, 64, 3)}


def test_variable_frame_rate_is_resampled_by_time_not_by_number(tmp_path: Path, make_clip: MakeClip) -> None:
    times = [0, 0.05, 0.1, 0.15, 0.2, 1.0, 1.1]
    path = make_clip(tmp_path / "a.mkv", frames=7, pattern="levels", times_s=times)
    levels = [round(frame.pixels.mean() / 8) for frame in read_clip(path, spec(fps=5), LIMITS)]
    assert levels == [0, 4, 4, 4, 4, 5, 6]


def test_only_picked_frames_are_converted(tmp_path: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    import framegate.video as video

    converted: list[int] = []
    original = video._video_rgb
    monkeypatch.setattr(video, "_video_rgb", lambda frame: (converted.append(1), original(frame))[1])
    path = make_clip(tmp_path / "a.mp4", frames=50, fps=25)
    assert len(list(read_clip(path, spec(fps=50), LIMITS))) == 100
    assert len(converted) == 50
    assert len(list(read_clip(path, spec(fps=5), LIMITS))) == 10
    assert len(converted) == 60


# --- the resize rule --------------------------------------------------------------------------


def test_resize_covers_the_target_and_keeps_the_centre() -> None:
    frame = np.zeros((100, 300, 3), np.uint8)
    frame[:, 100:200] = 200
    assert (resize(frame, spec(50, 50)) == 200).all()
    tall = np.ascontiguousarray(frame.transpose(1, 0, 2))
    assert (resize(tall, spec(50, 50)) == 200).all()
    assert resize(frame, spec(200, 400)).shape == (200, 400, 3)


def test_shrinking_averages_and_the_same_size_is_the_same_frame() -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    frame = np.repeat(board[..., None], 3, 2).astype(np.uint8)
    assert np.abs(resize(frame, spec(32, 32)).astype(int) - 127).max() <= 1
    assert (resize(frame, spec(64, 64)) == frame).all()


def test_a_sliver_does_not_become_a_large_image() -> None:
    assert resize(np.zeros((1, 4_000_000, 3), np.uint8), spec(64, 64)).shape == (64, 64, 3)


# --- images -----------------------------------------------------------------------------------


def test_images_are_upright_by_exif_and_rgb(tmp_path: Path) -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:, :30, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned clockwise
    Image.fromarray(frame).save(tmp_path / "a.jpg", exif=exif)
    pixels = read_image(tmp_path / "a.jpg", LIMITS)
    assert pixels.shape == (60, 40, 3)
    assert pixels[5, 20, 0] > 200 > 50 > pixels[55, 20, 0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_image_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 0x9900, np.uint16)).save(path)
    else:
        Image.new("RGB", (8, 8), (153, 153, 153)).convert(mode).save(path)
    pixels = read_image(path, LIMITS)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert mode == "1" or np.abs(pixels.astype(int) - 153).max() < 8


def test_an_image_under_another_image_suffix_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", "PNG")
    assert len(list(read_clip(tmp_path / "a.jpg", spec(), LIMITS))) == 1


def test_suffixes_are_read_in_any_case() -> None:
    assert is_video(Path("a.MP4"))
    assert is_image(Path("a.JPeG"))
    assert not is_video(Path("a.txt"))


# --- files that lie ---------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\1\0IDAT"


LIES: dict[str, tuple[bytes, str]] = {
    "text.mp4": (b"hello world\n" * 100, "not a video"),
    "text.png": (b"hello world\n" * 100, "not an image"),
    "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "not a video"),
    "concat.mkv": (b"ffconcat version 1.0\nfile /etc/hostname\n", "not a video"),
    "noise.avi": (random.Random(0).randbytes(5000), "not a video"),
    "empty.mp4": (b"", "empty file"),
    "empty.jpg": (b"", "empty file"),
    "huge.png": (png_header(100_000, 100_000), "absurd size"),
    "large.png": (png_header(10_000, 10_000), "10000 x 10000 pixels"),
    "notes.txt": (b"hello", "unknown suffix '.txt'"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = LIES[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert reason in refused(path)


def test_an_image_named_as_a_video_is_refused_and_the_reverse(tmp_path: Path, make_clip: MakeClip) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "still.jpg")
    (tmp_path / "still.jpg").rename(tmp_path / "still.mp4")
    assert "not a video" in refused(tmp_path / "still.mp4")
    make_clip(tmp_path / "moving.mp4").rename(tmp_path / "moving.png")
    assert refused(tmp_path / "moving.png").startswith("not an image")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    assert refused(tmp_path / "none.mp4") == "no such file"
    assert refused(tmp_path / "folder.mp4") == "not a file, but a folder or a device"


def test_sound_without_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    assert refused(path) == "no video stream"


def test_the_cover_of_a_song_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert refused(path) == "no video stream"
    assert probe_fps(path) is None


def test_a_codec_that_is_not_known_is_refused(make_clip, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    assert refused(path) == "a video stream of a codec that is not known here"


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert "no frame" in refused(path) or "not a video" in refused(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.mp4", "header is missing"),
        ("a.mkv", "s its header"),
        ("a.avi", "s its header"),
        ("a.webm", "s its header"),
    ],
)
def test_a_truncated_video_is_refused(tmp_path: Path, make_clip: MakeClip, name: str, reason: str) -> None:
    path = make_clip(tmp_path / name, frames=30, pattern="noise")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason in refused(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4"])
def test_a_recording_that_does_not_start_at_zero_is_whole(tmp_path: Path, make_clip: MakeClip, name: str) -> None:
    """As recorders and segmenters cut it; half of it is still truncated."""
    path = make_clip(tmp_path / name, frames=30, pattern="noise", times_s=[60 + k / 10 for k in range(30)])
    assert [round(frame.time_s, 2) for frame in read_video(path, LIMITS)] == [k / 10 for k in range(30)]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "header" in refused(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_a_last_picture_may_stand_still_for_long(tmp_path: Path, make_clip: MakeClip, name: str) -> None:
    """As in a recording of a screen."""
    moving, path = make_clip(tmp_path / f"moving{name[1:]}", frames=30, pattern="noise"), tmp_path / name
    with av.open(str(moving)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        max(packets, key=lambda packet: packet.pts).duration = round(20 / packets[0].time_base)
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    assert [round(frame.time_s, 2) for frame in read_video(path, LIMITS)] == [k / 10 for k in range(30)]


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "a.png", "a.webp"):
        Image.fromarray(rng.integers(0, 255, (80, 80, 3), np.uint8)).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        assert "cannot be decoded as an image" in refused(tmp_path / name)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_they_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(scanned(101))
    assert refused(tmp_path / "a.jpg") == "a JPEG of more than 100 scans, the limit"
    assert decode_image(scanned(100), LIMITS, "a").shape == (16, 16, 3)


def test_a_film_of_jpegs_is_held_to_the_same(tmp_path: Path) -> None:
    whole = jpegs(tmp_path / "whole.mkv", [scanned(100, side=64)] * 3)
    assert len(list(read_video(whole, LIMITS))) == 3
    bad = jpegs(tmp_path / "bad.mkv", [scanned(3, side=64), scanned(101, side=64)])
    assert refused(bad) == "a frame is a JPEG of more than 100 scans, the limit"


def test_a_jpeg_of_endless_parts_is_refused_before_they_are_read() -> None:
    data = scanned(3)
    parts = data[:2] + b"\xff\xe1\x00\x02" * 100_000 + data[2:]
    with pytest.raises(MediaError, match="more than 10,000 parts"):
        decode_image(parts, LIMITS, "a")


@pytest.mark.parametrize("hidden", [b"\xff\xd9", b"\xff\x02\xff\xff", b"\xff\xe1\x00\x04\xff\xd9", b"\xff\xff"])
def test_scans_are_counted_whatever_stands_before_them(hidden: bytes) -> None:
    """What libjpeg skips is no end."""
    data, at = scanned(101), scanned(101).index(b"\xff\xda")
    bad = data[:at] + hidden + data[at:]
    if hidden == b"\xff\xd9":  # a picture that is over before it began
        with pytest.raises(MediaError, match="cannot be decoded"):
            decode_image(bad, LIMITS, "a")
    else:
        with pytest.raises(MediaError, match="more than 100 scans"):
            decode_image(bad, LIMITS, "a")


def test_scans_of_thumbnails_and_appended_films_do_not_count() -> None:
    data, marks = scanned(3), b"\xff\xda\x00\x08" * 8000
    segment = b"\xff\xe2" + (len(marks) + 2).to_bytes(2) + marks
    plain = decode_image(data, LIMITS, "a")
    assert (decode_image(data[:2] + segment + data[2:] + marks, LIMITS, "a") == plain).all()


@pytest.mark.parametrize(("tile", "whole"), [((64, 64), True), ((4096, 4096), False), ((1 << 20, 16), False)])
def test_a_tile_of_a_tiff_is_held_to_the_limit_as_well(tile: tuple[int, int], whole: bool) -> None:
    limits = MediaLimits(max_pixels=64 * 64)
    if whole:
        assert decode_image(tiff(*tile), limits, "a").shape == (64, 64, 3)
        return
    with pytest.raises(MediaTooLarge, match=f"tiles of {tile[0]} x {tile[1]} pixels; the limit is 4,096"):
        decode_image(tiff(*tile), limits, "a")


@pytest.mark.parametrize(("side", "reason"), [(10_000, "10000 x 10000 pixels"), (100_000, "corrupt video")])
def test_an_absurd_video_is_refused_before_it_takes_memory(
    tmp_path: Path, make_clip: MakeClip, side: int, reason: str
) -> None:
    path = make_clip(tmp_path / "a.avi", codec="rawvideo", frames=2)
    data, header = path.read_bytes(), struct.pack("<III", 40, 64, 48)
    assert header in data
    path.write_bytes(data.replace(header, struct.pack("<III", 40, side, side)))
    assert reason in refused(path)


def jpeg_of(side: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "JPEG", quality=10)
    return out.getvalue()


def test_a_frame_that_is_far_too_large_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path, before = (
        jpegs(tmp_path / "a.mkv", [*[jpeg_of(64)] * 9, jpeg_of(12_000)]),
        resource.getrusage(resource.RUSAGE_SELF),
    )
    with pytest.raises(MediaTooLarge, match="a frame is far larger than 1,000,000 pixels, the limit"):
        list(read_video(path, MediaLimits(max_pixels=1_000_000)))
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before.ru_minflt
    assert taken * resource.getpagesize() < 50e6, "the frame has 216 MB"


@pytest.mark.parametrize("side", [1001, 1400])
def test_a_frame_that_is_a_little_too_large_is_refused_with_its_size(tmp_path: Path, side: int) -> None:
    path = jpegs(tmp_path / "a.mkv", [jpeg_of(64), jpeg_of(side)])
    with pytest.raises(MediaTooLarge, match=f"frames of {side} x {side} pixels"):
        list(read_video(path, MediaLimits(max_pixels=1_000_000)))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9"])
@pytest.mark.parametrize("size", [(190, 108), (66, 50), (1022, 16)])
def test_a_frame_of_exactly_the_limit_is_read(
    tmp_path: Path, make_clip: MakeClip, codec: str, size: tuple[int, int]
) -> None:
    """A decoder rounds it up to whole blocks, and counts scratch memory as well."""
    path = make_clip(tmp_path / "a.mkv", codec=codec, size=size, frames=3)
    assert len(list(read_video(path, MediaLimits(max_pixels=size[0] * size[1])))) == 3


def test_limits_hold_for_pixels_frames_and_seconds(tmp_path: Path, make_clip: MakeClip) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=20)
    assert "64 x 48 pixels" in refused(path, MediaLimits(max_pixels=64 * 47))
    assert "more than 19 frames" in refused(path, MediaLimits(max_frames=19))
    assert "limit is 1.0 s" in refused(path, MediaLimits(max_seconds=1))


def test_the_header_alone_gives_the_length(tmp_path: Path, make_clip: MakeClip) -> None:
    assert probe_seconds(make_clip(tmp_path / "a.mkv", frames=20)) == pytest.approx(2.0, abs=0.11)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    assert probe_seconds(tmp_path / "b.mp4") == 0.0
