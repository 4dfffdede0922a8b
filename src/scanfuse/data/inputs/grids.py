"""Volumes of one sample on one grid of voxels: read, or resampled onto that of the first one, when asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from pydantic import Field, field_validator

from scanfuse.config import Section
from scanfuse.data.manifest import Row
from scanfuse.data.readers.volume import (
    Frame,
    Volume,
    box_of,
    foreground,
    mismatch,
    read_volume,
    resampled,
    volume_of,
)
from scanfuse.errors import UserError

__all__ = ["Box", "GridSettings", "box_around", "given_volume", "on_one_grid", "volumes_of"]

Box = tuple[slice, slice, slice]


class GridSettings(Section):
    """How volumes are read."""

    resample: bool = Field(False, description="put the further volumes on the grid of the first where they differ")
    percentiles: tuple[float, float] = Field(
        (0.5, 99.5), description="percentiles of the foreground that become 0 and 1"
    )
    cache_mb: float = Field(2048.0, ge=0, description="memory for volumes that were read, per worker")

    @field_validator("percentiles")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            raise ValueError("expected two rising percentiles in 0 to 100, such as 0.5,99.5")
        return value


def volumes_of(row: Row, modalities: Sequence[str], settings: GridSettings) -> dict[str, Volume]:
    """The volumes of a row by modality, on one grid.

    Raises:
        UserError: the row lacks one, a file cannot be read, or the grids differ.
    """
    missing = [name for name in modalities if name not in row.paths]
    if missing:
        raise UserError(f"Sample {row.id!r} has no {missing[0].upper()} volume; add it or remove the sample.")
    return on_one_grid(
        {name: read_volume(row.paths[name], percentiles=settings.percentiles) for name in modalities}, settings
    )


def on_one_grid(volumes: dict[str, Volume], settings: GridSettings) -> dict[str, Volume]:
    """The volumes, put on the grid of the first one if the settings ask for it; UserError where they differ."""
    first, *others = volumes
    for name in others:
        wrong = mismatch(volumes[first], volumes[name])
        if wrong and settings.resample:
            volumes[name] = resampled(volumes[name], volumes[first], percentiles=settings.percentiles)
        elif wrong:
            raise UserError(
                f"{volumes[first].source} and {volumes[name].source} are not on one grid: {wrong}; register them, or "
                "set --resample true to put the second on the grid of the first."
            )
    return volumes


def box_around(volumes: Mapping[str, Volume]) -> Box:
    """The smallest box around what is not background in any of the volumes."""
    return box_of(np.logical_or.reduce([foreground(volume) for volume in volumes.values()]))


def given_volume(name: str, value: Any, settings: GridSettings) -> Volume:
    """The volume that was given for an input.

    Args:
        name: of the input.
        value: a path; a nibabel image; or an array (D, H, W) with slices upwards, row 0 anterior and column 0 right,
            in voxels of 1 mm.
        settings: how it is read.

    Raises:
        UserError: a file cannot be read, or the value is no volume.
    """
    if isinstance(value, str | Path):
        return read_volume(value, percentiles=settings.percentiles)
    if isinstance(value, np.ndarray):
        if value.ndim != 3 or value.size == 0 or value.dtype.kind not in "iuf":
            raise UserError(f"The input {name} has shape {value.shape} and dtype {value.dtype}; give (D, H, W).")
        stored, affine = value.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0])
    elif isinstance(value, SpatialImage) and len(value.shape) == 3:
        stored, affine = np.asanyarray(value.dataobj), np.array(value.affine, float)
    else:
        raise UserError(f"The input {name} is a {type(value).__name__}; give a path, an array or a nibabel image.")
    frame = Frame(stored.shape, affine, stored.dtype.newbyteorder("="))
    return volume_of(stored, frame, Path(name), percentiles=settings.percentiles)
