"""Fusion by the mean of two maps: what a fusion block has to beat."""

from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.linear import Linear

__all__ = ["AverageFusion"]


class AverageFusion(nn.Module):
    """fused = W ((x + y) / 2) + b on every position; symmetric in x and y. Parameters: c^2 + c.

    Args:
        dim: c.

    Shape:
        x, y (b, *sides, c) -> the same.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b *sides c"], y: Float[Tensor, "b *sides c"]) -> Float[Tensor, "b *sides c"]:
        return self.proj((x + y) / 2)
