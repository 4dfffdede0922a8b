"""Random crops, flips and quarter turns of registered pictures: the same in all of them."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

__all__ = ["crop", "flip"]

Arrays = Mapping[str, np.ndarray]
"""Name -> (C, H, W), all of one height and width."""


def crop(arrays: Arrays, side: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """A random square of `side` pixels, the same place in all; smaller pictures are first reflected at their borders.

    What is missing is added half before and half behind; a picture of one row or column is repeated instead.
    """
    height, width = next(iter(arrays.values())).shape[1:]
    short = (max(0, side - height), max(0, side - width))
    if any(short):
        before = [(0, 0), *((size // 2, size - size // 2) for size in short)]
        mode: Literal["reflect", "edge"] = "reflect" if min(height, width) > 1 else "edge"
        arrays = {name: np.pad(array, before, mode=mode) for name, array in arrays.items()}
        height, width = next(iter(arrays.values())).shape[1:]
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    return {name: array[:, top : top + side, left : left + side] for name, array in arrays.items()}


def flip(arrays: Arrays, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirrored left and right (or not), then zero to three quarter turns; half turns only where it is not square."""
    mirrored, quarters = bool(random.integers(2)), int(random.integers(4))
    height, width = next(iter(arrays.values())).shape[1:]
    if height != width:
        quarters = 2 * (quarters // 2)
    flipped = {name: array[:, :, ::-1] if mirrored else array for name, array in arrays.items()}
    return {name: np.rot90(array, quarters, axes=(1, 2)) for name, array in flipped.items()}
