"""Compression as a list of passes: net in, smaller or better trained net out, with a report before and after each.

One file per pass. A pass knows neither Hydra nor the data: what it needs of the outside stands in `CompressContext`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import nn

from framegate.contract import ClipSpec, ConfigError
from framegate.models.store import PassReport, count_macs, count_parameters
from framegate.models.video import VideoNet

log = logging.getLogger(__name__)


class Fit(Protocol):
    """Trains a net on the training clips, with a teacher."""

    def __call__(
        self, net: VideoNet, *, teacher: VideoNet, epochs: int, lr: float, temperature: float, alpha: float
    ) -> VideoNet:
        """Give the trained net; `alpha` = weight of the teacher's loss against that of the labels."""


@dataclass(frozen=True, slots=True)
class CompressContext:
    """What passes may use: the dense teacher, training, validation, and the shape of a clip."""

    teacher: VideoNet
    fit: Fit
    evaluate: Callable[[VideoNet], float]  # validation accuracy, 0..1
    clip: ClipSpec


class Pass(Protocol):
    """One compression operation. It leaves the net that it is given as it was."""

    @property
    def name(self) -> str:
        """How reports and logs call it, with its numbers: `prune 50 %`."""

    def __call__(self, net: VideoNet, context: CompressContext) -> VideoNet:
        """Give a new net."""


def apply(net: VideoNet, passes: Sequence[Pass], context: CompressContext) -> tuple[VideoNet, tuple[PassReport, ...]]:
    """Run the passes in order; the last net and one report per pass.

    Raises ConfigError when a pass changed nothing: a variant that equals its parent would be measured for nothing.
    """
    reports: list[PassReport] = []
    parameters, macs, accuracy = _measure(net, context)
    for one in passes:
        changed = one(net, context)
        if same_weights(net, changed):
            raise ConfigError(
                f"pass {one.name!r} changed nothing: every weight has the shape and values it had before; "
                "change its settings or take it out of the variant"
            )
        before, (parameters, macs, accuracy) = (parameters, macs, accuracy), _measure(changed, context)
        report = PassReport(
            name=one.name,
            parameters_before=before[0],
            parameters_after=parameters,
            macs_before=before[1],
            macs_after=macs,
            val_accuracy_before=before[2],
            val_accuracy_after=accuracy,
        )
        log.info(summary(report))
        reports.append(report)
        net = changed
    return net, tuple(reports)


def summary(report: PassReport) -> str:
    """One line: `prune 50 %: 73.4 % fewer parameters (…), 36.9 -> 9.6 MMAC per frame, val accuracy …`."""
    fewer = 100 * (1 - report.parameters_after / report.parameters_before)
    return (
        f"{report.name}: {fewer:.1f} % fewer parameters ({report.parameters_before:,} -> {report.parameters_after:,}), "
        f"{report.macs_before / 1e6:.1f} -> {report.macs_after / 1e6:.1f} MMAC per frame, "
        f"val accuracy {report.val_accuracy_before:.3f} -> {report.val_accuracy_after:.3f}"
    )


def same_weights(one: VideoNet, other: VideoNet) -> bool:
    """True when both nets hold the same tensors: names, shapes and values."""
    a, b = cast(nn.Module, one).state_dict(), cast(nn.Module, other).state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key].cpu(), b[key].cpu()) for key in a)


def _measure(net: VideoNet, context: CompressContext) -> tuple[int, int, float]:
    return count_parameters(net), count_macs(net, context.clip), context.evaluate(net)
