"""Stochastic depth."""

import torch
from torch import Tensor, nn

__all__ = ["DropPath"]


class DropPath(nn.Module):
    """In training, replaces the branch of a sample by zero with probability p and scales the others by 1 / (1 - p).

    Args:
        rate: p in [0, 1). Zero, or evaluation mode, makes this the identity.

    Shape:
        (batch, ...) -> the same.

    Raises:
        ValueError: `rate` is outside [0, 1).

    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the drop-path rate must be in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0 or not self.training:
            return x
        kept = torch.rand(x.shape[0], *(1,) * (x.dim() - 1), device=x.device) >= self.rate
        return x * kept.to(x.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
