"""What ships next takes over: new work at once, streams when their time is over; what is broken stays out."""

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.swap_oracle import Oracle
from benchmarks.swaps import Result, Served, swap_under_load
from framegate.bench.host import host_class
from framegate.contract import atomic_folder, sha256_file
from framegate.timeline import softmax
from tests.bundles import LABELS, make_bundle
from tests.promoted import A, B, ship_of
from tests.running import Server, eventually, logits_of, message, offline, pictures, seen, shares_of
from tests.served import color

FRAMES = [color(k % 3, seed=k) for k in range(8)]
VERSION = {A: "2", B: "1"}


@pytest.fixture
def put(exports: Path) -> Callable[[str], None]:
    """put("1") ships what has this number again."""

    def again(version: str) -> None:
        ship_of(exports, {number: name for name, number in VERSION.items()}[version], day=int(version))

    return again


@pytest.mark.slow
def test_swaps_under_load_lose_nothing_and_mix_nothing_up(start, exports: Path, put: Callable[[str], None]) -> None:
    server, result = start(exports / "shipped", "--version-s", "0.2"), Result()
    oracle = Oracle({version: exports / "promotions" / version for version in VERSION.values()})
    asyncio.run(swap_under_load(Served(server.process, server.ports), oracle, put, 4, 3, result))
    assert {kind: dict(one.failed) for kind, one in result.counts.items() if one.failed} == {}
    assert {kind: set(one.versions) for kind, one in result.counts.items()} == {
        kind: {"1", "2"} for kind in ("HTTP", "gRPC", "WebSocket")
    }
    assert result.counts["WebSocket"].resets, result.counts  # sequences are short: whether one is met is chance
    assert result.total.refused.total() == 0
    assert server.metric("framegate_rejected_bundles_total") == 0
    assert "Traceback" not in server.text


def test_a_stream_stays_on_its_version_and_new_work_is_on_the_next(start, exports: Path) -> None:
    server = start(exports / "shipped", "--version-s", "600")
    frames = pictures(6)
    with server.live() as old:
        assert old.ready["version"] == "2"
        said = [old.ask(one) for one in frames[:2]]
        said_in_sequence = [server.infer(FRAMES[0], sequence_id="old", sequence_start=True)]
        ship_of(exports, B)
        eventually(lambda: server.version == "1", "the other version serves")
        with server.live() as new:
            assert new.ready["version"] == "1"
            assert_equal([new.ask(one) for one in frames], exports / "promotions/1", frames, "1")
        said += [old.ask(one) for one in frames[2:]]
    assert_equal(said, exports / "promotions/2", frames, "2")
    said_in_sequence += [server.infer(one, sequence_id="old") for one in FRAMES[1:]]
    assert {one.json()["model_version"] for one in said_in_sequence} == {"2"}
    logits = np.stack([logits_of(one) for one in said_in_sequence])
    assert abs(logits - offline(exports / "promotions/2", FRAMES)).max() < 1e-4
    assert server.infer(FRAMES[0]).json()["model_version"] == "1"
    assert server.metric("framegate_model_info", version="1") == 1
    assert server.metric("framegate_model_info", version="2") == 0


def assert_equal(said: list[dict[str, Any]], folder: Path, frames: list[bytes], version: str) -> None:
    """Live answers to these frames are those of a bundle, from the start."""
    assert {one["version"] for one in said} == {version}
    right = softmax(offline(folder, [seen(one) for one in frames]))
    assert abs(np.stack([shares_of(one, LABELS) for one in said]) - right).max() < 1e-3


