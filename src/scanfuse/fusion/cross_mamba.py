"""Fusion of two maps by cross Mamba blocks: each map is scanned with parameters that come from the other one."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.linear import Linear
from scanfuse.layers.mamba import RouteMixer, RouteSet, map_orders, num_routes_of, project_in
from scanfuse.layers.ssm import dt_rank_for

__all__ = ["CrossMambaBlock", "CrossMambaFusion"]


class CrossMambaBlock(nn.Module):
    """Scans the query map with step sizes, B and C that are computed from the guide map.

        x, z = W_in LN(query);  g = W_guide LN(guide)
        y_k = scan of SiLU(conv_k(x)) along route k with (delta, B, C)_k = W_k g, times SiLU(z)
        out = query + W_out LN(mean of y_k)

    Parameters: those of `LatentMamba` plus c i + 2 c; for c = 128, 8 states, four routes: 180,224.

    Args:
        dim: c. route_set: the orders of reading. d_state: states per channel. expand: inner width over c.
        conv_width: taps of the convolutions along the routes.

    Shape:
        query, guide (b, h, w, c) -> (b, h, w, c), any h and w.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025, and its published code (fusion block type "v7").
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
        self.query_norm = nn.LayerNorm(dim)
        self.guide_norm = nn.LayerNorm(dim)
        self.in_proj = Linear(dim, 2 * d_inner, bias=False)
        self.guide_proj = Linear(dim, d_inner, bias=False)
        self.mixer = RouteMixer(
            d_inner,
            num_routes=num_routes_of(route_set),
            d_state=d_state,
            dt_rank=dt_rank_for(dim),
            conv_width=conv_width,
        )
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = Linear(d_inner, dim, bias=False)

    def forward(self, query: Float[Tensor, "b h w c"], guide: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        height, width = query.shape[1:3]
        x, z = project_in(self.query_norm(query).flatten(1, 2), self.in_proj)
        g = self.guide_proj(self.guide_norm(guide).flatten(1, 2))
        y = self.mixer(x, map_orders(self.route_set, height, width, query.device), g)
        y = self.out_norm(y * F.silu(z) / self.mixer.num_routes)
        return query + self.out_proj(y).unflatten(1, (height, width))


class CrossMambaFusion(nn.Module):
    """fused = W ((cross1(x; guide y) + cross2(y; guide x)) / 2) + b, two blocks with own parameters.

    Args:
        dim: c. route_set: the orders of reading. d_state: states per channel. expand: inner width over c.

    Shape:
        x, y (b, h, w, c) -> (b, h, w, c).
    """

    def __init__(self, dim: int, *, route_set: RouteSet = "cross", d_state: int = 8, expand: int = 2) -> None:
        super().__init__()
        self.cross1 = CrossMambaBlock(dim, route_set=route_set, d_state=d_state, expand=expand)
        self.cross2 = CrossMambaBlock(dim, route_set=route_set, d_state=d_state, expand=expand)
        self.proj = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b h w c"], y: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        return self.proj((self.cross1(x, y) + self.cross2(y, x)) / 2)
