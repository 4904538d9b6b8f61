"""What the clients of the serving benchmarks count, without a server."""

import asyncio
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.clip_streams import ClipStream, Compared, Found, Partial, Played
from benchmarks.http_load import Clocks, Connection, Orders, Seen, report
from benchmarks.live_serving import Lane, noisy, undisturbed
from benchmarks.serving import Peer, oip_request
from benchmarks.serving_facts import CLIENTS, Report, best_settings, facts, overload_facts, verdicts
from benchmarks.soak import Others, checks, compare_partial
from benchmarks.soak import facts as soak_facts
from benchmarks.stream_load import ANSWERED, DROPPED, MISSED, PacedStream
from benchmarks.stream_load import Orders as StreamOrders
from benchmarks.websocket_client import PING, PONG, TEXT, WebSocketClient, masked


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True


def unmasked(frame: bytes) -> bytes:
    size = frame[1] & 127
    head = {126: 4, 127: 10}.get(size, 2)
    key, data = frame[head : head + 4], frame[head + 4 :]
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65_535, 65_536])
def test_a_masked_frame_holds_its_payload_at_every_size(size: int) -> None:
    payload = bytes(np.random.default_rng(size).integers(0, 256, size, np.uint8))
    frame = masked(payload)
    assert frame[0] == 0x82 and frame[1] & 0x80 and unmasked(frame) == payload


def test_text_messages_are_found_however_the_bytes_are_cut_and_pings_are_answered() -> None:
    async def play() -> None:
        said: list[bytes] = []
        client, wire = WebSocketClient("/x", said.append), Wire()
        client.connection_made(wire)
        long = b"y" * 300
        data = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi" + bytes([0x80 | PING, 1]) + b"p"
        data += b"\x81\x7e" + len(long).to_bytes(2, "big") + long + b"\x88\x02\x03\xf4"
        for i in range(len(data)):
            client.data_received(data[i : i + 1])
        assert said == [b"hi", long] and client.code == 1012 and wire.closed
        assert wire.written[1][0] == 0x80 | PONG and unmasked(wire.written[1]) == b"p"

    asyncio.run(play())


def test_an_answer_is_counted_when_its_body_is_whole() -> None:
    seen: list[int] = []
    connection = Connection(b"request", lambda one, status, latency_s: seen.append(status), lambda: None)
    connection.connection_made(Wire())
    for status in (200, 503):
        connection.send(0.0)
        data = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\nx: y\r\n\r\nhello" % status
        for i in range(len(data)):
            assert len(seen) == (status == 503)
            connection.data_received(data[i : i + 1])
    assert seen == [200, 503]


def test_goodput_counts_what_came_within_the_limit_and_cpu_is_per_answer() -> None:
    seen = Seen(latencies_s=[0.1, 0.2, 0.6, 0.7])
    seen.statuses.update({200: 4, 503: 4})
    found = report(seen, Orders(1, "r", 2.0, 1), Clocks(10.0, 1.0, 0.0), Clocks(12.0, 1.8, 0.1))
    assert (found["requests_per_s"], found["good_per_s"]) == (2.0, 1.0)
    assert found["cpu_ms"] == pytest.approx(100) and found["statuses"] == {"200": 4, "503": 4}


def test_frames_that_no_tick_picks_are_not_expected_and_silence_is_a_drop() -> None:
    async def play() -> None:
        orders = StreamOrders(1, "/x", 1, "f", "o", streams=1, seconds=1, fps=30, clip_fps=10)
        stream = PacedStream(orders, [b"frame"], 0)
        stream.sent_at = [i / 30 for i in range(12)]  # frames 0, 3, 6 and 9 are picked
        stream.latency_s = {0: 0.01, 3: 0.2, 9: 0.05}
        found, latencies = stream.outcomes(since=0.0, until=1.0, ticks=9)
        assert found == [ANSWERED, MISSED, DROPPED, ANSWERED] and latencies == [0.01, 0.2, 0.05]
        assert stream.outcomes(since=0.05, until=0.25, ticks=9)[0] == [MISSED, DROPPED]

    asyncio.run(play())


