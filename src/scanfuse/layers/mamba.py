"""Mamba blocks: one gated mixer over any set of routes, and the blocks that the systems build from it.

Shapes: b batch, l positions, k routes, c model channels, i inner channels, (d) h w the sides. A block that reads maps
reads volumes, too: its set of routes says which.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.layers.linear import Linear, linear
from scanfuse.layers.route_conv import RouteConv
from scanfuse.layers.ssm import dt_rank_for, register_ssm, scan_by
from scanfuse.ops import routes

__all__ = ["BidirectionalMamba", "LatentMamba", "Mamba", "RouteMixer", "RouteSet", "VolumeRouteSet", "project_in"]

RouteSet = routes.MapRoutes
VolumeRouteSet = routes.VolumeRoutes


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
    """The latent Mamba block of ClinicalFMamba, with its norm and residual, for maps and for volumes.

        x, z = W_in LN(t)
        y_k = scan of SiLU(conv_k(x)) along route k, times SiLU(z)
        out = t + W_out LN(mean of y_k)

    Parameters, with i = 2 c, r = ceil(c / 16), width 4, N states: per route i (4 + 1 + r + 2 N + r + 1 + N + 1);
    shared 6 c^2 + 6 c. For c = 128, N = 8: 111,104 with one route, 135,168 with three, 147,200 with four, 171,264
    with six.

    Args:
        dim: c. d_state: N. expand: i / c. conv_width: taps of the convolutions.
        route_set: the orders of reading, each with parameters of its own: "raster" or "cross" for maps, "axial",
            "triplane3" or "triplane6" for volumes.

    Shape:
        (b, h, w, c) or, with routes for volumes, (b, d, h, w, c) -> the same, any sides.

    Raises:
        ValueError: no such routes; a map for routes over volumes, or the other way about.

    Differences from the publication, for volumes: the published code reads three sequences, all with the height
    changing slowest (h w d, its reversal, h d w), flips the reversed one back twice, which misplaces it, and divides
    their sum by five; the weights of two more are never used. Here every route of the set is read, put back where it
    was read, and the mean is over as many as there are.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025, and its published code (block types "v6" and "3dd3").
    """

    def __init__(
        self,
        dim: int,
        *,
        route_set: RouteSet | VolumeRouteSet = "cross",
        d_state: int = 8,
        expand: int = 2,
        conv_width: int = 4,
    ) -> None:
        super().__init__()
        d_inner = expand * dim
        self.route_set: RouteSet | VolumeRouteSet = route_set
        self.norm = nn.LayerNorm(dim)
        self.in_proj = Linear(dim, 2 * d_inner, bias=False)
        self.mixer = RouteMixer(
            d_inner,
            num_routes=routes.named(route_set).num_routes,
            d_state=d_state,
            dt_rank=dt_rank_for(dim),
            conv_width=conv_width,
        )
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = Linear(d_inner, dim, bias=False)

    def forward(self, t: Tensor) -> Tensor:
        sides = t.shape[1:-1]
        orders = routes.over(self.route_set, sides, device=t.device)
        x, z = project_in(self.norm(t).flatten(1, -2), self.in_proj)
        y = self.mixer(x, orders)
        # The gate is the same for all routes in natural order, so it can follow the sum; 1/k makes the sum a mean.
        y = self.out_norm(y * F.silu(z) / self.mixer.num_routes)
        return t + self.out_proj(y).unflatten(1, sides)


def project_in(t: Tensor, in_proj: nn.Linear) -> tuple[Tensor, Tensor]:
    """x and z, the two halves of W_in t, as two contiguous tensors (a split of one product would not be)."""
    w_x, w_z = in_proj.weight.chunk(2)
    return linear(t, w_x), linear(t, w_z)
