"""Backbones (frame -> features) and the frame-average net: the image recogniser as a VideoNet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from framegate.contract import ConfigError, nearest
from framegate.models.video import pixels

SMALL_CHANNELS = (32, 64, 128, 256)


def conv_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def small_cnn(channels: Sequence[int] = SMALL_CHANNELS) -> nn.Sequential:
    """One strided 3x3 convolution per entry of `channels`, flattened: f32 [B,3,H,W] -> [B,channels[-1]*H'*W'].

    Plain wide convolutions: what CPUs and int8 kernels run near their peak, and what pruning can thin out. The
    last map is flattened, not averaged: where things are is what motion is made of.
    """
    widths = (3, *channels)
    blocks = [conv_block(a, b, stride=2) for a, b in pairwise(widths)]
    return nn.Sequential(*blocks, nn.Flatten())


def textbook_cnn(height: int, width: int) -> nn.Sequential:
    """3x3 convolutions 32-64-64 with max pooling and a dense layer of 64: f32 [B,3,H,W] -> [B,64].

    The network of the image classification tutorials; the dense layer fixes the frame's size.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    flat = 64 * (height // 8) * (width // 8)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(inplace=True))


def torchvision_backbone(name: str, weights: str | None) -> nn.Module:
    """A torchvision classification model by name, its last linear layer taken out: f32 [B,3,H,W] -> [B,F].

    `weights="DEFAULT"` downloads torchvision's pretrained weights. Raises ConfigError for an unknown name.
    """
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"model.backbone: got {name!r}{nearest(name, ['small', 'textbook', *known])}; expected 'small', "
            "'textbook' or a torchvision classification model such as 'resnet18'"
        )
    net: nn.Module = torchvision.models.get_model(name, weights=weights)
    if hasattr(net, "aux_logits"):  # inception, googlenet: in training they would give several outputs
        setattr(net, "aux_logits", False)  # noqa: B010  an attribute that nn.Module does not declare
    last = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not last:
        raise ConfigError(f"model.backbone: {name!r} has no linear layer to take out; choose another backbone")
    parent, _, leaf = last[-1].rpartition(".")
    setattr(net.get_submodule(parent), leaf, nn.Identity())
    return net


def build_backbone(
    name: str, channels: Sequence[int], weights: str | None, height: int, width: int
) -> tuple[nn.Module, int]:
    """A backbone by name and its number of features.

    Raises ConfigError when the name is unknown or the backbone does not take frames of this size.
    """
    if weights is not None and name in ("small", "textbook"):
        raise ConfigError(f"model.weights: {name!r} has no pretrained weights; set model.weights=null")
    match name:
        case "small":
            net: nn.Module = small_cnn(channels)
        case "textbook":
            net = textbook_cnn(height, width)
        case _:
            net = torchvision_backbone(name, weights)
    return net, feature_size(net, name, height, width)


def feature_size(net: nn.Module, name: str, height: int, width: int) -> int:
    """F of a backbone, found by running it on one black frame."""
    training = net.training
    try:
        with torch.no_grad():
            features = net.eval()(torch.zeros(1, 3, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"model.backbone: {name!r} does not take frames of {height}x{width} ({error}); change data.clip"
        ) from None
    finally:
        net.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ConfigError(f"model.backbone: {name!r} does not give one feature vector per frame; choose another")
    return int(features.shape[1])


class FrameAverageNet(nn.Module):
    """A CNN on every frame; the logits of a step are the running mean over the stream so far.

    State f32 [B,K+1]: the sum of the logits and the count of frames. With T = 1 plain image classification.
    Blind to the order of frames by construction: the baseline that a motion data set must beat.
    """

    forgets = False

    def __init__(
        self,
        num_classes: int,
        height: int,
        width: int,
        backbone: str = "small",
        channels: Sequence[int] = SMALL_CHANNELS,
        weights: str | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone, features = build_backbone(backbone, channels, weights, height, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_classes)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.head.out_features

    @property
    def state_size(self) -> int:
        """S = K + 1."""
        return self.head.out_features + 1

    def init_state(self, batch: int) -> Tensor:
        """Zeros f32 [B,K+1]."""
        return torch.zeros(batch, self.state_size)

    def embed(self, frames: Tensor) -> Tensor:
        """frames u8 [B,H,W,C] -> features f32 [B,F]."""
        features: Tensor = self.backbone(pixels(frames))
        return features

    def advance(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features f32 [B,F], state f32 [B,K+1] -> mean logits f32 [B,K], state, embedding f32 [B,F]."""
        logits = self.head(self.dropout(features))
        state = state + torch.cat([logits, torch.ones_like(logits[:, :1])], 1)  # [B,K+1]
        return state[:, :-1] / state[:, -1:], state, features

    def unroll(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """features f32 [B,T,F], state f32 [B,K+1] -> running mean logits f32 [B,T,K], last state."""
        logits = self.head(self.dropout(features)).float()  # [B,T,K]
        terms = torch.cat([logits, torch.ones_like(logits[..., :1])], -1)  # [B,T,K+1]
        sums = state[:, None] + terms.cumsum(1)
        return sums[..., :-1] / sums[..., -1:], sums[:, -1]