def test_another_top_label_counts_as_wrong_only_where_the_replay_leads() -> None:
    shares = np.array([[0.6, 0.4], [0.51, 0.49]])
    clip = Played(0, (), np.zeros((2, 1, 1, 3), np.uint8), shares, np.array([1.0, 0.01]))
    compared = Compared()
    for number, got in enumerate([[0.3, 0.7], [0.49, 0.51]]):
        compared.add(np.array(got), clip, number)
    assert (compared.answers, compared.wrong, compared.unsure) == (2, 1, 1)
    assert compared.worst == pytest.approx(0.3)


def test_a_request_carries_its_frame_behind_a_header_of_the_length_that_it_says() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    head, _, body = oip_request(frame, "framegate").partition(b"\r\n\r\n")
    lines = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    size = int(lines["Inference-Header-Content-Length"])
    assert int(lines["Content-Length"]) == len(body) and body[size:] == frame.tobytes()
    assert json.loads(body[:size])["inputs"][0]["shape"] == [1, 2, 2, 3]


def test_a_target_that_is_missed_is_said_so() -> None:
    overload = {"goodput": 0.7, "sent_to_peak": 2.31, "lost_share": 0.24}
    found = verdicts({"overhead_ms": 0.6, "batched_to_unbatched": 0.4, **overload})
    assert [met for met, _ in found] == [False, True, False]
    assert "2.31x really sent, 24.0% of arrivals lost" in found[2][1]


def one_round(cpu_ms: float, requests_per_s: float, p99_ms: float) -> Report:
    return {"cpu_ms": cpu_ms, "requests_per_s": requests_per_s, "p99_ms": p99_ms, "p50_ms": 1.0, "client_cores": 0.1}


def test_every_figure_is_judged_against_the_peers_setting_that_is_best_at_it() -> None:
    frugal, fast, middling = one_round(2.0, 100, 9.0), one_round(4.0, 300, 5.0), one_round(3.0, 200, 6.0)
    assert best_settings({"middling": middling, "fast": fast, "frugal": frugal}) == ["fast", "frugal"]
    ours = one_round(1.0, 300, 5.0)
    lanes = {("ours", n): [ours] for n in CLIENTS} | {("ours unbatched", n): [ours] for n in CLIENTS}
    lanes |= {("litserve frugal", n): [frugal] for n in CLIENTS} | {("litserve fast", n): [fast] for n in CLIENTS}
    found = facts(lanes, [0.5])
    assert found["litserve_1"] == found["litserve_16"] == {"cpu_ms": 0.5, "requests_per_s": 1.0, "p99_ms": 1.0}
    assert (found["ratio"], found["overhead_ms"]) == (2.0, 0.5)


def test_arrivals_that_found_no_connection_are_told_apart_from_those_sent() -> None:
    seen = Seen(arrivals=300, sent=240, lost=60)
    found = report(seen, Orders(1, "r", 2.0, 1, rate=150), Clocks(10.0, 1.0, 0.0), Clocks(12.0, 1.8, 0.1))
    overload = overload_facts([{**found, "good_per_s": 40.0, "peak_per_s": 50.0}])
    assert (overload["goodput"], overload["sent_to_peak"], overload["lost_share"]) == (0.8, 2.4, 0.2)


def fake_environment(folder: Path, says: str) -> Path:
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{says}\n")
    python.chmod(0o755)
    return folder


def test_an_environment_with_other_versions_is_refused_and_the_right_one_is_asked(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"'litserve': '0\.2\.5'"):
        Peer.of(fake_environment(tmp_path / "old", """echo '["0.2.5", "1", "2"]'"""))
    with pytest.raises(SystemExit, match="not LitServe's environment"):
        Peer.of(fake_environment(tmp_path / "bare", "echo no package >&2; exit 1"))
    versions = json.dumps(["0.2.19", onnxruntime.__version__, np.__version__])
    assert Peer.of(fake_environment(tmp_path / "right", f"echo '{versions}'")).version == "0.2.19"


