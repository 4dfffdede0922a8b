"""Registered slices of cases as thin volumes: what `scanfuse data prepare clinicalfmamba3d` makes of pictures.

The slices of a case are laid on each other in the order of the number at the end of their names. Pictures say nothing
of millimetres, so a spacing is assumed: 1 mm between rows and columns, 5 mm between slices, the lowest number at the
feet, row 0 anterior, column 0 the patient's right. Where a number is missing its neighbours become neighbours.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from scanfuse.data import layouts
from scanfuse.data.manifest import Row
from scanfuse.data.readers import read_image, stem
from scanfuse.data.readers.volume import Frame, volume_of, write_volume
from scanfuse.errors import UserError

__all__ = ["SPACING_MM", "slices_of_cases", "stack", "write_stack"]

SPACING_MM = (5.0, 1.0, 1.0)
"""Assumed, between slices, rows and columns."""

_SLICE = re.compile(r"(\d+)$")
_LUMINANCE = (0.299, 0.587, 0.114)  # BT.601


def slices_of_cases(root: Path, modalities: Sequence[str], pattern: str | None = None) -> dict[str, list[Row]]:
    """Case -> its slices in order, of any layout of image pairs; all published parts together.

    Args:
        root: the folder, such as the Harvard atlas.
        modalities: of the pair.
        pattern: regular expression that finds the case in a slice's name; None: as the layout does.

    Raises:
        UserError: no such data, a name without a number, or cases that the layout cannot tell apart.
    """
    request = layouts.Request(modalities=tuple(modalities), split="none", group_pattern=pattern)
    rows = layouts.open_manifest(root, "image_pairs", request).rows
    cases: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _number(row.id)):
        cases.setdefault(row.group, []).append(row)
    if all(len(slices) == 1 for slices in cases.values()):
        raise UserError(
            f"Every picture in {root} is a case of its own: give a --group-pattern that finds the case in its name."
        )
    return dict(sorted(cases.items()))


def stack(paths: Sequence[Path]) -> Num[np.ndarray, "d h w"]:
    """The pictures one upon the other, in their data type; of colour the luminance.

    Raises:
        UserError: fewer than two, a picture that cannot be read, or other sizes or types than the first one's.
    """
    if len(paths) < 2:
        raise UserError(f"{paths[0]} is the only slice of its case: a volume needs two.")
    images = [read_image(path) for path in paths]
    slices = [_grey(image.pixels) for image in images]
    first = slices[0]
    for image, each in zip(images, slices, strict=True):
        if (each.shape, each.dtype) != (first.shape, first.dtype):
            raise UserError(
                f"{images[0].source} is {first.shape[0]} x {first.shape[1]} of {first.dtype} and {image.source} "
                f"{each.shape[0]} x {each.shape[1]} of {each.dtype}: slices of a case need one size and type."
            )
    return np.stack(slices)


def write_stack(paths: Sequence[Path], target: Path) -> dict[str, Any]:
    """Writes `stack` as NIfTI with the assumed spacing; gives the number of slices and of gaps in their numbers."""
    voxels = stack(paths)
    depth, height, width = voxels.shape
    between, down, across = SPACING_MM
    frame = Frame((width, height, depth), np.diag([-across, -down, between, 1.0]), voxels.dtype)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_volume(target, voxels, volume_of(voxels.transpose(2, 1, 0), frame, target))
    steps = np.diff([_number(stem(path)) for path in paths])
    return {"slices": depth, "gaps": int((steps > 1).sum())}


def _grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    luminance = pixels.astype(np.float64) @ np.array(_LUMINANCE)
    return (np.rint(luminance) if pixels.dtype.kind in "iu" else luminance).astype(pixels.dtype)


def _number(name: str) -> int:
    found = _SLICE.search(name)
    if found is None:
        raise UserError(f"The name {name!r} does not end with the number of a slice; rename it, such as {name}_003.")
    return int(found[1])
