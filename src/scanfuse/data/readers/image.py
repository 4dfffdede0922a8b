"""One picture with the range of values it came in, and the way to [0, 1] and back."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanfuse.errors import UserError
from scanfuse.foreign import shown

__all__ = [
    "MAX_BYTES",
    "MAX_FILE",
    "MAX_PIXELS",
    "Image",
    "check_size",
    "finish",
    "finite_range",
    "flatten_alpha",
    "from_unit",
    "to_unit",
]

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before decoding: a few kilobytes can unpack to more than the memory holds."""

MAX_BYTES = 1_000_000_000
"""The same for pictures of many channels or deep ones: what one picture may take unpacked."""

MAX_FILE = 4_000_000_000
"""The largest file that is opened, in bytes: some formats are read whole for one picture of many."""

_FIXED_RANGE = {np.dtype(np.uint8): (0.0, 255.0), np.dtype(np.uint16): (0.0, 65535.0)}


@dataclass(frozen=True)
class Image:
    """Pixels as stored, and what is needed to give a result back in the same range.

    Attributes:
        pixels: (H, W), or (H, W, 3) for colour; dtype as stored, native byte order.
        low, high: the values that map to 0 and 1. uint8: 0, 255; uint16: 0, 65535; everything else (and every
            NIfTI and DICOM file): smallest and largest finite value, for NIfTI those of the whole volume.
        spacing_mm: distance between rows and between columns in millimetres, None where the format does not
            say.
        source: the file.
        stored: how the file holds it, such as "L", "RGBA", "P", "I;16", "int16"; for reports only.
    """

    pixels: np.ndarray
    low: float
    high: float
    spacing_mm: tuple[float, float] | None
    source: Path
    stored: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.pixels.ndim == 2 else 3

    @property
    def unit(self) -> np.ndarray:
        """The same as `to_unit(self)`."""
        return to_unit(self)


def to_unit(image: Image) -> np.ndarray:
    """Pixels mapped to [0, 1]: (value - low) / (high - low), clipped; not-a-number becomes 0.

    Returns:
        float32, (H, W) or (H, W, 3). All zero where low equals high (a constant picture of a free range).
    """
    span = image.high - image.low
    if span <= 0:
        return np.zeros(image.pixels.shape, np.float32)
    unit = (image.pixels.astype(np.float64) - image.low) / span
    return np.clip(np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0).astype(np.float32)


def from_unit(array: np.ndarray, image: Image) -> np.ndarray:
    """Values of [0, 1] mapped to the range and dtype of `image`: `to_unit` undone, exactly for uint8 and uint16.

    Args:
        array: float, any shape (a fused grey result of a colour source is welcome), clipped to [0, 1].
        image: the picture whose range and dtype the result takes.

    Raises:
        ValueError: `array` holds values that are not finite.
    """
    if not np.isfinite(array).all():
        raise ValueError(f"The array for {image.source.name} holds values that are not finite")
    values = image.low + np.clip(array.astype(np.float64), 0.0, 1.0) * (image.high - image.low)
    if np.issubdtype(image.pixels.dtype, np.integer):
        limits = np.iinfo(image.pixels.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(image.pixels.dtype)


def check_size(path: Path, height: int, width: int, *, pixel_bytes: int = 1) -> None:
    """Refuses what a header claims before anything is allocated for it.

    Args:
        path: the file, for the message.
        height, width: in pixels.
        pixel_bytes: of one pixel with all its channels, unpacked.

    Raises:
        UserError: no pixels, more than `MAX_PIXELS`, or more than `MAX_BYTES`.
    """
    if height < 1 or width < 1:
        raise UserError(f"{shown(path)} has no pixels ({height} x {width}); remove it or export it again.")
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{shown(path)} claims {height} x {width} pixels, more than the {MAX_PIXELS // 10**6} million allowed; "
            "if it is genuine, cut or shrink it first."
        )
    if height * width * pixel_bytes > MAX_BYTES:
        raise UserError(
            f"{shown(path)} claims {height} x {width} pixels of {pixel_bytes} bytes, more than the "
            f"{MAX_BYTES // 10**6} MB allowed; if it is genuine, cut or shrink it first."
        )


def flatten_alpha(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 2 or 4) of an unsigned dtype -> (H, W) or (H, W, 3): opaque alpha is dropped, else black is put behind.

    Composited on black means value * alpha / largest alpha, rounded: medical pictures have a black
    background.
    """
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    opaque = np.iinfo(pixels.dtype).max
    if not (alpha == opaque).all():
        colour = np.rint(colour.astype(np.float64) * alpha / opaque).astype(pixels.dtype)
    return colour[..., 0] if colour.shape[-1] == 1 else colour


def finish(
    path: Path,
    pixels: np.ndarray,
    *,
    stored: str,
    spacing_mm: tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
    grey_if_equal: bool = True,
) -> Image:
    """Builds the `Image`: native byte order, range by dtype unless `limits` gives it, equal channels as grey.

    Raises:
        UserError: no pixels, a shape that is no picture, values that are no numbers, or none finite.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise UserError(f"{shown(path)} holds an array of shape {pixels.shape}; expected one grey or RGB picture.")
    if pixels.dtype.kind not in "uif":
        raise UserError(f"{shown(path)} holds values of the type {pixels.dtype}; expected whole or real numbers.")
    check_size(path, pixels.shape[0], pixels.shape[1])
    pixels = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    if pixels.ndim == 3 and grey_if_equal and (pixels == pixels[..., :1]).all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    if limits is None:
        limits = _FIXED_RANGE.get(pixels.dtype) or finite_range(path, pixels)
    return Image(pixels, limits[0], limits[1], spacing_mm, path, stored or str(pixels.dtype))


def finite_range(path: Path, values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value; UserError if there is none, or if their difference overflows."""
    if np.issubdtype(values.dtype, np.floating):
        values = values[np.isfinite(values)]
    if values.size == 0:
        raise UserError(f"{shown(path)} holds no finite value (all not-a-number or infinite); export it again.")
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(high - low):
        raise UserError(f"{shown(path)} has values from {low:.3g} to {high:.3g}, which are damaged; export it again.")
    return low, high
