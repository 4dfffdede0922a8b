"""Registered inputs with a target, one to four as the channels of one stack: what pictures and volumes share."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs.epochs import EpochDataset
from scanfuse.data.inputs.registered import SourceSettings
from scanfuse.data.labels import Labels
from scanfuse.data.layouts import Incomplete
from scanfuse.data.manifest import COLUMNS, Manifest, Row, read_csv
from scanfuse.data.transforms.augment import Augmentation
from scanfuse.errors import UserError

__all__ = [
    "Fit",
    "LabelledDataset",
    "LabelledSettings",
    "collate_labelled",
    "given_row",
    "labelled",
    "open_labelled",
    "rounded",
]

MOST = 4
_TAKEN = {*COLUMNS, "present", "mask", "meta"}
"""Names that a sample, or the manifest, has for something else."""


class LabelledSettings(SourceSettings):
    """Which inputs are classified, and by what."""

    inputs: tuple[str, ...] = Field(
        (), description="one to four columns of a manifest, or modalities: the channels; none: all columns of files"
    )
    positives: tuple[str, ...] = Field(
        (), description="targets that count as 1, all others as 0, such as HGG; none: targets as they are"
    )
    incomplete: Incomplete = Field(
        "error", description="samples that lack an input, in training; to predict they are kept"
    )
    test_fraction: float = Field(
        0.15, ge=0, lt=1, description="share of the samples for the test, whole patients; 0 with --folds: each fold's"
    )

    flip: float = Field(0.5, ge=0, le=1, description="chance of mirroring left and right, all inputs together")
    rotate: float = Field(
        10.0, ge=0, le=180, description="largest random rotation in degrees; of volumes about the long axis"
    )
    shift: float = Field(0.05, ge=0, le=1, description="largest random shift as a share of the side")
    scale: float = Field(0.1, ge=0, lt=1, description="random size, from 1 - s to 1 + s")

    @field_validator("inputs")
    @classmethod
    def _one_to_four(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.strip().lower() for name in value)
        if len(names) > MOST or len(set(names)) < len(names) or not all(names):
            raise ValueError(f"expected one to {MOST} different names, such as t1ce,flair")
        if taken := [name for name in names if name in _TAKEN]:
            raise ValueError(f"{taken[0]!r} cannot be an input: that name is taken; rename the column")
        return names

    @property
    def augmentation(self) -> Augmentation:
        """How samples are moved at random in training."""
        return Augmentation(flip=self.flip, rotate_degrees=self.rotate, shift=self.shift, scale=self.scale)

    def with_inputs(self, root: Path) -> "LabelledSettings":
        """With the inputs named: if none are, all columns of the manifest that hold files.

        Raises:
            UserError: there is no manifest, or it has none or too many such columns.
        """
        if self.inputs:
            return self
        file = root / "manifest.csv" if root.is_dir() else root
        if not file.is_file() or file.suffix.lower() != ".csv":
            raise UserError(f"Say which files of {root} are the inputs: --inputs NAME or --inputs NAME,NAME")
        found = _columns_of_files(file)
        if not 1 <= len(found) <= MOST:
            has = ", ".join(found) or "none"
            raise UserError(f"Name one to {MOST} columns of {file} with --inputs; columns of files: {has}.")
        return self.model_validate({**self.model_dump(), "inputs": tuple(found)})

    def read(self, root: Path, *, split: bool) -> Manifest:
        """The samples under `root`, targets as the settings ask.

        Raises:
            UserError: none of the samples has a target that counts as 1, or all have.
        """
        # What is to be predicted may lack an input; what is trained on should not lack it by accident.
        incomplete: Incomplete = self.incomplete if split else "keep"
        manifest = self.opened(root, self.inputs, split="made" if split else "none", incomplete=incomplete)
        if not self.positives:
            return manifest
        targets = [self._plain(text) for text in manifest.table["target"]]
        if split and not {"0", "1"} <= set(targets):
            has = ", ".join(sorted({text for text in manifest.table["target"] if text})) or "none"
            raise UserError(f"With --positives {','.join(self.positives)} there are no two classes; targets: {has}.")
        name = self.positives[0] if len(self.positives) == 1 else ""
        return replace(manifest, table=manifest.table.assign(target=targets), positive=name)

    def _plain(self, text: str) -> str:
        return text and str(int(text in self.positives))


@dataclass(frozen=True)
class Fit:
    """What was read of one row.

    Attributes:
        arrays: input -> (c, *places) in [0, 1]; those that the row has.
        meta: what else a sample's "meta" holds.
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def open_labelled(
    settings: LabelledSettings, root: Path, labels: Labels, folds: FoldConfig, *, split: bool
) -> Manifest:
    """The samples with the splits of the settings and the fold. With `split=False` odd targets are unknown."""
    manifest = settings.read(root, split=split)
    if not split:
        return manifest.with_known_targets(labels)
    return folded(manifest, folds, labels)


