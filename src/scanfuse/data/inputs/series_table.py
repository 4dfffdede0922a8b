"""The slices of a patient's chest CT and one row of a clinical table as a sample; either may be missing.

Patients may have any number of slices: a batch is padded to the most of its samples, and `seen` says what is there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from pydantic import Field, field_validator
from torch.nn import functional

from scanfuse.config import Section
from scanfuse.data import check, layouts
from scanfuse.data.folds import FoldConfig, folded
from scanfuse.data.inputs import Fitted, Samples
from scanfuse.data.inputs.fitted_table import FittedTable
from scanfuse.data.inputs.layout_settings import LayoutOptions, layout_of
from scanfuse.data.inputs.perturbed import perturbations
from scanfuse.data.inputs.tabled import TabledDataset
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers.image import Image, finish
from scanfuse.data.series import Series, name_of, raw_series, read_scan, read_series, series_of_array, write_series
from scanfuse.data.transforms.augment import Augmentation, augment
from scanfuse.data.transforms.chest import evenly, lung_slices
from scanfuse.data.transforms.montage import montage, montage_size
from scanfuse.data.transforms.placement import Placement, stretched
from scanfuse.data.transforms.table import Table, TableSettings
from scanfuse.errors import UserError

__all__ = ["INPUTS", "SERIES", "SeriesSettings", "SeriesTable", "collate_patients"]

KIND = "series_table"
INPUTS = ("ct", "table")
SERIES = "ct"

_WINDOWS = {"lung": (-1350.0, 150.0), "emphysema": (-1024.0, -750.0)}
"""Hounsfield units that become 0 and 1."""


class SeriesSettings(Section):
    """Patients of one series of CT slices and one row of a table."""

    layout: Annotated[str, layout_of(KIND)] = Field("auto", description="of the folder; auto finds it")
    options: LayoutOptions = Field((), description="of the layout, name=value, such as positive=COPD")
    incomplete: Literal["error", "keep", "drop"] = Field(
        "error", description="patients without their slices, in training; to predict they are kept"
    )
    table: TableSettings = TableSettings()
    drop_ct: float = Field(0.1, ge=0, le=1, description="chance that training takes the slices away")
    drop_table: float = Field(0.1, ge=0, le=1, description="chance that training takes the table away")
    split_seed: int = Field(0, ge=0, description="seed of the split by patient")
    size: int = Field(224, ge=32, le=1024, description="side of a slice as the network sees it, in pixels")
    slices: int = Field(30, ge=1, le=1000, description="most slices of a patient, evenly spaced from first to last")
    emphysema_window: bool = Field(
        False, description="a second channel, -1024 to -750 HU; needs slices in Hounsfield units"
    )
    lung_only: bool = Field(True, description="black outside the lungs, where the data say where these are")
    rotate: float = Field(10.0, ge=0, le=180, description="largest random rotation in degrees, alike for all slices")
    shift: float = Field(0.05, ge=0, le=1, description="largest random shift as a share of the side")
    scale: float = Field(0.1, ge=0, lt=1, description="random size, from 1 - s to 1 + s")
    jitter: float = Field(20.0, ge=0, le=1000, description="largest random shift of all values, in Hounsfield units")
    noise: float = Field(0.01, ge=0, le=1, description="standard deviation of random noise, as a share of the window")
    cache_mb: float = Field(1024.0, ge=0, description="memory for slices that were read, per worker")

    @field_validator("drop_table")
    @classmethod
    def _something_stays(cls, value: float, info: Any) -> float:
        if value + info.data.get("drop_ct", 0.0) > 1:
            raise ValueError("drop_ct and drop_table are at most 1 together: one of the two stays")
        return value

    @property
    def windows(self) -> tuple[str, ...]:
        """Names of the channels of a slice."""
        return ("lung", "emphysema") if self.emphysema_window else ("lung",)

    @property
    def augmentation(self) -> Augmentation:
        """How slices are moved in training. Never mirrored: the heart has a side."""
        return Augmentation(0.0, self.rotate, self.shift, self.scale)

    def open(self, root: str | Path, *, split: bool = True) -> Manifest:
        """The patients under `root`, with the layout's splits unless none are wanted."""
        request = layouts.Request(
            split="made" if split else "none",
            seed=self.split_seed,
            # Who is to be predicted need not have a CT; who is trained on should not lack it by accident.
            incomplete=self.incomplete if split else "keep",
        )
        options = dict(text.split("=", 1) for text in self.options)
        return layouts.open_manifest(root, KIND, request, self.layout, options=options)