def test_a_stream_whose_time_is_over_starts_anew_on_the_next_version_and_is_told(start, exports: Path) -> None:
    server = start(exports / "shipped", "--version-s", "0.2")
    frames = pictures(4)
    with server.live() as live, server.stub() as stub:
        assert live.ask(frames[0])["version"] == "2"
        first = {"sequence_id": 5, "sequence_start": True}
        assert stub.ModelInfer(message(FRAMES[0][None], **first)).model_version == "2"
        ship_of(exports, B)
        eventually(lambda: server.version == "1", "the other version serves")
        eventually(lambda: server.get("/v2/models/framegate").json()["versions"] == ["1"], "the old one is closed")
        told = live.ask(frames[1])
        clip = {"height": 16, "width": 16, "fps": 10.0}
        assert told == {
            "event": "reset", "reason": "version", "version": "1", "t": 0.1, "labels": list(LABELS), "clip": clip
        }  # fmt: skip
        assert_equal([live.next(), *map(live.ask, frames[2:])], exports / "promotions/1", frames[1:], "1")
        answers = [stub.ModelInfer(message(one[None], sequence_id=5)) for one in FRAMES[1:]]
    assert [one.parameters["reset"].string_param for one in answers] == ["version"] + [""] * 6
    logits = np.stack([logits_of(one) for one in answers])
    assert abs(logits - offline(exports / "promotions/1", FRAMES[1:])).max() < 1e-4


# --- what is broken stays out -------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """A folder that must not serve, made out of an exports folder, and the reason that must be given."""

    make: Callable[[Path], None]
    reason: str
    kind: str


def tampered_verdict(exports: Path) -> None:
    with replaced(exports) as folder:
        verdict = json.loads((folder / "verdict.json").read_text())
        verdict["sentence"] = "It ships, says nobody."
        (folder / "verdict.json").write_text(json.dumps(verdict))


def other_host(exports: Path) -> None:
    with replaced(exports) as folder:
        record = (folder / "promotion.json").read_text()
        measurement = json.loads((folder / "measurement.json").read_text())
        cpu = measurement["host_class"]["cpu"]
        (folder / "promotion.json").write_text(record.replace(json.dumps(cpu), '"Another CPU"'))


