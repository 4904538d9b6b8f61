"""Frames of a live stream that are damaged, unusual or too large: each is answered or refused, the stream goes on."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
import websockets.exceptions
from PIL import Image

from framegate.timeline import softmax
from tests.bundles import LABELS
from tests.planted_images import scanned, tiff
from tests.running import Live, Server, binary, handshake, offline, pictures, png, seen, shares_of
from tests.served import color, jpeg

LARGE = np.kron(color(0), np.ones((10, 14, 1), np.uint8))  # 160x224, so that progressive scans differ


def encoded(frame: np.ndarray, form: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).convert(mode).save(out, form, **options)
    return out.getvalue()


USUAL_OR_NOT = {
    "baseline": encoded(LARGE),
    "progressive": encoded(LARGE, progressive=True, quality=80),
    "CMYK": encoded(LARGE, mode="CMYK"),
    "grey": encoded(LARGE, mode="L"),
    "turned by EXIF": encoded(LARGE, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "PNG": png(LARGE),
    "PNG with alpha": encoded(LARGE, "PNG", "RGBA"),
    "WebP": encoded(LARGE, "WEBP"),
    "one pixel": png(LARGE[:1, :1]),
    "very wide": png(np.kron(color(1), np.ones((1, 100, 1), np.uint8))),
}


def test_every_kind_of_image_is_answered_right_and_sizes_may_change(server: Server, bundle) -> None:
    frames = list(USUAL_OR_NOT.values())
    with server.live() as live:
        said = [live.ask(one) for one in frames]
        assert live.end() == [{"event": "end", "frames": len(frames), "dropped": 0}]
    right = softmax(offline(bundle, [seen(one) for one in frames]))
    assert [one["seq"] for one in said] == list(range(len(frames)))
    assert abs(np.stack([shares_of(one, LABELS) for one in said]) - right).max() < 1e-3


def test_what_the_decoder_sees_of_unusual_jpegs_is_the_picture() -> None:
    """The oracle of the test above is our own decoder: Pillow's is another."""
    for name in ("progressive", "CMYK"):
        pillow = np.asarray(Image.open(io.BytesIO(USUAL_OR_NOT[name])).convert("RGB").resize((16, 16), Image.BOX))
        square = seen(USUAL_OR_NOT[name])
        assert abs(square.mean(axis=(0, 1)) - pillow.mean(axis=(0, 1))).max() < 4


