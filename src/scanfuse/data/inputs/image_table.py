"""One picture and one row of a clinical table as a sample; either may be missing.

The table is encoded by a schema that `prepare` fits on the training rows alone and the run stores; see
`scanfuse.data.transforms.table`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import Field, field_validator

from scanfuse.config import Section
from scanfuse.data import check, layouts
from scanfuse.data.cases import IMAGE
from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs import Fitted
from scanfuse.data.inputs.fitted_table import FittedTable
from scanfuse.data.inputs.layout_settings import LayoutOptions, layout_of
from scanfuse.data.inputs.tabled import TabledDataset
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import CONTAINERS, Image, read_image, stem
from scanfuse.data.readers.given import image_of
from scanfuse.data.readers.hdf5 import Container
from scanfuse.data.splits import FRACTIONS, quick_part
from scanfuse.data.transforms.letterbox import Letterbox, letterbox_colour
from scanfuse.data.transforms.placement import Placement
from scanfuse.data.transforms.skin import SkinAugmentation, augment_skin
from scanfuse.data.transforms.table import Table, TableSettings
from scanfuse.errors import UserError

__all__ = ["INPUTS", "CaseSettings", "ImageTable", "collate_cases"]

KIND = "image_table"
INPUTS = ("image", "table")


class CaseSettings(Section):
    """Cases of one picture and one row of a table."""

    layout: Annotated[str, layout_of(KIND)] = Field("auto", description="of the folder; auto finds it")
    options: LayoutOptions = Field((), description="of the layout, name=value, such as target=dx")
    incomplete: Literal["error", "keep", "drop"] = Field(
        "error", description="cases without their picture, in training; to predict they are kept"
    )
    table: TableSettings = TableSettings()
    drop_image: float = Field(0.0, ge=0, le=1, description="chance that training takes the picture away")
    drop_table: float = Field(0.0, ge=0, le=1, description="chance that training takes the table away")
    split_seed: int = Field(0, ge=0, description="seed of the split by patient")
    test_share: float = Field(
        0.15, ge=0, le=0.8, description="patients of no fold, for the test; 0, with --folds: each is tested once"
    )
    size: int = Field(224, ge=8, description="side of the square that the network sees, in pixels")
    aspect: Literal["pad", "stretch"] = Field("stretch", description="stretch ignores the aspect, as published")
    flips: bool = Field(True, description="random mirror images and quarter turns")
    rotate: float = Field(30.0, ge=0, le=180, description="largest random rotation in degrees")
    shift: float = Field(0.1, ge=0, le=1, description="largest random shift as a share of the side")
    scale: float = Field(0.15, ge=0, lt=1, description="random size, from 1 - s to 1 + s")
    light: float = Field(0.2, ge=0, lt=1, description="random brightness, contrast, saturation: 1 - l to 1 + l")
    hue: float = Field(0.02, ge=0, le=0.5, description="largest random turn of the hue")
    erase: float = Field(0.0, ge=0, le=1, description="chance of a random blank square")
    cache_mb: float = Field(512.0, ge=0, description="memory for decoded pictures, per worker")
    quick_test: bool = Field(False, description="few patients of each split, to see that everything works")

    @field_validator("drop_table")
    @classmethod
    def _something_stays(cls, value: float, info: Any) -> float:
        if value + info.data.get("drop_image", 0.0) > 1:
            raise ValueError("drop_image and drop_table are at most 1 together: one of the two stays")
        return value

    @property
    def letterbox(self) -> Letterbox:
        """How a picture becomes a square."""
        return Letterbox(size=self.size, aspect=self.aspect)

    @property
    def augmentation(self) -> SkinAugmentation:
        """How squares are changed at random in training."""
        return SkinAugmentation(
            self.flips, self.rotate, self.shift, self.scale, light=self.light, hue=self.hue, erase=self.erase
        )

    def open(self, root: str | Path, *, split: bool = True) -> Manifest:
        """The cases under `root`, with the layout's splits unless none are wanted."""
        request = layouts.Request(
            split="made" if split else "none",
            seed=self.split_seed,
            fractions=FRACTIONS | {"train": 1 - FRACTIONS["val"] - self.test_share, "test": self.test_share},
            # What is to be predicted need not have a picture; what is trained on should not lack it by accident.
            incomplete=self.incomplete if split else "keep",
        )
        options = dict(text.split("=", 1) for text in self.options)
        return layouts.open_manifest(root, KIND, request, self.layout, options=options)


