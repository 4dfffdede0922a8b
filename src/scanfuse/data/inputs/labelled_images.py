"""One to four registered pictures with a target: fitted to a square, moved alike, the channels of one stack."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor

from scanfuse.data import check
from scanfuse.data.folds import FoldConfig
from scanfuse.data.inputs import Fitted
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
from scanfuse.data.inputs.registered import common_size, refuse_fitted
from scanfuse.data.inputs.slices import checked_slice, chosen, slice_of, slice_of_volumes, with_slices
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import Image, read_image, stem
from scanfuse.data.readers.given import image_of
from scanfuse.data.transforms.augment import augment
from scanfuse.data.transforms.letterbox import Letterbox, letterbox, letterbox_colour
from scanfuse.data.transforms.placement import Placement
from scanfuse.errors import UserError

__all__ = ["LabelledImageSettings", "LabelledImages"]

KIND = "image_pairs"


class LabelledImageSettings(LabelledSettings):
    """Pictures with a target."""

    KIND = KIND

    colour: bool = Field(False, description="three channels for each input; false: one, its luminance")
    slice: str = Field(
        "", description="of volumes and stacks: axial:middle, coronal:40, frame:0, or axial:all for every slice"
    )
    size: int = Field(224, ge=8, description="side of the square that the network sees, in pixels")
    aspect: Literal["pad", "stretch"] = Field("pad", description="stretch ignores the aspect")
    window: Literal["full", "percentile"] = Field("full", description="grey range: of the file, or 0.5 to 99.5 %")
    cache_mb: float = Field(512.0, ge=0, description="memory for pictures that were read, per worker")

    @field_validator("slice")
    @classmethod
    def _names_a_slice(cls, value: str) -> str:
        return checked_slice(value)

    @property
    def channels(self) -> int:
        """Of one input."""
        return 3 if self.colour else 1

    def read(self, root: Path, *, split: bool) -> Manifest:
        """See `LabelledSettings.read`; with the slices that are meant."""
        return with_slices(super().read(root, split=split), self.slice)


class LabelledImages:
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

    def __init__(self, settings: LabelledImageSettings, *, labels: Labels, folds: FoldConfig, seed: int) -> None:
        self.settings, self.labels, self.folds, self.seed = settings, labels, folds, seed
        self.modalities = settings.inputs

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        """The samples with the splits of the settings and the fold. With `split=False` odd targets are unknown."""
        return open_labelled(self.settings, root, self.labels, self.folds, split=split)

    def check(self, root: Path) -> list[check.Finding]:
        return check.check(lambda split: self.open(root, split=split), is_registered=True)

    def choose_slice(self, text: str) -> None:
        """From here on, takes these slices of volumes and stacks instead of those of the settings."""
        self.settings = LabelledImageSettings.model_validate({**self.settings.model_dump(), "slice": text})

    def prepare(self, training: Manifest) -> Fitted:
        return Fitted()

    def restore(self, fitted: Fitted) -> None:
        refuse_fitted(fitted, "pictures with a target")

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
        """By hand: a file, PIL image or array for each input; one that is missing is left out or None."""
        slices = chosen(self.settings.slice)
        images = {name: image_of(name, value, slices) for name, value in inputs.items() if value is not None}
        if not images:
            raise UserError(f"No input was given; give {' or '.join(self.modalities)}.")
        sources = {name: image.source for name, image in images.items()}
        row = given_row(id or stem(next(iter(sources.values()))), sources, str(slices) if slices else "")
        return labelled(rounded(self._fitted(row, images)), row, self.modalities, self.labels, self._shape)

    def picture(self, batch: dict[str, Any], name: str) -> tuple[np.ndarray, Placement]:
        """The file of an input of a batch's first sample as it is stored, and where it lies in the square."""
        meta = batch["meta"][0]
        row = given_row(meta["id"], meta["paths"], meta["slice"])
        image = read_image(row.paths[name], slices=slice_of_volumes(row, row.paths[name]), member=row.id)
        return image.pixels, meta["placements"][name]

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.settings.channels, self.settings.size, self.settings.size)

    def _read(self, row: Row) -> Fit:
        there = [name for name in self.modalities if name in row.paths]
        # A slice that was asked for by name must be one; one that a table notes is that of its volumes.
        slice_for = slice_of_volumes if not self.settings.slice else lambda row, path: slice_of(row)
        images = {
            name: read_image(row.paths[name], slices=slice_for(row, row.paths[name]), member=row.id) for name in there
        }
        return self._fitted(row, images)

    def _fitted(self, row: Row, images: Mapping[str, Image]) -> Fit:
        if images:
            common_size(row, dict(images))
        settings = self.settings
        square = Letterbox(size=settings.size, aspect=settings.aspect, window=settings.window)
        if settings.colour:
            found = {name: letterbox_colour(image, square) for name, image in images.items()}
        else:
            found = {name: _grey(image, square) for name, image in images.items()}
        placements = {name: placement for name, (_, placement) in found.items()}
        return Fit({name: unit for name, (unit, _) in found.items()}, {"placements": placements})

    def _move(self, channels: Tensor, random: np.random.Generator) -> Tensor:
        return augment(channels, self.settings.augmentation.draw(random))


def _grey(image: Image, settings: Letterbox) -> tuple[np.ndarray, Placement]:
    unit, placement = letterbox(image, settings)
    return unit[None], placement
