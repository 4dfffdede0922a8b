"""Convolutional blocks and the norms they use."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DGCB", "LEAK", "Norm", "norm_2d"]

Norm = Literal["batch", "group"]
"""Normalisation of convolutional maps: by batch statistics, or by groups of 8 channels of one sample."""

LEAK = 0.2
"""Slope of LeakyReLU for negative values."""


def norm_2d(norm: Norm, channels: int) -> nn.Module:
    """A BatchNorm2d, or a GroupNorm with groups of 8 channels (one group where 8 does not divide the channels)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


class DGCB(nn.Module):
    """Dilated gated convolution block with a pyramid of one shared convolution.

        u = lrelu(Conv3(N1(x)));  v = lrelu(Conv1(N2(x)));  g = u * v
        d = lrelu(Conv3 dilated (N3(g)));  e = lrelu(N4(d))
        out = x + P(e) + P(P(e)) + P(P(P(e)))

    N1..N4 are norms, P is one 3x3 convolution whose weights serve three times. Parameters: 28 c^2 + 12 c.

    Args:
        channels: c. dilation: of the dilated convolution. norm: kind of N1..N4.

    Shape:
        (b, c, h, w) -> (b, c, h, w), h and w >= 1.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025; the pyramid is in the published 2D code only.
    """

    def __init__(self, channels: int, *, dilation: int = 1, norm: Norm = "batch") -> None:
        super().__init__()
        self.feature_norm = norm_2d(norm, channels)
        self.feature_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate_norm = norm_2d(norm, channels)
        self.gate_conv = nn.Conv2d(channels, channels, 1)
        self.dilated_norm = norm_2d(norm, channels)
        self.dilated_conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.pyramid_norm = norm_2d(norm, channels)
        self.pyramid_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        feature = F.leaky_relu(self.feature_conv(self.feature_norm(x)), LEAK)
        gate = F.leaky_relu(self.gate_conv(self.gate_norm(x)), LEAK)
        detail = F.leaky_relu(self.dilated_conv(self.dilated_norm(feature * gate)), LEAK)
        level1 = self.pyramid_conv(F.leaky_relu(self.pyramid_norm(detail), LEAK))
        level2 = self.pyramid_conv(level1)
        return x + level1 + level2 + self.pyramid_conv(level2)