class SeriesTable:
    """The input kind: see `scanfuse.data.inputs.Inputs`.

    Args:
        settings: the section of the configuration.
        labels: what the targets mean.
        folds: which part of a cross-validation is opened.
        seed: of movement, dropped inputs and the forest.
        needs_ct: whether a training makes sense only if somebody has a CT.
    """

    KIND = KIND
    mixed_sizes = False
    modalities: tuple[str, ...]

    def __init__(
        self, settings: SeriesSettings, *, labels: Labels, folds: FoldConfig, seed: int, needs_ct: bool = True
    ) -> None:
        self.needs_ct = needs_ct
        self.settings, self.labels, self.folds, self.seed = settings, labels, folds, seed
        self.modalities = INPUTS
        self.rows = FittedTable(settings.table, seed=seed)

    @property
    def table(self) -> Table:
        """The schema; UserError before `prepare` or `restore`."""
        return self.rows.schema

    def open(self, root: Path, *, split: bool = True) -> Manifest:
        """The patients with the splits of the settings and the fold. With `split=False` odd targets are unknown."""
        manifest = self.settings.open(root, split=split)
        if not split:
            return manifest.with_known_targets(self.labels)
        return folded(manifest, self.folds, self.labels)

    def check(self, root: Path) -> list[check.Finding]:
        """Every series is read, and what the table would warn of."""
        found = check.check(lambda split: self.open(root, split=split), is_registered=False, read=self._picture)
        if any(finding.kind == "layout" for finding in found):
            return found
        warnings = self.rows.fit(self.open(root).subset("train")).warnings
        return found + [check.Finding("warning", "leak", f"{text}.") for text in warnings]

    def fit(self, training: Manifest) -> Table:
        """The schema of training rows."""
        return self.rows.fit(training)

    def prepare(self, training: Manifest) -> Fitted:
        if self.needs_ct and not training.table[SERIES].any():
            raise UserError(
                "No patient of the training part has a CT: set --fusion table to train on the table alone, or "
                "prepare the scans with scanfuse data prepare copd."
            )
        return self.rows.prepare(training)

    def restore(self, fitted: Fitted) -> None:
        self.rows.restore(fitted)

    def dataset(self, manifest: Manifest, *, train: bool) -> TabledDataset:
        """The patients of a manifest; with `train`, moved at random and with inputs dropped."""
        self.rows.warn_of_absent(manifest.table)
        patients = _Patients(self.settings, self.labels)
        drop = (self.settings.drop_ct, self.settings.drop_table)
        return TabledDataset(
            manifest, self.table, patients.read, patients.make, drop=drop, train=train, seed=self.seed
        )

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return collate_patients(samples)

    def parts(self, batch: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
        """Known feature of a batch of one -> the batch with that feature missing."""
        return self.rows.parts(batch)

    def picture(self, batch: dict[str, Any], name: str) -> tuple[np.ndarray, Placement]:
        """The slices of a batch of one as a montage of the lung window."""
        tiles = (batch[name][0][batch["seen"][0]][:, 0] * 255).round().to(torch.uint8).cpu().numpy()
        return montage(tiles), batch["meta"][0]["placements"][name]

    def perturbed(self, samples: Samples) -> dict[str, Samples]:
        """The same samples with noise, other contrast, slices or values missing: how a run stands it."""
        return perturbations(samples, seed=self.seed)

    def raw_cases(self, root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        """Raw scans below `root`, or its folder ct_raw: file to make -> DICOM folder or NIfTI volume; and what is
        copied beside them.

        Raises:
            UserError: there is no folder, or no scan in it.
        """
        return raw_series(root)

    def convert(self, source: Path, target: Path) -> dict[str, Any]:
        """Lungs, evenly spaced slices, one square, in Hounsfield units with the lung mask: an .npz file."""
        scan = read_scan(source)
        values, lung, place = lung_slices(scan, count=self.settings.slices, size=self.settings.size)
        write_series(target, Series(values, True, lung, place, source))
        spacing = " ".join(f"{side:.2f}" for side in scan.spacing_mm)
        return {"slices": len(values), "of": len(scan.hu), "spacing_mm": spacing}

    def how_prepared(self) -> dict[str, Any]:
        """The settings that `convert` depends on."""
        return {"slices": self.settings.slices, "size": self.settings.size}

    def sample(self, inputs: Mapping[str, Any], *, id: str = "") -> dict[str, Any]:
        """By hand: `ct` a folder, a file or an array (S, H, W); `table` a dictionary, or a JSON or CSV file."""
        for name in inputs:
            if name not in INPUTS:
                raise UserError(f"Unknown input {name!r}; give {' and '.join(INPUTS)}.")
        ct = inputs.get(SERIES)
        values = self.rows.by_hand(inputs.get("table"), (SERIES,))
        source = ct if isinstance(ct, str | Path) else inputs.get("table") if ct is None else ""
        name = id or (name_of(Path(source)) if isinstance(source, str | Path) and str(source) else "patient")
        slices = None
        if ct is not None:
            series = series_of_array(ct, Path(name)) if isinstance(ct, np.ndarray) else _read(Path(ct), self.settings)
            slices = _Slices.of(series, self.settings)
        path = Path(ct) if isinstance(ct, str | Path) else None
        meta = {"id": name, "study": name, "group": name, "target": "", "paths": {SERIES: path} if path else {}}
        return _sample(slices, values, self.labels, meta, self.settings)

    def _picture(self, row: Row, name: str) -> Image:
        """All slices of a patient in one column, as a check looks at pictures."""
        series = _read(row.paths[name], self.settings)
        return finish(row.paths[name], series.values.reshape(-1, series.values.shape[-1]), stored="series")


class _Slices:
    """The slices of a patient as the network sees them.

    Attributes:
        values: (S, C, size, size) uint8, a channel for each window.
        lung: (S, size, size); all where nobody says where the lungs are.
        place: (S,).
    """

    def __init__(
        self,
        values: UInt8[np.ndarray, "s c k k"],
        lung: Bool[np.ndarray, "s k k"],
        place: Float32[np.ndarray, " s"],
    ) -> None:
        self.values, self.lung, self.place = values, lung, place

    @classmethod
    def of(cls, series: Series, settings: SeriesSettings) -> "_Slices":
        """Evenly spaced slices, windowed, resized (their aspect ignored) and rounded to 8 bit."""
        if settings.emphysema_window and not series.is_hu:
            raise UserError(
                f"{series.source} holds windowed slices, in which the emphysema window is lost: prepare the scans "
                "in Hounsfield units, or set --emphysema-window false."
            )
        chosen = evenly(len(series.values), settings.slices)
        values = torch.from_numpy(series.values[chosen].astype(np.float32))
        channels = [values]
        if series.is_hu:
            channels = [(values - low) / (high - low) for low, high in (_WINDOWS[name] for name in settings.windows)]
        unit = torch.stack(channels, dim=1).clamp_(0, 1)
        side = (settings.size, settings.size)
        unit = functional.interpolate(unit, side, mode="bilinear", antialias=True).clamp_(0, 1)
        lung = np.ones((len(chosen), *side), bool)
        if series.lung is not None:
            mask = torch.from_numpy(series.lung[chosen].astype(np.float32))[:, None]
            lung = functional.interpolate(mask, side, mode="bilinear")[:, 0].numpy() >= 0.5
        if settings.lung_only:
            unit = unit * torch.from_numpy(lung)[:, None]
        return cls((unit * 255).round().to(torch.uint8).numpy(), lung, series.place[chosen])

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.lung.nbytes


class _Patients:
    """Reads the slices of a data set and makes its samples:

        "ct"                float32 (S, C, size, size) in [0, 1]; one slice of zeros where the CT is missing
        "seen"              bool (S,), whether the slice is there
        "lung"              bool (S, size, size); all where nobody says where the lungs are
        "place"             float32 (S,) in [0, 1], between the first and the last slice
        "table"             float32 (F, 2), values and flags, zeros where missing; see `data.transforms.table`
        "present"           {"ct": bool, "table": bool}; the table is present if one of its values is known
        "target", "mask"    as of other classifications
        "meta"              id, study, group, target (text), paths and placements

    Raises:
        UserError: a bad series, or neither slices nor a known value.
    """

    def __init__(self, settings: SeriesSettings, labels: Labels) -> None:
        self.settings, self.labels = settings, labels
        self._cache: dict[int, _Slices] = {}
        self._room = settings.cache_mb * 2**20

    def read(self, index: int, row: Row) -> _Slices | None:
        """The slices of a patient; None where there are none."""
        if SERIES not in row.paths:
            return None
        found = self._cache.get(index)
        if found is None:
            found = _Slices.of(_read(row.paths[SERIES], self.settings), self.settings)
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._cache[index] = found
        return found

    def make(
        self, row: Row, seen: _Slices | None, values: Float32[np.ndarray, "f 2"], random: np.random.Generator | None
    ) -> dict[str, Any]:
        """One sample."""
        meta = {"id": row.id, "study": row.id, "group": row.group, "target": row.target, "paths": dict(row.paths)}
        sample = _sample(seen, values, self.labels, meta, self.settings)
        if random is not None and seen is not None:
            sample["ct"], sample["lung"] = _augmented(sample["ct"], sample["lung"], self.settings, random)
        return sample


def collate_patients(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks samples: ct (B, S, C, k, k), seen, place (B, S), lung (B, S, k, k), S the most slices of one; the rest
    as of single samples. Slices that are added are zeros that are not seen."""
    most = max(len(sample["seen"]) for sample in samples)

    def padded(name: str) -> torch.Tensor:
        parts = [sample[name] for sample in samples]
        missing = [part.new_zeros(most - len(part), *part.shape[1:]) for part in parts]
        return torch.stack([torch.cat([part, rest]) for part, rest in zip(parts, missing, strict=True)])

    batch: dict[str, Any] = {name: padded(name) for name in (SERIES, "seen", "lung", "place")}
    batch |= {name: torch.stack([sample[name] for sample in samples]) for name in ("table", "target", "mask")}
    batch["present"] = {name: torch.tensor([sample["present"][name] for sample in samples]) for name in INPUTS}
    batch["meta"] = [sample["meta"] for sample in samples]
    return batch


def _read(path: Path, settings: SeriesSettings) -> Series:
    return read_series(path, count=settings.slices, size=settings.size)


def _sample(
    slices: _Slices | None, values: np.ndarray, labels: Labels, meta: dict[str, Any], settings: SeriesSettings
) -> dict[str, Any]:
    present = {SERIES: slices is not None, "table": bool(values[:, 1].any())}
    if not any(present.values()):
        raise UserError(f"{meta['id']} has neither CT slices nor a known value of the table.")
    target, mask = labels.encode(meta["target"])
    size, channels = settings.size, len(settings.windows)
    if slices is None:
        slices = _Slices(
            np.zeros((1, channels, size, size), np.uint8), np.ones((1, size, size), bool), np.zeros(1, np.float32)
        )
    whole = montage_size(len(slices.values), size)
    return {
        SERIES: torch.from_numpy(slices.values.astype(np.float32) / 255),
        "seen": torch.full((len(slices.values),), present[SERIES]),
        "lung": torch.from_numpy(slices.lung.copy()),
        "place": torch.from_numpy(slices.place.copy()),
        "table": torch.from_numpy(values.copy()),
        "present": present,
        "target": torch.from_numpy(np.atleast_1d(target).astype(np.float32)),
        "mask": torch.from_numpy(np.atleast_1d(mask).copy()),
        "meta": meta | {"placements": {SERIES: stretched(whole, whole)} if present[SERIES] else {}},
    }


def _augmented(
    ct: torch.Tensor, lung: torch.Tensor, settings: SeriesSettings, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """All slices and their lungs under one draw."""
    matrix = settings.augmentation.draw(random)
    shift = float(random.uniform(-settings.jitter, settings.jitter))
    moved = augment(torch.cat([ct.flatten(0, 1), lung.to(ct.dtype)]), matrix)
    count = len(ct) * ct.shape[1]
    ct, inside = moved[:count].view_as(ct), moved[count:] >= 0.5
    widths = [high - low for low, high in (_WINDOWS[name] for name in settings.windows)]
    ct = ct + torch.tensor([shift / width for width in widths])[:, None, None]
    if settings.noise:
        ct = ct + settings.noise * torch.from_numpy(random.standard_normal(ct.shape, np.float32))
    if settings.lung_only:
        ct = ct * inside[:, None]
    return ct.clamp_(0, 1), inside
