"""Stage compress: the passes of one variant applied to a dense model."""

from itertools import count
from pathlib import Path
from typing import Any

from framegate.contract import ConfigError, nearest
from pipelines._schema import Config
from pipelines._stage import Facts, stage
from pipelines._training import open_data, resume_folder, train_settings


@stage("data", "train", "variants")
def compress(cfg: Config, out: Path) -> Facts:
    """Write <out>/net.json, weights.pt, metrics.json, confusion.png of the compressed net."""
    from hydra.utils import instantiate

    from framegate import compress, track, training
    from framegate.models.store import load_net

    variant = cfg.need("variant")
    if variant not in cfg.variants:
        raise ConfigError(f"variant={variant}: no such variant{nearest(variant, cfg.variants)}; see conf/variants/")
    passes, data = cfg.variants[variant].passes, open_data(cfg)
    (net, card), (teacher, _) = load_net(Path(cfg.need("net"))), load_net(Path(cfg.need("net")))
    turn = count()  # two distillations in one variant are two trainings
    with track.training_run(f"{card.model}-{variant}", {"passes": passes}) as run:

        def fit(student: Any, *, teacher: Any, epochs: int, lr: float, temperature: float, alpha: float) -> Any:
            settings = train_settings(cfg, max_epochs=epochs, lr=lr)
            how = training.Distillation(teacher, temperature, alpha)
            key = (
                next(turn),
                variant,
                card.weights_sha256,
                data.index.digest,
                passes,
                cfg.train.model_dump(mode="json"),
            )
            with resume_folder("distill", *key) as folder:
                training.fit(student, data, settings, folder, how, run.logger)
            return student

        context = compress.CompressContext(
            teacher, fit, lambda student: training.evaluate(student, data), data.index.spec
        )
        net, reports = compress.apply(net, [instantiate(one) for one in passes], context)
        card = card.model_copy(update={"variant": variant, "passes": reports})
        result = training.validate(net, data, train_settings(cfg))
        card = training.save_result(out, net, card.model_copy(update={"metrics": result.metrics}), result)
        run.log_folder(out)
    return {"variant": variant, "passes": [compress.summary(report) for report in reports], **card.metrics}


if __name__ == "__main__":
    compress()
