"""From a picture of any size to a square for the network: grey, crop to the body, resize, pad.

    file --grey--> (H, W) --crop--> (h, w) --resize, pad--> (size, size)

Where the picture lies in the square is kept as a `Placement`, so that a heat map finds its way back.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32
from scipy import ndimage
from torch.nn import functional

from scanfuse.data.readers import Image, to_unit
from scanfuse.data.transforms.placement import Box, Placement, letterboxed, stretched
from scanfuse.errors import UserError

__all__ = ["Letterbox", "body_box", "letterbox", "letterbox_colour"]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SEARCH_SIDE = 384
"""Pixels of the longer side at which the body is looked for; the box is found to about 1/400 of the picture."""


@dataclass(frozen=True)
class Letterbox:
    """How a picture becomes the network's square.

    Attributes:
        size: side of the square in pixels.
        aspect: "pad" keeps the aspect and puts black around, equally on both sides; "stretch" ignores it, as
            published.
        crop: "body" first cuts the largest bright part out (`body_box`): a breast, without film labels; "none".
        window: "full" maps the range of the file to [0, 1] (16-bit values by 65535, DICOM by smallest and largest);
            "percentile" maps the 0.5 and 99.5 percentiles of the cropped picture to 0 and 1 and clips.
    """

    size: int = 224
    aspect: Literal["pad", "stretch"] = "pad"
    crop: Literal["none", "body"] = "none"
    window: Literal["full", "percentile"] = "full"

    def __post_init__(self) -> None:
        if self.size < 8:
            raise UserError(f"The size must be at least 8 pixels, not {self.size}.")


def letterbox(image: Image, settings: Letterbox) -> tuple[Float32[np.ndarray, "s s"], Placement]:
    """The square of one picture, in [0, 1] with black padding, and where the picture lies in it.

    Shrinking averages over the pixels that fall together (antialiased bilinear), so that thin lines do not vanish by
    chance.
    """
    square, placement = _fitted(_grey_unit(image)[None], image, settings)
    return square[0], placement


def letterbox_colour(image: Image, settings: Letterbox) -> tuple[Float32[np.ndarray, "3 s s"], Placement]:
    """The same in colour; a grey picture has three equal channels. All channels share a window."""
    unit = to_unit(image)
    return _fitted(np.stack([unit] * 3) if unit.ndim == 2 else np.moveaxis(unit, -1, 0), image, settings)


def _fitted(
    unit: Float32[np.ndarray, "c h w"], image: Image, settings: Letterbox
) -> tuple[Float32[np.ndarray, "c s s"], Placement]:
    box = body_box(unit.mean(axis=0)) if settings.crop == "body" else (0, 0, *image.size)
    top, left, height, width = box
    part = unit[:, top : top + height, left : left + width]
    if settings.window == "percentile":
        low, high = np.percentile(part, [0.5, 99.5])
        part = np.clip((part - low) / max(float(high - low), 1e-6), 0, 1)
    size = (settings.size, settings.size)
    placement = (letterboxed if settings.aspect == "pad" else stretched)(image.size, size, box)
    top, left, height, width = placement.box
    tensor = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))[None]
    small = functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False, antialias=True)
    square = np.zeros((len(unit), *size), np.float32)
    square[:, top : top + height, left : left + width] = small[0].clamp_(0, 1).numpy()
    return square, placement


def body_box(unit: Float32[np.ndarray, "h w"], margin: float = 0.02) -> Box:
    """The box (top, left, height, width) around the largest bright connected part, in pixels.

    Bright is above 0.04 plus the picture's darkest tenth of a percent (the air of a film). Eroding by about 1.5 % of
    the longer side cuts off thin bridges to labels, and scratches; the box of the largest remaining part grows by as
    much again plus `margin` of the longer side. The whole picture where nothing is bright.

    Args:
        unit: values in [0, 1].
        margin: as a share of the longer side.
    """
    longer = max(unit.shape)
    step = max(1, math.ceil(longer / _SEARCH_SIDE))
    small = unit[: unit.shape[0] // step * step, : unit.shape[1] // step * step]
    small = small.reshape(small.shape[0] // step, step, -1, step).mean(axis=(1, 3))
    bright = small > float(np.quantile(small, 0.001)) + 0.04
    radius = max(1, round(0.015 * max(small.shape)))
    # Beyond the border lies nothing: a breast that touches it must not be eaten from there.
    kept = ndimage.binary_erosion(bright, iterations=radius, border_value=1)
    parts, count = ndimage.label(kept)
    if not count:
        return (0, 0, *unit.shape)
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    rows, columns = np.flatnonzero(largest.any(axis=1)), np.flatnonzero(largest.any(axis=0))
    reach = radius * step + round(margin * longer)
    top, bottom = _grown(rows, step, reach, unit.shape[0])
    left, right = _grown(columns, step, reach, unit.shape[1])
    return (top, left, bottom - top, right - left)


def _grown(places: np.ndarray, step: int, reach: int, length: int) -> tuple[int, int]:
    return max(0, int(places[0]) * step - reach), min(length, (int(places[-1]) + 1) * step + reach)


def _grey_unit(image: Image) -> Float32[np.ndarray, "h w"]:
    """Values in [0, 1]; colour as its luma (ITU-R BT.601 weights): annotated screenshots come as RGB."""
    if image.pixels.dtype in (np.uint8, np.uint16):
        # A third of the memory and time of `to_unit`, which matters for films of 20 million pixels.
        pixels = image.pixels.astype(np.float32)
        grey = pixels if pixels.ndim == 2 else pixels @ _LUMA
        return np.clip((grey - np.float32(image.low)) / np.float32(max(image.high - image.low, 1.0)), 0, 1)
    unit = to_unit(image)
    return unit if unit.ndim == 2 else unit @ _LUMA
