"""Stage compose: conf/ -> params.yaml, checked as a whole; what DVC compares to know what an edit touches."""

from typing import Any

import yaml

from framegate.contract import ConfigError, write_text
from pipelines._candidates import check_candidates, read_candidates
from pipelines._schema import parse, scenario_problems
from pipelines._stage import CONF, PARAMS, compose, readable_errors

SECTIONS = ("data", "train", "variants", "export", "engine", "bench", "gate")


def composed() -> dict[str, Any]:
    """All sections, and one `models.<name>` for each declared model. ConfigError lists all problems."""
    from framegate.models.store import argument_problems

    declared, config = read_candidates(), compose("config")
    known = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
    problems = check_candidates(declared, config, known)
    models = {name: compose("config", [f"model={name}"])["model"] for name in declared.trained if name in known}
    targets = {f"model {name}": section for name, section in models.items()}
    for name, variant in config["variants"].items():
        targets |= {f"variants.{name}.passes.{i}": target for i, target in enumerate(variant.get("passes", []))}
    targets |= {f"train.{key}": config["train"].get(key, {}) for key in ("optimizer", "scheduler")}
    try:
        problems += scenario_problems(parse(config))
    except ConfigError as error:
        problems.append(str(error))
    for place, target in targets.items():
        problems += [f"  {text}" for text in argument_problems(place, target)]
    if problems:
        raise ConfigError("\n".join(problems))
    return {**{key: config[key] for key in SECTIONS}, "models": models}


def main() -> None:
    """Write params.yaml."""
    with readable_errors():
        text = yaml.safe_dump(composed(), sort_keys=False, allow_unicode=True)
        write_text(PARAMS, f"# Written by `python -m pipelines.compose` from conf/; edit there.\n{text}")
        print(f"compose: {PARAMS} written")


if __name__ == "__main__":
    main()
