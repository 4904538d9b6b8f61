"""Structured pruning: whole channels and hidden units go, so that every runtime gains, without sparse kernels.

torch-pruning traces the backbone together with the linear layer that reads it: which channels hang together
(residual sums, depthwise convolutions, flattening) is its knowledge. How wide a layer becomes is decided here,
not by its `round_to`, which leaves narrow layers whole without a word. It cannot trace GRU and LSTM: those are
sliced by gate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from framegate.compress import CompressContext
from framegate.contract import ConfigError
from framegate.models.cnn import FrameAverageNet
from framegate.models.recurrent import RecurrentNet
from framegate.models.video import VideoNet, load_weights


@dataclass(frozen=True, slots=True)
class Prune:
    """Take `ratio` of the channels and hidden units out of every layer; widths become multiples of `round_to`.

    The least important go: those with the smallest weights, summed over all layers that share them
    (Fang et al. 2023, DepGraph). A layer of `round_to` channels or fewer stays as it is.
    """

    ratio: float
    round_to: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"Prune: ratio: got {self.ratio}, expected more than 0 and less than 1")
        if self.round_to < 1:
            raise ConfigError(f"Prune: round_to: got {self.round_to}, expected at least 1")

    @property
    def name(self) -> str:
        """`prune 50 %`."""
        return f"prune {100 * self.ratio:g} %"

    def __call__(self, net: VideoNet, context: CompressContext) -> VideoNet:
        """Give a narrower copy, in eval mode. Raises ConfigError for a net or backbone that cannot be pruned."""
        pruned = deepcopy(cast(nn.Module, net)).eval().requires_grad_()
        frame = torch.zeros(1, 3, context.clip.height, context.clip.width)
        match pruned:
            case RecurrentNet():
                prune_backbone(pruned.backbone, pruned.project, frame, self.width)
                slice_projection(pruned, self.width(pruned.project.out_features))
                slice_hidden(pruned, self.width(pruned.rnn.hidden_size))
            case FrameAverageNet():
                prune_backbone(pruned.backbone, pruned.head, frame, self.width)
            case _:
                raise ConfigError(f"Prune: got a {type(net).__name__}, expected a RecurrentNet or a FrameAverageNet")
        return cast(VideoNet, pruned)

    def width(self, before: int) -> int:
        """The width of a layer afterwards: the nearest multiple of `round_to`, at least one of them, never wider."""
        multiples = int(before * (1 - self.ratio) / self.round_to + 0.5)
        return min(before, self.round_to * max(1, multiples))


def prune_backbone(backbone: nn.Module, reader: nn.Linear, frame: Tensor, width: Callable[[int], int]) -> None:
    """Narrow all channels of `backbone`, in place, and the inputs of `reader`, the layer that reads its features.

    frame: f32 [1,3,H,W]. Raises ConfigError when torch-pruning cannot follow the backbone, or a layer did not get
    the width that `width` says.
    """
    import torch_pruning as tp

    net = nn.Sequential(backbone, reader)
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Unwrapped parameters detected", UserWarning)
            graph = tp.DependencyGraph().build_dependency(net, example_inputs=frame)
        plans = list(_plans(graph, reader, width))  # all before the first cut: a cut shifts the indices of the others
        for plan in plans:
            cut = graph.get_pruner_of_module(plan.layer).prune_out_channels
            graph.get_pruning_group(plan.layer, cut, plan.remove).prune()
        with torch.no_grad():
            net(frame)
    except Exception as error:  # torch-pruning raises whatever its tracing runs into
        raise ConfigError(
            f"Prune: torch-pruning cannot prune this backbone ({type(error).__name__}: {error}); choose another"
        ) from error
    for plan in plans:
        if (got := graph.get_out_channels(plan.layer)) != plan.width:
            raise ConfigError(f"Prune: {plan.layer} has {got} channels, expected {plan.width}; choose another ratio")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Channels of one layer (and of all that hang on it) that go, and its width afterwards."""

    layer: nn.Module
    remove: list[int]
    width: int


def _plans(graph: Any, reader: nn.Linear, width: Callable[[int], int]) -> Iterator[_Plan]:
    import torch_pruning as tp

    importance = tp.importance.GroupMagnitudeImportance(p=2)
    for group in graph.get_all_groups(ignored_layers=[reader], root_module_types=[nn.Conv2d, nn.Linear]):
        layer = group[0].dep.target.module
        before, blocks = graph.get_out_channels(layer), _blocks(group)
        each = max(1, width(before) // blocks)  # a grouped convolution keeps the same number in every block
        scores = importance(group).view(blocks, -1).mean(0)
        remove = [i + block * len(scores) for block in range(blocks) for i in least(scores, len(scores) - each)]
        if remove:
            yield _Plan(layer, remove, each * blocks)


def _blocks(group: Any) -> int:
    """Groups of the grouped convolutions among the layers that hang together; 1 for plain and depthwise ones."""
    modules = [dep.target.module for dep, _ in group]
    convs = [m for m in modules if isinstance(m, nn.Conv2d) and m.groups != m.out_channels]
    return max((conv.groups for conv in convs), default=1)


def slice_projection(net: RecurrentNet, width: int) -> None:
    """Keep the `width` most important features between the backbone and the cell, in place."""
    weights = net.state_dict()
    scores = energy(weights["project.weight"], 1) + energy(weights["rnn.weight_ih_l0"], 0)
    keep = most(scores, width)
    for key in ("project.weight", "project.bias"):
        weights[key] = weights[key][keep]
    weights["rnn.weight_ih_l0"] = weights["rnn.weight_ih_l0"][:, keep]
    load_weights(net, weights)


def slice_hidden(net: RecurrentNet, width: int) -> None:
    """Keep the `width` most important hidden units of the cell, in place.

    A unit is one row in each gate's block (GRU: reset, update, new; LSTM: in, forget, cell, out), one column of the
    recurrent matrix, one input of the head. All go together.
    """
    weights, size = net.state_dict(), net.rnn.hidden_size
    gates = len(weights["rnn.weight_hh_l0"]) // size
    rows = energy(weights["rnn.weight_ih_l0"], 1) + energy(weights["rnn.weight_hh_l0"], 1)  # [gates*hidden]
    columns = energy(weights["rnn.weight_hh_l0"], 0) + energy(weights["head.weight"], 0)  # [hidden]
    keep = most(rows.view(gates, size).sum(0) + columns, width)
    keep_rows = torch.cat([keep + gate * size for gate in range(gates)])
    for key in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        weights[f"rnn.{key}"] = weights[f"rnn.{key}"][keep_rows]
    weights["rnn.weight_hh_l0"] = weights["rnn.weight_hh_l0"][:, keep]
    weights["head.weight"] = weights["head.weight"][:, keep]
    load_weights(net, weights)


def energy(weight: Tensor, dim: int) -> Tensor:
    """Sum of squares over `dim`."""
    return weight.square().sum(dim)


def most(scores: Tensor, count: int) -> Tensor:
    """Positions of the `count` highest scores, in their order."""
    return torch.topk(scores, count).indices.sort().values


def least(scores: Tensor, count: int) -> list[int]:
    """Positions of the `count` lowest scores."""
    return cast(list[int], torch.topk(scores, count, largest=False).indices.tolist())
