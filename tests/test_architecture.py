"""The house keeps its shape: imports point down, the serving side is light, dvc.yaml agrees with code and conf."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"
TRAINING = {
    "torch",
    "torchvision",
    "pytorch_lightning",
    "torchmetrics",
    "mlflow",
    "hydra",
    "omegaconf",
    "dvc",
    "matplotlib",
}
FLOORS = {
    "contract": 0, "video": 1, "media": 1, "splits": 1, "folder": 1, "decoding": 1, "shards": 1, "index": 1,
    "signature": 1, "dvclock": 1, "signals": 1, "resampling": 1,
    "models": 2, "data": 2, "runtime": 2, "timeline": 2, "alerts": 2, "training": 3, "graph": 3, "quantize": 3, "export": 3, "bench": 3, "engine": 3, "gate": 3,
    "compress": 4, "report": 4, "promotion": 4, "verify": 4, "triton": 4, "serve": 5, "watch": 5, "cli": 5, "track": 5,
}  # fmt: skip
TRAINING_SIDE = {"models", "data", "training", "graph", "quantize", "export", "compress", "track"}


def modules() -> dict[str, Path]:
    """Dotted name -> file, of src/framegate and pipelines."""
    found = {}
    for base, folder in ((SRC, SRC / "framegate"), (ROOT, ROOT / "pipelines")):
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


@cache
def imports(name: str) -> frozenset[str]:
    """Every module that a module imports anywhere in its file, `from package import module` resolved."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return frozenset(found)


def ours(name: str) -> set[str]:
    return {found for found in imports(name) if found in MODULES}


def reached(name: str) -> set[str]:
    """All of our modules that a module needs, itself included."""
    seen, todo = set(), [name]
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo += ours(one)
    return seen


def floor(name: str) -> int:
    return FLOORS[name.split(".")[1]]


def test_every_module_has_a_floor() -> None:
    assert {name.split(".")[1] for name in MODULES if name.startswith("framegate.")} == set(FLOORS)


def test_imports_point_down_and_never_round() -> None:
    for name in (n for n in MODULES if n.startswith("framegate.")):
        for found in ours(name):
            assert found.startswith("framegate"), f"{name} imports {found}"
            if found != "framegate":
                assert floor(found) <= floor(name), f"{name} imports {found}, which stands above it"
        assert not any(name in reached(found) for found in ours(name) - {name}), f"{name} stands in an import cycle"


def test_the_serving_side_imports_no_training_library() -> None:
    for name in MODULES:
        if name.startswith("framegate.") and name.split(".")[1] not in TRAINING_SIDE:
            wrong = {found for found in imports(name) if found.split(".")[0] in TRAINING}
            assert not wrong, f"{name} imports {wrong}"
            assert not {f for f in ours(name) if f.split(".")[1:2] and f.split(".")[1] in TRAINING_SIDE}, name


def test_one_seam_leads_from_the_serving_side_to_mlflow() -> None:
    """promotion/registry.py reaches track by name, where MLflow is installed; nothing else there does."""
    by_name = {
        name
        for name, file in MODULES.items()
        if name.startswith("framegate.")
        and name.split(".")[1] not in TRAINING_SIDE
        and re.search(r"""["']framegate\.track["']""", file.read_text())
    }
    assert by_name == {"framegate.promotion.registry"}


def test_mlflow_and_hydra_live_in_one_place_each() -> None:
    for name in MODULES:
        for found in imports(name):
            assert found.split(".")[0] != "mlflow" or name == "framegate.track", name
            assert found.split(".")[0] not in ("hydra", "omegaconf") or name.startswith("pipelines"), name


@pytest.mark.parametrize("module", ["framegate.cli", "pipelines.host", "pipelines.bench", "pipelines.index"])
def test_light_programs_load_no_training_library(module: str) -> None:
    heavy = sorted(TRAINING - {"hydra", "omegaconf"})
    code = f"import sys, {module}; print(sorted(set({heavy}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


# --- dvc.yaml -----------------------------------------------------------------------------------

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DECIDE_NOTHING = {
    "framegate", "pipelines",
    "framegate.track",  # writes to MLflow only
    "framegate.contract",  # formats: a change that matters fails when a file is parsed
    "pipelines._stage", "pipelines._schema",  # what a section says: params.yaml is compared instead
}  # fmt: skip
INDEXING = {
    f"framegate.{name}" for name in ("folder", "splits", "decoding", "media", "video", "resampling")
}  # reach others as files


def body(stage: str) -> dict:
    return DVC[stage].get("do", DVC[stage])


@pytest.mark.parametrize("stage", DVC)
def test_a_stage_depends_on_the_code_that_decides_its_result(stage: str) -> None:
    by_file = {"index": set(), "bench": INDEXING - {"framegate.media", "framegate.video", "framegate.resampling"}}.get(
        stage, INDEXING
    )
    needed = reached_by_use(f"pipelines.{stage}") - by_file
    files = {str(MODULES[name].relative_to(ROOT)) for name in needed if MODULES[name].stat().st_size}
    deps = {Path(dep) for dep in body(stage).get("deps", [])}
    missing = {file for file in files if not any(Path(file).is_relative_to(dep) for dep in deps)}
    assert not missing, f"{stage}: deps lack {sorted(missing)}"
    code = {str(dep) for dep in deps if str(dep).startswith(("src/", "pipelines/"))}
    unused = {dep for dep in code if not any(Path(file).is_relative_to(dep) for file in files)}
    assert not unused, f"{stage}: deps name code that it does not import: {sorted(unused)}"


def reached_by_use(name: str) -> set[str]:
    """Our modules that decide a stage's result: without the schema's own imports and without the window."""
    seen, todo = set(), [name]
    while todo:
        one = todo.pop()
        if one not in seen | DECIDE_NOTHING:
            seen.add(one)
            todo += ours(one)
    return seen


def test_dvc_and_conf_declare_the_same_sections() -> None:
    from pipelines.compose import composed

    params = composed()
    for stage in DVC:
        for wanted in body(stage).get("params", []):
            section = wanted.split(".")[0]
            assert section in params, f"{stage}: params.yaml has no section {section!r}"


def test_a_stage_reads_the_sections_that_it_declares() -> None:
    """The sections in `@stage(...)` are those in dvc.yaml: else an edit would not run the stage again."""
    renamed = {"models": "model"}
    for stage in DVC:
        tree = ast.parse((ROOT / "pipelines" / f"{stage}.py").read_text())
        declared = {
            str(arg.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "stage"
            for arg in node.args
            if isinstance(arg, ast.Constant)
        }
        wanted = {renamed.get(p.split(".")[0], p.split(".")[0]) for p in body(stage).get("params", [])}
        assert declared == wanted, stage


def test_readme_shows_what_exists() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / target).is_file(), target
    for name in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file(), name
    assert not re.findall(r"\b(TODO|TBD|[A-Z]*FIGURES)\b", text)


def test_stage_scripts_are_thin() -> None:
    for stage in DVC:
        assert len((ROOT / "pipelines" / f"{stage}.py").read_text().splitlines()) <= 60, stage
