"""Stage choose: which candidate the measurements speak for, before its latency is measured again."""

from pathlib import Path

from framegate.contract import CandidateName, write_json
from framegate.gate import choose as choose_one
from framegate.gate.case import Case
from pipelines._schema import Config
from pipelines._sources import local_sources
from pipelines._stage import Facts, stage


@stage("gate")
def choose(cfg: Config, out: Path) -> Facts:
    """Write `out` (chosen.json): the candidate, and the digests of what is to be measured again."""
    case = Case.read(local_sources())
    name = choose_one(case, cfg.gate)
    found = {str(one.name): one.measurement.inputs for one in case.evidence}
    facts: Facts = {"candidate": name}
    if name:
        facts |= {"parent": CandidateName.parse(name).parent}
        facts |= {f"{key}_digest": found[name].get(key) for key in ("bundle", "parent", "index", "host_class")}
    write_json(out, facts)
    return facts


if __name__ == "__main__":
    choose()
