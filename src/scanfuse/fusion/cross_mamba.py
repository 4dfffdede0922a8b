"""Fusion of two maps, or volumes, by cross Mamba blocks: each is scanned with parameters that come from the other."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.linear import Linear
from scanfuse.layers.mamba import RouteMixer, RouteSet, VolumeRouteSet, project_in
from scanfuse.layers.ssm import dt_rank_for
from scanfuse.ops import routes

__all__ = ["CrossMambaBlock", "CrossMambaFusion"]


class CrossMambaBlock(nn.Module):
    """Scans the query map with step sizes, B and C that are computed from the guide map.

        x, z = W_in LN(query);  g = W_guide LN(guide)
        y_k = scan of SiLU(conv_k(x)) along route k with (delta, B, C)_k = W_k g, times SiLU(z)
        out = query + W_out LN(mean of y_k)

    Parameters: those of `LatentMamba` plus c i + 2 c; for c = 128, 8 states, four routes: 180,224.

    Args:
        dim: c. d_state: states per channel. expand: inner width over c. conv_width: taps of the convolutions.
        route_set: the orders of reading, for maps or for volumes; see `LatentMamba`.

    Shape:
        query, guide (b, h, w, c) or (b, d, h, w, c) -> the same, any sides.

    Raises:
        ValueError: no such routes; a map for routes over volumes, or the other way about.

    Differences from the publication, for volumes: the published code reads eight sequences, the orders h w d, w h d,
    d w h, h d w and their reversals; here they are those of the route set.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025, and its published code (block types "v7" and "3dd3_fuse").
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
        self.query_norm = nn.LayerNorm(dim)
        self.guide_norm = nn.LayerNorm(dim)
        self.in_proj = Linear(dim, 2 * d_inner, bias=False)
        self.guide_proj = Linear(dim, d_inner, bias=False)
        self.mixer = RouteMixer(
            d_inner,
            num_routes=routes.named(route_set).num_routes,
            d_state=d_state,
            dt_rank=dt_rank_for(dim),
            conv_width=conv_width,
        )
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = Linear(d_inner, dim, bias=False)

    def forward(
        self, query: Float[Tensor, "b *sides c"], guide: Float[Tensor, "b *sides c"]
    ) -> Float[Tensor, "b *sides c"]:
        sides = query.shape[1:-1]
        orders = routes.over(self.route_set, sides, device=query.device)
        x, z = project_in(self.query_norm(query).flatten(1, -2), self.in_proj)
        g = self.guide_proj(self.guide_norm(guide).flatten(1, -2))
        y = self.mixer(x, orders, g)
        y = self.out_norm(y * F.silu(z) / self.mixer.num_routes)
        return query + self.out_proj(y).unflatten(1, sides)


class CrossMambaFusion(nn.Module):
    """fused = W ((cross1(x; guide y) + cross2(y; guide x)) / 2) + b, two blocks with own parameters.

    Args:
        dim: c. route_set: the orders of reading. d_state: states per channel. expand: inner width over c.

    Shape:
        x, y (b, h, w, c) or, with routes for volumes, (b, d, h, w, c) -> the same.
    """

    def __init__(
        self,
        dim: int,
        *,
        route_set: RouteSet | VolumeRouteSet = "cross",
        d_state: int = 8,
        expand: int = 2,
    ) -> None:
        super().__init__()
        self.cross1 = CrossMambaBlock(dim, route_set=route_set, d_state=d_state, expand=expand)
        self.cross2 = CrossMambaBlock(dim, route_set=route_set, d_state=d_state, expand=expand)
        self.proj = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b *sides c"], y: Float[Tensor, "b *sides c"]) -> Float[Tensor, "b *sides c"]:
        return self.proj((self.cross1(x, y) + self.cross2(y, x)) / 2)
