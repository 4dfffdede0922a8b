"""Pictures of volumes: the three planes through a place, as radiologists see them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

__all__ = ["disagreement", "planes"]

_GAP = 2
_LARGEST_STRETCH = 8
"""Thicker slices are not drawn true to scale: a picture would be mostly repetition."""


def disagreement(a: Float[np.ndarray, "d h w"], b: Float[np.ndarray, "d h w"]) -> tuple[int, int, int]:
    """Where two volumes differ most, after a smoothing of two voxels: noise has no say."""
    difference = ndimage.gaussian_filter(np.abs(a - b), 2.0)
    depth, row, column = np.unravel_index(int(difference.argmax()), difference.shape)
    return int(depth), int(row), int(column)


def planes(
    volume: Float[np.ndarray, "d h w"],
    places: Sequence[tuple[int, ...]],
    *,
    box: tuple[slice, slice, slice],
    spacing_mm: tuple[float, float, float],
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """One row per place: axial, coronal and sagittal plane through it, cut to the box, true to scale.

    Axial: row 0 is anterior, column 0 the patient's right. Coronal: row 0 is superior, column 0 the patient's right.
    Sagittal: row 0 is superior, column 0 anterior.

    Args:
        volume: slices upwards, row 0 anterior, column 0 right; values 0..255.
        places: (d, h, w) each.
        box: what is shown.
        spacing_mm: of slices, rows and columns.
    """
    times = [min(_LARGEST_STRETCH, max(1, round(size / min(spacing_mm)))) for size in spacing_mm]
    rows = []
    for d, h, w in places:
        cuts = (
            (volume[d, box[1], box[2]], times[1], times[2]),
            (volume[box[0], h, box[2]][::-1], times[0], times[2]),
            (volume[box[0], box[1], w][::-1], times[0], times[1]),
        )
        rows.append(_in_a_row([cut.repeat(down, 0).repeat(across, 1) for cut, down, across in cuts]))
    picture = np.concatenate([np.pad(row, ((0, _GAP), (0, 0))) for row in rows])[:-_GAP]
    grey = np.rint(picture.clip(0, 255)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _in_a_row(pictures: Sequence[np.ndarray]) -> np.ndarray:
    height = max(len(picture) for picture in pictures)
    padded = [
        np.pad(
            picture, (((height - len(picture)) // 2, height - len(picture) - (height - len(picture)) // 2), (0, _GAP))
        )
        for picture in pictures
    ]
    return np.concatenate(padded, axis=1)[:, :-_GAP]
