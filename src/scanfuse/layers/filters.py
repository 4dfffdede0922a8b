"""Filters with fixed weights, for images (n, 1, h, w) and volumes (n, 1, d, h, w): nothing to learn.

Source of the Sobel gradient: I. Sobel and G. Feldman, "A 3x3 isotropic gradient operator for image processing", 1968.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["BINOMIAL", "gaussian_mean", "neighbour_mean", "sobel", "weighted_mean"]

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Weights of the smoothing between the levels of a pyramid, and between scales of details."""


def sobel(image: Float[Tensor, "n 1 *sides"]) -> Float[Tensor, "n k *sides"]:
    """The parts of the Sobel gradient along each side, x first, with replicated borders; k is the number of sides.

    The kernel along x is [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]; of volumes each part is smoothed by [1, 2, 1] / 4
    along the further side, so that a volume of equal slices has the gradient of its slice.
    """
    x = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=image.device)
    num_dims = image.ndim - 2
    if num_dims == 2:
        kernels, conv = torch.stack([x, x.T]), F.conv2d
    else:
        further = torch.tensor([0.25, 0.5, 0.25], device=image.device)
        along_w = further[:, None, None] * x
        kernels, conv = torch.stack([along_w, along_w.transpose(1, 2), along_w.transpose(0, 2)]), F.conv3d
    kernels = kernels.unsqueeze(1).to(image.dtype)
    return conv(F.pad(image, (1, 1) * num_dims, mode="replicate"), kernels)


def gaussian_mean(image: Float[Tensor, "n 1 *sides"], size: int, sigma: float) -> Float[Tensor, "n 1 *inner"]:
    """Means under Gaussian windows `size` wide that lie inside: each side becomes shorter by size - 1."""
    offsets = torch.arange(size, device=image.device, dtype=image.dtype) - size // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    conv = F.conv2d if image.ndim == 4 else F.conv3d
    for side in reversed(range(2, image.ndim)):
        image = conv(image, weights.view([size if place == side else 1 for place in range(image.ndim)]))
    return image


def weighted_mean(
    image: Float[Tensor, "n 1 *sides"],
    weights: Sequence[float],
    *,
    step: int = 1,
    border: Literal["replicate", "reflect"] = "replicate",
) -> Float[Tensor, "n 1 *sides"]:
    """The mean with these weights (an odd number) along every side, of positions `step` apart.

    Beyond the border a side has its last value, or is mirrored about it: then it needs more positions than the
    weights reach to.
    """
    kernel = image.new_tensor(weights)
    num_dims = image.ndim - 2
    conv = F.conv2d if num_dims == 2 else F.conv3d
    reach = len(weights) // 2 * step
    for last in range(num_dims):  # the last side first
        around, sides, apart = [0, 0] * num_dims, [1] * num_dims, [1] * num_dims
        around[2 * last : 2 * last + 2] = [reach, reach]
        sides[-1 - last], apart[-1 - last] = len(weights), step
        image = conv(F.pad(image, around, mode=border), kernel.view(1, 1, *sides), dilation=apart)
    return image


def neighbour_mean(maps: Float[Tensor, "n c *sides"]) -> Float[Tensor, "n c *sides"]:
    """[1 2 1] / 4 along every side of any number of channels, borders replicated: the mean of neighbours, twice.

    As a convolution of one channel it takes nine times as long, forward and backward.
    """
    for side in range(2, maps.ndim):
        length = maps.shape[side]
        first, last = maps.narrow(side, 0, 1), maps.narrow(side, length - 1, 1)
        pairs = torch.cat([first, maps], side) + torch.cat([maps, last], side)
        maps = 0.25 * (pairs.narrow(side, 0, length) + pairs.narrow(side, 1, length))
    return maps
