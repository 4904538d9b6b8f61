"""Stage ship: the verdict's model into exports/shipped, then the registry, then the alias."""

from pathlib import Path

import yaml

from framegate.contract import Bundle, Verdict
from framegate.promotion import ship as promote
from pipelines._schema import Config
from pipelines._stage import Facts, stage


@stage("bench")
def ship(cfg: Config, out: Path) -> Facts:
    """Write exports/shipped and `out` (promotion.json); exits non-zero when nothing is proven."""
    from framegate import track

    exports, lock = Path("exports"), Path("dvc.lock")
    promotion = promote(exports, yaml.safe_load(lock.read_text()) if lock.is_file() else {}, cfg.bench.threads)
    version = track.register(Bundle.load(exports / "shipped"), Verdict.read(exports / "verdict.json"))
    track.set_champion(version)
    promotion.model_copy(update={"version": version}).write(out)
    return {"shipped": promotion.candidate, "bundle": promotion.bundle[:12], "version": version}


if __name__ == "__main__":
    ship()
