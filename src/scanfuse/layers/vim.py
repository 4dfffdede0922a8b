"""The block of Vision Mamba that reads a sequence forwards and backwards by two whole Mamba layers, with an MLP."""

import torch
from torch import Tensor, nn

from scanfuse.layers.linear import Linear
from scanfuse.layers.mamba import Mamba
from scanfuse.layers.vss import MLP

__all__ = ["VimBlock"]


class VimBlock(nn.Module):
    """t += drop(W [forward(LN t); backward(LN t)]), then t += drop(MLP(LN t)).

    Each direction is a Mamba layer with all parameters of its own, unlike `BidirectionalMamba`, whose directions
    share their projections.

    Parameters: twice `Mamba`, 2 c^2 + c for W, 8 c^2 + 5 c for the MLP of ratio 4, and 4 c for the norms; for
    c = 192, 16 states: 873,600.

    Args:
        dim: c. d_state: states per channel. dropout: chance of dropping a number of either branch in training.

    Shape:
        (b, l, c) -> (b, l, c).

    Source: the published MambaDerm code ("MambaLayer"), after Zhu et al., "Vision Mamba", 2024.
    """

    def __init__(self, dim: int, *, d_state: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.onward = Mamba(dim, d_state=d_state)
        self.homeward = Mamba(dim, d_state=d_state)
        self.merge = Linear(2 * dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, t: Tensor) -> Tensor:
        n = self.norm(t)
        both = torch.cat([self.onward(n), self.homeward(n.flip(1)).flip(1)], dim=-1)
        t = t + self.dropout(self.merge(both))
        return t + self.dropout(self.mlp(self.norm2(t)))
