"""MLflow mirrors what ships: a real store in a file. Files first, registry second, alias last."""

from pathlib import Path

import pytest

from framegate import track
from framegate.cli import main
from framegate.contract import FramegateError, Waiver
from framegate.promotion.record import Promotion
from framegate.promotion.registry import installed
from framegate.promotion.ship import challenge, rollback, ship
from tests.promoted import A, B, judged, origin

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables made once."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        track.alias_version("champion")
    return folder


@pytest.fixture
def exports(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped as version 1, then B as version 2."""
    (tmp_path / "mlflow.db").write_bytes((store / "mlflow.db").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    folder = Path("exports")
    for day, candidate in enumerate((A, B), 1):
        judged(folder, candidate)
        ship(folder, origin(day), track)
    return folder


def test_the_alias_follows_ships_and_rollbacks_and_nothing_registers_twice(exports: Path) -> None:
    assert (track.alias_version("champion"), Promotion.read(exports / "promotion.json").version) == ("2", "2")
    assert ship(exports, origin(3), track).promotion.version == "2"
    done = rollback(exports, None, "", "2026-01-03", track)
    assert (done.promotion.version, track.alias_version("champion")) == ("1", "1")
    assert Promotion.read(exports / "promotion.json").version == "1"
    with track.tracking() as client:
        (champion,) = client.search_model_versions("name = 'framegate' and tags.candidate = 'tiny-dense-fp32--ort-cpu'")
        files = {item.path for item in client.list_artifacts(champion.run_id, "bundle")}
    assert {f"bundle/{name}" for name in ("step.onnx", "bundle.json", "promotion.json", "samples.npz")} <= files


def test_an_alias_moved_by_hand_is_noticed_by_ship_list_and_rollback(
    exports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["promotions", "list"])
    assert "alias champion: version 2, as shipped" in capsys.readouterr().out
    moved = "alias `champion` was moved by hand in MLflow: it names version 1, exports/promotion.json says 2"
    track.set_alias("champion", "1")
    main(["promotions", "list"])
    assert moved in capsys.readouterr().out
    assert ship(exports, origin(3), track).notes == (f"{moved}; now it names 2",)
    track.set_alias("champion", "1")
    assert f"{moved}; now it names 1" in rollback(exports, None, "", "2026-01-03", track).notes


def test_an_alias_that_was_deleted_is_noticed(exports: Path) -> None:
    with track.tracking() as client:
        client.delete_registered_model_alias("framegate", "champion")
    (note,) = ship(exports, origin(3), track).notes
    assert "it is gone" in note and track.alias_version("champion") == "2"


def test_a_rollback_where_mlflow_is_missing_is_mirrored_by_the_next_ship(exports: Path) -> None:
    from tests.promoted import NO_REGISTRY

    rollback(exports, None, "", "2026-01-03", NO_REGISTRY)
    assert track.alias_version("champion") == "2" and Promotion.read(exports / "promotion.json").version is None
    done = ship(exports, origin(4), track)
    assert (done.promotion.number, done.promotion.version, track.alias_version("champion")) == (1, "1", "1")
    assert len(done.notes) == 1  # the hold, and nothing of a hand


def test_a_challenger_gets_its_own_alias(exports: Path) -> None:
    verdict = judged(exports, A, (Waiver(rule="accuracy", reason="why"),))
    assert challenge(exports, verdict, origin(3), track).promotion.version == "3"
    assert (track.alias_version("challenger"), track.alias_version("champion")) == ("3", "2")


def test_when_the_registry_fails_the_files_are_there_and_the_next_ship_finishes(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(exports, A, sentence="A again.")
    with monkeypatch.context() as patch:
        patch.setattr(track, "set_alias", broken)
        with pytest.raises(FramegateError, match="unreachable"):
            ship(exports, origin(3), track)
    assert Promotion.read(exports / "shipped/promotion.json").number == 3
    assert Promotion.read(exports / "promotion.json").number == 3 and track.alias_version("champion") == "2"
    assert ship(exports, origin(4), track).promotion.version == "3" == track.alias_version("champion")


def broken(alias: str, version: str) -> None:
    raise FramegateError("MLflow is unreachable")


def test_the_seam_gives_track_where_there_is_a_store(exports: Path) -> None:
    assert installed() is track