def played_frames(count: int) -> Played:
    return Played(0, (b"",) * count, np.zeros((count, 1, 1, 3), np.uint8), np.full((count, 2), 0.5), np.ones(count))


def test_a_clip_with_drops_is_compared_with_a_replay_of_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    replays: list[int] = []

    def steps(session: object, frames: np.ndarray) -> list[np.ndarray]:  # type: ignore[type-arg]
        replays.append(frames.shape[1])
        return [np.array([[3.0, 0.0]])] * frames.shape[1]

    monkeypatch.setattr("benchmarks.soak.iterate_steps", steps)
    compared, right, other = Compared(), np.array([0.95, 0.05]), np.array([0.05, 0.95])
    compare_partial(Partial(played_frames(4), 0, {0: right, 3: other}), object(), compared)  # type: ignore[arg-type]
    compare_partial(Partial(played_frames(4), 0, {}), object(), compared)  # type: ignore[arg-type]
    assert replays == [2] and (compared.answers, compared.wrong) == (2, 1)


def test_an_answer_later_than_its_clip_is_no_drop() -> None:
    found = Found(dropped=1)
    stream = ClipStream([], ("a", "b"), found, 0)
    stream._before = Partial(played_frames(4), 8, {0: np.zeros(2)})
    stream._take_late({11: np.ones(2)})
    assert set(stream._before.shares) == {0, 3} and found.dropped == 0 and not found.errors
    stream._take_late({5: np.ones(2)})
    assert "frame 5" in found.errors[0]


def soaked(rss_mb: list[float], files: list[int], **more: object) -> dict[str, bool]:
    found = Found(Compared(answers=10_000), 100, 10_000, hits=[(at, True) for at in range(0, 1800, 10)])
    at = np.linspace(0, 1800, len(rss_mb))
    samples = [(float(t), int(1e6 * mb), n) for t, mb, n in zip(at, rss_mb, files, strict=True)]
    others = Others(uploads=1, sequence_count=1, samples=samples)
    held = checks({**soak_facts(found, others, 0.0, 1800.0), "exit_code": 0, **more}, 30)
    return {text: ok for text, ok in held.items() if not ok}


def test_a_soak_holds_when_all_is_level_and_each_bound_breaks_it() -> None:
    level, files = [170.0, *[185.0] * 299], [40] * 300
    assert not soaked(level, files)
    assert any("5 MB/h" in text for text in soaked([170.0 + 8 * i / 300 for i in range(300)], files))
    stepped = [185.0] * 200 + [190.0] * 100
    assert any("last third" in text for text in soaked(stepped, files))
    assert soaked(level, [40] * 250 + [60] * 10 + [40] * 40)  # a peak that went again
    for more in ({"dropped_share": 0.02}, {"largest_difference": 0.06}, {"other_label_unsure": 11}, {"errors": ["x"]}):
        assert len(soaked(level, files, **more)) == 1


def test_noise_makes_a_jpeg_of_a_smooth_frame_larger() -> None:
    smooth = np.full((48, 64, 3), 250, np.uint8)
    grainy = noisy(smooth, 6, np.random.default_rng(0))
    assert noisy(smooth, 0, np.random.default_rng(0)) is smooth and grainy.dtype == np.uint8
    assert 2 < grainy.std() < 6 and grainy.max() == 255  # what is above white is cut


def test_a_run_is_repeated_only_when_the_client_was_late_and_said_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    late, lost, good = (
        {"failed_share": failed, "lag_p99_ms": lag} for failed, lag in ((0.1, 50.0), (0.1, 1.0), (0.0, 1.0))
    )
    for reports, repeats in (([late, good], 1), ([late, late, late], 2), ([lost], 0)):
        left = list(reports)
        monkeypatch.setattr(Lane, "run", lambda *given, left=left: (left.pop(0), np.zeros(0, np.uint8)))
        report, _, again = undisturbed(Lane(*[None] * 5), 1, 1.0, 0)  # type: ignore[arg-type]
        assert (report, again, left) == (reports[-1], repeats, [])


def test_text_goes_out_as_text() -> None:
    assert masked(b"{}", TEXT)[0] == 0x81
