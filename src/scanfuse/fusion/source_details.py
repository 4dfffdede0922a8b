"""A fused image or volume as a choice between two sources plus their own details, weighed position by position."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.conv import CONVS, Dims

__all__ = ["GatedBlock", "SourceDetails", "bands"]

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_STRIDE = 2  # the network looks at blocks of 2 x 2 (x 2): a quarter of the positions, or an eighth of a volume's
_CHOICE_GAIN = 4.0
_LEAK = 0.01  # of the gradient outside [0, 1]


class GatedBlock(nn.Module):
    """x + Conv1(u * sigmoid(g)), where u and g are the halves of one dilated 3-wide convolution of x.

    Parameters: 19 c^2 + 3 c for images, 55 c^2 + 3 c for volumes.

    Args:
        channels: c. dilation: of the 3-wide convolution. num_dims: sides of the map.

    Shape:
        (b, c, h, w) or (b, c, d, h, w) -> the same.
    """

    def __init__(self, channels: int, *, dilation: int, num_dims: Dims = 2) -> None:
        super().__init__()
        conv = CONVS[num_dims]
        self.conv = conv(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.proj = conv(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c *sides"]) -> Float[Tensor, "b c *sides"]:
        feature, gate = self.conv(x).chunk(2, dim=1)
        return x + self.proj(feature * torch.sigmoid(gate))


class SourceDetails(nn.Module):
    """Chooses between two images, or volumes, and adds their details, with weights that a small network finds.

        choice = sigmoid(s (a - b) + 4 l)                                        s starts at `sharpness`
        out    = clip(choice a + (1 - choice) b + sum_k  g_ak D_k a + g_bk D_k b)

    D_k x is the detail of x at scale k (`bands`). The maps l and g come from both images, taken as blocks of 2 x 2
    pixels (volumes: 2 x 2 x 2), and from a context map, through gated dilated blocks without a norm. What is added
    is always some source's own detail times a number: where both sources are flat, the result is flat. At the start
    l and g are near 0, and the result is nearly the maximum of the sources (sharpness 50: within 0.02 of equality it
    is a mixture), or nearly their mean (sharpness 1).

    Args:
        context: channels of the context map. width: c, of the blocks. dilations: of the blocks, in units of 2 pixels.
        levels: scales of details, 1 or more. sharpness: of the choice at the start. num_dims: sides of the images.
        smooth: whether l and g are averaged by [1 2 1] / 4 along every side, which leaves nothing of a pattern that
            alternates from position to position, as blocks of two can have.

    Shape:
        a, b (b, 1, h, w) in [0, 1], context (b, context, h, w) -> (b, 1, h, w) in [0, 1]; or with a depth d before h.
        All sides even. `found` (b, levels, h, w) each: the bands of a and b where they are cut from larger images,
        whose coarse bands reach over the cut; None: taken from a and b.

    Outside [0, 1] one hundredth of the gradient passes, so that a position that is clipped can come back.
    """

    def __init__(
        self,
        *,
        context: int,
        width: int,
        dilations: Sequence[int],
        levels: int,
        sharpness: float = 50.0,
        num_dims: Dims = 2,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.smooth = smooth
        conv, block = CONVS[num_dims], _STRIDE**num_dims
        self.stem = conv(2 * block, width, 3, padding=1)
        self.context = conv(context, width, _STRIDE, stride=_STRIDE)
        self.blocks = nn.Sequential(
            *(GatedBlock(width, dilation=dilation, num_dims=num_dims) for dilation in dilations)
        )
        self.head = conv(width, (1 + 2 * levels) * block, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.log_sharpness = nn.Parameter(torch.tensor(sharpness).log())

    def forward(
        self,
        a: Float[Tensor, "b 1 *sides"],
        b: Float[Tensor, "b 1 *sides"],
        context: Float[Tensor, "b c *sides"],
        found: tuple[Float[Tensor, "b k *sides"], Float[Tensor, "b k *sides"]] | None = None,
    ) -> Float[Tensor, "b 1 *sides"]:
        both = _in_blocks(torch.cat([a, b], dim=1))
        maps = _out_of_blocks(self.head(self.blocks(self.stem(both) + self.context(context))))
        if self.smooth:
            maps = _triangle(maps)
        lean, *gains = maps.split([1, self.levels, self.levels], dim=1)
        choice = torch.sigmoid(self.log_sharpness.exp() * (a - b) + _CHOICE_GAIN * lean)
        fused = choice * a + (1 - choice) * b
        details = found or (bands(a, self.levels), bands(b, self.levels))
        for detail, gain in zip(details, gains, strict=True):
            fused = fused + (gain * detail).sum(dim=1, keepdim=True)
        return fused.clamp(0, 1) + _LEAK * (fused - fused.detach())


def bands(image: Float[Tensor, "b 1 *sides"], levels: int) -> Float[Tensor, "b k *sides"]:
    """Details at scales 1, 2, 4, ...: B_k-1 x - B_k x, where B_k smooths B_k-1 x with a kernel of taps 2^(k-1) apart.

    The kernel is the binomial [1 4 6 4 1] / 16 along every side, with replicated borders; no pixel is left out
    ("a trous"). What is left of x after the last scale is the smoothest part, which no band has.
    """
    found = []
    for level in range(levels):
        smooth = _smooth(image, _BINOMIAL, step=2**level)
        found.append(image - smooth)
        image = smooth
    return torch.cat(found, dim=1)


def _triangle(maps: Float[Tensor, "b k *sides"]) -> Float[Tensor, "b k *sides"]:
    """[1 2 1] / 4 along every side, borders replicated: the mean of neighbours, twice.

    A convolution of one channel takes nine times as long, forward and backward.
    """
    for side in range(2, maps.ndim):
        length = maps.shape[side]
        first, last = maps.narrow(side, 0, 1), maps.narrow(side, length - 1, 1)
        pairs = torch.cat([first, maps], side) + torch.cat([maps, last], side)
        maps = 0.25 * (pairs.narrow(side, 0, length) + pairs.narrow(side, 1, length))
    return maps


def _smooth(image: Float[Tensor, "n 1 *sides"], taps: Sequence[float], step: int = 1) -> Float[Tensor, "n 1 *sides"]:
    """The mean with these weights along every side, of positions `step` apart; borders are replicated."""
    kernel = image.new_tensor(taps)
    num_dims = image.ndim - 2
    conv = F.conv2d if num_dims == 2 else F.conv3d
    reach = len(taps) // 2 * step
    for last in range(num_dims):  # the last side first
        around, sides, apart = [0, 0] * num_dims, [1] * num_dims, [1] * num_dims
        around[2 * last : 2 * last + 2] = [reach, reach]
        sides[-1 - last], apart[-1 - last] = len(taps), step
        image = conv(F.pad(image, around, mode="replicate"), kernel.view(1, 1, *sides), dilation=apart)
    return image


def _in_blocks(image: Float[Tensor, "b c *sides"]) -> Float[Tensor, "b c2 *halves"]:
    """`pixel_unshuffle` with any number of sides: the positions of a block of 2 x 2 (x 2) become channels."""
    num_dims = image.ndim - 2
    apart = image.reshape(
        *image.shape[:2], *(part for side in image.shape[2:] for part in (side // _STRIDE, _STRIDE))
    )
    places, inner = range(2, 2 + 2 * num_dims, 2), range(3, 3 + 2 * num_dims, 2)
    return apart.permute(0, 1, *inner, *places).flatten(1, 1 + num_dims)


def _out_of_blocks(blocks: Float[Tensor, "b c2 *halves"]) -> Float[Tensor, "b c *sides"]:
    """What `_in_blocks` undoes."""
    num_dims = blocks.ndim - 2
    apart = blocks.unflatten(1, (-1, *(_STRIDE,) * num_dims))
    order = (part for side in range(num_dims) for part in (2 + num_dims + side, 2 + side))
    sides = [_STRIDE * side for side in blocks.shape[2:]]
    return apart.permute(0, 1, *order).reshape(blocks.shape[0], -1, *sides)