class ImageTable:
    """The input kind: see `scanfuse.data.inputs.Inputs`.

    Args:
        settings: the section of the configuration.
        labels: what the targets mean.
        folds: which part of a cross-validation is opened.
        seed: of movement, dropped inputs and the forest.
    """

    KIND = KIND
    mixed_sizes = False
    modalities: tuple[str, ...]

    def __init__(self, settings: CaseSettings, *, labels: Labels, folds: FoldConfig, seed: int) -> None:
        self.settings, self.labels, self.folds, self.seed = settings, labels, folds, seed
        self.modalities = INPUTS
        self.rows = FittedTable(settings.table, seed=seed)

    @property
    def table(self) -> Table:
        """The schema; UserError before `prepare` or `restore`."""
        return self.rows.schema

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        """The cases with the splits of the settings and the fold. With `split=False` odd targets are unknown."""
        manifest = self.settings.open(root, split=split)
        if not split:
            return manifest.with_known_targets(self.labels)
        return self.placed(manifest)

    def placed(self, manifest: Manifest) -> Manifest:
        """Cases with the splits of the settings as one fold, or a quick test, has them."""
        manifest = folded(manifest, self.folds, self.labels)
        return quick_part(manifest, self.settings.split_seed) if self.settings.quick_test else manifest

    def check(self, root: Path) -> list[check.Finding]:
        """As for other pictures, and what the table would warn of."""
        found = check.check(lambda split: self.open(root, split=split), is_registered=False)
        if any(finding.kind == "layout" for finding in found):
            return found
        warnings = self.fit(self.open(root).subset("train")).warnings
        return found + [check.Finding("warning", "leak", f"{text}.") for text in warnings]

    def fit(self, training: Manifest) -> Table:
        """The schema of training rows."""
        return self.rows.fit(training)

    def prepare(self, training: Manifest) -> Fitted:
        return self.rows.prepare(training)

    def restore(self, fitted: Fitted) -> None:
        self.rows.restore(fitted)

    def dataset(self, manifest: Manifest, *, train: bool) -> TabledDataset:
        """The cases of a manifest; with `train`, moved at random and with inputs dropped."""
        self.rows.warn_of_absent(manifest.table)
        cases = _Cases(self.settings, self.labels)
        drop = (self.settings.drop_image, self.settings.drop_table)
        return TabledDataset(manifest, self.table, cases.read, cases.make, drop=drop, train=train, seed=self.seed)

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return collate_cases(samples)

    def submission_columns(self, root: Path) -> tuple[str, str] | None:
        """Columns of the file that a challenge on these data takes; None if there is no challenge."""
        request = layouts.Request(split="none", incomplete="keep")
        name = self.settings.layout
        module = layouts.load(layouts.find(root, KIND, request) if name == "auto" else name)
        found: tuple[str, str] | None = getattr(module, "SUBMISSION", None)
        return found

    def parts(self, batch: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
        """Known feature of a batch of one -> the batch with that feature missing."""
        return self.rows.parts(batch)

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        """By hand: `image` a file, PIL image or array; `table` a dictionary, or a JSON or CSV file of one row."""
        for name in inputs:
            if name not in INPUTS:
                raise UserError(f"Unknown input {name!r}; give {' and '.join(INPUTS)}.")
        given = {name: value for name, value in inputs.items() if value is not None}
        values = self.rows.by_hand(given.get("table"), (IMAGE,))
        image = given.get("image")
        if image is not None:
            image = image_of("image", image)
        source = image.source if image is not None else inputs.get("table", "")
        name = id or (stem(source) if isinstance(source, str | Path) and str(source) else "case")
        square, placement = (None, None) if image is None else _square(image, self.settings.letterbox)
        meta = _meta(name, name, "", None if image is None else image.source, placement)
        return _sample(square, values, self.labels, "", meta, self.settings.size)


class _Cases:
    """Reads the pictures of a data set as squares, rounded to 8 bit, and makes its samples:

        "image"             float32 (3, size, size) in [0, 1], zeros where it is missing
        "table"             float32 (F, 2), values and flags, zeros where missing; see `data.transforms.table`
        "present"           {"image": bool, "table": bool}; the table is present if one of its values is known
        "target", "mask"    as of other classifications
        "meta"              id, study, group, target (text), paths and placements of the picture

    Pictures are rounded whether the cache keeps them or not, so that it changes no value.

    Raises:
        UserError: a bad picture, or neither a picture nor a known value.
    """

    def __init__(self, settings: CaseSettings, labels: Labels) -> None:
        self.settings, self.labels = settings, labels
        self._containers: dict[Path, Container] = {}
        self._cache: dict[int, tuple[np.ndarray, Placement]] = {}
        self._room = int(settings.cache_mb * 2**20) // (3 * settings.size**2)

    def read(self, index: int, row: Row) -> tuple[np.ndarray, Placement] | None:
        """The square of a case's picture; None where it has none."""
        if IMAGE not in row.paths:
            return None
        found = self._cache.get(index)
        if found is None:
            path = row.paths[IMAGE]
            if path.suffix.lower() in CONTAINERS:
                image = self._containers.setdefault(path, Container(path)).read(row.id, grey_if_equal=False)
            else:
                image = read_image(path, grey_if_equal=False)
            found = _square(image, self.settings.letterbox)
            if len(self._cache) < self._room:
                self._cache[index] = found
        return found

    def make(
        self,
        row: Row,
        seen: tuple[np.ndarray, Placement] | None,
        values: Float32[np.ndarray, "f 2"],
        random: np.random.Generator | None,
    ) -> dict[str, Any]:
        """One sample."""
        square, placement = seen or (None, None)
        meta = _meta(row.id, row.group, row.target, row.paths.get(IMAGE) if placement else None, placement)
        sample = _sample(square, values, self.labels, row.target, meta, self.settings.size)
        if random is not None and square is not None:
            sample["image"] = augment_skin(sample["image"], self.settings.augmentation, random)
        return sample


def collate_cases(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks samples: image (B, 3, s, s), table (B, F, 2), present {name: bool (B,)}, target and mask (B, k)."""
    batch: dict[str, Any] = {
        name: torch.stack([sample[name] for sample in samples]) for name in (*INPUTS, "target", "mask")
    }
    batch["present"] = {name: torch.tensor([sample["present"][name] for sample in samples]) for name in INPUTS}
    batch["meta"] = [sample["meta"] for sample in samples]
    return batch


def _sample(
    square: np.ndarray | None, values: np.ndarray, labels: Labels, target: str, meta: dict[str, Any], size: int
) -> dict[str, Any]:
    present = {"image": square is not None, "table": bool(values[:, 1].any())}
    if not any(present.values()):
        raise UserError(f"{meta['id']} has neither a picture nor a known value of the table.")
    encoded, mask = labels.encode(target)
    empty = torch.zeros(3, size, size)
    return {
        "image": empty if square is None else torch.from_numpy(square.astype(np.float32) / 255),
        "table": torch.from_numpy(values.copy()),
        "present": present,
        "target": torch.from_numpy(np.atleast_1d(encoded).astype(np.float32)),
        "mask": torch.from_numpy(np.atleast_1d(mask).copy()),
        "meta": meta,
    }


def _meta(id: str, group: str, target: str, path: Path | None, placement: Placement | None) -> dict[str, Any]:
    return {
        "id": id,
        "study": id,
        "group": group,
        "target": target,
        "paths": {} if path is None else {"image": path},
        "placements": {} if placement is None else {"image": placement},
    }


def _square(image: Image, settings: Letterbox) -> tuple[np.ndarray, Placement]:
    square, placement = letterbox_colour(image, settings)
    return np.rint(square * 255).astype(np.uint8), placement
