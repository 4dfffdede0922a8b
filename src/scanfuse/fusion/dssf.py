"""Dual State Space Fusion (DSSF): two modalities are scanned with the same parameters and exchange their states."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.errors import UserError
from scanfuse.layers.linear import Linear, linear
from scanfuse.layers.ss2d import enter_scan
from scanfuse.layers.ssm import dt_rank_for, register_ssm, scan_by
from scanfuse.ops import routes

__all__ = ["DSSF", "DSSFChain"]

_NUM_ROUTES = 4


class DSSF(nn.Module):
    """One module of deep fusion of an RGB and an infrared map.

        x_m, g_m = W_in,m LN_m(m)                  m in rgb, ir; c -> e = expand c each
        u_m = SiLU(depthwise3x3_m(x_m)),   z_m = SiLU(g_m)
        y_m = LN_out,m(sum over the four `cross` routes of scan(u_m; delta, A, B, C, D))
        out_rgb = rgb + W_out,rgb (z_rgb (y_rgb + y_ir))
        out_ir  = ir  + W_out,ir  (z_ir  (y_ir + y_rgb))

    The five tensors of the scan are shared by the modalities, which therefore run as one batch through one scan;
    all else is each modality's own. Each modality gates with its own z what it takes in from the other.

    Parameters, for c a multiple of 16, 16 states, expand 2: 13 c^2 + 452 c; eight modules on each of the three levels
    of 256, 512 and 1024 channels have 149,610,496.

    Args:
        dim: c.
        d_state: states per channel.
        expand: e / c.
        ir_to_rgb: False drops y_ir from out_rgb, the published ablation "without IR to RGB".
        rgb_to_ir: False drops y_rgb from out_ir.
        zero_init: start with W_out,m of zeros, so that the module starts as the identity. At step 0 the gradients of
            everything but the two W_out are then exactly zero, as these stand behind all of it; the inputs get theirs
            through the residual. From step 1 on every parameter has one.

    Shape:
        rgb, ir (b, h, w, c) -> the same shapes, any h and w.

    Differences from the publication's descendant (no code of the publication itself is known): both outputs are made
    from the states of before; that program updates the infrared map from the RGB state that it has just replaced. It
    also has a second set of scan parameters and attention kernels that it never uses; they are not here.

    Source: Dong et al., "Fusion-Mamba for Cross-modality Object Detection", 2024 (arXiv 2404.09146), equations 7-11.
    """

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 16,
        expand: int = 2,
        ir_to_rgb: bool = True,
        rgb_to_ir: bool = True,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        d_inner = expand * dim
        self.ir_to_rgb = ir_to_rgb
        self.rgb_to_ir = rgb_to_ir
        self.norm_rgb, self.norm_ir = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.in_proj_rgb, self.in_proj_ir = (Linear(dim, 2 * d_inner, bias=False) for _ in range(2))
        self.conv2d_rgb, self.conv2d_ir = (
            nn.Conv2d(d_inner, d_inner, 3, padding=1, groups=d_inner) for _ in range(2)
        )
        register_ssm(self, num_routes=_NUM_ROUTES, d_inner=d_inner, d_state=d_state, dt_rank=dt_rank_for(dim))
        self.out_norm_rgb, self.out_norm_ir = nn.LayerNorm(d_inner), nn.LayerNorm(d_inner)
        self.out_proj_rgb, self.out_proj_ir = (Linear(d_inner, dim, bias=False) for _ in range(2))
        if zero_init:
            nn.init.zeros_(self.out_proj_rgb.weight)
            nn.init.zeros_(self.out_proj_ir.weight)

    def forward(
        self, rgb: Float[Tensor, "b h w c"], ir: Float[Tensor, "b h w c"]
    ) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b h w c"]]:
        u_rgb, z_rgb = _entered(self.norm_rgb(rgb), self.in_proj_rgb, self.conv2d_rgb)
        u_ir, z_ir = _entered(self.norm_ir(ir), self.in_proj_ir, self.conv2d_ir)
        height, width = rgb.shape[1:3]
        both = scan_by(self, torch.cat([u_rgb, u_ir]), routes.cross(height, width, device=rgb.device))
        y_rgb, y_ir = both.unflatten(1, (height, width)).chunk(2)
        y_rgb, y_ir = self.out_norm_rgb(y_rgb), self.out_norm_ir(y_ir)
        to_rgb = y_rgb + y_ir if self.ir_to_rgb else y_rgb
        to_ir = y_ir + y_rgb if self.rgb_to_ir else y_ir
        return rgb + self.out_proj_rgb(z_rgb * to_rgb), ir + self.out_proj_ir(z_ir * to_ir)


class DSSFChain(nn.Module):
    """`depth` DSSF modules in series, each with its own weights: the output of one is the input of the next.

    Differences from the publication's descendant: there every module reads the first one's input, and only the last
    one's output is used, so that the others are never trained.

    Args:
        dim: channels. depth: number of modules, at least 1; published are 2, 4, 8 and 16, the best is 8. The other
            arguments are those of `DSSF`.

    Shape:
        rgb, ir (b, h, w, c) -> the same shapes.

    Raises:
        UserError: `depth` is below 1.

    Source: as `DSSF`.
    """

    def __init__(
        self,
        dim: int,
        *,
        depth: int = 8,
        d_state: int = 16,
        expand: int = 2,
        ir_to_rgb: bool = True,
        rgb_to_ir: bool = True,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"A chain of DSSF has at least one module, not {depth}.")
        self.links = nn.ModuleList(
            DSSF(
                dim,
                d_state=d_state,
                expand=expand,
                ir_to_rgb=ir_to_rgb,
                rgb_to_ir=rgb_to_ir,
                zero_init=zero_init,
            )
            for _ in range(depth)
        )

    def forward(
        self, rgb: Float[Tensor, "b h w c"], ir: Float[Tensor, "b h w c"]
    ) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b h w c"]]:
        for link in self.links:
            rgb, ir = link(rgb, ir)
        return rgb, ir


def _entered(x: Tensor, in_proj: nn.Linear, conv2d: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """What the scan reads, (b, h * w, e), and the gate, (b, h, w, e)."""
    w_x, w_g = in_proj.weight.chunk(2)
    return enter_scan(x, w_x, conv2d), F.silu(linear(x, w_g))
