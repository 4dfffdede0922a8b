"""Cross-view swapping Mamba: two views exchange every second channel, then each mixture is scanned."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.ssm import dt_rank_for, register_ssm, scan_by
from scanfuse.ops import routes

__all__ = ["ChannelSwapFusion", "Merge", "Swap", "SwapNorm", "exchange_even"]

Swap = Literal["channel", "token"]
Merge = Literal["none", "deinterleave"]
SwapNorm = Literal["ln2d", "bn"]

_NUM_STREAMS = 2
_GATE_REDUCTION = 16


def exchange_even(a: Tensor, b: Tensor, swap: Swap) -> tuple[Tensor, Tensor]:
    """Even channels (or, with "token", even positions) of the two change places; doing it twice restores them.

    Args:
        a, b: (batch, L, channels). swap: which axis is counted.
    """
    axis = 2 if swap == "channel" else 1
    is_even = torch.arange(a.shape[axis], device=a.device) % 2 == 0
    is_even = is_even if swap == "channel" else is_even[:, None]
    return torch.where(is_even, b, a), torch.where(is_even, a, b)


class ChannelSwapFusion(nn.Module):
    """Each view takes in every second channel of the other one.

        p_i = W_in norm(z_i),   u_i = SiLU(depthwise3x3(p_i))                  c -> e = expand c
        (s_a, s_b) = even channels of (u_a, u_b) exchanged
        y_i = LN(scan_i(s_i))              row by row; delta, B, C, A, D are the stream's own
        g_i = sigmoid(W_2 SiLU(W_1 mean(p_i)))                                 e -> e/16 -> e
        z_a' = z_a + W_out(y_a g_b),   z_b' = z_b + W_out(y_b g_a)

    All weights are shared by the two views except those of the two scans.

    Parameters, with n states and r = ceil(c / 16): 2 c + 2 c e + 12 e + 2 e (e // 16) + 2 e (2 r + 3 n + 2);
    for c = 768, 16 states, expand 2: 3,122,688.

    Args:
        dim: c.
        swap: what is exchanged: "channel" as the published code does, or "token": every second position.
        merge: "none" as the published code; "deinterleave" gives every scanned channel (position) back to its own
            view before the norm, as the paper's figure draws it.
        norm: "ln2d", a layer norm over channels (the paper's figure), or "bn", a batch norm (the published code).
        d_state: n, states per channel.
        expand: e / c.

    Shape:
        z_a, z_b (b, h, w, c) -> the same shapes, any h and w.

    Differences from the publication: the exchange is plain indexing, so gradients go where the values came from; the
    published code has its own backward, which gives the gradient of exchanged channels to the wrong view. The batch
    norm sees both views as one batch.

    Source: Zheng et al., "XFMamba", MICCAI 2025 (arXiv 2503.02619), and its published code.
    """

    def __init__(
        self,
        dim: int,
        *,
        swap: Swap = "channel",
        merge: Merge = "none",
        norm: SwapNorm = "ln2d",
        d_state: int = 16,
        expand: int = 2,
    ) -> None:
        super().__init__()
        d_inner = expand * dim
        hidden = max(d_inner // _GATE_REDUCTION, 1)
        self.swap: Swap = swap
        self.merge: Merge = merge
        self.norm: nn.Module = nn.LayerNorm(dim) if norm == "ln2d" else nn.BatchNorm2d(dim)
        self.norm_kind: SwapNorm = norm
        self.in_proj = nn.Linear(dim, d_inner, bias=False)
        self.conv2d = nn.Conv2d(d_inner, d_inner, 3, padding=1, groups=d_inner)
        register_ssm(self, num_routes=_NUM_STREAMS, d_inner=d_inner, d_state=d_state, dt_rank=dt_rank_for(dim))
        self.out_norm = nn.LayerNorm(d_inner)
        self.squeeze = nn.Linear(d_inner, hidden, bias=False)
        self.excite = nn.Linear(hidden, d_inner, bias=False)
        self.out_proj = nn.Linear(d_inner, dim, bias=False)

    def forward(
        self, z_a: Float[Tensor, "b h w c"], z_b: Float[Tensor, "b h w c"]
    ) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b h w c"]]:
        height, width = z_a.shape[1:3]
        p = self.in_proj(self._normalise(torch.cat([z_a, z_b])))
        u = F.silu(self.conv2d(p.permute(0, 3, 1, 2))).permute(0, 2, 3, 1).flatten(1, 2)
        u_a, u_b = u.chunk(2)
        y_a, y_b = self._scan(*exchange_even(u_a, u_b, self.swap)).unbind(2)
        if self.merge == "deinterleave":
            y_a, y_b = exchange_even(y_a, y_b, self.swap)
        gates = torch.sigmoid(self.excite(F.silu(self.squeeze(p.mean(dim=(1, 2))))))
        g_a, g_b = gates.unsqueeze(1).chunk(2)
        o_a = self.out_proj(self.out_norm(y_a) * g_b).unflatten(1, (height, width))
        o_b = self.out_proj(self.out_norm(y_b) * g_a).unflatten(1, (height, width))
        return z_a + o_a, z_b + o_b

    def _normalise(self, z: Tensor) -> Tensor:
        if self.norm_kind == "ln2d":
            return self.norm(z)
        return self.norm(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _scan(self, s_a: Tensor, s_b: Tensor) -> Tensor:
        """(batch, L, e) twice -> (batch, L, 2, e): the streams are routes of one scan, both in raster order."""
        s = torch.stack([s_a, s_b], dim=2)
        orders = routes.raster(s.shape[1], device=s.device).repeat(_NUM_STREAMS, 1)
        return scan_by(self, s, orders, merge="none")
