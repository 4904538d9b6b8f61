"""`framegate promotions` and what `dvc repro` says."""

import shutil
from pathlib import Path

import pytest

from framegate.cli import main
from framegate.contract import Waiver
from framegate.promotion import Promotion
from framegate.promotion import archive as archive_module
from framegate.promotion.archive import check_promotion
from framegate.promotion.ship import challenge, rollback, ship
from tests.promoted import NO_REGISTRY, A, B, judged, measured, origin, shipped

WAIVED = (Waiver(rule="latency_p50_ms ≤ 0.5 x parent", reason="a demonstration"),)


def test_list_marks_the_champion_the_hold_and_the_challenger(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    challenge(two, judged(two, A, WAIVED), origin(3), NO_REGISTRY)
    rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    main(["promotions", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["2", B] and lines[2].split()[:2] == ["1", A]
    assert [line.endswith("  champion, held") for line in lines[1:3]] == [False, True]
    assert lines[3].startswith("held at promotion 1 (rolled back from 2")
    assert lines[4] == f"challenger: {A}, by waiving {WAIVED[0].rule} (2026-01-03T12:00:00+00:00)"
    assert lines[5].startswith("alias champion: unknown: no MLflow store here")


def test_list_shows_a_damaged_record_as_such(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (two / "promotions/1/promotion.json").write_text("{")
    main(["promotions", "list"])
    assert "promotions/1/promotion.json: not a Promotion" in capsys.readouterr().out


def test_show_gives_the_record_and_whether_its_files_are_as_kept(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["promotions", "show", "1"])
    out = capsys.readouterr().out
    assert out.startswith(f"{A} ships.\n{{") and out.endswith("files of promotion 1: as they were kept\n")
    assert Promotion.model_validate_json(out[out.index("{") : out.rindex("}") + 1]).number == 1
    (two / "promotions/2/samples.npz").unlink()
    main(["promotions", "show"])
    assert "promotion 2 was changed after it was kept" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--exports", "{}", "list"], ["list", "--exports", "{}"]])
def test_another_folder_is_named_before_or_after_the_action(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    shutil.copytree(two / "promotions/1", tmp_path / "other/promotions/7")
    main(["promotions", *(word.format(tmp_path / "other") for word in words)])
    assert f"    7  {A}" in capsys.readouterr().out


def test_rollback_and_release_from_the_command_line(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["promotions", "rollback", "--reason", "rain"])
    out = capsys.readouterr().out
    assert out.startswith(f"promotion 1 ships: {A}, bundle ") and ": rain)" in out and "`dvc repro` moves it" in out
    main(["promotions", "release"])
    assert capsys.readouterr().out.startswith("no longer held at promotion 1 (rolled back from 2")
    main(["promotions", "release"])
    assert capsys.readouterr().out == "exports: nothing is held\n"
    with pytest.raises(SystemExit, match="error: promotion 9 is not in"):
        main(["promotions", "rollback", "--to", "9"])


def test_without_mlflow_the_alias_stays_and_the_command_says_so(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = archive_module.__spec__  # any module that is there
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else found)
    main(["promotions", "rollback"])
    assert "MLflow is not installed here: the alias stays as it is; `dvc repro` moves it" in capsys.readouterr().out


def test_every_dvc_repro_says_what_is_held(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.host import main as host

    host()
    assert "held" not in capsys.readouterr().out
    rollback(two, None, "", "2026-01-03", NO_REGISTRY)
    host()
    assert "exports: held at promotion 1 (rolled back from 2" in capsys.readouterr().out


def test_another_host_class_ships_into_its_own_folder(two: Path) -> None:
    other = two / "hosts/abcdefabcdef"
    judged(two, A)
    measured(two, A)
    shutil.copytree(two / "evidence", other / "evidence")
    shutil.copy(two / "verdict.json", other / "verdict.json")
    done = ship(other, origin(3), NO_REGISTRY).promotion
    assert done.number == 1 and check_promotion(other / "shipped").candidate == A and shipped(two).candidate == B
