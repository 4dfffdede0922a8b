"""RGB and infrared resized alike to the network's input, padded, and the way back for predicted boxes.

    pair (H, W) --resize by one factor--> (height, width) --pad equally on both sides with grey--> (h, w)

`placement.Placement` says where the picture lies in the input, so boxes and heat maps go back the same way.
"""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from scanfuse.data.transforms.pair import Pair, canvases, kept, paste
from scanfuse.data.transforms.placement import Placement, letterboxed
from scanfuse.errors import UserError

__all__ = ["letterbox", "place_in", "to_input", "to_picture"]


def place_in(source: tuple[int, int], size: int, *, stride: int | None = None) -> Placement:
    """Where a picture of height and width `source` lies in the network's input.

    Args:
        source: height and width in pixels.
        size: the longer side of the input.
        stride: None: the input is a square. A number: the shorter side is padded only up to the next multiple of it,
            which saves a quarter of the work for 4 : 3 pictures.

    Raises:
        UserError: the size is no multiple of the stride, or below 8 pixels.
    """
    if size < 8 or (stride is not None and (stride < 1 or size % stride)):
        raise UserError(f"The size must be 8 pixels or more and a multiple of the stride {stride}; got {size}.")
    if stride is None:
        return letterboxed(source, (size, size))
    scale = size / max(source)
    height, width = (min(size, stride * math.ceil(max(1, round(side * scale)) / stride)) for side in source)
    return letterboxed(source, (height, width))


def letterbox(pair: Pair, placement: Placement) -> Pair:
    """The pair in the network's input; every box follows, none is lost (they may become smaller than a pixel).

    Raises:
        ValueError: the placement is for pictures of another size.
    """
    if placement.source != pair.size:
        raise ValueError(f"a placement for {placement.source}, a pair of {pair.size}")
    top, left, height, width = placement.box
    row, column, rows, columns = placement.crop
    onto = canvases(placement.size)
    paste(pair, (column, row, column + columns, row + rows), onto, (left, top, left + width, top + height))
    moved = to_input(pair.boxes.xyxy, placement)
    cut, stays = kept(moved, (left, top, left + width, top + height), min_share=0, min_side=0)
    return replace(pair, rgb=onto[0], ir=onto[1], boxes=pair.boxes.at(stays).moved(cut[stays]))


def to_input(xyxy: Float64[np.ndarray, "n 4"], placement: Placement) -> Float64[np.ndarray, "n 4"]:
    """Boxes of the picture in pixels of the input."""
    scale, shift = _scale_and_shift(placement)
    return np.asarray(xyxy * scale + shift)


def to_picture(
    xyxy: Float64[np.ndarray, "n 4"], placement: Placement, *, cut: bool = True
) -> Float64[np.ndarray, "n 4"]:
    """Boxes of the input in pixels of the picture, the inverse of `to_input`; cut to the picture unless told not to.

    A cut box that lay wholly on padding has no area.
    """
    scale, shift = _scale_and_shift(placement)
    back = (xyxy - shift) / scale
    if cut:
        height, width = placement.source
        back = np.clip(back, 0, [width, height, width, height])
    return np.asarray(back)


def _scale_and_shift(placement: Placement) -> tuple[Float64[np.ndarray, "4"], Float64[np.ndarray, "4"]]:
    # The sides are rounded to whole pixels each, so the two factors differ a little.
    top, left, height, width = placement.box
    row, column, rows, columns = placement.crop
    x, y = width / columns, height / rows
    return np.array([x, y, x, y]), np.array([left - column * x, top - row * y] * 2, np.float64)
