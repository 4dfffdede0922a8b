"""Fusion by stacking channels: the plain learned baseline."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.linear import Linear

__all__ = ["ConcatFusion"]


class ConcatFusion(nn.Module):
    """fused = W [x, y] + b on every position. Parameters: 2 c^2 + c.

    Args:
        dim: c.

    Shape:
        x, y (b, *sides, c) -> the same.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = Linear(2 * dim, dim)

    def forward(self, x: Float[Tensor, "b *sides c"], y: Float[Tensor, "b *sides c"]) -> Float[Tensor, "b *sides c"]:
        return self.proj(torch.cat([x, y], dim=-1))