class LabelledDataset(EpochDataset):
    """The samples of a manifest. A sample is a dict: every input by name, float32 (c, *places) in [0, 1], zeros where
    it is missing; "present" {input: bool}; "target" and "mask" (k,); "meta": id, study, group, target (text), paths,
    and what `read` adds.

    What is drawn for a sample depends on (seed, epoch, index) alone. Values are rounded to float16 after reading,
    whether the cache keeps them or not, so that it changes no value.

    Args:
        manifest: one row per sample.
        labels: what the targets mean.
        read: what a row holds.
        shape: (c, *places) of an input.
        move: random movement of all channels together, (v, *places) -> the same; None: none.
        seed: of the movement.
        cache_mb: memory for what was read, per worker; once full, further rows are read each time.

    Raises:
        UserError: a target that the labels do not know; on reading a sample: a bad file, or no input at all.
    """

    def __init__(
        self,
        manifest: Manifest,
        labels: Labels,
        read: Callable[[Row], Fit],
        shape: tuple[int, ...],
        *,
        move: Callable[[Tensor, np.random.Generator], Tensor] | None,
        seed: int,
        cache_mb: float,
    ) -> None:
        super().__init__()
        self.manifest, self.labels, self.shape, self.seed = manifest, labels, shape, seed
        self._read, self._move = read, move
        self._rows = list(manifest.rows)
        for text in dict.fromkeys(row.target for row in self._rows):
            labels.encode(text)
        self._cache: dict[int, Fit] = {}
        self._room = cache_mb * 2**20

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
        row, names = self._rows[index], self.manifest.modalities
        sample = labelled(self._fit(index), row, names, self.labels, self.shape)
        if self._move is not None:
            random = np.random.default_rng([self.seed, self.epoch, index])
            moved = self._move(torch.cat([sample[name] for name in names]), random)
            sample |= dict(zip(names, moved.split(self.shape[0]), strict=True))
        return sample

    def _fit(self, index: int) -> Fit:
        found = self._cache.get(index)
        if found is None:
            found = rounded(self._read(self._rows[index]))
            needed = sum(array.nbytes for array in found.arrays.values())
            if needed <= self._room:
                self._room -= needed
                self._cache[index] = found
        return found


def rounded(fit: Fit) -> Fit:
    """With values as a cache keeps them: float16."""
    return replace(fit, arrays={name: array.astype(np.float16) for name, array in fit.arrays.items()})


def labelled(fit: Fit, row: Row, names: Sequence[str], labels: Labels, shape: tuple[int, ...]) -> dict[str, Any]:
    """One sample, of the form that `LabelledDataset` gives; UserError if it has no input at all."""
    if not fit.arrays:
        raise UserError(f"{row.id} has no file of {' or '.join(names)}: add one, or leave it out.")
    target, mask = labels.encode(row.target)
    there = {name: torch.from_numpy(array.astype(np.float32)) for name, array in fit.arrays.items()}
    about = {"id": row.id, "study": row.id, "group": row.group, "target": row.target, "slice": row.slice}
    paths = {name: row.paths[name] for name in names if name in there}
    return {
        **{name: there[name] if name in there else torch.zeros(shape) for name in names},
        "present": {name: name in there for name in names},
        "target": torch.from_numpy(np.atleast_1d(target).astype(np.float32)),
        "mask": torch.from_numpy(np.atleast_1d(mask).copy()),
        "meta": {**about, "paths": paths, **fit.meta},
    }


def collate_labelled(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks samples: inputs (B, c, *places), present {input: bool (B,)}, target and mask (B, k), meta a list."""
    names = list(samples[0]["present"])
    batch: dict[str, Any] = {
        name: torch.stack([sample[name] for sample in samples]) for name in (*names, "target", "mask")
    }
    batch["present"] = {name: torch.tensor([sample["present"][name] for sample in samples]) for name in names}
    batch["meta"] = [sample["meta"] for sample in samples]
    return batch


def given_row(id: str, sources: Mapping[str, Path], slice: str = "") -> Row:
    """The row of a sample by hand."""
    return Row(id, id, "", "", dict(sources), slice)


def _columns_of_files(file: Path) -> list[str]:
    """Columns of a CSV file all of whose filled cells are files, seen from its folder."""
    _, table = read_csv(file)
    folder = file.parent
    found = []
    for column in table:
        cells = [cell for cell in table[column] if cell]
        if str(column).lower() not in _TAKEN and cells and all(os.path.isfile(folder / cell) for cell in cells):
            found.append(str(column))
    return found
