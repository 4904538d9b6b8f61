"""Stage export: one trained net -> its bundles, fp32 and int8, proved equal to the net on real clips."""

from collections import Counter
from pathlib import Path

from framegate.contract import REFUSED, Lineage, ParityError, atomic_folder, digest_of, write_json
from pipelines._index import open_index, splits, windows
from pipelines._schema import Config
from pipelines._stage import Facts, log, stage

GOLDEN_CLIPS = 4


@stage("data", "export")
def export(cfg: Config, out: Path) -> Facts:
    """Write <out>/<model>-<variant>-fp32 and -int8."""
    from framegate.export import ExportClips, ExportSettings, Source, export_bundle
    from framegate.models.store import load_net

    net, card = load_net(Path(cfg.need("net")))
    index, reader = open_index(cfg)
    clips = ExportClips(
        calibration=windows(reader, "train", cfg.export.calibration_clips),
        golden=windows(reader, "val", GOLDEN_CLIPS),
        parity=windows(reader, "val", cfg.export.parity_clips),
        calibration_splits=splits(reader, "train", cfg.export.calibration_clips),
    )
    counts = Counter(index.clips[position].label for position in index.split("train"))
    config = digest_of([card.model_dump(mode="json"), cfg.export.model_dump(mode="json")])
    lineage = Lineage(
        dataset=index.dataset,
        config=config,
        weights=card.weights_sha256,
        golden=tuple(splits(reader, "val", GOLDEN_CLIPS)),
        label_counts=tuple(counts[label] for label in index.labels),
    )
    source = Source(net, card, lineage)
    settings = ExportSettings(**cfg.export.model_dump())
    fp32 = export_bundle(source, "fp32", clips, out / f"{card.model}-{card.variant}-fp32", settings)
    facts: Facts = {"fp32": fp32.info.parity.model_dump(exclude_none=True)}
    int8 = out / f"{card.model}-{card.variant}-int8"
    try:
        facts["int8"] = export_bundle(source, "int8", clips, int8, settings, fp32).info.parity.model_dump(
            exclude_none=True
        )
    except ParityError as error:  # a refused precision blocks no other: bench records it as failed, with this reason
        log.warning("%s", error)
        with atomic_folder(int8) as folder:
            write_json(folder / REFUSED, {"reason": str(error)})
        facts["int8"] = {"refused": str(error)}
    return facts


if __name__ == "__main__":
    export()
