"""The VideoNet protocol, the shape vocabulary, and what every net shares.

Shape letters, used everywhere: B batch, T frames, H W pixels, C channels, F features, K classes, S state.

State is an argument: a net has no memory of its own. `step` takes one frame and a state and gives logits
and the next state; zeros are the start of a stream.
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

PIXEL_MEAN = 114.5  # ImageNet's mean and deviation, averaged over channels: scalars, so that int8 stays
PIXEL_STD = 57.6  # fast (a per-channel Mul/Sub blocks the fusion of the first convolution)


@runtime_checkable
class VideoNet(Protocol):
    """What training, compression and export need of a net; every implementation is an nn.Module too.

    `backbone` maps normalised pixels f32 [B,C,H,W] to features f32 [B,F]. `forgets`: whether the state may be
    carried from one clip into the next; a running mean never forgets, a gated cell learns to.
    """

    backbone: nn.Module

    @property
    def forgets(self) -> bool: ...
    @property
    def state_size(self) -> int: ...
    @property
    def num_classes(self) -> int: ...

    def init_state(self, batch: int) -> Tensor:
        """Zeros f32 [B,S]: the start of a stream."""

    def embed(self, frames: Tensor) -> Tensor:
        """frames u8 [B,H,W,C], 0..255 -> features f32 [B,F]."""

    def advance(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features f32 [B,F], state f32 [B,S] -> logits f32 [B,K], next state f32 [B,S], embedding f32 [B,E]."""

    def unroll(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """features f32 [B,T,F], state f32 [B,S] -> step logits f32 [B,T,K], last state f32 [B,S].

        Equals the fold of `advance`, in one call of the fused kernel.
        """


def pixels(frames: Tensor) -> Tensor:
    """frames u8 [B,H,W,C], 0..255 -> f32 [B,C,H,W], about zero mean and unit deviation, channels last.

    Floats first: TensorRT knows no transposition of bytes.
    """
    return (frames.float().permute(0, 3, 1, 2) - PIXEL_MEAN) / PIXEL_STD


def step(net: VideoNet, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """frame u8 [B,H,W,C], state f32 [B,S] -> logits f32 [B,K], next state f32 [B,S], embedding f32 [B,E]."""
    return net.advance(net.embed(frame), state)


def run_clip(net: VideoNet, frames: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """frames u8 [B,T,H,W,C] -> step logits f32 [B,T,K], last state f32 [B,S].

    The backbone sees B*T frames at once; the result is that of folding `step` over T.
    """
    batch, length = frames.shape[:2]
    features = net.embed(frames.flatten(0, 1))  # [B*T,F]
    features = features.view(batch, length, -1)  # [B,T,F]
    return net.unroll(features, net.init_state(batch).to(features.device) if state is None else state)


def fold(net: VideoNet, frames: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same as `run_clip`, one step at a time: the definition that the fast path is tested against."""
    state = net.init_state(len(frames)) if state is None else state
    logits = []
    for frame in frames.unbind(1):
        step_logits, state, _ = step(net, frame, state)
        logits.append(step_logits)
    return torch.stack(logits, 1), state


def load_weights(net: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict whose layers may be narrower than the net's: each layer takes the stored widths.

    That is how a pruned net comes back from plain tensors, without a pickled module.
    Raises KeyError when the names differ.
    """
    own = net.state_dict()
    if missing := sorted(own.keys() ^ weights.keys()):
        raise KeyError(f"weights do not belong to this net: {missing[:5]} stand on one side only")
    for name, module in net.named_modules():
        for key in [*module._parameters, *module._buffers]:
            full = f"{name}.{key}" if name else key
            if full in weights and weights[full].shape != own[full].shape:
                _replace(module, key, weights[full])
        _refit(module)
    net.load_state_dict(weights)


def _replace(module: nn.Module, key: str, value: Tensor) -> None:
    if key in module._buffers:
        module._buffers[key] = value.clone()
    else:
        module._parameters[key] = nn.Parameter(value.clone())


def _refit(module: Any) -> None:
    """Set a layer's width attributes from the shapes of its tensors."""
    match module:
        case nn.Conv2d():
            if module.groups == module.in_channels > 1:  # depthwise
                module.groups = module.weight.shape[0]
            module.out_channels = module.weight.shape[0]
            module.in_channels = module.weight.shape[1] * module.groups
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.BatchNorm2d():
            module.num_features = module.weight.shape[0]
        case nn.LayerNorm():
            module.normalized_shape = tuple(module.weight.shape)
        case nn.GRU() | nn.LSTM():
            module.hidden_size = cast(Tensor, module.weight_hh_l0).shape[1]
            module.input_size = cast(Tensor, module.weight_ih_l0).shape[1]
            module._init_flat_weights()
