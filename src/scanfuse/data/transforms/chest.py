"""From a chest CT in Hounsfield units to the slices that a network sees: lungs, evenly spaced slices, one square.

scan (D,H,W) HU --lungs--> mask --box and first to last lung slice--> `count` slices --resize--> (S,size,size) HU
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int16
from scipy import ndimage
from torch.nn import functional

from scanfuse.data.readers.dicom_series import Scan
from scanfuse.errors import UserError
from scanfuse.foreign import shown

__all__ = ["AIR_HU", "evenly", "lung_mask", "lung_slices"]

AIR_HU = -320
"""Below it a voxel is air or lung."""
_GRID_MM = 3.0
"""The lungs are looked for on a grid about this coarse: 40 times as fast, and finer than their edge matters."""
_SMALLEST_ML = 100.0
_MARGIN_MM = 10.0
_CLOSING_MM = 9.0


def lung_mask(scan: Scan) -> tuple[Bool[np.ndarray, "d h w"], tuple[int, int, int]]:
    """Where the lungs are, on a coarse grid: every `step`-th voxel of the scan, and the steps.

    Air below -320 HU that does not reach the sides of its slice (what does lies around the body); the two largest
    parts of it (one where both lungs and the windpipe hang together); closed and filled slice by slice, so that
    vessels and nodules inside are lung. No network, no weights. The windpipe stays in.

    Raises:
        UserError: no part of 100 ml: no chest, or no Hounsfield units.
    """
    step = tuple(max(1, round(_GRID_MM / side)) for side in scan.spacing_mm)
    coarse = scan.hu[:: step[0], :: step[1], :: step[2]]
    voxel = tuple(side * k for side, k in zip(scan.spacing_mm, step, strict=True))
    air = coarse < AIR_HU
    for each in air:  # slice by slice, so that lung and outside do not meet around a thin wall
        flat, _ = ndimage.label(each)
        each[np.isin(flat, np.unique(np.concatenate([flat[0], flat[-1], flat[:, 0], flat[:, -1]])))] = False
    parts, count = ndimage.label(air)
    sizes = np.bincount(parts.ravel(), minlength=max(count + 1, 3))
    sizes[0] = 0
    largest = np.argsort(-sizes, kind="stable")[:2]
    most = float(sizes[largest[0]]) * float(np.prod(voxel)) / 1000
    if most < _SMALLEST_ML:
        raise UserError(
            f"{shown(scan.source)}: no lungs were found (the largest part below {AIR_HU} HU inside the body has "
            f"{most:.0f} ml); give a chest CT in Hounsfield units."
        )
    # The second one counts if it is a lung and not a bubble.
    kept = [part for part in largest if sizes[part] * float(np.prod(voxel)) / 1000 >= _SMALLEST_ML]
    radius = max(1, round(_CLOSING_MM / voxel[1]))
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    mask = np.pad(np.isin(parts, kept), ((0, 0), (radius, radius), (radius, radius)))
    for number in range(len(mask)):
        if mask[number].any():
            mask[number] = ndimage.binary_fill_holes(ndimage.binary_closing(mask[number], disc))
    return mask[:, radius:-radius, radius:-radius], (step[0], step[1], step[2])


def lung_slices(
    scan: Scan, *, count: int, size: int
) -> tuple[Int16[np.ndarray, "s k k"], Bool[np.ndarray, "s k k"], Float32[np.ndarray, " s"]]:
    """The slices of a scan that show the lungs, evenly spaced, cut to a square around them.

    Args:
        scan: the chest.
        count: slices; a scan with fewer lung slices gives those that it has, each once.
        size: side of the square in pixels. Pixels are square on the patient, too: the aspect is kept.

    Returns:
        Hounsfield units, lung mask, and place of each slice between the first (0) and last (1) lung slice.

    Raises:
        UserError: see `lung_mask`.
    """
    mask, step = lung_mask(scan)
    rows = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    first, last = int(rows[0][0]) * step[0], min(int(rows[0][-1]) * step[0], len(scan.hu) - 1)
    chosen = np.unique(np.rint(np.linspace(first, last, count)).astype(int))
    place = ((chosen - first) / max(last - first, 1)).astype(np.float32)
    # Ends of the box in mm, made a square about its centre.
    ends = np.array([(rows[k][0] * step[k], (rows[k][-1] + 1) * step[k]) for k in (1, 2)], float)
    ends *= np.array(scan.spacing_mm[1:])[:, None]
    half = float((ends[:, 1] - ends[:, 0]).max()) / 2 + _MARGIN_MM
    centre = ends.mean(axis=1)
    box = [
        (round((centre[k] - half) / scan.spacing_mm[k + 1]), round((centre[k] + half) / scan.spacing_mm[k + 1]))
        for k in (0, 1)
    ]
    cut = _cut(scan.hu[chosen], box, fill=-1024)
    inside = mask[np.minimum(np.rint(chosen / step[0]).astype(int), len(mask) - 1)]
    inside = inside.repeat(step[1], axis=1).repeat(step[2], axis=2)[:, : scan.hu.shape[1], : scan.hu.shape[2]]
    slices = functional.interpolate(
        torch.from_numpy(cut.astype(np.float32))[:, None], (size, size), mode="bilinear", antialias=True
    )
    lung = functional.interpolate(
        torch.from_numpy(_cut(inside, box, fill=False).astype(np.float32))[:, None], (size, size), mode="bilinear"
    )
    return np.rint(slices[:, 0].numpy()).astype(np.int16), lung[:, 0].numpy() >= 0.5, place


def evenly(have: int, wanted: int) -> np.ndarray:
    """Numbers of `wanted` of `have` slices, evenly spaced with both ends; all of them where there are not more."""
    return np.arange(have) if have <= wanted else np.rint(np.linspace(0, have - 1, wanted)).astype(int)


def _cut(volume: np.ndarray, box: list[tuple[int, int]], *, fill: float) -> np.ndarray:
    """The part of every slice inside a box that may reach beyond it."""
    (top, bottom), (left, right) = box
    found = np.full((len(volume), bottom - top, right - left), fill, volume.dtype)
    rows = slice(max(top, 0), min(bottom, volume.shape[1]))
    columns = slice(max(left, 0), min(right, volume.shape[2]))
    part = volume[:, rows, columns]
    found[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = part
    return found
