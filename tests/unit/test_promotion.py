"""Promotion: every champion is kept whole, the way back is one command, and nothing half-done is left behind."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from framegate.cli import main
from framegate.contract import Bundle, BundleError, DataError, NothingShipped, Verdict, Waiver, sha256_file
from framegate.dvclock import Lock, md5_of
from framegate.promotion import Promotion
from framegate.promotion.archive import check_promotion, locked
from framegate.promotion.record import archived
from framegate.promotion.ship import challenge, previous_champion, release, rollback, ship
from tests.promoted import NO_REGISTRY, A, B, contents, interrupt, judged, origin, ship_of, shipped

WAIVED = (Waiver(rule="latency_p50_ms ≤ 0.5 x parent", reason="a demonstration"),)


# --- the archive ------------------------------------------------------------------------------------


def test_a_promotion_is_kept_whole_and_shipped_is_its_copy(exports: Path) -> None:
    done = ship_of(exports, A)
    verdict = Verdict.read(exports / "verdict.json")
    assert contents(exports / "shipped") == contents(exports / "promotions/1")
    assert set(contents(exports / "shipped")) == {
        "bundle.json", "step.onnx", "clip.onnx", "golden.npz", "promotion.json", "verdict.json", "measurement.json",
        "samples.npz",
    }  # fmt: skip
    assert (done.number, done.candidate, done.runtime, done.threads, done.previous) == (1, A, "ort-cpu", 1, None)
    assert done.bundle == verdict.bundle == Bundle.load(exports / "shipped").info.digest
    assert done.verdict == sha256_file(exports / "verdict.json") and done.sentence == verdict.sentence
    assert done.evidence == {**verdict.measurements, "index": "i" * 64} and done.host["cores"] >= 1
    assert done.upstream.keys() == {"index", f"bench@{A}"} and done.time == "2026-01-01T12:00:00+00:00"
    assert Promotion.read(exports / "promotion.json") == done


def test_what_did_not_pass_does_not_ship_whatever_the_verdict_says(exports: Path) -> None:
    verdict = judged(exports, A)
    for changed in ({"status": "INCONCLUSIVE"}, {"shipped": B}):
        verdict.model_copy(update=changed).write(exports / "verdict.json")
        with pytest.raises(DataError, match="ships without having passed"):
            ship(exports, origin(), NO_REGISTRY)
    assert not (exports / "shipped").exists()


def test_a_verdict_that_the_gate_stage_did_not_write_does_not_ship(exports: Path) -> None:
    from pipelines.ship import check_gate

    judged(exports, A)
    (exports / "hosts.json").write_text('{"abcdefabcdef": "0"}')
    outs = [{"path": str(exports / name), "md5": md5_of(exports / name)} for name in ("verdict.json", "hosts.json")]
    lock = Lock(Path("dvc.lock"), {"gate": {"outs": outs}})
    assert check_gate(lock, exports) == ["abcdefabcdef"]
    judged(exports, B)
    with pytest.raises(DataError, match=r"verdict.json: changed after the gate stage wrote it"):
        check_gate(lock, exports)
    judged(exports, A)  # writes an empty hosts.json
    with pytest.raises(DataError, match=r"hosts.json: changed after"):
        check_gate(lock, exports)
    assert check_gate(Lock(Path("dvc.lock"), {}), exports) == []


def test_a_damaged_promotion_keeps_its_number_and_stands_in_nobodys_way(exports: Path) -> None:
    ship_of(exports, A)
    (exports / "promotions/7").mkdir()
    (exports / "promotions/8").mkdir()
    (exports / "promotions/8/promotion.json").write_text("{")
    assert ship_of(exports, B, day=2).number == 9
    (exports / "shipped/promotion.json").write_text("{")
    (exports / "promotion.json").write_text("{")
    rollback(exports, 1, "", "2026-01-03", NO_REGISTRY)
    assert shipped(exports).candidate == A


def test_numbers_go_on_and_name_what_shipped_before(exports: Path) -> None:
    ship_of(exports, A)
    before = sha256_file(exports / "shipped/promotion.json")
    second = ship_of(exports, B, day=2)
    assert second.number == 2 and second.previous == before and shipped(exports).candidate == B
    assert list(archived(exports)) == [1, 2]


def test_the_same_verdict_ships_once(exports: Path) -> None:
    ship_of(exports, A)
    everything = contents(exports)
    ship(exports, origin(day=9), NO_REGISTRY)
    assert contents(exports) == everything


@pytest.mark.parametrize("moment", ["before the swap", "between the two renames"])
def test_a_ship_that_was_killed_ends_when_it_runs_again(
    exports: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    ship_of(exports, A)
    judged(exports, B)
    with monkeypatch.context() as patch:
        if moment == "before the swap":
            patch.setattr("framegate.promotion.ship.put", interrupt)
        else:
            patch.setattr(Path, "rename", kill_second_rename(Path.rename, exports / "shipped"))
        with pytest.raises(KeyboardInterrupt):
            ship(exports, origin(2), NO_REGISTRY)
    assert (exports / "shipped").exists() == (moment == "before the swap")
    done = ship(exports, origin(3), NO_REGISTRY).promotion
    assert done.number == 2 and done.time.startswith("2026-01-02") and shipped(exports).number == 2
    assert previous_champion(exports) == 1
    assert not [p for folder in (exports, exports / "promotions") for p in folder.glob(".*") if p.is_dir()]


def kill_second_rename(rename, target: Path):
    """Ctrl-C right after `target` was renamed away."""

    def renamed(self: Path, to: Path) -> Path:
        if to == target:
            raise KeyboardInterrupt
        return rename(self, to)

    return renamed


def test_what_a_killed_swap_moved_away_is_put_back_before_another_verdict_ships(exports: Path) -> None:
    ship_of(exports, A)
    (exports / "shipped").rename(exports / ".shipped.x.old")
    second = ship_of(exports, B)
    assert second.previous == sha256_file(exports / "promotions/1/promotion.json")


# --- what does not ship -----------------------------------------------------------------------------


def test_a_verdict_that_names_nothing_ships_nothing(exports: Path) -> None:
    ship_of(exports, A)
    everything = contents(exports / "shipped")
    judged(exports, None)
    with pytest.raises(NothingShipped, match=r"Nothing ships\. What shipped before stays"):
        ship(exports, origin(), NO_REGISTRY)
    assert contents(exports / "shipped") == everything and list(archived(exports)) == [1]


def test_a_verdict_with_waivers_never_ships_a_champion(exports: Path) -> None:
    judged(exports, A, WAIVED)
    with pytest.raises(NothingShipped, match="only by waiving latency_p50_ms"):
        ship(exports, origin(), NO_REGISTRY)
    assert not (exports / "shipped").exists() and not (exports / "promotions").exists()


def test_a_bundle_that_was_not_judged_does_not_ship(exports: Path) -> None:
    judged(exports, A)
    shutil.rmtree(exports / "tiny-dense-fp32")
    from tests.bundles import make_bundle

    make_bundle(exports, "tiny-dense-fp32", ballast=3)
    with pytest.raises(BundleError, match=r"digest is .* run `dvc repro`"):
        ship(exports, origin(), NO_REGISTRY)
    assert not (exports / "shipped").exists()


@pytest.mark.parametrize("file", ["measurement.json", "samples.npz"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_without_the_winners_evidence_nothing_ships(exports: Path, file: str, damage: str) -> None:
    judged(exports, A)
    path = exports / "evidence" / A / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"measured", b"skipped ") + b" ")
    with pytest.raises(DataError, match=rf"evidence/{A}.*dvc repro"):
        ship(exports, origin(), NO_REGISTRY)
    assert not (exports / "shipped").exists()


# --- two at once ------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from framegate.promotion.archive import locked
with locked(Path("exports")):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def holder() -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_while_another_process_ships_this_one_says_so_and_moves_nothing(two: Path) -> None:
    everything = contents(two)
    with holder() as process:
        for act in (
            lambda: ship(two, origin(), NO_REGISTRY),
            lambda: rollback(two, 1, "", "t", NO_REGISTRY),
            lambda: release(two),
        ):
            with pytest.raises(NothingShipped, match="another ship or rollback is at work here"):
                act()
        process.communicate("\n")
    assert contents(two) == everything
    assert ship(two, origin(), NO_REGISTRY).promotion.number == 2


def test_a_killed_process_leaves_no_lock(two: Path) -> None:
    with holder() as process:
        process.kill()
    assert (two / ".ship.lock").is_file()
    with locked(two):
        pass


SHIPPER = """
from pathlib import Path
from framegate.contract import NothingShipped, Skipped
from framegate.promotion.origin import Origin
from framegate.promotion.ship import ship
input()
try:
    print(ship(Path("exports"), Origin(time="t"), Skipped("none")).promotion.number)
