"""What train and compress build from their configuration."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framegate.contract import digest_of, sha256_file
from pipelines._index import open_index
from pipelines._schema import Config

if TYPE_CHECKING:
    from framegate.data.module import ClipDataModule
    from framegate.training import TrainSettings


def open_data(cfg: Config) -> ClipDataModule:
    """The data module of the `data` and `train` sections."""
    from framegate.data.module import Augmentation, ClipDataModule

    augmentation = Augmentation(**cfg.train.augmentation.model_dump())
    return ClipDataModule(*open_index(cfg), cfg.train.batch_size, cfg.train.workers, augmentation)


def train_settings(cfg: Config, **changed: Any) -> TrainSettings:
    """The `train` section with its partials instantiated; `changed` replaces single values."""
    from hydra.utils import instantiate

    from framegate.models.store import locate
    from framegate.training import TrainSettings

    section = cfg.train.model_dump(exclude={"batch_size", "workers", "augmentation"})
    for key in ("optimizer", "scheduler"):
        locate(section[key]["_target_"])
        section[key] = instantiate(section[key])
    return TrainSettings(**{**section, **changed})


@contextmanager
def resume_folder(*inputs: Any) -> Iterator[Path]:
    """A folder for last.ckpt, named by the digest of all that decides the result; removed when the work is done."""
    from framegate import training

    rule = sha256_file(Path(training.__file__))  # another rule cannot go on from what this one kept
    folder = Path("work/resume") / digest_of([*inputs, rule])[:16]
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
