"""What the transforms of RGB + infrared pairs work on: two pictures of one size and the boxes on both."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
from jaxtyping import Float32, Float64, UInt8

from scanfuse.data.boxes import Boxes
from scanfuse.errors import UserError

__all__ = ["FILL", "MIN_SHARE", "MIN_SIDE", "Pair", "kept", "paste", "resized"]

FILL = 114
"""Grey of padding, of 255; 114/255 in infrared."""

MIN_SHARE = 0.2
MIN_SIDE = 2.0


@dataclass(frozen=True, eq=False)
class Pair:
    """One scene through both sensors, registered pixel by pixel.

    Attributes:
        rgb: as stored.
        ir: in [0, 1], see `thermal.thermal_unit`.
        boxes: in pixels of both.

    Raises:
        UserError: the pictures differ in size.
        ValueError: other types.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    ir: Float32[np.ndarray, "h w"]
    boxes: Boxes

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.ir.ndim != 2:
            raise ValueError(f"expected (h, w, 3) uint8 and (h, w), got {self.rgb.shape} and {self.ir.shape}")
        if self.ir.dtype != np.float32:
            raise ValueError(f"infrared must be float32 in [0, 1], not {self.ir.dtype}")
        if self.rgb.shape[:2] != self.ir.shape:
            (h, w), (k, v) = self.rgb.shape[:2], self.ir.shape
            raise UserError(
                f"The RGB picture has {w} x {h} pixels, the infrared one {v} x {k}; register them to one size first."
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.ir.shape[0]), int(self.ir.shape[1])


def kept(
    moved: Float64[np.ndarray, "n 4"],
    frame: tuple[float, float, float, float],
    *,
    min_share: float = MIN_SHARE,
    min_side: float = MIN_SIDE,
) -> tuple[Float64[np.ndarray, "n 4"], np.ndarray]:
    """Boxes cut to a frame, and which of them still stand for their object.

    A box stays if at least `min_share` of its (moved, uncut) area lies in the frame and what lies there is at least
    `min_side` pixels wide and high. So a person of whom a hand is left is no longer a person to be found.

    Args:
        moved: left, top, right, bottom, which may lie outside.
        frame: left, top, right, bottom.
        min_share: 0 to 1.
        min_side: in pixels of the frame.

    Returns:
        All boxes cut (the lost ones may be empty), and a mask (n,) of those that stay.
    """
    low, high = np.array(frame[:2]), np.array(frame[2:])
    cut = np.concatenate([np.clip(moved[:, :2], low, high), np.clip(moved[:, 2:], low, high)], axis=1)
    sides = cut[:, 2:] - cut[:, :2]
    whole = (moved[:, 2:] - moved[:, :2]).prod(axis=1)
    stays = (sides >= max(min_side, 1e-9)).all(axis=1) & (sides.prod(axis=1) >= min_share * whole)
    return cut, stays


def resized(array: np.ndarray, size: tuple[int, int], part: tuple[float, float, float, float]) -> np.ndarray:
    """A part (left, top, right, bottom, in pixels, fractions allowed) of one picture, resized to (height, width).

    Bilinear, and averaging over the pixels that fall together when it shrinks. float32 (h, w) or uint8 (h, w, 3).
    """
    left, top, right, bottom = (round(edge) for edge in part)
    whole = max(abs(edge - round(edge)) for edge in part) == 0
    if whole and bottom - top == size[0] and right - left == size[1]:
        return array[top:bottom, left:right]
    image = PIL.Image.fromarray(array)
    return np.asarray(image.resize(size[::-1], PIL.Image.Resampling.BILINEAR, box=part))


def paste(
    pair: Pair,
    part: tuple[float, float, float, float],
    onto: tuple[np.ndarray, np.ndarray],
    place: tuple[int, int, int, int],
) -> None:
    """Writes a part of a pair, resized, over `place` (left, top, right, bottom) of two canvases, RGB and infrared."""
    left, top, right, bottom = place
    for array, canvas in zip((pair.rgb, pair.ir), onto, strict=True):
        canvas[top:bottom, left:right] = resized(array, (bottom - top, right - left), part)


def canvases(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two empty pictures in the grey of padding."""
    return np.full((*size, 3), FILL, np.uint8), np.full(size, FILL / 255, np.float32)
