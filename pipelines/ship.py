"""Stage ship: the verdict's model into exports/shipped, then the registry, then the alias; other host classes' too."""

from pathlib import Path

from framegate.contract import DataError, FramegateError, read_json
from framegate.dvclock import Lock, md5_of
from framegate.promotion.origin import Origin
from framegate.promotion.ship import ship as promote
from pipelines._schema import Config
from pipelines._stage import Facts, log, stage


def check_gate(lock: Lock, exports: Path) -> list[str]:
    """The other host classes that were judged. DataError when verdicts are not those that the gate stage wrote."""
    wrote = lock.outs()
    for path in (exports / "verdict.json", exports / "hosts.json"):
        if (told := wrote.get(path.as_posix())) and md5_of(path) != told:
            raise DataError(f"{path}: changed after the gate stage wrote it; run `dvc repro`, which decides again")
    return list(read_json(exports / "hosts.json"))


@stage()
def ship(cfg: Config, out: Path) -> Facts:
    """Write <out> (exports/promotion.json) and the folders beside it; exits non-zero when nothing is proven."""
    from framegate import track

    path, exports = Path("dvc.lock"), out.parent
    lock = Lock.read(path) if path.is_file() else Lock(path, {})
    hosts = check_gate(lock, exports)
    origin = Origin.here({"stages": lock.stages})
    done = promote(exports, origin, track)
    for note in done.notes:
        log.warning("%s", note)
    for name in hosts:
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
