"""Distillation: training a compressed net to agree with its dense teacher (Hinton et al. 2015)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from framegate.compress import CompressContext
from framegate.contract import ConfigError
from framegate.models.video import VideoNet


@dataclass(frozen=True, slots=True)
class Distill:
    """Train for `epochs` on labels and on the dense teacher's softened logits.

    `alpha` in 0..1 weighs the teacher against the labels; `temperature` softens both distributions.
    """

    epochs: int
    lr: float = 1e-3
    temperature: float = 2.0
    alpha: float = 0.7

    def __post_init__(self) -> None:
        wrong = [
            f"{key}: got {getattr(self, key)}, expected {expected}"
            for key, fine, expected in (
                ("epochs", self.epochs >= 1, "at least 1"),
                ("lr", self.lr > 0, "more than 0"),
                ("temperature", self.temperature > 0, "more than 0"),
                ("alpha", 0 <= self.alpha <= 1, "0 to 1"),
            )
            if not fine
        ]
        if wrong:
            raise ConfigError(f"Distill: {'; '.join(wrong)}")

    @property
    def name(self) -> str:
        """`distill 4 epochs`."""
        return f"distill {self.epochs} epoch{'s' if self.epochs > 1 else ''}"

    def __call__(self, net: VideoNet, context: CompressContext) -> VideoNet:
        """Give a trained copy."""
        return context.fit(
            deepcopy(net),
            teacher=context.teacher,
            epochs=self.epochs,
            lr=self.lr,
            temperature=self.temperature,
            alpha=self.alpha,
        )
