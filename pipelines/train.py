"""Stage train: one dense model."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from pipelines._schema import Config
from pipelines._stage import Facts, stage
from pipelines._training import open_data, resume_folder, train_settings


@stage("data", "model", "train")
def train(cfg: Config, out: Path) -> Facts:
    """Write <out>/net.json, weights.pt, metrics.json, confusion.png."""
    from framegate import track, training
    from framegate.models.store import NetCard, build_net

    data, name = open_data(cfg), HydraConfig.get().runtime.choices["model"]
    net = build_net(cfg.model, len(data.index.labels), data.index.spec)
    with (
        resume_folder("train", data.index.digest, cfg.model, cfg.train.model_dump(mode="json")) as folder,
        track.training_run(f"{name}-dense", {"model": cfg.model, "train": cfg.train.model_dump()}) as run,
    ):
        result = training.fit(net, data, train_settings(cfg), folder, logger=run.logger)
        card = NetCard(
            model=name,
            variant="dense",
            config=cfg.model,
            labels=data.index.labels,
            clip=data.index.spec,
            dataset=data.index.dataset,
            metrics=result.metrics,
        )
        training.save_result(out, net, card, result)
        run.log_folder(out)
    return {
        "model": name,
        "epochs": result.epochs,
        "precision": result.precision,
        "device": result.device,
        **result.metrics,
    }


if __name__ == "__main__":
    train()
