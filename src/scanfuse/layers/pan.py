"""The path-aggregation neck of YOLO: maps of three levels, mixed downwards and then upwards."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanfuse.layers.yolo import Block, ConvNormAct, block_of

__all__ = ["PAN"]


class PAN(nn.Module):
    """Three maps of strides 8, 16, 32 -> three maps of the same sides, each with knowledge of the others.

        t5 = L5(P5)    a = B([up(t5), P4])     t4 = L4(a)     N3 = B([up(t4), P3])
                       N4 = B([down(N3), t4])                 N5 = B([down(N4), t5])

    up repeats the nearest value, down is a 3x3 convolution with stride 2, B is a cross-stage block without residual.
    With "c2f" (YOLOv8) L is the identity; with "c3" (YOLOv5) a 1x1 convolution to the channels of the next level.

    Args:
        dims_in: channels of P3, P4, P5.
        dims: channels of N3, N4, N5, all even.
        num_blocks: bottlenecks in each B.
        block: which cross-stage block, and with it the form of L.

    Shape:
        P3 (b, c3, h, w), P4 (b, c4, ceil(h / 2), ceil(w / 2)), P5 (b, c5, ceil(h / 4), ceil(w / 4)) -> the same
        sides.

    Source: Liu et al., "Path Aggregation Network for Instance Segmentation", CVPR 2018, in the form of YOLOv5 and
        YOLOv8. Difference: odd sides work, since maps are enlarged to the size of the level below.
    """

    def __init__(
        self,
        dims_in: tuple[int, int, int],
        dims: tuple[int, int, int],
        *,
        num_blocks: int,
        block: Block = "c2f",
    ) -> None:
        super().__init__()
        in3, in4, in5 = dims_in
        dim3, dim4, dim5 = dims
        has_laterals = block == "c3"
        mid5, mid4 = (dim4, dim3) if has_laterals else (in5, dim4)
        self.lateral5 = ConvNormAct(in5, mid5) if has_laterals else nn.Identity()
        self.lateral4 = ConvNormAct(dim4, mid4) if has_laterals else nn.Identity()

        def cross(dim_in: int, dim: int) -> nn.Module:
            return block_of(block, dim_in, dim, num_blocks=num_blocks, residual=False)

        self.top_down4 = cross(mid5 + in4, dim4)
        self.top_down3 = cross(mid4 + in3, dim3)
        self.down3 = ConvNormAct(dim3, dim3, 3, stride=2)
        self.bottom_up4 = cross(dim3 + mid4, dim4)
        self.down4 = ConvNormAct(dim4, dim4, 3, stride=2)
        self.bottom_up5 = cross(dim4 + mid5, dim5)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t5 = self.lateral5(p5)
        t4 = self.lateral4(self.top_down4(torch.cat([_enlarged(t5, p4), p4], dim=1)))
        n3 = self.top_down3(torch.cat([_enlarged(t4, p3), p3], dim=1))
        n4 = self.bottom_up4(torch.cat([self.down3(n3), t4], dim=1))
        n5 = self.bottom_up5(torch.cat([self.down4(n4), t5], dim=1))
        return n3, n4, n5


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")
