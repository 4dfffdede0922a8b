"""Axial attention: every place of a map asks those of its row, then those of its column."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.layers.linear import Linear

__all__ = ["AxialAttention", "AxisAttention"]


class AxisAttention(nn.Module):
    """Multi-head self-attention along a sequence, with a learned bias for how far apart two places are.

        y = W_o softmax(q k^T / sqrt(d_h) + r[h, clip(j - i, -reach, reach)]) v,   [q, k, v] = W x

    Places further apart than `reach` share a bias, so that a sequence may have any length. W has no bias: that of
    the keys would add the same to every key, which the softmax takes away again.

    Parameters: 4 C^2 + C + heads (2 reach + 1).

    Args:
        dim: C. heads: a divisor of C. reach: see above.

    Shape:
        (b, L, C) -> (b, L, C).

    Raises:
        ValueError: C is no multiple of the heads.
    """

    def __init__(self, dim: int, *, heads: int, reach: int = 32) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be shared by {heads} heads; give a multiple")
        self.heads, self.reach = heads, reach
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.out = Linear(dim, dim)
        self.offset = nn.Parameter(0.02 * torch.randn(heads, 2 * reach + 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        place = torch.arange(x.shape[1], device=x.device)
        apart = (place[None] - place[:, None]).clamp(-self.reach, self.reach) + self.reach
        bias = self.offset[:, apart].to(q.dtype)[None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        found: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return found


class AxialAttention(nn.Module):
    """Attention over rows, then over columns, each with its residual and norm: H W (H + W) pairs, not (H W)^2.

        x += row attention(LN x);   x += column attention(LN x)

    Args:
        dim: C. heads: of both attentions. reach: of their biases.

    Shape:
        (b, H, W, C) -> (b, H, W, C), any H, W >= 1.

    Source: Ho et al., "Axial Attention in Multidimensional Transformers", 2019; the bias by distance is ours.
    """

    def __init__(self, dim: int, *, heads: int, reach: int = 32) -> None:
        super().__init__()
        self.row_norm, self.column_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.rows = AxisAttention(dim, heads=heads, reach=reach)
        self.columns = AxisAttention(dim, heads=heads, reach=reach)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        x = x + self.rows(self.row_norm(x).flatten(0, 1)).unflatten(0, (b, h))
        across = self.column_norm(x).transpose(1, 2).flatten(0, 1)
        return x + self.columns(across).unflatten(0, (b, w)).transpose(1, 2)
