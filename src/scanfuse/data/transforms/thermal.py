"""Thermal pictures as values in [0, 1], from 8-bit files, 16-bit counts, or any other numbers.

A camera's 8-bit picture has been fitted to the scene by the camera; 16-bit counts have not, and a street fills some
2 % of their range. So by default 8 bit is divided by 255, and of everything deeper the 0.5 and 99.5 percentiles of
each picture become 0 and 1. A fixed window in counts keeps temperatures comparable between pictures.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float32

from scanfuse.errors import UserError

__all__ = ["PERCENTILES", "Window", "thermal_unit"]

PERCENTILES = (0.5, 99.5)

Window = Literal["auto", "full", "percentile"] | tuple[float, float]

_COLOURED = 3.0
"""Mean difference of the channels in levels of 255 above which a picture is in false colours; JPEG stays below 1."""


def thermal_unit(
    pixels: np.ndarray,
    *,
    window: Window = "auto",
    percentiles: tuple[float, float] = PERCENTILES,
    source: object = "The infrared picture",
) -> Float32[np.ndarray, "h w"]:
    """(value - low) / (high - low), clipped to [0, 1]; 0 everywhere if low equals high; not-a-number becomes 0.

    Args:
        pixels: (h, w), or (h, w, 3) with (nearly) equal channels, whose mean is taken; any numbers.
        window: where low and high come from. "auto": "full" for 8 bit, else "percentile". "full": 0 and the largest
            value of the type (8 and 16 bit only). "percentile": of this picture. Two numbers: these, in counts.
        percentiles: for "percentile", in percent.
        source: the file, for messages.

    Raises:
        UserError: false colours, a window that is empty, no finite value, or "full" for other types.
    """
    grey = _grey(pixels, source)
    if isinstance(window, tuple):
        low, high = window
        if not high > low:
            raise UserError(f"The thermal window is {low:g} to {high:g}; give a low and a higher count.")
    elif window == "full" or (window == "auto" and pixels.dtype == np.uint8):
        if pixels.dtype not in (np.uint8, np.uint16):
            raise UserError(f"{source} holds {pixels.dtype}, which has no full range; use the window percentile.")
        low, high = 0.0, float(np.iinfo(pixels.dtype).max)
    else:
        low, high = _percentiles(grey, percentiles, source)
    if high <= low:
        return np.zeros(grey.shape, np.float32)
    unit = (grey.astype(np.float32) - np.float32(low)) * np.float32(1 / (high - low))
    if grey.dtype.kind == "f":
        unit = np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0)
    return np.clip(unit, 0, 1, out=unit)


def _grey(pixels: np.ndarray, source: object) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UserError(f"{source} has the shape {pixels.shape}; expected one grey picture.")
    first, second, third = (pixels[..., channel].astype(np.float32) for channel in range(3))
    scale = 255 / np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    difference = scale * max(float(np.abs(first - second).mean()), float(np.abs(first - third).mean()))
    if difference > _COLOURED:
        raise UserError(
            f"{source} is coloured (its channels differ by {difference:.0f} of 255 on average): false colours are no "
            "temperatures; export it in grey."
        )
    return (first + second + third) / 3 if difference else pixels[..., 0]


def _percentiles(grey: np.ndarray, percentiles: tuple[float, float], source: object) -> tuple[float, float]:
    """The smallest values that at least that share of the pixels do not exceed."""
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise UserError(f"The percentiles are {low:g} and {high:g}; give two rising numbers from 0 to 100.")
    values = grey[np.isfinite(grey)] if grey.dtype.kind == "f" else grey.ravel()
    if not values.size:
        raise UserError(f"{source} holds no finite value; export it again.")
    if values.dtype == np.uint16:  # by counting, a third of the time of sorting
        counted = np.cumsum(np.bincount(values, minlength=65536)) / values.size
        found = np.searchsorted(counted, np.maximum(np.array([low, high]) / 100, 1 / values.size) - 1e-12)
        return float(found[0]), float(found[1])
    found = np.percentile(values, [low, high], method="inverted_cdf")
    return float(found[0]), float(found[1])
