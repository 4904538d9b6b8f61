"""A clone of this project with tiny clips and a tiny configuration, reproduced once for all end-to-end tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import dataset

ROOT = Path(__file__).parent.parent.parent
CANDIDATES = {
    "trained": ["cnn_gru"],
    "compressed": {"cnn_gru-pruned": {"model": "cnn_gru", "variant": "pruned"}},
    "exported": {"cnn_gru-dense": {"net": "work/cnn_gru/dense"}, "cnn_gru-pruned": {"net": "work/cnn_gru/pruned"}},
    "engines": ["cnn_gru-pruned-fp32"],
    "candidates": {
        f"cnn_gru-{bundle}--{runtime}": {"bundle": f"exports/cnn_gru-{bundle}", "parent": "exports/cnn_gru-dense-fp32"}
        for bundle, runtime in (
            ("dense-fp32", "ort-cpu"),
            ("pruned-fp32", "ort-cpu"),
            ("pruned-int8", "ort-cpu"),
            ("pruned-fp32", "ort-cuda"),
        )
    },
}
SMALL = {
    "conf/data/default.yaml": {"clip": {"frames": 4, "height": 16, "width": 16, "fps": 10}, "max_skipped_share": 0.2},
    "conf/model/cnn_gru.yaml": {"channels": [8, 16], "projection": 16, "hidden": 16},
    "conf/model/cnn.yaml": {"channels": [8, 16]},
    "conf/train/default.yaml": {"max_epochs": 6, "batch_size": 8, "lr": 5.0e-3, "min_steps": 1, "precision": "32-true"},
    "conf/bench/default.yaml": {"pairs": 2, "blocks": 3, "calls_per_block": 20, "solo_calls": 20, "confirm_pairs": 5},
    "conf/export/default.yaml": {"calibration_clips": 8, "min_agreement": 0.5},
    "conf/gate/default.yaml": {
        "rules": [{"metric": "accuracy", "drop_max": 60.0}, {"metric": "latency_p50_ms", "max": 1000}],
        "restless": 0.99,
    },
}


@dataclass(frozen=True, slots=True)
class Clone:
    """A working copy that commands run in, with this environment's programs first on the path."""

    path: Path

    def run(self, *words: str, code: int | tuple[int, ...] = 0, **environment: str) -> str:
        """Standard output and error together; fails the test unless the exit code is `code`, or one of them."""
        done = subprocess.run(
            words, cwd=self.path, env={**self._environment(), **environment},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode in (code if isinstance(code, tuple) else (code,)), (
            f"{' '.join(words)} -> {done.returncode}\n{done.stdout}"
        )
        return done.stdout

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs until the end of the context; then SIGTERM, after which its exit code has to be 0."""
        process = subprocess.Popen(words, cwd=self.path, env=self._environment())
        try:
            yield process
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()

    @staticmethod
    def _environment() -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI" and not k.startswith("GIT_")}
        return {**kept, "PATH": path}

    def edit(self, file: str, **changed: object) -> None:
        """Replace top-level keys of a YAML file; a dict is merged into the one that is there."""
        path = self.path / file
        text = path.read_text()
        values = yaml.safe_load(text)
        for key, value in changed.items():
            old = values.get(key)
            values[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        first = f"{text.splitlines()[0]}\n" if text.startswith("# @package") else ""
        path.write_text(first + yaml.safe_dump(values, sort_keys=False))

    def stages(self, output: str) -> list[str]:
        """The stages that a `dvc repro` ran, in order."""
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def copy_project(target: Path) -> None:
    """Every file that git tracks or would track, as it is in the working tree, without the default data set."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("data_store/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A committed clone, configured small, with 2 x 40 clips; nothing has run in it yet."""
    one = Clone(tmp_path_factory.mktemp("clone"))
    copy_project(one.path)
    for file, changed in SMALL.items():
        one.edit(file, **changed)
    (one.path / "conf/candidates.yaml").write_text(yaml.safe_dump(CANDIDATES, sort_keys=False))
    dataset(one.path / "data", per_class=40, groups=None, frames=6, size=(32, 24))
    brighten(one.path / "data" / "right")
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone"],
    ):
        one.run("git", *words)
    yield one


def brighten(folder: Path) -> None:
    """Make one class easy to tell: render its clips again from bright noise."""
    from tests.conftest import render

    for number, path in enumerate(sorted(folder.iterdir())):
        render(path, 6, 10, (32, 24), pattern="noise", seed=1000 + number)


@pytest.fixture(scope="session")
def reproduced(clone: Clone) -> tuple[Clone, str]:
    """The clone after its first `dvc repro`, and what that printed."""
    return clone, clone.run("dvc", "repro")
