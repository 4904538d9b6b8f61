"""Pruning: the widths that were asked for, the units that matter least, and gates that stay in order."""

import pytest
import torch
from torch import nn

from framegate.compress.prune import Prune, slice_hidden, slice_projection
from framegate.contract import ConfigError
from framegate.models.recurrent import RecurrentNet
from framegate.models.video import run_clip
from tests.exported import SPEC, context, random_clips, random_net


def layer_widths(net: nn.Module) -> list[int]:
    """Output widths of all convolutions and dense layers but the head, and of the cell."""
    kinds = {nn.Conv2d: "out_channels", nn.Linear: "out_features", nn.GRU: "hidden_size", nn.LSTM: "hidden_size"}
    layers = [(name, m) for name, m in net.named_modules() if type(m) in kinds and name != "head"]
    return [getattr(m, kinds[type(m)]) for _, m in layers]


@pytest.mark.parametrize(
    ("before", "ratio", "round_to", "after"),
    [
        (16, 0.7, 8, 8),  # torch-pruning's own rounding leaves this one whole
        (32, 0.5, 8, 16),
        (24, 0.5, 8, 16),
        (128, 0.7, 8, 40),
        (8, 0.9, 8, 8),
        (5, 0.5, 8, 5),
        (10, 0.5, 1, 5),
        (64, 0.01, 8, 64),
    ],
)
def test_widths_are_the_nearest_multiple(before: int, ratio: float, round_to: int, after: int) -> None:
    assert Prune(ratio, round_to).width(before) == after


@pytest.mark.parametrize(
    ("model", "backbone"),
    [("cnn", "small"), ("cnn", "textbook"), ("cnn", "resnet18"), ("cnn", "mobilenet_v3_small"), ("cnn_lstm", "small")],
)
def test_every_layer_gets_its_width_and_the_net_still_runs(model: str, backbone: str) -> None:
    net, _ = random_net(model, backbone)
    prune = Prune(0.7)
    pruned = prune(net, context(net))
    assert layer_widths(pruned) == [prune.width(width) for width in layer_widths(net)]
    assert all(width % 8 == 0 for width in layer_widths(pruned))
    with torch.no_grad():
        assert run_clip(pruned, torch.from_numpy(random_clips(2)))[0].isfinite().all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_hidden_units_without_weights_go_first_and_change_nothing(cell: str) -> None:
    """A unit that is cut off from head and cell is one that slicing must find; gate blocks keep their order."""
    torch.manual_seed(0)
    net = RecurrentNet(5, 32, 32, cell=cell, channels=(8, 16), projection=12, hidden=10).eval()
    dead = [1, 4, 7]
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            rows = getattr(net.rnn, name)
            for gate in range(len(rows) // 10):
                rows[[unit + 10 * gate for unit in dead]] = 0
        net.rnn.weight_hh_l0[:, dead] = 0
        net.head.weight[:, dead] = 0
        frames = torch.from_numpy(random_clips(2))
        before, _ = run_clip(net, frames)
        slice_hidden(net, 7)
        torch.testing.assert_close(run_clip(net, frames)[0], before)
    assert net.rnn.hidden_size == 7
    assert net.state_size == (14 if cell == "lstm" else 7)


def test_features_without_weights_go_first_and_change_nothing() -> None:
    torch.manual_seed(0)
    net = RecurrentNet(5, 32, 32, channels=(8, 16), projection=12, hidden=10).eval()
    with torch.no_grad():
        net.rnn.weight_ih_l0[:, [0, 5]] = 0
        net.project.weight[[0, 5]] = 0
        frames = torch.from_numpy(random_clips(2))
        before, _ = run_clip(net, frames)
        slice_projection(net, 10)
        torch.testing.assert_close(run_clip(net, frames)[0], before)


def test_channels_without_weights_go_first_and_change_nothing() -> None:
    net, _ = random_net("cnn")
    conv, norm, after = net.backbone[0][0], net.backbone[0][1], net.backbone[1][0]
    with torch.no_grad():
        dead = list(range(0, 16, 2))
        for tensor in (conv.weight, norm.weight, norm.bias):
            tensor[dead] = 0
        after.weight[:, dead] = 0
        frames = torch.from_numpy(random_clips(2))
        before, _ = run_clip(net, frames)
        pruned = Prune(0.5, 8)(net, context(net))
        kept = [i for i in range(16) if i not in dead]
        torch.testing.assert_close(pruned.backbone[0][0].weight, conv.weight[kept])
        assert not torch.allclose(run_clip(pruned, frames)[0], before)  # the next layer did lose channels


@pytest.mark.parametrize(("ratio", "round_to"), [(0.0, 8), (1.0, 8), (-0.5, 8), (0.5, 0)])
def test_settings_that_cannot_work_are_refused(ratio: float, round_to: int) -> None:
    with pytest.raises(ConfigError, match="got"):
        Prune(ratio, round_to)


def test_an_unknown_net_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Linear.*expected a RecurrentNet"):
        Prune(0.5)(nn.Linear(2, 2), context(None))


def test_a_backbone_that_cannot_be_followed_is_refused() -> None:
    class Shuffled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no tracing here")

    net, _ = random_net("cnn")
    net.backbone = Shuffled()
    with pytest.raises(ConfigError, match="no tracing here"):
        Prune(0.5)(net, context(net))


def test_the_frames_of_the_spec_decide_the_trace() -> None:
    net, _ = random_net("cnn", "textbook")
    assert Prune(0.5)(net, context(net)).backbone[-2].in_features == 32 * (SPEC.height // 8) * (SPEC.width // 8)
