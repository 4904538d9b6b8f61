"""Every net: the fast path over a clip is the fold of its step, for any length, batch and state."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.models.cnn import FrameAverageNet
from framegate.models.recurrent import RecurrentNet
from framegate.models.video import VideoNet, fold, load_weights, run_clip

SMALL = {"num_classes": 5, "height": 16, "width": 24, "channels": (8, 16)}
NETS: dict[str, Callable[[], VideoNet]] = {
    "cnn": lambda: FrameAverageNet(**SMALL),
    "cnn_textbook": lambda: FrameAverageNet(**SMALL, backbone="textbook"),
    "cnn_gru": lambda: RecurrentNet(**SMALL, cell="gru", projection=12, hidden=10),
    "cnn_lstm": lambda: RecurrentNet(**SMALL, cell="lstm", projection=12, hidden=10),
}


def build(name: str) -> VideoNet:
    torch.manual_seed(1)
    return NETS[name]().eval()


def clips(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (batch, length, 16, 24, 3), generator=torch.Generator().manual_seed(seed)).byte()


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=8, deadline=None)
@given(batch=st.integers(1, 3), length=st.integers(1, 7), seed=st.integers(0, 999))
def test_clip_is_the_fold_of_step(name: str, batch: int, length: int, seed: int) -> None:
    net, frames = build(name), clips(batch, length, seed)
    with torch.no_grad():
        for fast, slow in zip(run_clip(net, frames), fold(net, frames), strict=True):
            torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_a_clip_cut_anywhere_gives_the_same_end(name: str) -> None:
    net, frames = build(name), clips(2, 6)
    with torch.no_grad():
        whole, _ = run_clip(net, frames)
        _, state = run_clip(net, frames[:, :4])
        rest, _ = run_clip(net, frames[:, 4:], state)
    torch.testing.assert_close(rest[:, -1], whole[:, -1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_permuting_streams_permutes_outputs(name: str) -> None:
    net, frames = build(name), clips(3, 4)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        torch.testing.assert_close(run_clip(net, frames[order])[0], run_clip(net, frames)[0][order])


def test_the_average_net_is_blind_to_order_and_the_gru_is_not() -> None:
    frames = clips(2, 6)
    with torch.no_grad():
        for name, blind in (("cnn", True), ("cnn_gru", False)):
            net = build(name)
            forward, backward = run_clip(net, frames)[0][:, -1], run_clip(net, frames.flip(1))[0][:, -1]
            assert torch.allclose(forward, backward, atol=1e-5) is blind


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_narrower_weights_load_into_a_wide_net(cell: str) -> None:
    narrow = RecurrentNet(5, 16, 24, cell=cell, channels=(4, 8), projection=6, hidden=7).eval()
    wide = RecurrentNet(5, 16, 24, cell=cell, channels=(8, 16), projection=12, hidden=10).eval()
    load_weights(wide, narrow.state_dict())
    frames = clips(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(run_clip(wide, frames), run_clip(narrow, frames))
        torch.testing.assert_close(fold(wide, frames), fold(narrow, frames), atol=1e-5, rtol=1e-4)
    assert wide.state_size == narrow.state_size


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(KeyError, match="rnn"):
        load_weights(build("cnn"), build("cnn_gru").state_dict())