except NothingShipped as error:
    print(error)
"""


def test_of_ships_at_once_each_wins_or_says_so_and_the_folder_is_whole(exports: Path) -> None:
    judged(exports, A)
    ready = [
        subprocess.Popen([sys.executable, "-c", SHIPPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said: list[str] = []
    threads = [threading.Thread(target=lambda p=p: said.append(p.communicate("\n")[0].strip())) for p in ready]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "1" in said and all(line == "1" or "another ship" in line for line in said), said
    assert shipped(exports).number == 1 and list(archived(exports)) == [1]


# --- challenger -------------------------------------------------------------------------------------


def test_a_waiver_ships_a_challenger_beside_the_champion(two: Path) -> None:
    everything = contents(two / "shipped")
    verdict = judged(two, A, WAIVED)
    done = challenge(two, verdict, origin(3), NO_REGISTRY).promotion
    kept = check_promotion(two / "challenger")
    assert kept == done and kept.waived == WAIVED and (kept.number, kept.candidate) == (None, A)
    assert Verdict.read(two / "challenger/verdict.json") == verdict
    assert contents(two / "shipped") == everything and list(archived(two)) == [1, 2]


def test_a_challenger_must_pass_what_is_not_waived(exports: Path) -> None:
    verdict = judged(exports, A, WAIVED)
    with pytest.raises(NothingShipped, match=rf"even with the waiver {B} is FAIL: too slow"):
        challenge(exports, verdict, origin(), NO_REGISTRY, B)
    with pytest.raises(NothingShipped, match=r"even with the waiver: Nothing ships\."):
        challenge(exports, judged(exports, None, WAIVED), origin(), NO_REGISTRY)
    assert not (exports / "challenger").exists()


def test_what_needs_no_waiver_is_no_challenger(exports: Path) -> None:
    verdict = judged(exports, A, WAIVED)
    plain = tuple(one.model_copy(update={"outcomes": ()}) for one in verdict.candidates)
    with pytest.raises(NothingShipped, match=f"{A} passes without the waiver of .*; not passing: {B}: too slow"):
        challenge(exports, verdict.model_copy(update={"candidates": plain}), origin(), NO_REGISTRY)
    assert not (exports / "challenger").exists()


def test_a_candidate_that_the_walk_did_not_choose_can_be_the_challenger(exports: Path) -> None:
    verdict = judged(exports, A, WAIVED)
    both = tuple(one.model_copy(update={"status": "PASS"}) for one in verdict.candidates)
    done = challenge(exports, verdict.model_copy(update={"candidates": both}), origin(), NO_REGISTRY, B).promotion
    assert done.candidate == B and done.bundle == Bundle.load(exports / "tiny-pruned-fp32").info.digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--waive", "x", "--reason", "  "], "--reason is empty for x"),
        (["--waive", "x", "--waive", "y", "--reason", "why"], "--waive is given 2 times, --reason 1 times"),
    ],
)
def test_a_waiver_needs_a_reason(exports: Path, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["ship", *words])
