"""The fusion block of Fusion-Mamba: channel swapping, then a chain of dual state-space fusion, and a residual."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.errors import UserError
from scanfuse.fusion.dssf import DSSFChain
from scanfuse.fusion.sscs import SSCS

__all__ = ["FusedMaps", "FusionMambaBlock"]


class FusedMaps(NamedTuple):
    """What the block gives.

    Attributes:
        rgb, ir: the enhanced maps, for the next stage of each stream.
        joint: their sum, for the pyramid.
    """

    rgb: Float[Tensor, "b h w c"]
    ir: Float[Tensor, "b h w c"]
    joint: Float[Tensor, "b h w c"]


class FusionMambaBlock(nn.Module):
    """Joins the RGB and the infrared map of one pyramid level.

        rgb ---+---------------------------------- + ---> rgb' ---+
               +--> SSCS ---> DSSF x depth ------> +              + ---> joint
        ir  ---+---------------------------------- + ---> ir'  ---+

        m' = m + DSSF(... DSSF(SSCS(rgb, ir)))_m       m in rgb, ir
        joint = rgb' + ir'

    Every published ablation is an option: `depth=0` SSCS only (m' = m + SSCS_m), `swap=False` DSSF only
    (m' = m + DSSF_m), both at once the baseline without parameters (m' = m, joint = rgb + ir), and each direction of
    DSSF off. The published counts of modules are 2, 4, 8 (the best) and 16.

    Parameters: those of `SSCS` and of `depth` times `DSSF`; with eight modules on levels of 256, 512 and 1024
    channels 170,404,864 in all.

    Args:
        dim: c, with `swap` a multiple of 4.
        swap: begin with SSCS.
        depth: number of DSSF modules, 0 or more.
        d_state: states per channel of every scan.
        expand: inner width of every scan over c.
        ir_to_rgb, rgb_to_ir: which modality takes in the other one's states in DSSF.
        zero_init: every output projection of SSCS and DSSF starts at zero, which keeps a chain from inflating the
            maps of pretrained streams. The block then starts as m' = m + T_m, with T the swapped maps (m itself
            without `swap`), and joint = 2 (rgb + ir). At step 0 the gradients of all parameters but these projections
            are exactly zero; from step 1 on every parameter has one.

    Shape:
        rgb, ir (b, h, w, c) -> rgb, ir, joint of the same shape, any h and w.

    Raises:
        UserError: a width that SSCS cannot swap, a negative depth, an option that would have no effect.

    Differences from the publication: see `DSSF` and `DSSFChain`. Whether the enhanced maps go on into the next stages
    is for the system to say; both they and their sum are returned.

    Source: Dong et al., "Fusion-Mamba for Cross-modality Object Detection", 2024 (arXiv 2404.09146).

    Example:
        >>> rgb, ir = torch.zeros(2, 1, 4, 5, 16)
        >>> FusionMambaBlock(16, depth=2)(rgb, ir).joint.shape
        torch.Size([1, 4, 5, 16])
    """

    def __init__(
        self,
        dim: int,
        *,
        swap: bool = True,
        depth: int = 8,
        d_state: int = 16,
        expand: int = 2,
        ir_to_rgb: bool = True,
        rgb_to_ir: bool = True,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        if depth < 0:
            raise UserError(f"The number of DSSF modules is {depth}; it must be 0 or more.")
        if depth == 0 and not (ir_to_rgb and rgb_to_ir):
            raise UserError(
                "A direction of DSSF is switched off, but there is no DSSF (depth is 0); drop one of both."
            )
        if depth == 0 and not swap and zero_init:
            raise UserError("zero_init has no effect without SSCS and DSSF; drop it.")
        self.sscs = SSCS(dim, d_state=d_state, expand=expand, zero_init=zero_init) if swap else None
        self.dssf = (
            DSSFChain(
                dim,
                depth=depth,
                d_state=d_state,
                expand=expand,
                ir_to_rgb=ir_to_rgb,
                rgb_to_ir=rgb_to_ir,
                zero_init=zero_init,
            )
            if depth > 0
            else None
        )

    def forward(self, rgb: Float[Tensor, "b h w c"], ir: Float[Tensor, "b h w c"]) -> FusedMaps:
        if self.sscs is None and self.dssf is None:
            return FusedMaps(rgb, ir, rgb + ir)
        deep_rgb, deep_ir = (rgb, ir) if self.sscs is None else self.sscs(rgb, ir)
        if self.dssf is not None:
            deep_rgb, deep_ir = self.dssf(deep_rgb, deep_ir)
        rgb, ir = rgb + deep_rgb, ir + deep_ir
        return FusedMaps(rgb, ir, rgb + ir)
