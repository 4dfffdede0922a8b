"""From a network's map back to the picture as it was stored: the inverse of crop, resize and pad.

    source (H, W) --crop box--> resize to box (height, width) --pad--> input (h, w) --network--> map (h', w')

A place of the map is the centre of its receptive field: row i covers the input rows i h/h' to (i + 1) h/h'.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import ArrayLike

__all__ = ["Placement", "letterboxed", "place", "stretched"]

Box = tuple[int, int, int, int]
"""top, left, height, width in pixels."""


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in a network's input.

    Attributes:
        source: (H, W) of the stored picture.
        size: (h, w) of the network's input.
        crop: the part of the source that is shown to the network.
        box: where that part lies in the input; around it is padding.

    Raises:
        ValueError: an empty box, or one that is not inside its picture.
    """

    source: tuple[int, int]
    size: tuple[int, int]
    crop: Box
    box: Box

    def __post_init__(self) -> None:
        for name, (top, left, height, width), (rows, columns) in (
            ("crop", self.crop, self.source),
            ("box", self.box, self.size),
        ):
            if min(height, width) < 1 or min(top, left) < 0 or top + height > rows or left + width > columns:
                raise ValueError(f"{name} {(top, left, height, width)} does not lie inside {(rows, columns)}")


def stretched(source: tuple[int, int], size: tuple[int, int], crop: Box | None = None) -> Placement:
    """The whole picture (or crop) resized to fill the input, its aspect ignored."""
    return Placement(source, size, crop or (0, 0, *source), (0, 0, *size))


def letterboxed(source: tuple[int, int], size: tuple[int, int], crop: Box | None = None) -> Placement:
    """The picture (or crop) resized to fit inside the input with its aspect kept, padded equally on both sides."""
    part = crop or (0, 0, *source)
    scale = min(size[0] / part[2], size[1] / part[3])
    height, width = max(1, round(part[2] * scale)), max(1, round(part[3] * scale))
    return Placement(source, size, part, ((size[0] - height) // 2, (size[1] - width) // 2, height, width))


def place(values: ArrayLike, placement: Placement) -> Float32[np.ndarray, "H W"]:
    """A map (h', w') as values for every pixel of the source, linear in between; 0 outside the crop.

    Values on padding are not shown. Between the centres of neighbouring places it is linear, beyond the outermost
    centres constant, so that nothing exceeds the map's own range.

    Args:
        values: (h', w') of the whole input, any size.
        placement: of the picture in the input.

    Raises:
        ValueError: not a map.
    """
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"the map has shape {array.shape}; expected rows and columns")
    rows, columns = (
        _weights(array.shape[axis], placement.size[axis], placement.box[axis], placement.box[axis + 2], crop)
        for axis, crop in ((0, placement.crop[2]), (1, placement.crop[3]))
    )
    top, left, height, width = placement.crop
    whole = np.zeros(placement.source, np.float32)
    whole[top : top + height, left : left + width] = rows @ array @ columns.T
    return whole


def _weights(places: int, size: int, start: int, length: int, pixels: int) -> Float[np.ndarray, "pixels places"]:
    """How much each place of the map counts for each pixel of the crop along one side; rows sum to 1."""
    at_input = start + (np.arange(pixels) + 0.5) * length / pixels
    at_map = np.clip(at_input * places / size - 0.5, 0, places - 1)
    distance = np.abs(at_map[:, None] - np.arange(places))
    return np.maximum(1 - distance, 0).astype(np.float32)
