"""Several pictures of one size as one picture: rows of tiles, with gaps in between."""

import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["GAP", "montage", "montage_size"]

GAP = 16
"""A gap is the side of a tile divided by this."""


def montage_size(count: int, size: int) -> tuple[int, int]:
    """Height and width of `montage` of so many tiles with this side."""
    rows, columns = _grid(count)
    gap = max(1, size // GAP)
    return rows * (size + gap) - gap, columns * (size + gap) - gap


def montage(tiles: ArrayLike) -> np.ndarray:
    """Tiles (s, k, k) in reading order, about as wide as 3:2; gaps and what is left over are 0.

    A map of tiles made at k / n pixels lies on the montage of k pixels as it should if n divides k and k / n is a
    multiple of 16.
    """
    array = np.asarray(tiles)
    count, size = array.shape[:2]
    gap = max(1, size // GAP)
    columns = _grid(count)[1]
    found = np.zeros(montage_size(count, size), array.dtype)
    for number, tile in enumerate(array):
        top, left = (place * (size + gap) for place in divmod(number, columns))
        found[top : top + size, left : left + size] = tile
    return found


def _grid(count: int) -> tuple[int, int]:
    columns = max(1, math.ceil(math.sqrt(1.5 * count)))
    return math.ceil(count / columns), columns
