"""Stage index: folder of clips -> table and decoded shards, and what the data can decide."""

import os
from pathlib import Path

from framegate.index import build, decidability
from pipelines._schema import Config
from pipelines._stage import Facts, log, stage


@stage("data")
def index(cfg: Config, out: Path) -> Facts:
    """Write <out>/index.json and <out>/shards."""
    workers = os.cpu_count() or 1 if cfg.data.workers is None else cfg.data.workers
    root = Path(cfg.data.root)
    table = build(root, out / "index.json", out / "shards", cfg.data.clip, cfg.data.index_settings(), workers)
    for skipped in table.skipped:
        log.warning("skipped %s: %s", skipped.path, skipped.reason)
    log.info("%s", decidability(table))
    splits = {split: len(table.split(split)) for split in ("train", "val", "test")}
    return {"clips": len(table.clips), "skipped": len(table.skipped), "classes": len(table.labels), **splits}


if __name__ == "__main__":
    index()
