"""SS2D: the two-dimensional selective scan of VMamba, channels last."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.layers.linear import Linear, linear
from scanfuse.layers.ssm import dt_rank_for, register_ssm, scan_by
from scanfuse.ops import routes

__all__ = ["GATED", "PLAIN", "SS2D", "SS2DOptions", "enter_scan"]

_NUM_ROUTES = 4


@dataclass(frozen=True, kw_only=True)
class SS2DOptions:
    """What distinguishes the published flavours.

    Attributes:
        d_state: states per channel, N >= 1.
        ratio: inner channels per model channel, I = int(ratio * C).
        gate: multiply the normalised output by SiLU(z), with z a second half of the input projection.
        conv_bias: whether the depthwise 3x3 convolution has a bias.
    """

    d_state: int = 16
    ratio: float = 2.0
    gate: bool = True
    conv_bias: bool = True


GATED = SS2DOptions()
"""VMamba "v0": gate, 16 states, ratio 2. The flavour of the vanilla backbones and of Fusion-Mamba."""

PLAIN = SS2DOptions(d_state=1, ratio=1.0, gate=False, conv_bias=False)
"""VMamba v2 ("v05_noz", s1 models): no gate, one state; `replace(PLAIN, ratio=2.0)` gives the s2 models."""


def enter_scan(x: Tensor, weight: Tensor, conv2d: nn.Conv2d) -> Tensor:
    """SiLU(conv2d(W x)), the map that a scan reads: (batch, H, W, C) -> (batch, H * W, I), row-major.

    Args:
        weight: (I, C). conv2d: over I channels, keeps height and width.
    """
    return F.silu(conv2d(linear(x, weight).permute(0, 3, 1, 2))).permute(0, 2, 3, 1).flatten(1, 2)


class SS2D(nn.Module):
    """Mixes every position of a map with every other, in linear time, by four scans.

        x, z = W_in m                       (C -> I each; z only with a gate)
        x = SiLU(depthwise3x3(x))
        y = sum over the four `cross` routes of scan(x; delta, A, B, C, D)
        out = W_out(LayerNorm(y) * SiLU(z)) (I -> C; no factor without a gate)

    All projections act on single positions, so they run on the map in its natural order; only the scan follows the
    routes. Parameter names are those of the published checkpoints.

    Parameters, for C a multiple of 16: 7 C^2 + 424 C with `GATED`.

    Args:
        dim: C, channels of the map.
        options: the flavour, `GATED` by default.

    Shape:
        (batch, H, W, C) -> (batch, H, W, C), any H, W >= 1, any float dtype; the recurrence itself is float32
        (float64 for a float64 map).

    Source: Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024.

    Example:
        >>> SS2D(32)(torch.zeros(1, 5, 7, 32)).shape
        torch.Size([1, 5, 7, 32])
    """

    def __init__(self, dim: int, options: SS2DOptions = GATED) -> None:
        super().__init__()
        d_inner = int(options.ratio * dim)
        self.options = options
        self.in_proj = Linear(dim, d_inner * (2 if options.gate else 1), bias=False)
        self.conv2d = nn.Conv2d(d_inner, d_inner, 3, padding=1, groups=d_inner, bias=options.conv_bias)
        register_ssm(self, num_routes=_NUM_ROUTES, d_inner=d_inner, d_state=options.d_state, dt_rank=dt_rank_for(dim))
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = Linear(d_inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        # Two products with the halves of W_in give contiguous maps; one product and a split would cost a copy later.
        weights = self.in_proj.weight.chunk(2 if self.options.gate else 1)
        gate = linear(x, weights[1]) if self.options.gate else None
        u = enter_scan(x, weights[0], self.conv2d)
        y = scan_by(self, u, routes.cross(height, width, device=x.device))
        y = self.out_norm(y).unflatten(1, (height, width))
        return self.out_proj(y if gate is None else y * F.silu(gate))
