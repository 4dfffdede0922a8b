"""Slices of a volume side by side, as films hang on a lightbox: one picture that shows all of it."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["lightbox"]

ROWS, COLUMNS = 3, 4


def lightbox(volume: Float[Tensor, "*b d h w"]) -> Float[Tensor, "*b H W"]:
    """Twelve axial slices evenly spread from the lowest to the highest, row by row: (3 h, 4 w).

    >>> lightbox(torch.arange(24.0).reshape(24, 1, 1)).tolist()
    [[1.0, 3.0, 5.0, 7.0], [9.0, 11.0, 13.0, 15.0], [17.0, 19.0, 21.0, 23.0]]
    """
    depth = volume.shape[-3]
    count = ROWS * COLUMNS
    shown = torch.tensor([(2 * number + 1) * depth // (2 * count) for number in range(count)], device=volume.device)
    slices = volume.index_select(-3, shown)
    *batch, _, height, width = slices.shape
    tiled = slices.reshape(*batch, ROWS, COLUMNS, height, width).transpose(-3, -2)
    return tiled.reshape(*batch, ROWS * height, COLUMNS * width)
