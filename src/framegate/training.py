"""Training: LitVideo (loss, metrics, optional teacher) and `fit`.

The nets, the data and the compression passes live elsewhere; MLflow reaches this only as a Lightning logger.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torchmetrics import Accuracy, ConfusionMatrix, F1Score, MetricCollection, Precision, Recall

from framegate.contract import ConfigError, DataError, atomic_path, nearest, write_json
from framegate.data.module import Batch, ClipDataModule
from framegate.models.store import NetCard, save_net
from framegate.models.video import VideoNet, run_clip

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train; `optimizer` and `scheduler` are partials that still want parameters and a learning rate."""

    optimizer: Callable[..., torch.optim.Optimizer]
    scheduler: Callable[..., Any]
    lr: float
    max_epochs: int
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
    threads: int | None = None
    seed: int = 0
    min_steps: int = 1
    monitor: str = "val/accuracy"
    patience: int = 3
    carry: float = 0.5
    carry_after: float = 0.2
    class_weights: bool = False
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0


@dataclass(frozen=True, slots=True)
class Distillation:
    """A teacher and how much its word counts: loss = (1 - alpha) * labels + alpha * T^2 * KL (Hinton et al. 2015)."""

    teacher: VideoNet
    temperature: float = 2.0
    alpha: float = 0.7


def video_metrics(num_classes: int) -> MetricCollection:
    """Accuracy, mean class accuracy, macro precision, recall and F1; top-5 where K > 5."""
    common: dict[str, Any] = {"task": "multiclass", "num_classes": num_classes}
    metrics: dict[str, Any] = {
        "accuracy": Accuracy(**common, average="micro"),
        "mean_class_accuracy": Accuracy(**common, average="macro"),
        "macro_precision": Precision(**common, average="macro"),
        "macro_recall": Recall(**common, average="macro"),
        "macro_f1": F1Score(**common, average="macro"),
    }
    if num_classes > 5:
        metrics["top5"] = Accuracy(**common, average="micro", top_k=5)
    return MetricCollection(metrics, prefix="val/")


