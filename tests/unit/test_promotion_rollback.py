"""The way back: what was rolled back to is what was kept, and stays until it is released."""

import json
import shutil
from pathlib import Path

import pytest

from framegate.contract import DataError, NothingShipped, sha256_file
from framegate.promotion import Promotion
from framegate.promotion.record import archived, read_hold
from framegate.promotion.ship import release, rollback, ship
from tests.promoted import NO_REGISTRY, A, B, contents, interrupt, judged, origin, ship_of, shipped


def test_rollback_puts_the_previous_champion_back_and_holds_it(two: Path) -> None:
    rollback(two, None, "wrong on rainy days", "2026-01-03", NO_REGISTRY)
    assert shipped(two).number == 1 and contents(two / "shipped") == contents(two / "promotions/1")
    record, hold = Promotion.read(two / "promotion.json"), read_hold(two)
    assert record.number == 1 and record.hold == hold
    assert (hold.promotion, hold.rolled_back_from, hold.reason) == (1, 2, "wrong on rainy days")


def test_while_held_ship_leaves_it_and_says_so(two: Path) -> None:
    rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    everything = contents(two)
    note, _ = ship(two, origin(4), NO_REGISTRY).notes
    assert note == (
        "held at promotion 1 (rolled back from 2 on 2026-01-03): "
        f"{B} of the present verdict is not shipped; `framegate promotions release` lets it"
    )
    assert contents(two) == everything


def test_while_held_a_verdict_for_the_same_bundle_is_not_said_to_be_kept_out(two: Path) -> None:
    rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    judged(two, A)
    assert "names the same; `framegate promotions release`" in ship(two, origin(4), NO_REGISTRY).notes[0]


def test_while_held_a_lost_shipped_folder_comes_back_from_the_archive(two: Path) -> None:
    rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    shutil.rmtree(two / "shipped")
    ship(two, origin(4), NO_REGISTRY)
    assert shipped(two).number == 1


def test_while_held_a_verdict_that_names_nothing_still_fails(two: Path) -> None:
    rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    judged(two, None)
    with pytest.raises(NothingShipped):
        ship(two, origin(4), NO_REGISTRY)
    assert shipped(two).number == 1


def test_after_release_the_verdicts_ships_under_its_old_number(two: Path) -> None:
    rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    while_held = sha256_file(two / "promotion.json")
    assert release(two).promotion == 1 and read_hold(two) is None
    assert sha256_file(two / "promotion.json") != while_held  # DVC runs the stage again because of this
    assert shipped(two).number == 1
    done = ship(two, origin(5), NO_REGISTRY)
    assert (done.promotion.number, shipped(two).number) == (2, 2) and "held" not in str(done.notes)
    assert list(archived(two)) == [1, 2] and release(two) is None


def test_release_after_a_rollback_that_was_killed_leaves_a_record_that_dvc_will_not_take_for_its_own(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sha256_file(two / "promotion.json")
    with monkeypatch.context() as patch:
        patch.setattr(Promotion, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    assert shipped(two).number == 1 and sha256_file(two / "promotion.json") == before
    release(two)
    assert sha256_file(two / "promotion.json") != before


def test_a_rollback_that_was_killed_goes_no_further_back_when_run_again(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = judged(two, A, sentence="A again.")
    ship(two, origin(3), NO_REGISTRY)
    assert third.shipped == shipped(two).candidate
    with monkeypatch.context() as patch:
        patch.setattr(Promotion, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rollback(two, None, "", "2026-01-04", NO_REGISTRY)
    assert rollback(two, None, "", "2026-01-05", NO_REGISTRY).promotion.number == 2
    assert read_hold(two).rolled_back_from == 3
    assert rollback(two, None, "", "2026-01-06", NO_REGISTRY).promotion.number == 1


def test_rollback_passes_over_promotions_that_serve_the_same(two: Path) -> None:
    judged(two, B, sentence="B, measured again.")
    assert ship(two, origin(3), NO_REGISTRY).promotion.number == 3
    assert rollback(two, None, "", "2026-01-04", NO_REGISTRY).promotion.number == 1


def test_rollback_to_a_number_goes_forward_too(two: Path) -> None:
    rollback(two, 1, "", "2026-01-03", NO_REGISTRY)
    rollback(two, 2, "", "2026-01-04", NO_REGISTRY)
    assert shipped(two).number == 2 and read_hold(two).promotion == 2


def test_rollback_to_what_is_held_keeps_the_hold_as_it_is(two: Path) -> None:
    rollback(two, 1, "why", "2026-01-03", NO_REGISTRY)
    rollback(two, 1, "", "2026-01-04", NO_REGISTRY)
    assert (read_hold(two).rolled_back_from, read_hold(two).reason) == (2, "why")


@pytest.mark.parametrize("file", ["step.onnx", "promotion.json", "verdict.json", "measurement.json", "samples.npz"])
def test_an_archive_that_was_changed_does_not_come_back(two: Path, file: str) -> None:
    path = two / "promotions/1" / file
    data = path.read_bytes()
    path.write_bytes(
        data.replace(b'"number": 1', b'"number": 7') if file == "promotion.json" else data[:-9] + b"123456789"
    )
    with pytest.raises(DataError, match="promotion 1 was changed after it was kept, and does not ship"):
        rollback(two, 1, "", "2026-01-03", NO_REGISTRY)
    assert shipped(two).number == 2 and read_hold(two) is None


def test_there_is_no_rollback_from_the_first_nor_to_an_unknown_one(exports: Path) -> None:
    with pytest.raises(DataError, match="no champion was there before"):
        rollback(exports, None, "", "2026-01-03", NO_REGISTRY)
    ship_of(exports, A)
    with pytest.raises(DataError, match=r"no champion was there before the present one; .*kept: 1"):
        rollback(exports, None, "", "2026-01-03", NO_REGISTRY)
    with pytest.raises(DataError, match=r"promotion 5 is not in .*kept: 1"):
        rollback(exports, 5, "", "2026-01-03", NO_REGISTRY)
    assert read_hold(exports) is None


def test_a_record_from_before_there_were_numbers_can_be_shipped_over(exports: Path) -> None:
    ship_of(exports, A)
    plain = json.loads((exports / "shipped/promotion.json").read_text())
    for key in ("number", "sentence", "waived", "host", "evidence", "time", "hold"):
        del plain[key]
    (exports / "shipped/promotion.json").write_text(json.dumps(plain))
    shutil.rmtree(exports / "promotions")
    assert ship_of(exports, B).number == 1
    with pytest.raises(DataError, match=r"is not kept as it was .*--to"):
        rollback(exports, None, "", "2026-01-03", NO_REGISTRY)
