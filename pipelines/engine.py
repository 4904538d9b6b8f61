"""Stage engine: an fp32 bundle -> a TensorRT plan, or the recorded reason why not."""

from pathlib import Path

from framegate.contract import Bundle, Skipped
from framegate.engine import build_engine
from pipelines._schema import Config
from pipelines._stage import Facts, stage


@stage("engine")
def engine(cfg: Config, out: Path) -> Facts:
    """Write <out>/step.plan and engine.json; only engine.json with the reason where it cannot be built."""
    card = build_engine(Bundle.load(Path(cfg.need("bundle"))), out, cfg.engine.compute_capability)
    if isinstance(card, Skipped):
        return {"skipped": card.reason}
    return card.model_dump(mode="json")


if __name__ == "__main__":
    engine()
