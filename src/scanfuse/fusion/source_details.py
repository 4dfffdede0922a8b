"""The fused image as a choice between two sources plus their own details, weighed position by position."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["GatedBlock", "SourceDetails", "bands"]

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_STRIDE = 2  # the network looks at blocks of 2 x 2 pixels: a quarter of the positions, the same arithmetic for each
_SHARPNESS = (
    50.0  # of the choice at the start: within 0.02 of equality it is a mixture, beyond it the brighter source
)
_CHOICE_GAIN = 4.0
_LEAK = 0.01  # of the gradient outside [0, 1]


class GatedBlock(nn.Module):
    """x + Conv1(u * sigmoid(g)), where u and g are the halves of one dilated 3-wide convolution of x.

    Parameters: 19 c^2 + 3 c.

    Args:
        channels: c. dilation: of the 3-wide convolution.

    Shape:
        (b, c, h, w) -> the same.
    """

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        feature, gate = self.conv(x).chunk(2, dim=1)
        return x + self.proj(feature * torch.sigmoid(gate))


class SourceDetails(nn.Module):
    """Chooses between two images and adds their details, with weights that a small full-resolution network finds.

        choice = sigmoid(s (a - b) + 4 l)                                        s starts at 50: the brighter source
        out    = clip(choice a + (1 - choice) b + sum_k  g_ak D_k a + g_bk D_k b)

    D_k x is the detail of x at scale k (`bands`). The maps l and g come from both images, taken as blocks of 2 x 2
    pixels, and from a context map, through gated dilated blocks without a norm. What is added is always some
    source's own detail times a number: where both sources are flat, the result is flat. At the start l and g are
    near 0, and the result is nearly the maximum of the sources.

    Args:
        context: channels of the context map. width: c, of the blocks. dilations: of the blocks, in units of 2 pixels.
        levels: scales of details, 1 or more.

    Shape:
        a, b (b, 1, h, w) in [0, 1], context (b, context, h, w) -> (b, 1, h, w) in [0, 1], h and w even.

    Outside [0, 1] one hundredth of the gradient passes, so that a position that is clipped can come back.
    """

    def __init__(self, *, context: int, width: int, dilations: Sequence[int], levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.stem = nn.Conv2d(2 * _STRIDE**2, width, 3, padding=1)
        self.context = nn.Conv2d(context, width, _STRIDE, stride=_STRIDE)
        self.blocks = nn.Sequential(*(GatedBlock(width, dilation=dilation) for dilation in dilations))
        self.head = nn.Conv2d(width, (1 + 2 * levels) * _STRIDE**2, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.log_sharpness = nn.Parameter(torch.tensor(_SHARPNESS).log())

    def forward(
        self, a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"], context: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        both = F.pixel_unshuffle(torch.cat([a, b], dim=1), _STRIDE)
        found = self.head(self.blocks(self.stem(both) + self.context(context)))
        lean, *gains = F.pixel_shuffle(found, _STRIDE).split([1, self.levels, self.levels], dim=1)
        choice = torch.sigmoid(self.log_sharpness.exp() * (a - b) + _CHOICE_GAIN * lean)
        fused = choice * a + (1 - choice) * b
        for image, gain in zip((a, b), gains, strict=True):
            fused = fused + (gain * bands(image, self.levels)).sum(dim=1, keepdim=True)
        return fused.clamp(0, 1) + _LEAK * (fused - fused.detach())


def bands(image: Float[Tensor, "b 1 h w"], levels: int) -> Float[Tensor, "b k h w"]:
    """Details at scales 1, 2, 4, ...: B_k-1 x - B_k x, where B_k smooths B_k-1 x with a kernel of taps 2^(k-1) apart.

    The kernel is the binomial [1 4 6 4 1] / 16 along both sides, with replicated borders; no pixel is left out
    ("a trous"). What is left of x after the last scale is the smoothest part, which no band has.
    """
    kernel = image.new_tensor(_BINOMIAL)
    found = []
    for level in range(levels):
        step = 2**level
        reach = 2 * step
        smooth = F.conv2d(
            F.pad(image, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, 5), dilation=(1, step)
        )
        smooth = F.conv2d(
            F.pad(smooth, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, 5, 1), dilation=(step, 1)
        )
        found.append(image - smooth)
        image = smooth
    return torch.cat(found, dim=1)
