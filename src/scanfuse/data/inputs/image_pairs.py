"""Registered pairs of images: decoded, scaled to [0, 1], cropped in step, and stacked into batches.

Both images of a pair have one size; pairs need not share it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from scanfuse.data import check, layouts
from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs import Fitted
from scanfuse.data.inputs.epochs import EpochDataset
from scanfuse.data.inputs.registered import PairedSettings, common_size, refuse_fitted
from scanfuse.data.inputs.slices import checked_slice, chosen, slice_of, with_slices
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import Image, SliceChoice, read_image, stem, to_unit
from scanfuse.data.readers.given import image_of
from scanfuse.data.transforms.crop_flip import crop as random_crop
from scanfuse.data.transforms.crop_flip import flip
from scanfuse.errors import UserError

__all__ = ["ImagePairDataset", "ImagePairs", "PairSettings", "collate_pairs", "pair_sample"]

KIND = "image_pairs"
LARGEST_CROP = 8192
"""Pixels: a random crop of this side is 256 MB per image already."""
_TIMES = 4
"""How much larger than the longer side of its picture a crop may be: beyond, it is mostly mirror images."""


class PairSettings(PairedSettings):
    """Which pairs are fused and how they are split and cut."""

    KIND = KIND

    pair: str = Field("CT-MRI", description="the two modalities, such as CT-MRI, SPECT-MRI, T1CE-FLAIR")
    split: Literal["case", "published"] = Field("case", description="published = the data set's own, maybe leaky")
    crop: int = Field(0, ge=0, description="side of random training crops in pixels; 0 = whole images")
    stretch: Literal["each", "pair"] = Field(
        "each", description="to 0..1 for the network: each picture by its own range, or both by that of the pair"
    )
    flips: bool = Field(False, description="random flips and quarter turns, the same for both images")
    slice: str = Field(
        "", description="of volumes and stacks: axial:middle, coronal:40, frame:0, or axial:all for every slice"
    )

    @field_validator("crop")
    @classmethod
    def _fits_into_memory(cls, value: int) -> int:
        if value > LARGEST_CROP:
            raise ValueError(f"a crop has at most {LARGEST_CROP} pixels a side, which are 256 MB an image")
        return value

    @field_validator("slice")
    @classmethod
    def _names_a_slice(cls, value: str) -> str:
        return checked_slice(value)


class ImagePairs:
    """The input kind: see `scanfuse.data.inputs.Inputs`.

    Args:
        settings: the section of the configuration.
        seed: of the random crops and flips.
        folds: which part of a cross-validation is opened.
    """

    KIND = KIND
    mixed_sizes = True
    modalities: tuple[str, ...]

    def __init__(
        self,
        settings: PairSettings,
        *,
        seed: int,
        folds: FoldConfig = FoldConfig(),  # noqa: B008 (frozen)
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.folds = folds
        self.modalities: tuple[str, ...] = settings.modalities

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        """See `Inputs.open`; without a split, a pair that lacks a picture is an error only when it is read."""
        return self._open(root, split=split, incomplete="error" if split else "keep")

    def check(self, root: Path) -> list[check.Finding]:
        return check.check(lambda split: self._open(root, split=split, incomplete="keep"), is_registered=True)

    def _open(self, root: Path, *, split: bool, incomplete: layouts.Incomplete) -> Manifest:
        wanted: Literal["made", "published"] = "made" if self.settings.split == "case" else "published"
        found = self.settings.opened(root, self.modalities, split=wanted if split else "none", incomplete=incomplete)
        return with_slices(folded(found, self.folds) if split else found, self.settings.slice)

    def choose_slice(self, text: str) -> None:
        """From here on, takes these slices of volumes and stacks instead of those of the settings."""
        self.settings = PairSettings.model_validate({**self.settings.model_dump(), "slice": text})

    def prepare(self, training: Manifest) -> Fitted:
        return Fitted()

    def restore(self, fitted: Fitted) -> None:
        refuse_fitted(fitted, "image pairs")

    def dataset(self, manifest: Manifest, *, train: bool) -> "ImagePairDataset":
        if not train:
            return ImagePairDataset(manifest, cache=False, complete=True)
        crop, flips = self.settings.crop or None, self.settings.flips
        return ImagePairDataset(manifest, crop=crop, flips=flips, seed=self.seed, complete=True)

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return collate_pairs(samples)

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        return pair_sample(inputs, id=id, slices=chosen(self.settings.slice))


class ImagePairDataset(EpochDataset):
    """Registered modalities of one manifest (all of its rows: pass `manifest.subset("train")` for one split).

    A sample is a dict: every modality by name, float32 (C, H, W) in [0, 1] with C 1 or 3 (zeros where it is
    missing); "present": {modality: bool}; "meta": {"id", "group", "target", "paths": {modality: Path},
    "images": {modality: Image} uncropped, empty with `keep_images=False`}.

    The random crop and flips of sample `index` are drawn from (seed, epoch, index) alone: the number of
    workers and a resumed run do not change them. Call `set_epoch` before each pass; workers that live on see
    it too.

    Args:
        manifest: the rows.
        crop: side in pixels of a random square, the same place in all modalities; smaller pictures are first
            reflected at their borders. None: whole pictures. A crop of more than four times the longer side of a
            picture is refused: nearly all of it would be mirror images.
        flips: random left-right and up-down flips and quarter turns, the same in all modalities (half turns
            only where the sample is not square).
        seed: of the crops and flips.
        cache: keep decoded pictures in memory.
        keep_images: put the decoded pictures into "meta"; not wanted in training, where workers would copy
            them.
        complete: refuse a sample that lacks a modality.

    Raises:
        UserError: on reading a sample: a bad file, no modality at all (or, if wanted, not all), modalities of
            different sizes, or a crop that is much larger than the picture.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        crop: int | None = None,
        flips: bool = False,
        seed: int = 0,
        cache: bool = True,
        keep_images: bool = True,
        complete: bool = False,
    ) -> None:
        super().__init__()
        if crop is not None and crop < 1:
            raise UserError(f"crop must be at least 1 pixel, not {crop}.")
        self.manifest = manifest
        self.crop = crop
        self.flips = flips
        self.seed = seed
        self.keep_images = keep_images
        self.complete = complete
        self._rows = list(manifest.rows)
        self._cache: dict[tuple[int, str], Image] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        """The row of a sample."""
        return self._rows[index]

    @property
    def targets(self) -> list[str]:
        """The target text of every sample in order."""
        return [row.target for row in self._rows]

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        lacking = [name for name in self.manifest.modalities if name not in row.paths] if self.complete else []
        if lacking:
            raise UserError(f"{row.id} has no {' and no '.join(map(str.upper, lacking))} picture: add it.")
        images = {name: self._image(index, name) for name in row.paths}
        height, width = common_size(row, images)
        arrays = {name: _channels_first(to_unit(image)) for name, image in images.items()}
        for name in self.manifest.modalities:
            arrays.setdefault(name, np.zeros((1, height, width), np.float32))
        random = np.random.default_rng([self.seed, self.epoch, index])
        if self.crop is not None:
            if self.crop > _TIMES * max(height, width):
                raise UserError(
                    f"{row.id} is {height} x {width} pixels, too small for crops of {self.crop}: set --crop to "
                    f"{_TIMES * max(height, width)} or less, or leave out small pictures."
                )
            arrays = random_crop(arrays, self.crop, random)
        if self.flips:
            arrays = flip(arrays, random)
        sample: dict[str, Any] = {
            name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in self.manifest.modalities
        }
        sample["present"] = {name: name in images for name in self.manifest.modalities}
        sample["meta"] = {
            "id": row.id,
            "group": row.group,
            "target": row.target,
            "paths": dict(row.paths),
            "images": images if self.keep_images else {},
        }
        return sample

    def _image(self, index: int, name: str) -> Image:
        if self._cache is None:
            return read_image(self._rows[index].paths[name], slices=slice_of(self._rows[index]))
        if (index, name) not in self._cache:
            row = self._rows[index]
            self._cache[index, name] = read_image(row.paths[name], slices=slice_of(row))
        return self._cache[index, name]


