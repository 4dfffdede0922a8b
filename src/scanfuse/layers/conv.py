"""Convolutional blocks and the norms they use, for maps and for volumes: the number of dimensions is an argument."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CONVS", "DGCB", "LEAK", "Dims", "EnlargingConv", "Norm", "norm_of"]

Dims = Literal[2, 3]
"""Sides that a map has: 2 for images, 3 for volumes."""

CONVS: Mapping[int, type[nn.Conv2d] | type[nn.Conv3d]] = MappingProxyType({2: nn.Conv2d, 3: nn.Conv3d})
"""Sides -> the convolution over them."""

Norm = Literal["batch", "group"]
"""Normalisation of convolutional maps: by batch statistics, or by groups of 8 channels of one sample."""

LEAK = 0.2
"""Slope of LeakyReLU for negative values."""


def norm_of(norm: Norm, channels: int, *, num_dims: Dims = 2) -> nn.Module:
    """A batch norm, or a GroupNorm with groups of 8 channels (one group where 8 does not divide the channels)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels) if num_dims == 2 else nn.BatchNorm3d(channels)
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


class DGCB(nn.Module):
    """Dilated gated convolution block, with or without a pyramid of one shared convolution.

        u = lrelu(Conv3(N1(x)));  v = lrelu(Conv1(N2(x)));  g = u * v
        d = lrelu(Conv3 dilated (N3(g)))
        with the pyramid:  e = lrelu(N4(d));  out = x + P(e) + P(P(e)) + P(P(P(e)))
        without:           out = x + d

    N1..N4 are norms, P is one 3-wide convolution whose weights serve three times. Parameters: 28 c^2 + 12 c for
    images with the pyramid, 55 c^2 + 9 c for volumes without.

    Args:
        channels: c. dilation: of the dilated convolution. norm: kind of N1..N4. num_dims: sides of the map.
        pyramid: whether there is P.

    Shape:
        (b, c, h, w) or (b, c, d, h, w) -> the same, sides >= 1.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025; the pyramid is in the published 2D code only.
    """

    def __init__(
        self,
        channels: int,
        *,
        dilation: int = 1,
        norm: Norm = "batch",
        num_dims: Dims = 2,
        pyramid: bool = True,
    ) -> None:
        super().__init__()
        conv = CONVS[num_dims]
        self.feature_norm = norm_of(norm, channels, num_dims=num_dims)
        self.feature_conv = conv(channels, channels, 3, padding=1)
        self.gate_norm = norm_of(norm, channels, num_dims=num_dims)
        self.gate_conv = conv(channels, channels, 1)
        self.dilated_norm = norm_of(norm, channels, num_dims=num_dims)
        self.dilated_conv = conv(channels, channels, 3, padding=dilation, dilation=dilation)
        self.has_pyramid = pyramid
        if pyramid:
            self.pyramid_norm = norm_of(norm, channels, num_dims=num_dims)
            self.pyramid_conv = conv(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In place: nothing else reads a convolution's output, and fresh memory costs more than the arithmetic.
        feature = F.leaky_relu(self.feature_conv(self.feature_norm(x)), LEAK, inplace=True)
        gate = F.leaky_relu(self.gate_conv(self.gate_norm(x)), LEAK, inplace=True)
        detail = F.leaky_relu(self.dilated_conv(self.dilated_norm(feature * gate)), LEAK, inplace=True)
        if not self.has_pyramid:
            return x + detail
        level1 = self.pyramid_conv(F.leaky_relu(self.pyramid_norm(detail), LEAK))
        level2 = self.pyramid_conv(level1)
        return x + level1 + level2 + self.pyramid_conv(level2)


class EnlargingConv(nn.Module):
    """Enlargement by two (nearest) and a 3-wide convolution over the result, as one step that builds no enlarged map.

    Along one side, output 2 i reads inputs i - 1, i, i with the weights w0, w1, w2, and output 2 i + 1 reads i, i,
    i + 1. So input i adds w2, w1 + w2, w0 + w1 and w0 times itself to the outputs 2 i - 1 .. 2 i + 2, which is a
    transposed convolution of width 4: per side two taps for each output instead of three.

    Parameters: 3^dims in out + out.

    Args:
        in_channels, out_channels: of the convolution. num_dims: sides of the map.

    Shape:
        (b, in, h, w) or (b, in, d, h, w) -> (b, out, 2 h, 2 w) or (b, out, 2 d, 2 h, 2 w).
    """

    def __init__(self, in_channels: int, out_channels: int, *, num_dims: Dims = 2) -> None:
        super().__init__()
        self.conv = CONVS[num_dims](in_channels, out_channels, 3, padding=1)
        self.enlarge = F.conv_transpose2d if num_dims == 2 else F.conv_transpose3d

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight.transpose(0, 1)
        for side in range(2, weight.ndim):
            w0, w1, w2 = weight.unbind(side)
            weight = torch.stack([w2, w1 + w2, w0 + w1, w0], dim=side)
        return self.enlarge(x, weight, self.conv.bias, stride=2, padding=1)
