"""Serving asks whether its bundle was judged on a host like this one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from framegate.bench.host import PACKAGES_OF, host_class, serving_class
from framegate.cli import main
from framegate.contract import BundleError, RuntimeUnavailable, Verdict, Waiver
from framegate.promotion.record import Promotion
from framegate.promotion.serving import check_host
from framegate.promotion.ship import challenge, ship
from framegate.runtime.session import RUNTIMES
from tests.conftest import render
from tests.promoted import NO_REGISTRY, A, judged, origin

HERE = {
    "system": "Linux", "machine": "x86_64", "cpu": "A CPU", "cpu_flags": ["avx2"], "cores": 2, "gpus": ["G, 1"],
    "runtimes": {"onnxruntime-gpu": "1.31", "openvino": "2026.4"},
}  # fmt: skip


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """A is shipped, measured on this very host."""
    judged(tmp_path / "exports", A)
    ship(tmp_path / "exports", origin(), NO_REGISTRY)
    return tmp_path / "exports"


def measured_on(folder: Path, **changed: Any) -> None:
    """As if it had been measured elsewhere."""
    found = Promotion.read(folder / "promotion.json")
    found.model_copy(update={"host": {**found.host, **changed}}).write(folder / "promotion.json")


def test_every_runtime_has_a_package_that_decides_its_speed() -> None:
    assert PACKAGES_OF.keys() == RUNTIMES.keys()


@pytest.mark.parametrize("key", ["system", "machine", "cpu", "cpu_flags", "cores"])
def test_another_cpu_is_another_class_for_every_runtime(key: str) -> None:
    for runtime in RUNTIMES:
        assert serving_class(HERE | {key: "other"}, runtime) != serving_class(HERE, runtime)


@pytest.mark.parametrize(
    ("runtime", "changed", "same"),
    [
        ("ort-cpu", {"gpus": []}, True),
        ("ort-cuda", {"gpus": []}, False),
        ("tensorrt", {"gpus": ["G, 2"]}, False),
        ("ort-cpu", {"runtimes": {"onnxruntime-gpu": "1.31", "openvino": "2027.0"}}, True),
        ("openvino", {"runtimes": {"onnxruntime-gpu": "1.31", "openvino": "2027.0"}}, False),
        ("ort-cpu", {"runtimes": {"onnxruntime-gpu": "1.32", "openvino": "2026.4"}}, False),
        ("openvino", {"runtimes": {"onnxruntime-gpu": "1.31"}}, False),
    ],
)
def test_only_what_matters_to_the_runtime_is_compared(runtime: str, changed: dict, same: bool) -> None:
    assert (serving_class(HERE | changed, runtime) == serving_class(HERE, runtime)) is same


def test_where_it_was_judged_it_serves(exports: Path) -> None:
    promotion, notes = check_host(exports / "shipped", host_class(), None)
    assert promotion.candidate == A and notes == ()


def test_elsewhere_it_is_refused_with_what_differs_and_what_to_do(exports: Path) -> None:
    measured_on(exports / "shipped", cpu="Another CPU", cores=64)
    with pytest.raises(RuntimeUnavailable) as caught:
        check_host(exports / "shipped", host_class(), None)
    cpu, cores = host_class()["cpu"], host_class()["cores"]
    assert f"shipped for cpu 'Another CPU', this is {cpu!r}; cores 64, this is {cores}." in str(caught.value)
    assert f"`framegate bench {exports}/* -o DIR` and gate it, or say --accept-host" in str(caught.value)


def test_a_record_without_host_facts_fits_no_host(exports: Path) -> None:
    found = Promotion.read(exports / "shipped/promotion.json")
    found.model_copy(update={"host": {}}).write(exports / "shipped/promotion.json")
    with pytest.raises(RuntimeUnavailable, match="shipped for system None, this is"):
        check_host(exports / "shipped", host_class(), None)


def test_a_folder_of_another_class_that_fits_is_named(exports: Path) -> None:
    for number, cpu in enumerate(("A third CPU", host_class()["cpu"])):
        shutil.copytree(exports / "shipped", exports / f"hosts/{number}/shipped")
        measured_on(exports / f"hosts/{number}/shipped", cpu=cpu)
    measured_on(exports / "shipped", cpu="Another CPU")
    with pytest.raises(RuntimeUnavailable, match=r"like this one: --bundle .*hosts/1/shipped$"):
        check_host(exports / "shipped", host_class(), None)


def test_another_runtime_needs_the_same_cpu_and_is_said_to_be_unjudged(exports: Path) -> None:
    folder = exports / "shipped"
    runtimes = Promotion.read(folder / "promotion.json").host["runtimes"]
    measured_on(folder, runtimes={**runtimes, "openvino": "1"})
    _, (note,) = check_host(folder, host_class(), "openvino")
    assert note == "the verdict was about ort-cpu, not openvino: it proves nothing of this speed"
    measured_on(folder, cpu="Another CPU")
    with pytest.raises(RuntimeUnavailable, match="Another CPU"):
        check_host(folder, host_class(), "openvino")


def test_a_bundle_that_never_shipped_is_refused(exports: Path) -> None:
    with pytest.raises(BundleError, match=r"tiny-dense-fp32: no promotion\.json, .*--accept-host"):
        check_host(exports / "tiny-dense-fp32", host_class(), None)


def test_a_challenger_says_what_was_waived(exports: Path) -> None:
    verdict = judged(exports, A, (Waiver(rule="accuracy", reason="a demonstration"),))
    challenge(exports, verdict, origin(), NO_REGISTRY)
    _, notes = check_host(exports / "challenger", host_class(), None)
    assert notes == ("a challenger: 'accuracy' was waived: a demonstration",)


def test_predict_refuses_another_host_unless_told(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, folder = str(render(exports / "clip.mp4")), exports / "shipped"
    main(["predict", clip, "--bundle", str(folder), "--json"])
    here = capsys.readouterr()
    assert json.loads(here.out) and here.err == ""
    measured_on(folder, cpu="Another CPU")
    with pytest.raises(SystemExit, match=r"error: .*shipped for cpu 'Another CPU'"):
        main(["predict", clip, "--bundle", str(folder)])
    main(["predict", clip, "--bundle", str(folder), "--json", "--accept-host"])
    assert capsys.readouterr().out == here.out


def test_predict_says_why_nothing_is_shipped(exports: Path, tmp_path: Path) -> None:
    (exports / "shipped").rename(tmp_path / "away")
    words = ["predict", str(tmp_path / "clip.mp4"), "--bundle", str(exports / "shipped")]
    with pytest.raises(SystemExit, match=rf"`dvc repro -f -s ship` ships {A} again"):
        main(words)
    verdict = Verdict.read(exports / "verdict.json")
    verdict.model_copy(update={"shipped": None, "sentence": "Nothing is proven."}).write(exports / "verdict.json")
    with pytest.raises(SystemExit, match=r"ships nothing: Nothing is proven[.] To use another, name"):
        main(words)
    (exports / "verdict.json").unlink()
    with pytest.raises(SystemExit, match="run `dvc repro` to ship a model, or name a bundle"):
        main(words)
