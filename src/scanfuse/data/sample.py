"""Samples for the engines: decoded, scaled to [0, 1], cropped in step, and stacked into batches."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import Image, read_image, stem, to_unit
from scanfuse.data.readers.image import finish
from scanfuse.errors import UserError

__all__ = ["FusionDataset", "collate", "sample_of"]


class FusionDataset(Dataset[dict[str, Any]]):
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
            reflected at their borders. None: whole pictures.
        flips: random left-right and up-down flips and quarter turns, the same in all modalities (half turns
            only where the sample is not square).
        seed: of the crops and flips.
        cache: keep decoded pictures in memory.
        keep_images: put the decoded pictures into "meta"; not wanted in training, where workers would copy
            them.

    Raises:
        UserError: on reading a sample: a bad file, no modality at all, or modalities of different sizes.
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
    ) -> None:
        if crop is not None and crop < 1:
            raise UserError(f"crop must be at least 1 pixel, not {crop}.")
        self.manifest = manifest
        self.crop = crop
        self.flips = flips
        self.seed = seed
        self.keep_images = keep_images
        self._rows = list(manifest.rows)
        self._cache: dict[tuple[int, str], Image] | None = {} if cache else None
        # Shared memory: workers that outlive an epoch must see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def epoch(self) -> int:
        """The epoch whose crops and flips are drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose crops and flips are drawn."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        images = {name: self._image(index, name) for name in row.paths}
        height, width = _common_size(row, images)
        arrays = {name: _channels_first(to_unit(image)) for name, image in images.items()}
        for name in self.manifest.modalities:
            arrays.setdefault(name, np.zeros((1, height, width), np.float32))
        random = np.random.default_rng([self.seed, self.epoch, index])
        if self.crop is not None:
            arrays = _crop(arrays, self.crop, random)
        if self.flips:
            arrays = _flip(arrays, random)
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
            return read_image(self._rows[index].paths[name])
        if (index, name) not in self._cache:
            self._cache[index, name] = read_image(self._rows[index].paths[name])
        return self._cache[index, name]


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
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


def sample_of(inputs: Mapping[str, str | Path | np.ndarray]) -> dict[str, Any]:
    """One sample, of the form that `FusionDataset` gives, from files or arrays.

    Args:
        inputs: modality -> a path, or an array (H, W) or (H, W, 3). uint8 and uint16 have their full range; any other
            dtype ranges from its own smallest to its largest finite value.

    Raises:
        UserError: a file cannot be read, an array is no picture, or the sizes differ.
    """
    images = {name: _image_of(name, value) for name, value in inputs.items()}
    paths = {name: image.source for name, image in images.items()}
    name = stem(next(iter(paths.values())))
    _common_size(Row(name, name, "", "", paths), images)
    return {
        **{key: torch.from_numpy(_channels_first(to_unit(image))) for key, image in images.items()},
        "present": dict.fromkeys(images, True),
        "meta": {"id": name, "group": name, "target": "", "paths": paths, "images": images},
    }


def _image_of(name: str, value: str | Path | np.ndarray) -> Image:
    if not isinstance(value, np.ndarray):
        return read_image(value)
    return finish(Path(name), value, stored="array")


def _common_size(row: Row, images: dict[str, Image]) -> tuple[int, int]:
    if not images:
        raise UserError(f"Sample {row.id!r} has no picture of any modality; remove the row.")
    names = list(images)
    height, width = images[names[0]].size
    for name in names[1:]:
        if images[name].size != (height, width):
            other = images[name].size
            raise UserError(
                f"{row.paths[names[0]]} is {height} x {width} and {row.paths[name]} is {other[0]} x {other[1]} "
                "pixels: the modalities of a sample must be registered and of one size; resample one of them."
            )
    return height, width


def _channels_first(unit: np.ndarray) -> np.ndarray:
    return unit[None] if unit.ndim == 2 else np.moveaxis(unit, -1, 0)


def _crop(arrays: dict[str, np.ndarray], side: int, random: np.random.Generator) -> dict[str, np.ndarray]:
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


def _flip(arrays: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, np.ndarray]:
    mirrored, quarters = bool(random.integers(2)), int(random.integers(4))
    height, width = next(iter(arrays.values())).shape[1:]
    if height != width:
        quarters = 2 * (quarters // 2)
    flipped = {name: array[:, :, ::-1] if mirrored else array for name, array in arrays.items()}
    return {name: np.rot90(array, quarters, axes=(1, 2)) for name, array in flipped.items()}
