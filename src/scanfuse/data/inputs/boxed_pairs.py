"""Pairs of a visible and an infrared picture with boxes on both: letterboxed, augmented alike, and stacked.

A sample is a dictionary:

    "rgb"       float32 (3, s, s) in [0, 1], zeros where the sensor is missing
    "ir"        float32 (1, s, s) in [0, 1], zeros where the sensor is missing
    "present"   {"rgb": bool, "ir": bool}, at least one True
    "objects"   {"classes": int64 (n,), "boxes": float32 (n, 4)}, left, top, right, bottom in pixels of the input
    "meta"      id, group, target (text, see `data.box_text`), paths, slice, size (h, w) of the pictures, placements
                {sensor: Placement}, truth (`Boxes` in pixels of the pictures; None where not annotated), pixels
                {sensor: the picture as it was given, for one that is no row of a data set}

In a batch "objects" holds those of all samples, with a further entry "image": which sample each is of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image as PillowImage
from PIL import ImageDraw
from pydantic import Field
from torch import Tensor

from scanfuse.config import Section
from scanfuse.data import check
from scanfuse.data.box_text import boxes_of
from scanfuse.data.boxed_check import check_boxes
from scanfuse.data.boxed_pairs import listed
from scanfuse.data.boxed_videos import is_video, listed_videos
from scanfuse.data.boxes import Boxes
from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs import Fitted
from scanfuse.data.inputs.epochs import EpochDataset
from scanfuse.data.inputs.slices import slice_of
from scanfuse.data.layouts import Request, open_manifest
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import Image, read_image, stem
from scanfuse.data.readers.given import image_of
from scanfuse.data.transforms.mosaic import mosaic
from scanfuse.data.transforms.pair import Pair
from scanfuse.data.transforms.paired_affine import PairMovement, move_pair
from scanfuse.data.transforms.paired_colour import ColourJitter, SensorDropout, ThermalJitter, to_tensors
from scanfuse.data.transforms.paired_letterbox import letterbox, place_in
from scanfuse.data.transforms.placement import Placement
from scanfuse.data.transforms.thermal import thermal_unit
from scanfuse.errors import UserError

__all__ = ["SENSORS", "BoxSettings", "BoxedPairDataset", "BoxedPairs"]

KIND = "boxed_pairs"
SENSORS = ("rgb", "ir")
STRIDE = 32


class BoxSettings(Section):
    """Which pairs are read, how they are split, and how training moves them."""

    layout: str = Field("auto", description="layout of the folder")
    options: tuple[str, ...] = Field((), description="of the layout, name=value, such as labels=infrared")
    split: Literal["made", "published"] = Field("made", description="published = the data set's own, maybe leaky")
    split_seed: int = Field(0, ge=0, description="seed of the split by scene")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="share of the pairs for validation, whole scenes")
    test_fraction: float = Field(
        0.15, ge=0, lt=1, description="share of the pairs for the test, whole scenes; 0 with --folds: each fold's"
    )
    group_pattern: str | None = Field(None, description="regular expression that finds the scene in a file's name")
    size: int = Field(
        640, ge=32, le=4096, multiple_of=STRIDE, description="side of the square that the network sees, in pixels"
    )
    thermal: Literal["auto", "full", "percentile"] = Field(
        "auto", description="range of infrared: of the file type, or 0.5 to 99.5 % of the picture; auto: by depth"
    )
    mosaic: float = Field(1.0, ge=0, le=1, description="chance of a training picture made of four")
    close_mosaic: int = Field(10, ge=0, description="last epochs without mosaic")
    flip: float = Field(0.5, ge=0, le=1, description="chance of mirroring left and right, both sensors together")
    scale: float = Field(0.5, ge=0, lt=1, description="random size, from 1 - s to 1 + s")
    shift: float = Field(0.1, ge=0, lt=1, description="largest random shift as a share of the side")
    rotate: float = Field(0.0, ge=0, le=180, description="largest random rotation in degrees")
    hue: float = Field(0.015, ge=0, le=1, description="largest random turn of the hue of RGB")
    saturation: float = Field(0.7, ge=0, le=1, description="random saturation of RGB, from 1 - s to 1 + s")
    value: float = Field(0.4, ge=0, le=1, description="random brightness of RGB, from 1 - v to 1 + v")
    contrast: float = Field(0.3, ge=0, lt=1, description="random contrast of infrared, from 1 - c to 1 + c")
    brightness: float = Field(0.1, ge=0, le=1, description="largest random offset of infrared")
    rgb_dropout: float = Field(0.0, ge=0, le=1, description="chance that training takes RGB away")
    ir_dropout: float = Field(0.0, ge=0, le=1, description="chance that training takes infrared away")
    cache_mb: float = Field(1024.0, ge=0, description="memory for decoded pictures, per worker")

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        """The pairs under `root`; both pictures must be there. Without a split annotations need not be."""
        train = 1 - self.val_fraction - self.test_fraction
        if train <= 0:
            raise UserError(
                "val_fraction and test_fraction leave nothing to train on: together they must be below 1."
            )
        request = Request(
            modalities=SENSORS,
            split=self.split if split else "none",
            seed=self.split_seed,
            fractions={"train": train, "val": self.val_fraction, "test": self.test_fraction},
            group_pattern=self.group_pattern,
        )
        options = dict(text.partition("=")[::2] for text in self.options)
        return open_manifest(root, KIND, request, self.layout, options=options)


class BoxedPairs:
    """The input kind: see `scanfuse.data.inputs.Inputs`. It can also draw a batch.

    Args:
        settings: the section of the configuration.
        classes: names of the classes, in the order of their numbers.
        seed: of augmentation.
        epochs: of the training, whose last ones go without mosaic.
        folds: which part of a cross-validation is opened.
    """

    KIND = KIND
    mixed_sizes = False
    modalities: tuple[str, ...]

    def __init__(
        self,
        settings: BoxSettings,
        *,
        classes: tuple[str, ...],
        seed: int,
        epochs: int,
        folds: FoldConfig = FoldConfig(),  # noqa: B008 (frozen)
    ) -> None:
        self.settings, self.classes, self.seed, self.epochs, self.folds = settings, classes, seed, epochs, folds
        self.modalities = SENSORS

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        manifest = self.settings.open(root, split=split)
        return folded(manifest, self.folds) if split else manifest

    def check(self, root: Path) -> list[check.Finding]:
        """Also boxes that were cut or left out, classes that a part lacks, and sensors out of step."""
        return check.check(lambda split: self.open(root, split=split), is_registered=True, further=check_boxes)

    def prepare(self, training: Manifest) -> Fitted:
        return Fitted()

    def restore(self, fitted: Fitted) -> None:
        if fitted:
            raise UserError(
                "The run stores fitted values, but boxed pairs have none; it was made by another program."
            )

    def dataset(self, manifest: Manifest, *, train: bool) -> "BoxedPairDataset":
        return BoxedPairDataset(
            manifest, self.settings, self.classes, train=train, seed=self.seed, epochs=self.epochs
        )

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {name: torch.stack([sample[name] for sample in samples]) for name in SENSORS}
        batch["present"] = {name: torch.tensor([sample["present"][name] for sample in samples]) for name in SENSORS}
        counts = [len(sample["objects"]["classes"]) for sample in samples]
        batch["objects"] = {
            "image": torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts)),
            "classes": torch.cat([sample["objects"]["classes"] for sample in samples]),
            "boxes": torch.cat([sample["objects"]["boxes"] for sample in samples]),
        }
        batch["meta"] = [sample["meta"] for sample in samples]
        return batch

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        for name in inputs:
            if name not in SENSORS:
                raise UserError(f"Unknown input {name!r}; give {' and '.join(SENSORS)}.")
        images = {name: image_of(name, value) for name, value in inputs.items() if value is not None}
        if not images:
            raise UserError("No picture was given; give rgb or ir, or both.")
        pair, present = _pair(images, Boxes.none(self.classes), self.settings.thermal)
        name = id or stem(next(iter(images.values())).source)
        paths = {sensor: image.source for sensor, image in images.items()}
        sample = _fitted(pair, present, self.settings.size, Row(name, name, "", "", paths), None)
        sample["meta"]["pixels"] = {sensor: image.pixels for sensor, image in images.items()}
        return sample

    def listed(self, inputs: Mapping[str, Any]) -> Manifest | None:
        """The pictures of folders (equal names belong together) or the frames of videos (in step) as samples."""
        given = {name: value for name, value in inputs.items() if value is not None}
        paths = {name: Path(value).absolute() for name, value in given.items() if isinstance(value, str | Path)}
        for holds_many, list_all, what in (
            (Path.is_dir, listed, "folders for all inputs, or a file for each"),
            (is_video, listed_videos, "videos for all inputs, or a picture for each"),
        ):
            found = [name for name in given if name in paths and holds_many(paths[name])]
            if found and len(found) < len(given):
                raise UserError(f"Give {what}.")
            if found:
                return list_all(paths)
        return None

    def batch_picture(self, batch: dict[str, Any]) -> UInt8[np.ndarray, "h w 3"]:
        """The samples of a batch with their boxes, RGB above infrared: what the network is taught."""
        columns = []
        for number in range(min(len(batch["meta"]), 8)):
            mine = batch["objects"]["image"] == number
            boxes = batch["objects"]["boxes"][mine].tolist()
            names = [self.classes[int(label)] for label in batch["objects"]["classes"][mine]]
            rows = [_drawn(batch[sensor][number], boxes, names) for sensor in SENSORS]
            columns.append(np.concatenate(rows, axis=0))
        return np.concatenate(columns, axis=1)


class BoxedPairDataset(EpochDataset):
    """The pairs of a manifest (pass `manifest.subset("train")` for one split); see the module for a sample.

    What is drawn for sample `index` depends on (seed, epoch, index) alone. Pictures are shrunk to the network's size
    before they are kept, and never enlarged.

    Args:
        manifest: one row per pair, boxes as its targets.
        settings: size, augmentation.
        classes: names of the classes.
        train: augmentation is on.
        seed: of augmentation.
        epochs: of the training.

    Raises:
        UserError: on reading a sample: a bad file, pictures of different sizes, no picture at all.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: BoxSettings,
        classes: tuple[str, ...],
        *,
        train: bool,
        seed: int,
        epochs: int,
    ) -> None:
        super().__init__()
        self.settings, self.classes, self.train, self.seed, self.epochs = settings, classes, train, seed, epochs
        self._rows = list(manifest.rows)
        self._boxes = [boxes_of(row.target, classes) for row in self._rows]
        self._cache = _Cache(int(settings.cache_mb * 2**20))
        self.movement = PairMovement(
            scale=settings.scale, shift=settings.shift, flip=settings.flip, rotate_degrees=settings.rotate
        )
        self.colour = ColourJitter(settings.hue, settings.saturation, settings.value)
        self.heat = ThermalJitter(settings.contrast, settings.brightness)
        self.dropout = SensorDropout(settings.rgb_dropout, settings.ir_dropout)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def targets(self) -> list[str]:
        """The boxes of every sample as text."""
        return [row.target for row in self._rows]

    def row(self, index: int) -> Row:
        """The row of a sample."""
        return self._rows[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, size = self._rows[index], self.settings.size
        pair, present = self._pair(index)
        if not self.train:
            return _fitted(pair, present, size, row, self._boxes[index] if row.target else None, self._scale(index))
        epoch = self.epoch
        random = np.random.default_rng([self.seed, epoch, index])
        if epoch < self.epochs - self.settings.close_mosaic and random.random() < self.settings.mosaic:
            others = random.integers(len(self._rows), size=3)
            pair = mosaic([pair, *(self._pair(int(other))[0] for other in others)], size=size, random=random)
        pair = move_pair(pair, self.movement.draw(random, source=pair.size, size=(size, size)), (size, size))
        colour, heat, kept = self.colour.draw(random), self.heat.draw(random), self.dropout.draw(random)
        seen = {name: present[name] and kept[name] for name in SENSORS}
        if not any(seen.values()):
            seen = present
        rgb, ir = to_tensors(pair, colour=colour, thermal=heat, present=seen)
        return {"rgb": rgb, "ir": ir, "present": seen, "objects": _objects(pair.boxes), "meta": _meta(row)}

    def _pair(self, index: int) -> tuple[Pair, dict[str, bool]]:
        """The pair at most as large as the network's input, with its boxes, and which sensors it has."""
        kept = self._cache.get(index)
        if kept is None:
            images = self._images(index)
            pair, present = _pair(images, self._boxes[index], self.settings.thermal)
            kept = _Kept(_shrunk(pair, self.settings.size), present, pair.size)
            self._cache.put(index, kept)
        return kept.pair, kept.present

    def _scale(self, index: int) -> tuple[int, int]:
        """Height and width of the stored picture."""
        kept = self._cache.get(index)
        if kept is not None:
            return kept.size
        return next(iter(self._images(index).values())).size

    def _images(self, index: int) -> dict[str, Image]:
        row = self._rows[index]
        return {name: read_image(path, slices=slice_of(row)) for name, path in row.paths.items()}


@dataclass(frozen=True)
class _Kept:
    pair: Pair
    present: dict[str, bool]
    size: tuple[int, int]


@dataclass
class _Cache:
    """Keeps what fits: in a pass through all data, throwing the oldest out would keep nothing that comes again."""

    limit: int
    used: int = 0
    held: dict[int, _Kept] = field(default_factory=dict)

    def get(self, key: int) -> _Kept | None:
        return self.held.get(key)

    def put(self, key: int, value: _Kept) -> None:
        size = value.pair.rgb.nbytes + value.pair.ir.nbytes
        if self.used + size <= self.limit:
            self.held[key] = value
            self.used += size


def _pair(images: Mapping[str, Image], boxes: Boxes, window: Any) -> tuple[Pair, dict[str, bool]]:
    """Both pictures as transforms take them; a missing sensor is empty."""
    sizes = {name: image.size for name, image in images.items()}
    if len(set(sizes.values())) > 1:
        (h, w), (k, v) = sizes["rgb"], sizes["ir"]
        raise UserError(
            f"{images['rgb'].source} has {w} x {h} pixels and {images['ir'].source} {v} x {k}; register them to one "
            "size first."
        )
    if not images:
        raise UserError("A pair has neither picture; remove its row.")
    size = next(iter(sizes.values()))
    rgb = _colour(images["rgb"]) if "rgb" in images else np.zeros((*size, 3), np.uint8)
    ir = np.zeros(size, np.float32)
    if "ir" in images:
        ir = thermal_unit(images["ir"].pixels, window=window, source=images["ir"].source)
    return Pair(rgb, ir, boxes), {name: name in images for name in SENSORS}


def _colour(image: Image) -> UInt8[np.ndarray, "h w 3"]:
    pixels = image.pixels
    if pixels.dtype != np.uint8:
        raise UserError(f"{image.source} is of {pixels.dtype}; the visible picture must be of 8 bit.")
    return np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels)