def other_host_throughout(exports: Path) -> None:
    """Measured, judged and shipped elsewhere: nothing disagrees, but it says nothing of this host."""
    other = Path(shutil.copytree(exports, exports.parent / "elsewhere"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.promoted.host_class", lambda: {**host_class(), "cpu": "Another CPU"})
        ship_of(other, B, day=3)
    with atomic_folder(exports / "shipped") as empty:
        shutil.copytree(other / "shipped", empty, dirs_exist_ok=True)


class replaced:
    """A copy of what ships, to be changed, that takes its place in one step."""

    def __init__(self, exports: Path) -> None:
        self._exports, self._copy = exports, exports.parent / "copy"

    def __enter__(self) -> Path:
        shutil.rmtree(self._copy, ignore_errors=True)
        return Path(shutil.copytree(self._exports / "promotions/1", self._copy))

    def __exit__(self, *_: object) -> None:
        with atomic_folder(self._exports / "shipped") as empty:
            shutil.copytree(self._copy, empty, dirs_exist_ok=True)


def missing_file(exports: Path) -> None:
    with replaced(exports) as folder:
        (folder / "golden.npz").unlink()


BROKEN = {
    "tampered verdict": Broken(tampered_verdict, "not the verdict that promotion.json names", "DataError"),
    "another host's record": Broken(other_host, "its measurement and verdict say", "DataError"),
    "another host": Broken(other_host_throughout, "shipped for cpu 'Another CPU', this is", "RuntimeUnavailable"),
    "a missing file": Broken(missing_file, "golden.npz", "BundleError"),
}


def test_what_is_broken_stays_out_and_the_reason_can_be_read(start, exports: Path) -> None:
    server = start(exports / "shipped")
    with server.live() as live:
        for number, (name, broken) in enumerate(BROKEN.items(), 1):
            broken.make(exports)
            told = eventually(
                lambda words=broken.reason: reason(server, words), f"{name}: {broken.reason}; {reason(server, '')}"
            )
            assert str(exports / "shipped") in told
            assert server.version == "2"
            assert server.metric("framegate_rejected_bundle") == 1
            assert server.metric("framegate_rejected_bundles_total", reason=broken.kind) >= 1
            assert live.ask(pictures(1)[0])["version"] == "2"
            assert server.infer(FRAMES[0]).json()["model_version"] == "2"
            assert server.text.count("stays out, version 2 goes on") >= number
        ship_of(exports, B)
        eventually(lambda: server.version == "1", "the next good one serves")
        assert reason(server, "") is None
        assert server.metric("framegate_rejected_bundle") == 0
        assert live.ask(pictures(1)[0])["version"] == "2"


def reason(server: Server, words: str) -> str | None:
    """Why what lies in the folder stays out, if the reason has these words."""
    answer = server.get("/v2/health/ready")
    assert answer.status_code == 200
    found = answer.json().get("rejected")
    return found if found and words in found else None


def _golden(file: Path, shift: float = 0.0, without: str = "") -> None:
    with np.load(file) as found:
        arrays = {name: found[name] + (shift if name == "step_logits" else 0) for name in found if name != without}
    np.savez(file, **arrays)


def _no_graph(file: Path) -> None:
    file.write_bytes(b"no graph")


SPOILT: dict[str, tuple[str, Callable[[Path], None], str]] = {  # resealed, so that every digest fits
    "other answers": ("golden.npz", lambda file: _golden(file, shift=1.0), "golden clips"),
    "no answers": (
        "golden.npz",
        lambda file: _golden(file, without="step_logits"),
        "step_logits",
    ),
    "no graph": ("step.onnx", _no_graph, "step.onnx"),
}


def test_a_bundle_that_cannot_run_stays_out_and_the_folder_is_still_followed(
    start, bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "served"))

    def put(source: Path) -> None:
        with atomic_folder(folder) as empty:
            shutil.copytree(source, empty, dirs_exist_ok=True)

    server = start(folder)
    version = server.version
    for what, (name, spoil, words) in SPOILT.items():
        broken = make_bundle(tmp_path / what)
        spoil(broken.path / name)
        files = {**broken.info.files, name: sha256_file(broken.path / name)}
        (broken.path / "bundle.json").write_text(broken.info.model_copy(update={"files": files}).sealed().to_json())
        put(broken.path)
        assert eventually(lambda words=words: reason(server, words), f"stays out because of {words}")
        assert server.version == version
        assert server.infer(FRAMES[0]).json()["model_version"] == version
    put(make_bundle(tmp_path / "good", "tiny-pruned-fp32").path)
    eventually(lambda: server.version != version, "the next good one serves")
    assert reason(server, "") is None


def test_a_server_does_not_start_on_what_is_broken(exports: Path, tmp_path: Path) -> None:
    tampered_verdict(exports)
    one = Server(exports / "shipped", tmp_path / "broken")
    try:
        assert one.exit_code() == 1
        assert "not the verdict that promotion.json names" in one.text
        assert "Traceback" not in one.text
    finally:
        one.close()


@pytest.mark.slow
def test_memory_returns_after_many_swaps(start, exports: Path, put: Callable[[str], None]) -> None:
    server = start(exports / "shipped", "--version-s", "0.1")

    def turn(times: int) -> None:
        for _ in range(times):
            with server.live() as live:
                live.ask(pictures(1)[0])
                wanted = "1" if server.version == "2" else "2"
                put(wanted)
                eventually(lambda wanted=wanted: server.version == wanted, f"version {wanted} serves")
        eventually(lambda: len(server.get("/v2/models/framegate").json()["versions"]) == 1, "old ones are closed")

    turn(1)
    files, threads, memory = server.files, server.threads, server.rss_bytes
    turn(4)
    eventually(lambda: server.threads <= threads, "no thread stays behind")
    eventually(lambda: server.files <= files + 2, "no file stays open")
    assert server.rss_bytes < memory + 30e6
