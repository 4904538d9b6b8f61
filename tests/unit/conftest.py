"""Where promotions are tried."""

from pathlib import Path

import pytest

from tests.promoted import A, B, ship_of


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a project that nothing was written to; MLflow is the project's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path("exports")


@pytest.fixture
def two(exports: Path) -> Path:
    """A shipped, then B."""
    ship_of(exports, A, day=1)
    ship_of(exports, B, day=2)
    return exports