class LitVideo(pl.LightningModule):
    """A VideoNet in training: per-step loss, states carried from clip to clip, an optional teacher.

    With probability `carry` a clip starts from the last state of a clip of the batch before: several clips in a
    row with per-step labels (truncated back-propagation), so that the state learns to survive long streams and
    changes of class. Not before `carry_after` of the training is done: a net that cannot tell anything yet
    learns nothing from a memory of other clips.
    """

    def __init__(
        self,
        net: VideoNet,
        settings: TrainSettings,
        weights: Tensor | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.net, self.settings, self.distillation = net, settings, distillation
        self.metrics = video_metrics(net.num_classes)
        self.confusion = ConfusionMatrix(task="multiclass", num_classes=net.num_classes)
        self.class_f1 = F1Score(task="multiclass", num_classes=net.num_classes, average="none")
        self.weights = weights
        self._carried: tuple[Tensor, Tensor | None] | None = None  # last states of student and teacher

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch: frames u8 [B,T,H,W,C], labels i64 [B]."""
        frames, labels = batch
        state, teacher_state = self._start(len(frames))
        logits, last = run_clip(self.net, frames, state)  # [B,T,K]
        loss = self._label_loss(logits.float(), labels)
        teacher_last = None
        if self.distillation:
            with torch.no_grad():
                wanted, teacher_last = run_clip(self.distillation.teacher, frames, teacher_state)
            alpha = self.distillation.alpha
            loss = (1 - alpha) * loss + alpha * self._teacher_loss(logits.float(), wanted.float())
        self._carried = (last.detach(), teacher_last)
        self.log("train/loss", loss)
        return loss

    def _start(self, batch: int) -> tuple[Tensor | None, Tensor | None]:
        """The states that a batch starts from: some clips carried, the others zeros; (None, None): all zeros."""
        if self._carried is None or len(self._carried[0]) != batch or not self.net.forgets:
            return None, None
        if self._done() < self.settings.carry_after:
            return None, None
        goes_on = torch.rand(batch, 1, device=self.device) < self.settings.carry
        last, teacher_last = self._carried
        return last * goes_on, None if teacher_last is None else teacher_last * goes_on

    def on_fit_start(self) -> None:
        """The teacher is no submodule (it is not trained or saved): take it to the device by hand."""
        if self.distillation:
            cast(nn.Module, self.distillation.teacher).to(self.device)

    def _done(self) -> float:
        """Share of the planned batches that are done, 0..1."""
        return self.trainer.global_step / float(self.trainer.estimated_stepping_batches)

    def _label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of every step, logits f32 [B,T,K], weighted by `step_weights`."""
        batch, length, _ = logits.shape
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1),
            labels.repeat_interleave(length),
            weight=None if self.weights is None else self.weights.to(logits.device),
            label_smoothing=self.settings.label_smoothing,
            reduction="none",
        ).view(batch, length)
        return (losses * step_weights(length, losses.device)).sum(1).mean()

    def _teacher_loss(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """T^2 * KL(teacher || student) per step, logits f32 [B,T,K]."""
        temperature = cast(Distillation, self.distillation).temperature
        mine = torch.log_softmax(logits / temperature, -1)
        theirs = torch.log_softmax(wanted / temperature, -1)
        divergence = nn.functional.kl_div(mine, theirs, log_target=True, reduction="none").sum(-1)  # [B,T]
        loss: Tensor = (divergence * step_weights(logits.shape[1], logits.device)).sum(1).mean()
        return temperature**2 * loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect metrics of clip logits: those after the last frame."""
        frames, labels = batch
        logits = run_clip(self.net, frames)[0][:, -1].float()
        self.metrics.update(logits, labels)
        self.confusion.update(logits, labels)
        self.class_f1.update(logits, labels)
        loss = nn.functional.cross_entropy(logits, labels)
        self.log("val/loss", loss, batch_size=len(labels), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's metrics; the confusion matrix stays for `fit`."""
        self.log_dict(self.metrics.compute())
        self.metrics.reset()

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's confusion."""
        self.confusion.reset()
        self.class_f1.reset()

    def configure_optimizers(self) -> Any:
        """The configured optimizer and scheduler, stepped per batch."""
        optimizer = self.settings.optimizer(self.parameters(), lr=self.settings.lr)
        total = int(self.trainer.estimated_stepping_batches)
        offered = {"max_lr": self.settings.lr, "total_steps": total, "T_max": total}
        known = inspect.signature(self.settings.scheduler).parameters
        scheduler = self.settings.scheduler(optimizer, **{k: v for k, v in offered.items() if k in known})
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class BestCheckpoint(ModelCheckpoint):
    """The best epoch; of those that are as good, the latest.

    On a few dozen validation clips accuracy is soon the highest that it can be. Lightning would keep the first such
    epoch, whose net may still decide everything by a hair; compression and another machine's rounding then turn it.
    """

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch takes the place of the one that is kept."""
        equal = current is not None and bool(current == self.best_model_score)
        if trainer.strategy.reduce_boolean_decision(equal):  # by all processes, as the parent's own decision
            return True
        return super().check_monitor_top_k(trainer, current)


class EpochLine(Callback):
    """One log line per epoch, with numbers: progress where there is no terminal for a bar."""

    def on_train_epoch_end(self, trainer: pl.Trainer, lit: pl.LightningModule) -> None:
        """Log epoch, loss and the monitored metric."""
        seen = trainer.callback_metrics
        accuracy, loss = (float(seen.get(key, float("nan"))) for key in ("val/accuracy", "train/loss"))
        log.info(
            "epoch %d of %s: loss %.3f, val accuracy %.4f",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            loss,
            accuracy,
        )


def step_weights(length: int, device: torch.device) -> Tensor:
    """f32 [T], sum 1: half of it on the last step, half spread over the second half of the clip.

    The first steps cannot know yet; the last one is what a clip is judged by.
    """
    weights = torch.zeros(length, device=device)
    weights[length // 2 :] = 0.5 / (length - length // 2)
    weights[-1] += 0.5
    return weights


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training gave: the net with its best weights is the one that was passed in."""

    metrics: dict[str, float]
    f1_per_class: list[float]
    confusion: Tensor  # i64 [K,K], rows = truth
    epochs: int
    precision: str
    device: str


def fit(
    net: VideoNet,
    data: ClipDataModule,
    settings: TrainSettings,
    resume_folder: Path,
    distillation: Distillation | None = None,
    logger: Logger | None = None,
) -> FitResult:
    """Train `net` in place; it ends on the CPU in eval mode with the weights of the best validation epoch (the
    latest of equals).

    `resume_folder` keeps last.ckpt: a run that was interrupted goes on from there, so key it by the digest of
    everything that decides the result. Raises ConfigError for a precision, accelerator or monitor that is not
    here, DataError when the loss stops being a number.
    """
    known = ("train/loss", "val/loss", *map(str, video_metrics(net.num_classes)))
    if settings.monitor not in known:
        hint = nearest(settings.monitor, known)
        raise ConfigError(f"train.monitor: {settings.monitor!r}; expected one of {', '.join(known)}{hint}")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    settings = replace(settings, precision=resolve_precision(settings.precision, settings.accelerator))
    epochs = planned_epochs(settings, len(data.train_dataloader()))
    patience = math.ceil(settings.patience * epochs / settings.max_epochs)  # short epochs: the same patience in steps
    settings = replace(settings, max_epochs=epochs, patience=patience)
    cast(nn.Module, net).train().to(memory_format=torch.channels_last)
    weights = data.class_weights() if settings.class_weights else None
    if distillation:
        cast(nn.Module, distillation.teacher).eval().requires_grad_(False)
    lit = LitVideo(net, settings, weights, distillation)
    best = BestCheckpoint(resume_folder, "best", monitor=settings.monitor, mode=mode_of(settings.monitor))
    latest = ModelCheckpoint(resume_folder, "last", enable_version_counter=False)  # after every epoch
    trainer = _trainer(settings, [best, latest, EpochLine()], logger)
    last = resume_folder / "last.ckpt"
    if last.is_file():
        log.info("resuming from %s", last)
    try:
        with known_warnings():
            trainer.fit(lit, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    lit.load_state_dict(torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"])
    if not all(torch.isfinite(p).all() for p in lit.parameters()):
        raise DataError("training gave weights that are not numbers; lower train.lr or look at the clips")
    return validate(net, data, settings, trainer.current_epoch)


def _trainer(settings: TrainSettings, callbacks: list[Callback], logger: Logger | None) -> pl.Trainer:
    """A Lightning Trainer from settings. ConfigError for a device that was asked for and is not here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    stop = EarlyStopping(
        settings.monitor, mode=mode_of(settings.monitor), patience=settings.patience, check_finite=True
    )
    try:
        return pl.Trainer(
            max_epochs=settings.max_epochs,
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=settings.strategy,
            precision=cast(Any, settings.precision),
            gradient_clip_val=settings.gradient_clip,
            callbacks=[*callbacks, stop],
            logger=logger or False,
            log_every_n_steps=20,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"train: {error}") from None


def validate(net: VideoNet, data: ClipDataModule, settings: TrainSettings, epochs: int = 0) -> FitResult:
    """Metrics and confusion matrix on the validation split; the net ends on the CPU in eval mode."""
    settings = replace(settings, precision=resolve_precision(settings.precision, settings.accelerator))
    lit, trainer = LitVideo(net, settings), _trainer(settings, [], None)
    with known_warnings():
        metrics = trainer.validate(lit, data, verbose=False)[0]
    result = FitResult(
        metrics={key.removeprefix("val/"): float(value) for key, value in metrics.items()},
        f1_per_class=[float(v) for v in lit.class_f1.compute()],
        confusion=lit.confusion.compute().cpu(),
        epochs=epochs,
        precision=settings.precision,
        device=str(trainer.strategy.root_device),
    )
    cast(nn.Module, net).cpu().eval()
    return result


def save_result(out: Path, net: VideoNet, card: NetCard, result: FitResult) -> NetCard:
    """Write the net, metrics.json and confusion.png into `out`; gives the card as written."""
    card = save_net(out, net, card)
    facts = {
        **result.metrics,
        "f1_per_class": dict(zip(card.labels, result.f1_per_class, strict=True)),
        "confusion": result.confusion.tolist(),
        "epochs": result.epochs,
        "precision": result.precision,
        "device": result.device,
    }
    write_json(out / "metrics.json", facts)
    confusion_picture(result.confusion, card.labels, f"{card.model}-{card.variant}, validation", out / "confusion.png")
    return card


def confusion_picture(confusion: Tensor, labels: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix i64 [K,K], rows = truth: colour = share of the true class, text = clips."""
    from matplotlib.figure import Figure

    share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    size = 2.2 + 0.55 * len(labels)
    figure = Figure((size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    names = [label.encode("ascii", "replace").decode() for label in labels]  # the bundled font has no CJK
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row, column in confusion.nonzero().tolist():
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(int(confusion[row, column])), ha="center", va="center", color=colour, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def evaluate(net: VideoNet, data: ClipDataModule) -> float:
    """Validation accuracy 0..1 of clip logits, without a Trainer."""
    module = cast(nn.Module, net).eval()
    right = count = 0
    with torch.inference_mode():
        for frames, labels in data.val_dataloader():
            predicted = run_clip(cast(VideoNet, module), frames)[0][:, -1].argmax(-1)
            right += int((predicted == labels).sum())
            count += len(labels)
    return right / count


def planned_epochs(settings: TrainSettings, batches: int) -> int:
    """Epochs of `batches` each: `max_epochs`, or as many as `min_steps` asks for."""
    return max(settings.max_epochs, math.ceil(settings.min_steps / batches))


def resolve_precision(precision: str, accelerator: str) -> str:
    """`auto` -> bf16-mixed where the hardware multiplies bf16 matrices, else 32-true; anything else as it is."""
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if torch.cpu._is_amx_tile_supported() else "32-true"


def mode_of(monitor: str) -> str:
    """Losses are minimised, everything else is maximised."""
    return "min" if monitor.endswith("loss") else "max"


@contextmanager
def known_warnings() -> Iterator[None]:
    """Silence what Lightning says about itself and about choices that are meant: no loader processes, our schedule."""
    with warnings.catch_warnings():
        for text in (
            ".*LeafSpec.*deprecated",
            ".*does not have many workers",
            ".*lr_scheduler.step.* before",
            ".*number of training batches.*smaller than the logging interval",
            ".*Checkpoint directory .* exists and is not empty",
            ".*compute.* method of metric .* was called before",
        ):
            warnings.filterwarnings("ignore", text)
        yield
