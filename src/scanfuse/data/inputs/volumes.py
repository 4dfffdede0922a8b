"""Registered pairs of volumes: read, turned to one orientation, scaled to [0, 1], cut into patches, stacked.

Both volumes of a pair lie on one grid of voxels (or are resampled onto that of the first one, when asked); pairs need
not share it. In training a sample is a random patch; otherwise it is the whole volume, with the box of what is not
background in "meta".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from scanfuse.data import check, layouts
from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs import Fitted
from scanfuse.data.inputs.epochs import EpochDataset
from scanfuse.data.inputs.grids import GridSettings, box_around, given_volume, on_one_grid, volumes_of
from scanfuse.data.inputs.registered import PairedSettings, refuse_fitted
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import stem
from scanfuse.data.readers.volume import Volume, to_unit
from scanfuse.data.slice_stacks import SPACING_MM, slices_of_cases, write_stack
from scanfuse.data.volume_check import check_volumes
from scanfuse.errors import UserError

__all__ = ["VolumeDataset", "VolumePairs", "VolumeSettings", "volume_sample"]

KIND = "volumes"


class VolumeSettings(PairedSettings, GridSettings):
    """Which volumes are fused and how they are split and cut."""

    KIND = KIND

    patch: int = Field(64, ge=4, le=512, description="side of random training patches in voxels")
    patches: int = Field(4, ge=1, le=4096, description="patches of each volume in an epoch")
    flips: bool = Field(False, description="random left-right flips of the patches")


class VolumePairs:
    """The input kind: see `scanfuse.data.inputs.Inputs`.

    Args:
        settings: the section of the configuration.
        seed: of the random patches and flips.
        folds: which part of a cross-validation is opened.
    """

    KIND = KIND
    mixed_sizes = True
    modalities: tuple[str, ...]

    def __init__(
        self,
        settings: VolumeSettings,
        *,
        seed: int,
        folds: FoldConfig = FoldConfig(),  # noqa: B008 (frozen)
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.folds = folds
        self.modalities = settings.modalities

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        return self._open(root, split=split, incomplete="error")

    def check(self, root: Path) -> list[check.Finding]:
        """What is wrong with the data under `root`: the layout, then every pair of volumes."""
        return check_volumes(
            lambda split: self._open(root, split=split, incomplete="keep"),
            self.modalities,
            resample=self.settings.resample,
        )

    def _open(self, root: Path, *, split: bool, incomplete: layouts.Incomplete) -> Manifest:
        wanted: Literal["made", "none"] = "made" if split else "none"
        try:
            found = self.settings.opened(root, self.modalities, split=wanted, incomplete=incomplete)
        except layouts.NothingFits as error:
            if not _holds_slices(root, self.modalities, self.settings.group_pattern):
                raise
            raise UserError(
                f"{error} Make volumes of the slices: scanfuse data prepare clinicalfmamba3d {root} DIR "
                f"--pair {self.settings.pair}"
            ) from None
        return folded(found, self.folds) if split else found

    def raw_cases(self, root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        """Slices of cases as pictures, such as the Harvard atlas: volumes to make -> `root`, where their slices are.

        Raises:
            UserError: there are no such pictures; see `slice_stacks.slices_of_cases`.
        """
        cases = slices_of_cases(root, self.modalities, self.settings.group_pattern)
        # That phantoms are phantoms must not be lost.
        about = [path for path in (root / "ABOUT.txt", *sorted(root.glob("*/ABOUT.txt"))) if path.is_file()]
        beside = {"ABOUT.txt": about[0]} if about else {}
        return {f"{name}/{case}.nii.gz": root for case in cases for name in self.modalities}, beside

    def convert(self, source: Path, target: Path) -> dict[str, Any]:
        """The slices of one case and modality, which the name of `target` says, as a NIfTI volume."""
        case, modality = target.name.removesuffix(".nii.gz"), target.parent.name
        rows = slices_of_cases(source, self.modalities, self.settings.group_pattern)[case]
        return write_stack([row.paths[modality] for row in rows], target)

    def how_prepared(self) -> dict[str, Any]:
        """What `convert` depends on, with the spacing that it assumes."""
        return {
            "pair": self.settings.pair,
            "group_pattern": self.settings.group_pattern,
            "assumed_spacing_mm": list(SPACING_MM),
        }

    def prepare(self, training: Manifest) -> Fitted:
        return Fitted()

    def restore(self, fitted: Fitted) -> None:
        refuse_fitted(fitted, "volumes")

    def dataset(self, manifest: Manifest, *, train: bool) -> "VolumeDataset":
        return VolumeDataset(manifest, self.settings, seed=self.seed, train=train)

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Stacks samples: modalities (B, 1, D, H, W); "present": {modality: bool (B,)}; "meta": a list.

        Raises:
            UserError: the samples differ in size.
        """
        first = samples[0]
        batch: dict[str, Any] = {}
        for name in self.modalities:
            for sample in samples:
                if sample[name].shape != first[name].shape:
                    sizes = " and ".join(" x ".join(map(str, each[name].shape[1:])) for each in (first, sample))
                    raise UserError(
                        f"{first['meta']['id']} and {sample['meta']['id']} have {sizes} voxels: one batch needs one "
                        "size; predict them one by one."
                    )
            batch[name] = torch.stack([sample[name] for sample in samples])
        batch["present"] = {
            name: torch.tensor([sample["present"][name] for sample in samples]) for name in self.modalities
        }
        batch["meta"] = [sample["meta"] for sample in samples]
        return batch

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        return volume_sample(inputs, self.settings, id=id)