def collate_pairs(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks samples: modalities (B, C, H, W); "present": {modality: bool (B,)}; "meta": a list of the dicts.

    A modality that is grey in one sample and colour in another (a colour slice without any signal) becomes
    colour.

    Raises:
        UserError: the samples differ in size.
    """
    batch: dict[str, Any] = {}
    for name in samples[0]["present"]:
        tensors = [sample[name] for sample in samples]
        sizes = [tuple(tensor.shape[1:]) for tensor in tensors]
        for sample, size in zip(samples, sizes, strict=True):
            if size != sizes[0]:
                raise UserError(
                    f"{samples[0]['meta']['id']} is {sizes[0][0]} x {sizes[0][1]} and {sample['meta']['id']} is "
                    f"{size[0]} x {size[1]} pixels: one batch needs one size; set --crop N or --batch 1."
                )
        channels = max(tensor.shape[0] for tensor in tensors)
        batch[name] = torch.stack([tensor.expand(channels, -1, -1) for tensor in tensors])
    batch["present"] = {
        name: torch.tensor([sample["present"][name] for sample in samples]) for name in samples[0]["present"]
    }
    batch["meta"] = [sample["meta"] for sample in samples]
    return batch


def pair_sample(inputs: Mapping[str, Any], *, id: str = "", slices: SliceChoice | None = None) -> dict[str, Any]:
    """One sample, of the form that `ImagePairDataset` gives, from files, PIL images or arrays.

    Args:
        inputs: modality -> what `image_of` takes.
        id: of the sample; by default the name of the first file.
        slices: of volumes and stacks: which one.

    Raises:
        UserError: a file cannot be read, an array is no picture, or the sizes differ.
    """
    images = {name: image_of(name, value, slices) for name, value in inputs.items()}
    paths = {name: image.source for name, image in images.items()}
    name = id or stem(next(iter(paths.values())))
    common_size(Row(name, name, "", "", paths), images)
    return {
        **{key: torch.from_numpy(_channels_first(to_unit(image))) for key, image in images.items()},
        "present": dict.fromkeys(images, True),
        "meta": {"id": name, "group": name, "target": "", "paths": paths, "images": images},
    }


def _channels_first(unit: np.ndarray) -> np.ndarray:
    return unit[None] if unit.ndim == 2 else np.moveaxis(unit, -1, 0)
