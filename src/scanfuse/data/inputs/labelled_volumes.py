"""One to four registered volumes with a target: cut to what is not background, fitted to a cube, moved alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from scanfuse.data import check
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs import Fitted
from scanfuse.data.inputs.grids import GridSettings, box_around, given_volume, on_one_grid, volumes_of
from scanfuse.data.inputs.labelled import (
    Fit,
    LabelledDataset,
    LabelledSettings,
    collate_labelled,
    given_row,
    labelled,
    open_labelled,
    rounded,
)
from scanfuse.data.inputs.registered import refuse_fitted
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import stem
from scanfuse.data.readers.volume import Volume, to_unit
from scanfuse.data.transforms.augment import augment_volume
from scanfuse.data.transforms.lightbox import lightbox
from scanfuse.data.transforms.placement import Placement, stretched
from scanfuse.data.volume_check import check_volumes
from scanfuse.errors import UserError

__all__ = ["LabelledVolumeSettings", "LabelledVolumes"]

KIND = "volumes"


class LabelledVolumeSettings(LabelledSettings, GridSettings):
    """Volumes with a target."""

    KIND = KIND

    size: int = Field(96, ge=8, le=512, description="side of the cube that the network sees, in voxels")


class LabelledVolumes:
    """The input kind: see `scanfuse.data.inputs.Inputs`.

    Args:
        settings: the section of the configuration.
        labels: what the targets mean.
        folds: which part of a cross-validation is opened.
        seed: of the movement.
    """

    KIND = KIND
    mixed_sizes = False
    modalities: tuple[str, ...]

    def __init__(self, settings: LabelledVolumeSettings, *, labels: Labels, folds: FoldConfig, seed: int) -> None:
        self.settings, self.labels, self.folds, self.seed = settings, labels, folds, seed
        self.modalities = settings.inputs

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        """The samples with the splits of the settings and the fold. With `split=False` odd targets are unknown."""
        return open_labelled(self.settings, root, self.labels, self.folds, split=split)

    def check(self, root: Path) -> list[check.Finding]:
        return check_volumes(
            lambda split: self.open(root, split=split),
            self.modalities,
            resample=self.settings.resample,
            complete=self.settings.incomplete == "error",
        )

    def prepare(self, training: Manifest) -> Fitted:
        return Fitted()

    def restore(self, fitted: Fitted) -> None:
        refuse_fitted(fitted, "volumes with a target")

    def dataset(self, manifest: Manifest, *, train: bool) -> LabelledDataset:
        """The samples of a manifest; with `train`, moved at random."""
        return LabelledDataset(
            manifest,
            self.labels,
            self._read,
            self._shape,
            move=self._move if train else None,
            seed=self.seed,
            cache_mb=self.settings.cache_mb,
        )

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return collate_labelled(samples)

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        """By hand: a path, nibabel image or array for each input; one that is missing is left out or None."""
        settings = self.settings
        given = {name: given_volume(name, value, settings) for name, value in inputs.items() if value is not None}
        if not given:
            raise UserError(f"No input was given; give {' or '.join(self.modalities)}.")
        sources = {name: volume.source for name, volume in given.items()}
        row = given_row(id or stem(next(iter(sources.values()))), sources)
        fit = rounded(self._fitted(on_one_grid(given, settings)))
        return labelled(fit, row, self.modalities, self.labels, self._shape)

    def picture(self, batch: dict[str, Any], name: str) -> tuple[np.ndarray, Placement]:
        """Slices of an input of a batch's first sample as the network sees it, (h, w) uint8; see `lightbox`."""
        slices = lightbox(batch[name][0, 0].cpu())
        pixels = np.rint(slices.numpy() * 255).astype(np.uint8)
        size = (pixels.shape[0], pixels.shape[1])
        return pixels, stretched(size, size)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (1, *(self.settings.size,) * 3)

    def _read(self, row: Row) -> Fit:
        there = [name for name in self.modalities if name in row.paths]
        return self._fitted(volumes_of(row, there, self.settings) if there else {})

    def _fitted(self, volumes: Mapping[str, Volume]) -> Fit:
        if not volumes:
            return Fit({}, {})
        box, size = box_around(volumes), self.settings.size
        arrays = {
            name: fitted_cube(to_unit(volume)[box], volume.frame.spacing_mm, size)[None]
            for name, volume in volumes.items()
        }
        height, width = lightbox(torch.zeros((size,) * 3)).shape
        picture = (height, width)
        return Fit(arrays, {"placements": {name: stretched(picture, picture) for name in arrays}})

    def _move(self, channels: Tensor, random: np.random.Generator) -> Tensor:
        return augment_volume(channels, self.settings.augmentation.draw_volume(random))


def fitted_cube(
    unit: Float32[np.ndarray, "d h w"], spacing_mm: tuple[float, float, float], size: int
) -> Float32[np.ndarray, "s s s"]:
    """A volume in a cube, true to scale whatever its spacing, as large as it fits, zeros around it.

    Linear in between; where it shrinks, by averages of what falls together.
    """
    sides_mm = [side * spacing for side, spacing in zip(unit.shape, spacing_mm, strict=True)]
    sides = [max(1, round(size * side / max(sides_mm))) for side in sides_mm]
    volume = torch.from_numpy(np.ascontiguousarray(unit, np.float32))[None, None]
    # Averages first: linear interpolation alone would skip what lies between its samples.
    d, h, w = (min(full, side) for full, side in zip(unit.shape, sides, strict=True))
    pooled = functional.adaptive_avg_pool3d(volume, (d, h, w))
    fitted = functional.interpolate(pooled, sides, mode="trilinear", align_corners=False)[0, 0].numpy()
    cube = np.zeros((size,) * 3, np.float32)
    corner = [(size - side) // 2 for side in sides]
    cube[tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))] = fitted
    return cube