TOO_BIG = b"frame with 4100000 bytes exceeds limit of 4000000 bytes"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "half a JPEG": (lambda: jpeg(LARGE)[: len(jpeg(LARGE)) // 2], "cannot be decoded as an image"),
    "20 megapixels": (lambda: jpeg(np.zeros((4000, 5000, 3), np.uint8)), "the limit is 9,437,184 pixels"),
    "20 megapixels in a PNG": (lambda: png(np.zeros((4000, 5000, 3), np.uint8)), "the limit is 9,437,184 pixels"),
    "a header that lies": (lambda: jpeg(LARGE)[:2] + b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(30), "frame"),
    "text": (lambda: b"not a picture", "not an image"),
    "nothing": (lambda: b"", "not an image"),
    "a GIF": (lambda: encoded(LARGE, "GIF"), "not an image; expected JPEG, PNG, WebP"),
    "a TIFF of a gigabyte": (lambda: tiff(32_768, 32_000), "not an image; expected JPEG, PNG, WebP"),
    "2000 scans": (lambda: scanned(2000, side=2000), "a JPEG of more than 100 scans, the limit"),
}


def test_a_frame_that_cannot_be_answered_is_refused_and_the_stream_goes_on(server: Server, bundle) -> None:
    memory, good = server.rss_bytes, pictures(len(BAD) + 1)
    with server.live() as live:
        said = [live.ask(good[0])]
        for number, (make, words) in enumerate(BAD.values(), 1):
            refused = live.ask(make())
            assert (refused["event"], refused["seq"]) == ("error", 2 * number - 1)
            assert words in refused["error"], refused
            said.append(live.ask(good[number]))
        assert [one["seq"] for one in said] == [2 * k for k in range(len(good))]
        assert live.end()[-1]["event"] == "end"
    right = softmax(offline(bundle, [seen(one) for one in good]))
    assert abs(np.stack([shares_of(one, LABELS) for one in said]) - right).max() < 1e-3
    assert server.rss_bytes < memory + 60e6, "20 megapixels were never decoded"


def test_a_stream_of_nothing_but_damage_is_given_up(server: Server) -> None:
    with server.live() as live:
        for _ in range(100):
            assert live.ask(b"no picture")["event"] == "error"
        assert live.rest() == [{"event": "end", "frames": 100, "dropped": 0}]
        assert live.code == 1008
        assert live.socket.protocol.close_rcvd.reason == "100 frames in a row were none"


def test_a_message_beyond_the_limit_closes_the_stream_with_1009(server: Server) -> None:
    with handshake(server) as connection, connection.makefile("rb") as answers:
        connection.sendall(
            binary(bytes(4_100_000))[:14]
        )  # its length alone; what nobody reads would reset the connection
        assert answers.read().endswith(b"\x88" + bytes([2 + len(TOO_BIG)]) + struct.pack(">H", 1009) + TOO_BIG)
    assert server.infer(color(0)).status_code == 200


@pytest.mark.parametrize(
    "words",
    [
        "no JSON",
        "[]",
        '{"t": "soon"}',
        '{"t": null}',
        '{"t": 1e999}',
        '{"t": -1.7e308}',
        '{"t": 10000000001}',
        '{"end": false}',
        '{"what": 1}',
        "{}",
        '{"t": 1, "what": 1}',
        '{"reset": true, "end": 1}',
        '{"t": true}',
        "",
    ],
)
def test_a_control_message_that_is_none_closes_the_stream_with_1008(server: Server, words: str) -> None:
    with server.live() as live:
        live.ask(pictures(1)[0])
        live.socket.send(words)
        live.rest()
        assert live.code == 1008
        assert "expected" in live.socket.protocol.close_rcvd.reason


def test_time_that_goes_back_closes_the_stream_with_1008(server: Server) -> None:
    with server.live("") as live:
        live.ask(pictures(1)[0], t=5.0)
        live.send(pictures(1)[0], t=4.0)
        live.rest()
        assert live.code == 1008
        assert "times must not decrease" in live.socket.protocol.close_rcvd.reason


@pytest.mark.parametrize("first", [{"t": 5.0}, {}])
def test_frames_with_and_without_times_close_the_stream_with_1008(server: Server, first: dict[str, float]) -> None:
    with server.live("") as live:
        live.ask(pictures(1)[0], **first)
        live.send(pictures(1)[0], **({} if first else {"t": 5.0}))
        live.rest()
        assert live.code == 1008
        assert live.socket.protocol.close_rcvd.reason.startswith("frame 1 came with")


@pytest.mark.parametrize(
    "query", ["fps=0", "fps=-1", "fps=fast", "fps=nan", "fps=inf", "fps=1e-320", "fps=1001", "fps="]
)
def test_a_query_that_makes_no_sense_is_1008(server: Server, query: str) -> None:
    with server.socket(query) as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
        Live(socket)
    assert socket.protocol.close_rcvd.code == 1008
    assert "expected a number from 0.001 to 1000" in socket.protocol.close_rcvd.reason


@pytest.mark.parametrize("query", ["top=0", "top=0.5", "top=-1", "top=x", "top=inf"])
def test_fewer_labels_than_one_are_1008(server: Server, query: str) -> None:
    with server.socket(query) as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
        Live(socket)
    assert socket.protocol.close_rcvd.code == 1008
    assert "expected a number from 1 to 1000000" in socket.protocol.close_rcvd.reason


@pytest.mark.parametrize("fps", ["0.001", "1000"])
def test_the_ends_of_the_range_of_rates_are_answered(server: Server, fps: str) -> None:
    with server.live(f"fps={fps}") as live:
        for image in pictures(3):
            live.send(image)
        said = live.end()
    assert said[-1] == {"event": "end", "frames": 3, "dropped": said[-1]["dropped"]}
    assert live.code == 1000


def test_the_ends_of_the_range_of_times_are_answered(server: Server) -> None:
    with server.live("") as live:
        assert live.ask(pictures(1)[0], t=-1e10)["seq"] == 0
        reset = live.ask(pictures(1)[0], t=1e10)
        assert (reset["event"], reset["reason"], reset["t"]) == ("reset", "gap", 1e10)
        assert live.next()["seq"] == 1


def test_an_unknown_model_is_4404(server: Server) -> None:
    with server.socket(model="another") as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
        Live(socket)
    assert socket.protocol.close_rcvd.code == 4404
    assert "'another' is not found" in socket.protocol.close_rcvd.reason
