"""What every fusion metric accepts, checked in one place: a fused image and its two sources, on the 0..255 scale."""

import numpy as np
from jaxtyping import Float64, Num, UInt8

__all__ = ["checked", "eight_bit"]

_NAMES = ("fused", "a", "b")
_ROUNDING = 1e-3  # grey levels: .299 R + .587 G + .114 B of a white pixel can exceed 255 by a rounding error


def checked(
    fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
    """The three images as float64, or an error that names the one that is wrong.

    Args:
        fused, a, b: (H, W) integers or real floats on the 0..255 scale, at least one pixel. Integers and floats of
            equal value give equal results, so uint8 and float64 may be mixed.

    Returns:
        fused, a, b as float64 arrays of the same values; those that leave 0..255 by at most 0.001 are clipped.

    Raises:
        ValueError: not (H, W); empty; not numbers; sizes differ; NaN or infinity; a value outside 0..255; or all
            three are fractional images that end at or below 1. The last are images left on the 0..1 scale: they
            would pass the range check and give wrong numbers for all metrics that know the scale (PSNR, SSIM ...).
    """
    arrays = [np.asarray(image) for image in (fused, a, b)]
    for name, array in zip(_NAMES, arrays, strict=True):
        if array.dtype.kind not in "uif":
            raise ValueError(f"{name} has dtype {array.dtype}; give integers or floats on the 0..255 scale")
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"{name} has shape {array.shape}; give one channel of shape (H, W), not empty")
        if array.shape != arrays[0].shape:
            raise ValueError(f"{name} has shape {array.shape} but fused has {arrays[0].shape}; sizes must agree")
    images = [array.astype(np.float64) for array in arrays]
    for name, image in zip(_NAMES, images, strict=True):
        low, high = float(image.min()), float(image.max())
        if not np.isfinite(low) or not np.isfinite(high):  # NaN and both infinities reach the minimum or maximum
            raise ValueError(f"{name} has NaN or infinite values")
        if low < -_ROUNDING or high > 255 + _ROUNDING:
            raise ValueError(f"{name} has values from {low:g} to {high:g}; the scale is 0..255")
    images = [image.clip(0, 255) for image in images]
    if all(image.max() <= 1 and np.any(image % 1 != 0) for image in images):
        raise ValueError("fused, a and b seem to be on the 0..1 scale; multiply them by 255")
    return images[0], images[1], images[2]


def eight_bit(image: Float64[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """The image rounded to the nearest of the 256 grey levels that histogram metrics count.

    Without it a float image has almost one level per pixel, and its entropy says how many pixels there are.
    """
    return np.rint(image).astype(np.uint8)
