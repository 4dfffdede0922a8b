"""Mamba blocks: one gated mixer over any set of routes, and the blocks that the systems build from it.

Shapes: b batch, l positions, k routes, c model channels, i inner channels, h w height and width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.layers.linear import Linear, linear
from scanfuse.layers.route_conv import RouteConv
from scanfuse.layers.ssm import dt_rank_for, register_ssm, scan_by
from scanfuse.ops import routes

__all__ = ["BidirectionalMamba", "LatentMamba", "Mamba", "RouteMixer", "RouteSet", "map_orders", "num_routes_of"]

RouteSet = Literal["raster", "cross"]
"""Orders in which a map is read: row by row only, or the four of VMamba (rows, columns, and both reversed)."""


def num_routes_of(route_set: RouteSet) -> int:
    """Number of routes in a set: raster 1, cross 4."""
    return 4 if route_set == "cross" else 1


def map_orders(route_set: RouteSet, height: int, width: int, device: torch.device) -> Tensor:
    """The routes (k, height * width) over a map."""
    if route_set == "cross":
        return routes.cross(height, width, device=device)
    return routes.raster(height * width, device=device)


class RouteMixer(nn.Module):
    """Convolution and selective scan along k routes, each route with its own parameters.

        x_k = SiLU(causal depthwise convolution of x along route k)
        delta_k, B_k, C_k = projections of x_k, or of a guide map that all routes share
        y = sum over k of scan(x_k; delta_k, A_k, B_k, C_k, D_k)

    Args:
        d_inner: i. num_routes: k. d_state: states per channel. dt_rank: rank of the step size.
        conv_width: taps of the convolution.

    Shape:
        x (b, l, i), orders (k, l), guide (b, l, i) or None -> y (b, l, i), all in the natural order of the map.
    """

    def __init__(self, d_inner: int, *, num_routes: int, d_state: int, dt_rank: int, conv_width: int = 4) -> None:
        super().__init__()
        self.num_routes = num_routes
        self.conv1d = RouteConv(d_inner, num_routes=num_routes, width=conv_width)
        register_ssm(self, num_routes=num_routes, d_inner=d_inner, d_state=d_state, dt_rank=dt_rank)

    def forward(self, x: Tensor, orders: Tensor, guide: Tensor | None = None) -> Tensor:
        return scan_by(self, self.conv1d(x, orders), orders, guide=guide)


class Mamba(nn.Module):
    """The plain causal Mamba layer: out = W_out(mixer(x) * SiLU(z)) with x, z = W_in t.

    Every output depends on its own and earlier positions only. No norm and no residual.

    Parameters, with i = expand * c, r = ceil(c / 16): 3 c i + i (conv_width + 1) + i (r + 2 d_state) + i (r + 1)
    + i d_state + i.

    Args:
        dim: c. d_state: states per channel. expand: i / c. conv_width: taps of the causal convolution.

    Shape:
        (b, l, c) -> (b, l, c).

    Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023.
    """

    def __init__(self, dim: int, *, d_state: int = 16, expand: int = 2, conv_width: int = 4) -> None:
        super().__init__()
        d_inner = expand * dim
        self.in_proj = Linear(dim, 2 * d_inner, bias=False)
        self.mixer = RouteMixer(
            d_inner, num_routes=1, d_state=d_state, dt_rank=dt_rank_for(dim), conv_width=conv_width
        )
        self.out_proj = Linear(d_inner, dim, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        x, z = project_in(t, self.in_proj)
        orders = routes.raster(t.shape[1], device=t.device)
        return self.out_proj(self.mixer(x, orders) * F.silu(z))


class BidirectionalMamba(nn.Module):
    """A Mamba layer that reads the sequence forwards and backwards, with own parameters for each, and adds both.

    out = W_out((forward(x) + backward(x)) * SiLU(z)), x, z = W_in t. No norm and no residual.

    Args:
        dim: c. d_state: states per channel. expand: i / c. conv_width: taps of the convolutions.

    Shape:
        (b, l, c) -> (b, l, c).

    Source: Zhu et al., "Vision Mamba", 2024.
    """

    def __init__(self, dim: int, *, d_state: int = 16, expand: int = 2, conv_width: int = 4) -> None:
        super().__init__()
        d_inner = expand * dim
        self.in_proj = Linear(dim, 2 * d_inner, bias=False)
        self.mixer = RouteMixer(
            d_inner, num_routes=2, d_state=d_state, dt_rank=dt_rank_for(dim), conv_width=conv_width
        )
        self.out_proj = Linear(d_inner, dim, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        x, z = project_in(t, self.in_proj)
        orders = routes.bidirectional(t.shape[1], device=t.device)
        return self.out_proj(self.mixer(x, orders) * F.silu(z))


class LatentMamba(nn.Module):
    """The 2D latent Mamba block of ClinicalFMamba, with its norm and residual.

        x, z = W_in LN(t)
        y_k = scan of SiLU(conv_k(x)) along route k, times SiLU(z)
        out = t + W_out LN(mean of y_k)

    Parameters, with i = 2 c, r = ceil(c / 16), width 4, N states: per route i (4 + 1 + r + 2 N + r + 1 + N + 1);
    shared 6 c^2 + 6 c. For c = 128, N = 8, four routes: 147,200.

    Args:
        dim: c. route_set: the orders of reading. d_state: N. expand: i / c. conv_width: taps of the convolutions.

    Shape:
        (b, h, w, c) -> (b, h, w, c), any h and w.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025, and its published code (block type "v6").
    """

    def __init__(
        self,
        dim: int,
        *,
        route_set: RouteSet = "cross",
        d_state: int = 8,
        expand: int = 2,
        conv_width: int = 4,
    ) -> None:
        super().__init__()
        d_inner = expand * dim
        self.route_set: RouteSet = route_set
        self.norm = nn.LayerNorm(dim)
        self.in_proj = Linear(dim, 2 * d_inner, bias=False)
        self.mixer = RouteMixer(
            d_inner,
            num_routes=num_routes_of(route_set),
            d_state=d_state,
            dt_rank=dt_rank_for(dim),
            conv_width=conv_width,
        )
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = Linear(d_inner, dim, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        height, width = t.shape[1:3]
        x, z = project_in(self.norm(t).flatten(1, 2), self.in_proj)
        y = self.mixer(x, map_orders(self.route_set, height, width, t.device))
        # The gate is the same for all routes in natural order, so it can follow the sum; 1/k makes the sum a mean.
        y = self.out_norm(y * F.silu(z) / self.mixer.num_routes)
        return t + self.out_proj(y).unflatten(1, (height, width))


def project_in(t: Tensor, in_proj: nn.Linear) -> tuple[Tensor, Tensor]:
    """x and z, the two halves of W_in t, as two contiguous tensors (a split of one product would not be)."""
    w_x, w_z = in_proj.weight.chunk(2)
    return linear(t, w_x), linear(t, w_z)
