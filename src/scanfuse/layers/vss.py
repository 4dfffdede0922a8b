"""The visual state-space block: SS2D with a residual, and an optional MLP with another."""

import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.layers.drop_path import DropPath
from scanfuse.layers.linear import Linear
from scanfuse.layers.ss2d import GATED, SS2D, SS2DOptions

__all__ = ["MLP", "VSSBlock"]


class MLP(nn.Module):
    """W_2 gelu(W_1 x + b_1) + b_2 on every position, with the exact (erf) GELU.

    Args:
        dim: channels C in and out.
        hidden: channels between.

    Shape:
        (..., C) -> (..., C).
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class VSSBlock(nn.Module):
    """x += DropPath(SS2D(LN(x))), then, if there is an MLP, x += DropPath(MLP(LN(x))).

    VMamba v0 blocks have no MLP; v2 blocks have one of ratio 4. Names are those of the published v2 checkpoints
    (`norm`, `op`, `norm2`, `mlp`); v0 checkpoints call the first two `ln_1` and `self_attention`.

    Parameters, for dim C a multiple of 16: 7 C^2 + 426 C with `GATED` and no MLP.

    Args:
        dim: C.
        options: flavour of the SS2D.
        mlp_ratio: hidden width of the MLP over C; 0 for no MLP.
        drop_path: probability of dropping a branch in training.

    Shape:
        (batch, H, W, C) -> (batch, H, W, C).

    Source: Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024.
    """

    def __init__(
        self, dim: int, *, options: SS2DOptions = GATED, mlp_ratio: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = SS2D(dim, options)
        self.drop_path = DropPath(drop_path)
        if mlp_ratio > 0:
            self.norm2 = nn.LayerNorm(dim)
            self.mlp = MLP(dim, int(mlp_ratio * dim))
        self.has_mlp = mlp_ratio > 0

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x))) if self.has_mlp else x
