"""What every stage shares: one decorator around `hydra.main`, checks of overrides, and errors a person can act on."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from framegate.contract import ConfigError, FramegateError, nearest
from pipelines._schema import Config, parse

CONF = Path(__file__).parent.parent / "conf"
PARAMS = Path("params.yaml")
Facts = dict[str, Any]
log = logging.getLogger("framegate")


def stage(*sections: str) -> Callable[[Callable[[Config, Path], Facts]], Callable[[], None]]:
    """Turn `work(cfg, out) -> facts` into a stage; `sections` are those that it reads.

    Under DVC the sections must equal params.yaml: else `dvc repro -s` would lock values that were not used.
    """

    def decorate(work: Callable[[Config, Path], Facts]) -> Callable[[], None]:
        def run(raw: DictConfig) -> None:
            with readable_errors():
                plain: Any = OmegaConf.to_container(raw, resolve=True)
                config = parse(plain)
                if "DVC_STAGE" in os.environ:
                    check_params(plain, sections, HydraConfig.get().runtime.choices["model"])
                out = Path(config.out or HydraConfig.get().runtime.output_dir)
                facts = work(config, out)
                remove_if_empty(Path(HydraConfig.get().runtime.output_dir))
                log.info("%s: %s", work.__name__, json.dumps(facts, ensure_ascii=False))

        def main() -> None:
            with readable_errors():
                check_overrides(sys.argv[1:])
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()

        return main

    return decorate


def remove_if_empty(folder: Path) -> None:
    """Hydra makes a folder for every run; one that wrote elsewhere (`out=...`) leaves it empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()


class readable_errors:
    """End the process with one readable message for anything that the user can act on."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        match error:
            case FramegateError():
                text = str(error)
            case HydraException() | OmegaConfBaseException() | yaml.YAMLError() | OSError():
                text = f"{type(error).__name__}: {error}"
            case KeyboardInterrupt():
                text = "interrupted; run it again to go on"
            case _:
                return
        lines = text.rstrip()
        print(f"error:\n{lines}" if "\n" in lines else f"error: {lines.strip()}", file=sys.stderr)
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)


def check_overrides(arguments: Sequence[str]) -> None:
    """ConfigError with every command-line override that names no group choice or no key, and the nearest one."""
    words = [a for a in arguments if "=" in a and not a.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise ConfigError(f"override: {error}") from None
    groups = {
        folder.name: sorted(f.stem for f in folder.glob("*.yaml")) for folder in CONF.iterdir() if folder.is_dir()
    }
    chosen, problems = [], []
    for one in overrides:
        if one.key_or_group in groups and one.package is None:
            wrong = [str(v) for v in choices(one) if str(v) not in groups[one.key_or_group]]
            problems += [
                f"  {one.key_or_group}={v}: no such choice{nearest(v, groups[one.key_or_group])}; "
                f"conf/{one.key_or_group}/ has {', '.join(groups[one.key_or_group])}"
                for v in wrong
            ]
            if not wrong and not one.is_sweep_override():
                chosen.append(one.input_line or "")
    known = compose("config", chosen)
    problems += [text for one in overrides if (text := unknown_key(one, groups, known))]
    if problems:
        raise ConfigError("\n".join(problems))


def choices(override: Override) -> list[Any]:
    """The values that an override goes through."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    value = override.value()
    return value if isinstance(value, list) else [value] if value is not None else []


def unknown_key(override: Override, groups: dict[str, list[str]], known: Any) -> str | None:
    """What is wrong with the key of an override, if anything."""
    key = override.key_or_group
    if key in groups or key.startswith("hydra") or override.is_add() or override.is_force_add():
        return None
    here, parts = known, key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(here, dict) or part not in here:
            keys = list(here) if isinstance(here, dict) else []
            place = ".".join(parts[: depth + 1])
            return f"  {place}: unknown key{nearest(part, keys)}; known: {', '.join(keys) or 'none'}"
        here = here[part]
    return None


def compose(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The composed configuration as plain values, with Hydra's compose API."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        plain = OmegaConf.to_container(hydra.compose(name, list(overrides)), resolve=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def check_params(plain: dict[str, Any], sections: Sequence[str], model: str) -> None:
    """ConfigError when a section differs from params.yaml, which DVC is about to lock."""
    if not PARAMS.is_file():
        raise ConfigError(f"{PARAMS} is missing; run `dvc repro`, which composes it first")
    params = yaml.safe_load(PARAMS.read_text())
    stale = [s for s in sections if plain[s] != (params["models"].get(model) if s == "model" else params[s])]
    if stale:
        raise ConfigError(
            f"conf/ and {PARAMS} differ in {', '.join(stale)}; run `dvc repro` without -s to compose again"
        )
