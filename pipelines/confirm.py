"""Stage confirm: the chosen candidate's latency, measured again: the fastest of many was also the luckiest."""

import json
from pathlib import Path

from framegate.bench.measure import measure_again
from framegate.bench.processes import Bench
from framegate.contract import CandidateName, write_json
from pipelines._index import open_index
from pipelines._schema import Config
from pipelines._stage import Facts, stage

EXPORTS = Path("exports")


@stage("data", "bench")
def confirm(cfg: Config, out: Path) -> Facts:
    """Write <out>/measurement.json and samples.npz; without a choice, <out>/nothing.json."""
    name = json.loads(Path("work/chosen.json").read_text())["candidate"]
    if name is None:
        facts: Facts = {"candidate": None, "reason": "no candidate was chosen: there is nothing to confirm"}
        write_json(out / "nothing.json", facts)
        return facts
    one = CandidateName.parse(name)
    bundle, parent = EXPORTS / one.bundle, EXPORTS / CandidateName.parse(one.parent).bundle
    found = measure_again(Bench(one, bundle, parent, open_index(cfg)[1], cfg.bench.again()), out)
    facts = {"candidate": name, "status": found.status}
    if found.latency:
        facts |= {"p50_ms": found.latency.p50_ms, "p99_ms": found.latency.p99_ms, "ratio_p50": found.latency.ratio_p50}
    return facts | ({"reason": found.reason} if found.reason else {})


if __name__ == "__main__":
    confirm()
