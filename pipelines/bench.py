"""Stage bench: what one candidate does on this host; a failure or a missing runtime is a written result."""

from pathlib import Path

from framegate.bench.measure import measure
from framegate.bench.processes import Bench
from framegate.contract import CandidateName
from pipelines._index import open_index, spread
from pipelines._schema import Config
from pipelines._stage import Facts, stage

PHASE_VIDEOS = 8  # test videos whose decoding and resizing are timed


@stage("data", "bench")
def bench(cfg: Config, out: Path) -> Facts:
    """Write <out>/measurement.json and samples.npz."""
    name = CandidateName.parse(cfg.need("candidate"))
    index, reader = open_index(cfg)
    videos = tuple(Path(cfg.data.root) / index.clips[i].id for i in spread(index.split("test"), PHASE_VIDEOS))
    bundle, parent = Path(cfg.need("bundle")), Path(cfg.need("parent"))
    found = measure(Bench(name, bundle, parent, reader, cfg.bench, videos), out)
    facts: Facts = {"candidate": str(name), "status": found.status}
    if found.reason:
        facts["reason"] = found.reason
    if found.latency:
        facts |= {"p50_ms": found.latency.p50_ms, "ratio_p50": found.latency.ratio_p50}
    return facts | {f"{split}_accuracy": round(part.accuracy, 4) for split, part in found.accuracy.items()}


if __name__ == "__main__":
    bench()
