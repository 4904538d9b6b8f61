"""/metrics after a known history; and a shadow, which is only ever seen there."""

import json
from pathlib import Path

import numpy as np
import pytest
import websockets.exceptions
from prometheus_client.parser import text_string_to_metric_families

from framegate.contract import Bundle
from tests.bundles import LABELS, WEIGHTS, make_bundle
from tests.running import PREDICT, Server, eventually, handshake, logits_of, offline, pictures, shares_of, top_of
from tests.served import color, jpeg


def trained(folder: Path, counts: tuple[int, ...]) -> Path:
    """A bundle that says how its training labels were spread."""
    made = make_bundle(folder)
    lineage = made.info.lineage.model_copy(update={"label_counts": counts})
    (made.path / "bundle.json").write_text(made.info.model_copy(update={"lineage": lineage}).sealed().to_json())
    return Bundle.load(made.path).path


def test_metrics_tell_what_happened(start, tmp_path: Path) -> None:
    server = start(trained(tmp_path, (1, 1, 2)), "--low-confidence", "0.95")
    frames = pictures(12)
    with server.live() as live:
        assert server.metric("framegate_streams", kind="live") == 1
        said = [live.ask(one) for one in frames]
        live.ask(b"no picture")
    for label in (0, 1):
        assert server.infer(color(label), sequence_id=1, sequence_start=True).status_code == 200
    assert server.post(PREDICT, content=jpeg(color(2))).status_code == 200
    assert server.post(PREDICT, content=b"text").status_code == 415
    assert server.infer(color(0)[:8]).status_code == 400
    found = {label: server.metric("framegate_answers_total", label=label) for label in LABELS}
    tops = [top_of(one) for one in said] + ["blue", "green", "red"]
    assert found == {label: tops.count(label) for label in LABELS}
    unsure = sum(shares_of(one, LABELS).max() < 0.95 for one in said)
    assert 0 <= server.metric("framegate_low_confidence_answers_total") - unsure <= 3
    assert [server.metric("framegate_training_share", label=label) for label in LABELS] == [0.25, 0.25, 0.5]
    assert server.metric("framegate_batch_rows_sum") == 15
    assert server.metric("framegate_batch_rows_count") == 15, "they came one by one"
    assert server.metric("framegate_latency_seconds_count", phase="decode") == 12
    assert server.metric("framegate_latency_seconds_count", phase="total") == 14, "without the file"
    assert server.metric("framegate_latency_seconds_count", phase="infer") == 15
    assert server.metric("framegate_latency_seconds_count", phase="queue") == 15
    assert server.metric("framegate_model_info", version=server.version, runtime="ort-cpu") == 1
    assert server.metric("framegate_requests_total", outcome="415") == 1
    assert server.metric("framegate_requests_total", route="/v2/models/{model}/infer", outcome="400") == 1
    assert server.metric("framegate_requests_total", route="/v2/models/{model}/infer", outcome="200") == 2
    assert server.metric("framegate_dropped_frames_total") == 0
    assert server.metric("framegate_rejected_bundle") == 0
    eventually(lambda: server.metric("framegate_streams", kind="live") == 0, "the live stream is closed")
    assert server.metric("framegate_streams", kind="sequence") == 1
    help_of = [line for line in server.get("/metrics").text.splitlines() if line.startswith("# HELP framegate_")]
    assert len(help_of) >= 12
    (latency,) = [line for line in help_of if line.startswith("# HELP framegate_latency_seconds ")]
    assert "without /v1/predict: decode of a live frame" in latency


def test_every_request_is_counted_by_its_route_and_outcome(start, bundle: Path) -> None:
    """A WebSocket once, however it ended; a browser's, that offers a subprotocol, as well."""
    server = start(bundle, "--max-streams", "1")
    streams = "/v1/streams/{model}"

    def counted(route: str = streams) -> dict[str, float]:
        said = text_string_to_metric_families(server.get("/metrics").text)
        samples = [sample for family in said for sample in family.samples if sample.name == "framegate_requests_total"]
        return {one.labels["outcome"]: one.value for one in samples if one.labels["route"] == route}

    def left(code: int) -> None:
        with server.live() as live:
            live.socket.close(code)

    with server.live(subprotocols=["framegate"]) as live:
        refused(server, 1013)
        assert live.end()[-1]["event"] == "end"
    refused(server, 4404, model="nobody")
    refused(server, 1008, query="fps=fast")
    left(1001)
    left(4321)
    with handshake(server):  # and leaves
        pass
    right = dict.fromkeys(("1000", "1001", "1005", "1008", "1013", "4404", "other"), 1.0)
    eventually(lambda: counted() == right, "each is counted", 10)
    with pytest.raises(websockets.exceptions.InvalidStatus):
        server.socket(model="a/b")
    assert server.get("/openapi.json").status_code == server.ask("HEAD", "/openapi.json").status_code == 200
    assert server.get("/nothing").status_code == 404
    assert counted("/openapi.json") == {"200": 2}
    assert counted("none") == {"403": 1, "404": 1}


def refused(server: Server, code: int, **more: str) -> None:
    with server.socket(**more) as socket, pytest.raises(websockets.exceptions.ConnectionClosed):
        socket.recv(timeout=10)
    assert socket.protocol.close_rcvd.code == code


@pytest.mark.parametrize("same", [True, False])
def test_a_shadow_is_compared_and_its_answers_are_nobodys(start, bundle: Path, tmp_path: Path, same: bool) -> None:
    weights = WEIGHTS if same else np.roll(WEIGHTS, 1, axis=1)
    candidate = make_bundle(tmp_path / "shadow", "tiny-pruned-fp32", weights=weights).path
    server = start(bundle, "--shadow", str(candidate), "--shadow-share", "1.0")
    frames = [color(k % 3, seed=k) for k in range(9)]
    said = []
    for k, frame in enumerate(frames):
        said.append(logits_of(server.infer(frame, sequence_id=1, sequence_start=k == 0)))
        eventually(lambda seen=k + 1: seen_by_shadow(server) == seen, "the shadow saw it, too")
    champion = offline(bundle, frames)
    alike = int((offline(candidate, frames).argmax(1) == champion.argmax(1)).sum())
    assert (alike == len(frames)) == same
    assert abs(np.stack(said) - champion).max() < 1e-4, "answers are the champion's"
    assert server.metric("framegate_shadow_frames_total", outcome="agreed") == alike
    assert server.metric("framegate_shadow_frames_total", outcome="disagreed") == len(frames) - alike
    assert server.metric("framegate_shadow_latency_seconds_count") == len(frames)
    with server.live() as live:
        assert [live.ask(one)["seq"] for one in pictures(6)] == list(range(6))
    eventually(lambda: seen_by_shadow(server) == len(frames) + 6, "live streams are seen as well, or skipped")
    assert server.metric("framegate_batch_rows_sum") == len(frames) + 6, "batches are the champion's only"


def seen_by_shadow(server: Server) -> float:
    return server.metric("framegate_shadow_frames_total")


def test_a_shadow_of_another_task_does_not_start(bundle: Path, tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "shadow")
    other = made.info.model_copy(update={"labels": ("cat", "dog", "hare")}).sealed()
    (made.path / "bundle.json").write_text(json.dumps(json.loads(other.to_json())))
    options = ("--accept-host", "--shadow", str(made.path))
    one = Server(bundle, tmp_path / "server", *options)
    try:
        assert one.exit_code() == 1
        assert "only models of the same task can be compared" in one.text
    finally:
        one.close()
