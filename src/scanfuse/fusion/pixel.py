"""Pixel-level fusion without any training: the baselines every learned method must beat.

    average            F = (A + B) / 2
    maximum            F = max(A, B)
    laplacian_pyramid  per scale and pixel the stronger detail of the two, the mean at the coarsest scale

All three take registered images, or volumes, of one shape in 0..1 and return that shape, dtype and range. They are
pure torch, run on any device and pass gradients.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scanfuse.layers.filters import BINOMIAL, weighted_mean

__all__ = ["average", "laplacian_pyramid", "maximum"]

_SMALLEST_SIDE = 3  # mirroring two pixels needs three


def average(a: Float[Tensor, "*b h w"], b: Float[Tensor, "*b h w"], *, num_dims: int = 2) -> Float[Tensor, "*b h w"]:
    """The mean of the two images, (A + B) / 2.

    Args:
        a, b: (H, W) or (B, 1, H, W), floating point, 0..1; with `num_dims` 3, (D, H, W) or (B, 1, D, H, W).
        num_dims: sides of the images.

    Raises:
        ValueError: shapes or dtypes differ, or not floating point, or another number of axes.
    """
    _check(a, b, num_dims)
    return (a + b) / 2


def maximum(a: Float[Tensor, "*b h w"], b: Float[Tensor, "*b h w"], *, num_dims: int = 2) -> Float[Tensor, "*b h w"]:
    """The brighter of the two images at each pixel, max(A, B).

    Args:
        a, b: (H, W) or (B, 1, H, W), floating point, 0..1; with `num_dims` 3, (D, H, W) or (B, 1, D, H, W).
        num_dims: sides of the images.

    Raises:
        ValueError: shapes or dtypes differ, or not floating point, or another number of axes.
    """
    _check(a, b, num_dims)
    return torch.maximum(a, b)


def laplacian_pyramid(
    a: Float[Tensor, "*b h w"], b: Float[Tensor, "*b h w"], levels: int = 4, *, num_dims: int = 2
) -> Float[Tensor, "*b h w"]:
    """Fusion in the Laplacian pyramid: at each scale and pixel the detail of larger magnitude, the mean at the base.

        G_0 = X,  G_k+1 = reduce(G_k),  L_k = G_k - expand(G_k+1)                        k = 0 .. levels - 1
        L_k = L_k^A if |L_k^A| >= |L_k^B| else L_k^B,   base = (G^A + G^B) / 2
        F_k = L_k + expand(F_k+1),  F = F_0 clipped to 0..1

    reduce: 5-tap binomial [1 4 6 4 1] / 16 along both axes, then every second pixel (the even ones), ceil(n / 2).
    expand: zeros in between, the same filter times 4. Borders are mirrored without repeating the edge pixel.
    Equal inputs come back unchanged up to rounding.

    Args:
        a, b: (H, W) or (B, 1, H, W), floating point, 0..1; any size, odd ones too; with `num_dims` 3,
            (D, H, W) or (B, 1, D, H, W).
        levels: number of detail scales, at least 1. Fewer are used where an image gets smaller than 3 pixels on a
            side, which the mirrored filter needs; below 3 pixels nothing is left but the mean.
        num_dims: sides of the images; filters run along all of them, and `expand` multiplies by 2 for each.

    Raises:
        ValueError: shapes or dtypes differ, or not floating point, or another number of axes; levels below 1.

    Source: Burt, Adelson 1983 (pyramid); Burt 1984 (fusion by the larger magnitude).
    """
    _check(a, b, num_dims)
    if levels < 1:
        raise ValueError(f"levels is {levels}; it must be at least 1")
    level_a, level_b = (image.reshape(-1, 1, *image.shape[-num_dims:]) for image in (a, b))
    details: list[Tensor] = []
    while len(details) < levels and min(level_a.shape[2:]) >= _SMALLEST_SIDE:
        next_a, next_b = _reduce(level_a), _reduce(level_b)
        size = level_a.shape[2:]
        detail_a, detail_b = level_a - _expand(next_a, size), level_b - _expand(next_b, size)
        details.append(torch.where(detail_a.abs() >= detail_b.abs(), detail_a, detail_b))
        level_a, level_b = next_a, next_b
    fused = (level_a + level_b) / 2
    for detail in reversed(details):
        fused = detail + _expand(fused, detail.shape[2:])
    return fused.clamp(0, 1).reshape(a.shape)


def _reduce(image: Tensor) -> Tensor:
    """(B, 1, *sides) -> (B, 1, *ceil(sides / 2)): smoothed, every second pixel."""
    return weighted_mean(image, BINOMIAL, border="reflect")[_every_second(image)]


def _expand(image: Tensor, size: Sequence[int]) -> Tensor:
    """(B, 1, *small) -> (B, 1, *size), the finer of two sizes with small = ceil(size / 2)."""
    spread = image.new_zeros(*image.shape[:2], *size)
    spread[_every_second(image)] = image
    return 2 ** (image.ndim - 2) * weighted_mean(spread, BINOMIAL, border="reflect")


def _every_second(image: Tensor) -> Any:
    return (..., *(slice(None, None, 2) for _ in image.shape[2:]))


def _check(a: Tensor, b: Tensor, num_dims: int) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"the images must agree in shape and dtype: {tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}"
        )
    if not a.is_floating_point():
        raise ValueError(f"the images have dtype {a.dtype}; give floating-point images in 0..1")
    if a.ndim != num_dims and (a.ndim != num_dims + 2 or a.shape[1] != 1):
        sides = "H, W" if num_dims == 2 else "D, H, W"
        raise ValueError(f"the images have shape {tuple(a.shape)}; give ({sides}) or (B, 1, {sides})")
