"""CNN + GRU and CNN + LSTM: a CNN on every frame, a recurrent cell that carries the stream's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from framegate.models.cnn import SMALL_CHANNELS, build_backbone
from framegate.models.video import pixels


class RecurrentNet(nn.Module):
    """Backbone -> projection -> GRU or LSTM -> head.

    State f32 [B,S]: the hidden vector h of a GRU (S = hidden); h then c of an LSTM (S = 2 * hidden).
    Cells: Cho et al. 2014 (GRU, in the variant of PyTorch and ONNX `linear_before_reset`), Hochreiter and
    Schmidhuber 1997 (LSTM).
    """

    forgets = True

    def __init__(
        self,
        num_classes: int,
        height: int,
        width: int,
        cell: Literal["gru", "lstm"] = "gru",
        backbone: str = "small",
        channels: Sequence[int] = SMALL_CHANNELS,
        weights: str | None = None,
        projection: int = 128,
        hidden: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone, features = build_backbone(backbone, channels, weights, height, width)
        self.project = nn.Linear(features, projection)
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.rnn: nn.GRU | nn.LSTM = kind(projection, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, num_classes)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.head.out_features

    @property
    def state_size(self) -> int:
        """S: hidden, or twice that for an LSTM."""
        return self.rnn.hidden_size * (2 if isinstance(self.rnn, nn.LSTM) else 1)

    def init_state(self, batch: int) -> Tensor:
        """Zeros f32 [B,S]."""
        return torch.zeros(batch, self.state_size)

    def embed(self, frames: Tensor) -> Tensor:
        """frames u8 [B,H,W,C] -> projected features f32 [B,F]."""
        return torch.relu(self.project(self.backbone(pixels(frames))))

    def advance(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features f32 [B,F], state f32 [B,S] -> logits f32 [B,K], next state f32 [B,S], embedding f32 [B,hidden].

        The cell is written out: the small matrix products export to a faster step graph than one ONNX GRU node,
        and int8 reaches them.
        """
        cell = self._lstm_cell if isinstance(self.rnn, nn.LSTM) else self._gru_cell
        state = cell(features, state)
        hidden = state[:, : self.rnn.hidden_size]
        return self.head(self.dropout(hidden)), state, hidden

    def unroll(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """features f32 [B,T,F], state f32 [B,S] -> step logits f32 [B,T,K], last state f32 [B,S]."""
        first = state.to(features.dtype)[None]  # [1,B,S]
        if isinstance(self.rnn, nn.LSTM):
            h, c = (part.contiguous() for part in first.chunk(2, -1))
            hidden, (h, c) = self.rnn(features, (h, c))
            last = torch.cat([h[0], c[0]], -1)
        else:
            hidden, h = self.rnn(features, first)
            last = h[0]
        return self.head(self.dropout(hidden)), last

    def _products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The gates' shares of input and memory, f32 [B,gates*hidden] each."""
        w_x, w_h, b_x, b_h = cast(list[Tensor], self.rnn.all_weights[0])
        return nn.functional.linear(x, w_x, b_x), nn.functional.linear(h, w_h, b_h)

    def _gru_cell(self, x: Tensor, h: Tensor) -> Tensor:
        inputs, memory = self._products(x, h)
        x_reset, x_update, x_new = inputs.chunk(3, 1)
        h_reset, h_update, h_new = memory.chunk(3, 1)
        update = torch.sigmoid(x_update + h_update)
        new = torch.tanh(x_new + torch.sigmoid(x_reset + h_reset) * h_new)
        return new + update * (h - new)

    def _lstm_cell(self, x: Tensor, state: Tensor) -> Tensor:
        h, c = state.chunk(2, 1)
        inputs, memory = self._products(x, h)
        i, f, g, o = (inputs + memory).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], 1)
