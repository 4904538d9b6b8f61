"""Stage ship: the verdict's model into exports/shipped, then the registry, then the alias; other host classes' too."""

import json
from pathlib import Path

import yaml

from framegate.contract import FramegateError
from framegate.promotion.origin import Origin
from framegate.promotion.ship import ship as promote
from pipelines._schema import Config
from pipelines._stage import Facts, log, stage


@stage()
def ship(cfg: Config, out: Path) -> Facts:
    """Write <out> (exports/promotion.json) and the folders beside it; exits non-zero when nothing is proven."""
    from framegate import track

    lock, exports = Path("dvc.lock"), out.parent
    origin = Origin.here(yaml.safe_load(lock.read_text()) if lock.is_file() else {})
    done = promote(exports, origin, track)
    for note in done.notes:
        log.warning("%s", note)
    for name in json.loads((exports / "hosts.json").read_text()):
        other = exports / "hosts" / name
        try:
            theirs = promote(other, origin, track)
            log.info("%s: promotion %s: %s", other, theirs.promotion.number, theirs.promotion.candidate)
        except FramegateError as error:  # another class's verdict decides nothing of this one's
            log.warning("%s: %s", other, error)
    return {
        "shipped": done.promotion.candidate,
        "promotion": done.promotion.number,
        "bundle": done.promotion.bundle[:12],
        "version": done.promotion.version,
    }


if __name__ == "__main__":
    ship()
