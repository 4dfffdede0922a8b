"""A fused image or volume as a choice between two sources plus their own details, weighed position by position."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.conv import CONVS, Dims
from scanfuse.layers.filters import BINOMIAL, neighbour_mean, sobel, weighted_mean

__all__ = ["GatedBlock", "SourceDetails", "bands", "edges_of"]

_STRIDE = 2  # the network looks at blocks of 2 x 2 (x 2): a quarter of the positions, or an eighth of a volume's
_CHOICE_GAIN = 4.0
_NEAR = 16  # channels of the convolution that sees edges position by position
_FAINT = 0.02  # gradient, below which it hardly counts which source's edge is stronger
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
        edges: whether the network sees `edges_of` both, too: in blocks, and position by position in one gated
            convolution beside the blocks, whose maps are not averaged.

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
        edges: bool = False,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.smooth = smooth
        self.edges = edges
        conv, block = CONVS[num_dims], _STRIDE**num_dims
        self.stem = conv((6 if edges else 2) * block, width, 3, padding=1)
        self.context = conv(context, width, _STRIDE, stride=_STRIDE)
        self.blocks = nn.Sequential(
            *(GatedBlock(width, dilation=dilation, num_dims=num_dims) for dilation in dilations)
        )
        self.head = conv(width, (1 + 2 * levels) * block, 3, padding=1)
        last = [self.head]
        if edges:
            self.near = conv(6, 2 * _NEAR, 3, padding=1)
            self.near_head = conv(_NEAR, 1 + 2 * levels, 1)
            last.append(self.near_head)
        for layer in last:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.log_sharpness = nn.Parameter(torch.tensor(sharpness).log())

    def forward(
        self,
        a: Float[Tensor, "b 1 *sides"],
        b: Float[Tensor, "b 1 *sides"],
        context: Float[Tensor, "b c *sides"],
        found: tuple[Float[Tensor, "b k *sides"], Float[Tensor, "b k *sides"]] | None = None,
    ) -> Float[Tensor, "b 1 *sides"]:
        both = torch.cat([a, b, edges_of(a, b)] if self.edges else [a, b], dim=1)
        maps = _out_of_blocks(self.head(self.blocks(self.stem(_in_blocks(both)) + self.context(context))))
        if self.smooth:
            maps = neighbour_mean(maps)
        if self.edges:
            feature, gate = self.near(both).chunk(2, dim=1)
            maps = maps + self.near_head(feature * torch.sigmoid(gate))
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
        smooth = weighted_mean(image, BINOMIAL, step=2**level)
        found.append(image - smooth)
        image = smooth
    return torch.cat(found, dim=1)


def edges_of(a: Float[Tensor, "b 1 *sides"], b: Float[Tensor, "b 1 *sides"]) -> Float[Tensor, "b 4 *sides"]:
    """What a few convolutions cannot find from a and b, because it takes quotients: how their edges compare.

    |S a|, |S b|, (|S a| - |S b|) / (|S a| + |S b| + 0.02) and the cosine between S a and S b, near 0 where one of
    them is faint. S is the Sobel gradient of an image, or within the axial slices of a volume.
    """
    slices = a.shape[2] if a.ndim == 5 else None
    if slices:
        a, b = (volume.transpose(1, 2).flatten(0, 1) for volume in (a, b))
    of_a, of_b = sobel(a), sobel(b)
    strong_a, strong_b = (torch.sqrt((part * part).sum(1, keepdim=True) + 1e-8) for part in (of_a, of_b))
    ratio = (strong_a - strong_b) / (strong_a + strong_b + _FAINT)
    cosine = (of_a * of_b).sum(1, keepdim=True) / (strong_a * strong_b + _FAINT**2)
    found = torch.cat([strong_a, strong_b, ratio, cosine], dim=1)
    return found.unflatten(0, (-1, slices)).transpose(1, 2) if slices else found


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