def _holds_slices(root: Path, modalities: Sequence[str], pattern: str | None) -> bool:
    try:
        return bool(slices_of_cases(root, modalities, pattern))
    except UserError:
        return False


class VolumeDataset(EpochDataset):
    """Registered volumes of one manifest (all of its rows: pass `manifest.subset("train")` for one split).

    A sample is a dict: every modality by name, float32 (1, D, H, W) in [0, 1]; "present"; "meta": {"id", "group",
    "target", "paths", "volumes": {modality: Volume}, "box": slices of what is not background}. With `train` it is a
    random patch around a voxel that is not background, extended by zeros where the volume ends; "volumes" is then
    empty and the box is the whole patch.

    The patches of an epoch are drawn from (seed, epoch, index) alone: the number of workers and a resumed run do not
    change them.

    Args:
        manifest: the rows.
        settings: see `VolumeSettings`.
        seed: of patches and flips.
        train: patches, `settings.patches` of each row, in place of whole volumes.

    Raises:
        UserError: on reading a sample: a bad file, a missing modality, or volumes of different grids.
    """

    def __init__(self, manifest: Manifest, settings: VolumeSettings, *, seed: int, train: bool) -> None:
        super().__init__()
        self.manifest = manifest
        self.settings = settings
        self.seed = seed
        self.train = train
        self._rows = list(manifest.rows)
        self._times = settings.patches if train else 1
        self._room = settings.cache_mb * 2**20 if train else 0.0
        self._cache: dict[int, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._rows) * self._times

    def row(self, index: int) -> Row:
        """The row of a sample."""
        return self._rows[index // self._times]

    @property
    def targets(self) -> list[str]:
        """The target text of every sample in order."""
        return [self.row(index).target for index in range(len(self))]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not self.train:
            row = self.row(index)
            return _sample(row, volumes_of(row, self.manifest.modalities, self.settings))
        return self._patch(index)

    def _patch(self, index: int) -> dict[str, Any]:
        row, units = self.row(index), self._units(index // self._times)
        random = np.random.default_rng([self.seed, self.epoch, index])
        side = self.settings.patch
        sides = next(iter(units.values())).shape
        inside = np.flatnonzero(np.logical_or.reduce([unit > 0 for unit in units.values()]))
        if not len(inside):
            raise UserError(f"{row.id} is constant in all its volumes: there is nothing to learn; remove it.")
        centre = np.unravel_index(inside[random.integers(len(inside))], sides)
        # Anywhere in the patch, but no further over the end than needed.
        corner = [
            int(np.clip(at - random.integers(side), min(0, (full - side) // 2), max(0, full - side)))
            for at, full in zip(centre, sides, strict=True)
        ]
        flip = self.settings.flips and random.random() < 0.5
        sample: dict[str, Any] = {}
        for name, unit in units.items():
            cut = _cut(unit, corner, side)
            cut = cut[..., ::-1] if flip else cut
            sample[name] = torch.from_numpy(np.ascontiguousarray(cut)[None].astype(np.float32))
        sample["present"] = dict.fromkeys(units, True)
        meta = {"id": row.id, "group": row.group, "target": row.target, "paths": dict(row.paths)}
        sample["meta"] = {**meta, "volumes": {}, "box": (slice(0, side),) * 3}
        return sample

    def _units(self, number: int) -> dict[str, np.ndarray]:
        """The volumes of a row in [0, 1], cut to their box; kept in half precision as long as there is room."""
        if number in self._cache:
            return self._cache[number]
        sample = _sample(row := self._rows[number], volumes_of(row, self.manifest.modalities, self.settings))
        box = sample["meta"]["box"]
        units = {name: sample[name][0].numpy()[box].astype(np.float16) for name in self.manifest.modalities}
        needed = sum(unit.nbytes for unit in units.values())
        if needed <= self._room:
            self._room -= needed
            self._cache[number] = units
        return units


def volume_sample(inputs: Mapping[str, Any], settings: VolumeSettings, *, id: str = "") -> dict[str, Any]:
    """One sample, of the form that `VolumeDataset` gives, from files, nibabel images or arrays.

    Args:
        inputs: modality -> a path, a nibabel image, or an array (D, H, W) with slices upwards, row 0 anterior and
            column 0 right, in voxels of 1 mm.
        settings: see `VolumeSettings`.
        id: of the sample; by default the name of the first file.

    Raises:
        UserError: a file cannot be read, an array is no volume, or the grids differ.
    """
    found = {name: given_volume(name, value, settings) for name, value in inputs.items()}
    paths = {name: volume.source for name, volume in found.items()}
    name = id or stem(next(iter(paths.values())))
    row = Row(name, name, "", "", paths)
    return _sample(row, on_one_grid(found, settings))


def _sample(row: Row, volumes: dict[str, Volume]) -> dict[str, Any]:
    meta = {"id": row.id, "group": row.group, "target": row.target, "paths": dict(row.paths)}
    return {
        **{name: torch.from_numpy(to_unit(volume))[None] for name, volume in volumes.items()},
        "present": dict.fromkeys(volumes, True),
        "meta": {**meta, "volumes": volumes, "box": box_around(volumes)},
    }


def _cut(unit: np.ndarray, corner: Sequence[int], side: int) -> np.ndarray:
    """The cube at `corner`, which may be negative or reach over the end: zeros there."""
    found = np.zeros((side,) * 3, unit.dtype)
    here = tuple(slice(max(0, start), start + side) for start in corner)
    inner = unit[here]
    into = tuple(
        slice(max(0, -start), max(0, -start) + size) for start, size in zip(corner, inner.shape, strict=True)
    )
    found[into] = inner
    return found
