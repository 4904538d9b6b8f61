"""Rollback under DVC: what was put back stays through `dvc repro`, which says so, until it is released."""

import json

import pytest
import yaml
from PIL import Image

from framegate.promotion.record import Promotion
from tests.e2e.conftest import Clone, copy_project
from tests.promoted import A, B, judged

pytestmark = pytest.mark.slow
HELD = "held at promotion 1 (rolled back from 2"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the stages host and ship alone; verdict, bundles and evidence are written by hand."""
    clone = Clone(tmp_path_factory.mktemp("promoted"))
    copy_project(clone.path)
    stages = yaml.safe_load((clone.path / "dvc.yaml").read_text())["stages"]
    kept = {"stages": {name: stages[name] for name in ("host", "ship")}}
    (clone.path / "dvc.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    (clone.path / "dvc.lock").unlink(missing_ok=True)
    clone.run("git", "init", "-q")
    return clone


def shipped(project: Clone) -> tuple[int | None, str | None]:
    """Number in exports/shipped and exports/promotion.json, which must agree; the registered version."""
    copy = Promotion.read(project.path / "exports/shipped/promotion.json")
    record = Promotion.read(project.path / "exports/promotion.json")
    assert copy.number == record.number
    return record.number, record.version


def predicted(project: Clone) -> str:
    """The label of a red image."""
    Image.new("RGB", (32, 32), (255, 0, 0)).save(project.path / "red.png")
    (segment,) = json.loads(project.run("framegate", "predict", "red.png", "--json").splitlines()[-1])
    return segment["label"]


def test_what_was_rolled_back_stays_until_it_is_released(project: Clone) -> None:
    exports = project.path / "exports"
    judged(exports, A)
    assert "ship" in project.stages(project.run("dvc", "repro"))
    judged(exports, B)
    project.run("dvc", "repro")
    assert shipped(project) == (2, "2") and predicted(project) == "blue"
    assert project.stages(project.run("dvc", "repro")) == ["host"]

    output = project.run("framegate", "promotions", "rollback")
    assert HELD in output and shipped(project) == (1, "1")
    output = project.run("dvc", "repro")
    assert project.stages(output) == ["host", "ship"] and output.count(HELD) == 2
    assert f"{B} of the present verdict is not shipped" in output and shipped(project) == (1, "1")
    output = project.run("dvc", "repro")
    assert project.stages(output) == ["host"] and HELD in output and shipped(project) == (1, "1")
    assert predicted(project) == "red"

    project.run("framegate", "promotions", "release")
    output = project.run("dvc", "repro")
    assert project.stages(output) == ["host", "ship"] and HELD not in output and shipped(project) == (2, "2")


def test_a_rollback_that_was_released_before_dvc_saw_it_ships_the_verdicts_again(project: Clone) -> None:
    project.run("framegate", "promotions", "rollback", "--to", "1")
    project.run("framegate", "promotions", "release")
    assert shipped(project) == (1, "1")
    assert project.stages(project.run("dvc", "repro")) == ["host", "ship"] and shipped(project) == (2, "2")
    assert project.stages(project.run("dvc", "repro")) == ["host"]
