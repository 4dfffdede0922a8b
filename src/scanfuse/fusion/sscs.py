"""State Space Channel Swapping (SSCS): two modalities exchange half of their channels, then each is scanned."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.errors import UserError
from scanfuse.layers.ss2d import SS2DOptions
from scanfuse.layers.vss import VSSBlock

__all__ = ["SSCS", "swap_quarters"]


def swap_quarters(
    rgb: Float[Tensor, "*b c"], ir: Float[Tensor, "*b c"]
) -> tuple[Float[Tensor, "*b c"], Float[Tensor, "*b c"]]:
    """The second and the fourth quarter of the channels change places; doing it twice restores the maps.

        [r1 r2 r3 r4], [i1 i2 i3 i4]  ->  [r1 i2 r3 i4], [i1 r2 i3 r4]

    Raises:
        UserError: the number of channels is no multiple of 4.
    """
    _check_width(rgb.shape[-1])
    r, i = rgb.chunk(4, dim=-1), ir.chunk(4, dim=-1)
    return torch.cat([r[0], i[1], r[2], i[3]], dim=-1), torch.cat([i[0], r[1], i[2], r[3]], dim=-1)


class SSCS(nn.Module):
    """Shallow fusion of an RGB and an infrared map.

        T_rgb, T_ir = swap_quarters(rgb, ir)
        out_m = T_m + SS2D_m(LN_m(T_m))            m in rgb, ir: two blocks with own weights

    The residual carries the swapped map, not the original one.

    Parameters, for c a multiple of 16, 16 states, expand 2: 2 (7 c^2 + 426 c); 20,794,368 for the three levels of
    256, 512 and 1024 channels.

    Args:
        dim: c, a multiple of 4.
        d_state: states per channel.
        expand: inner width of the scan over c.
        zero_init: start with an output projection W_out of zeros, so that out_m = T_m at first. At step 0 the
            gradients of everything but W_out are then exactly zero, as W_out stands behind all of it; the inputs get
            theirs through the residual. From step 1 on every parameter has one.

    Shape:
        rgb, ir (b, h, w, c) -> the same shapes, any h and w.

    Raises:
        UserError: `dim` is no multiple of 4.

    Source: Dong et al., "Fusion-Mamba for Cross-modality Object Detection", 2024 (arXiv 2404.09146); the blocks are
    those of VMamba's first version (`GATED`), as the published increase of 20.8 M parameters says.
    """

    def __init__(self, dim: int, *, d_state: int = 16, expand: int = 2, zero_init: bool = False) -> None:
        super().__init__()
        _check_width(dim)
        options = SS2DOptions(d_state=d_state, ratio=expand)
        self.rgb = VSSBlock(dim, options=options)
        self.ir = VSSBlock(dim, options=options)
        if zero_init:
            nn.init.zeros_(self.rgb.op.out_proj.weight)
            nn.init.zeros_(self.ir.op.out_proj.weight)

    def forward(
        self, rgb: Float[Tensor, "b h w c"], ir: Float[Tensor, "b h w c"]
    ) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b h w c"]]:
        mixed_rgb, mixed_ir = swap_quarters(rgb, ir)
        return self.rgb(mixed_rgb), self.ir(mixed_ir)


def _check_width(channels: int) -> None:
    if channels % 4 != 0:
        raise UserError(
            f"SSCS swaps quarters of the channels, and {channels} channels have none; use a multiple of 4."
        )
