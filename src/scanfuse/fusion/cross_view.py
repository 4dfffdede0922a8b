"""Multi-view combination Mamba: two views and their mean are scanned and read out with the mean's weights."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.ssm import dt_rank_for, register_ssm, scan_by
from scanfuse.ops import routes

__all__ = ["CrossViewFusion", "Gate"]

Gate = Literal["silu", "channel"]

_NUM_ROUTES = 4
_GATE_REDUCTION = 16


class CrossViewFusion(nn.Module):
    """Joins two views to one map; symmetric in the views.

        n_i = LN(z_i),   n_m = (n_a + n_b) / 2,   q_* = W_in n_*,   u_* = SiLU(depthwise3x3(q_*))     * in a, b, m
        y_* = LN(sum over the four `cross` routes of scan(u_*; delta_*, B_*, C_m, A, D))
        z = z_a + z_b + W_out((y_a + y_b + y_m) g),   g = SiLU(q_m)

    The weights are shared by the three streams; C, the read-out of the states, always comes from the mean.

    Parameters, with e = expand c, n states and r = ceil(c / 16): 2 c + 2 c e + 12 e + 4 e (2 r + 3 n + 2); for
    c = 768, 16 states, expand 2: 3,276,288. The published code has 2,359,296 more that it never uses.

    Args:
        dim: c.
        gate: "silu", g at every position as the published code has it; "channel", as the paper's figure draws it:
            g = sigmoid(W_2 SiLU(W_1 mean(q_m))), one number per channel, 2 e (e // 16) parameters more.
        d_state: n, states per channel.
        expand: e / c.

    Shape:
        z_a, z_b (b, h, w, c) -> (b, h, w, c), any h and w.

    Source: Zheng et al., "XFMamba", MICCAI 2025 (arXiv 2503.02619), and its published code.
    """

    def __init__(self, dim: int, *, gate: Gate = "silu", d_state: int = 16, expand: int = 2) -> None:
        super().__init__()
        d_inner = expand * dim
        self.gate: Gate = gate
        self.norm = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, d_inner, bias=False)
        self.conv2d = nn.Conv2d(d_inner, d_inner, 3, padding=1, groups=d_inner)
        register_ssm(self, num_routes=_NUM_ROUTES, d_inner=d_inner, d_state=d_state, dt_rank=dt_rank_for(dim))
        self.out_norm = nn.LayerNorm(d_inner)
        if gate == "channel":
            hidden = max(d_inner // _GATE_REDUCTION, 1)
            self.squeeze = nn.Linear(d_inner, hidden, bias=False)
            self.excite = nn.Linear(hidden, d_inner, bias=False)
        self.out_proj = nn.Linear(d_inner, dim, bias=False)

    def forward(self, z_a: Float[Tensor, "b h w c"], z_b: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        height, width = z_a.shape[1:3]
        n_a, n_b = self.norm(z_a), self.norm(z_b)
        q = self.in_proj(torch.cat([n_a, n_b, (n_a + n_b) / 2]))
        u = F.silu(self.conv2d(q.permute(0, 3, 1, 2))).permute(0, 2, 3, 1).flatten(1, 2)
        y = scan_by(self, u, routes.cross(height, width, device=u.device), read_out=_of_the_mean)
        y_a, y_b, y_m = self.out_norm(y).chunk(3)
        y = (y_a + y_b + y_m).unflatten(1, (height, width)) * self._gate(q.chunk(3)[2])
        return z_a + z_b + self.out_proj(y)

    def _gate(self, q_m: Tensor) -> Tensor:
        if self.gate == "silu":
            return F.silu(q_m)
        return torch.sigmoid(self.excite(F.silu(self.squeeze(q_m.mean(dim=(1, 2), keepdim=True)))))


def _of_the_mean(C: Tensor) -> Tensor:
    """C (3 batch, L, k, n) of the three streams; the last third of the batch, the mean stream, gives everyone's."""
    return C.chunk(3)[2].repeat(3, 1, 1, 1)
