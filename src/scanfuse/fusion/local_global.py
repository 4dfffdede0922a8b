"""The local-global gate: how much each number of a map comes from its place, and how much from everywhere."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.linear import Linear

__all__ = ["LocalGlobalGate"]


class LocalGlobalGate(nn.Module):
    """F = a T + (1 - a) G,   a = sigmoid(W [T; G] + b), one number per place and channel.

    T is the local map (of convolutions), G the global one (of scans). b starts at 0 and W small, so that both count
    about half at first.

    Parameters: 2 d^2 + d.

    Args:
        dim: d.

    Shape:
        local, wide (..., d) -> (..., d).

    Source: the published MambaDerm code ("local-global gate").
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = Linear(2 * dim, dim)
        nn.init.trunc_normal_(self.gate.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def forward(self, local: Float[Tensor, "*b d"], wide: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        a = torch.sigmoid(self.gate(torch.cat([local, wide], dim=-1)))
        return a * local + (1 - a) * wide