def _shrunk(pair: Pair, size: int) -> Pair:
    """The pair with its longer side at most `size`."""
    if max(pair.size) <= size:
        return pair
    scale = size / max(pair.size)
    height, width = (max(1, round(side * scale)) for side in pair.size)
    inner = place_in(pair.size, size)
    whole = Placement(pair.size, (height, width), inner.crop, (0, 0, height, width))
    return letterbox(pair, whole)


def _fitted(
    pair: Pair,
    present: dict[str, bool],
    size: int,
    row: Row,
    truth: Boxes | None,
    stored: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """A sample without augmentation."""
    stored = stored or pair.size
    inside = letterbox(pair, place_in(pair.size, size))
    rgb, ir = to_tensors(inside, present=present)
    placement = place_in(stored, size)
    meta = _meta(row) | {"size": stored, "truth": truth}
    meta["placements"] = {name: placement for name in SENSORS if present[name]}
    return {"rgb": rgb, "ir": ir, "present": present, "objects": _objects(inside.boxes), "meta": meta}


def _objects(boxes: Boxes) -> dict[str, Tensor]:
    """What is to be learned: regions to ignore and crowds teach nothing about where one object ends."""
    counted = boxes.at(~(boxes.ignore | boxes.crowd))
    return {
        "classes": torch.from_numpy(counted.labels.astype(np.int64)),
        "boxes": torch.from_numpy(counted.xyxy.astype(np.float32)),
    }


def _meta(row: Row) -> dict[str, Any]:
    known = {"id": row.id, "group": row.group, "target": row.target}
    return known | {"paths": dict(row.paths), "slice": row.slice, "pixels": {}}


def _drawn(unit: Tensor, boxes: Sequence[Sequence[float]], names: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    pixels = (unit.detach().cpu().expand(3, -1, -1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    picture = PillowImage.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for (left, top, right, bottom), name in zip(boxes, names, strict=True):
        pen.rectangle((left, top, right - 1, bottom - 1), outline=(255, 176, 0))
        pen.text((left + 1, top), name[:3], fill=(255, 176, 0))
    return np.asarray(picture)
