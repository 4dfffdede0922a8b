"""The settings of data of two views per sample: which studies, which pairs, and how a picture becomes a square."""

import inspect
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from scanfuse.config import Section
from scanfuse.data import datasets
from scanfuse.data.fitting import Fitting, Movement
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.data.studies import Pairing, open_studies, study_layouts
from scanfuse.data.views import ViewDataset

__all__ = ["ViewSettings"]


class ViewSettings(Section):
    """Studies of any number of views, read as pairs."""

    layout: Literal["auto", "mura", "chexpert", "cbis_ddsm", "studies"] = Field("auto", description="of the folder")
    options: tuple[str, ...] = Field(
        (), description="of the layout, name=value, such as uncertain=ignore or parts=WRIST+HAND"
    )
    incomplete: Literal["keep", "drop"] = Field("keep", description="studies that lack a view")
    pairing: Pairing = Field("auto", description="which pairs of a study's views; auto: by role, else all")
    alone: Literal["missing", "self"] = Field("missing", description="what stands beside a view without a partner")
    one_per_study: bool = Field(True, description="train on one random pair of each study per epoch, or on all pairs")
    view_dropout: float = Field(0.0, ge=0, le=1, description="chance that training takes one of two views away")
    split_seed: int = Field(0, ge=0, description="seed of the split by patient")
    size: int = Field(224, ge=8, description="side of the square that the network sees, in pixels")
    aspect: Literal["pad", "stretch"] = Field("pad", description="stretch ignores the aspect, as published")
    crop: Literal["none", "body"] = Field("none", description="body: cut to the largest bright part (mammograms)")
    window: Literal["full", "percentile"] = Field("full", description="grey range: of the file, or 0.5 to 99.5 %")
    flip: float = Field(0.5, ge=0, le=1, description="chance of mirroring left and right, both views together")
    rotate: float = Field(10.0, ge=0, le=180, description="largest random rotation in degrees")
    shift: float = Field(0.05, ge=0, le=1, description="largest random shift as a share of the side")
    scale: float = Field(0.1, ge=0, lt=1, description="random size, from 1 - s to 1 + s")
    cache_mb: float = Field(512.0, ge=0, description="memory for decoded pictures, per worker")

    @field_validator("options")
    @classmethod
    def _names_and_values(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not text.partition("=")[0] or "=" not in text:
                raise ValueError(f"expected name=value, not {text!r}")
        return value

    @property
    def fitting(self) -> Fitting:
        """How a picture becomes a square."""
        return Fitting(size=self.size, aspect=self.aspect, crop=self.crop, window=self.window)

    def open(self, root: str | Path) -> Manifest:
        """The studies under `root` with splits; see `open_studies`."""
        return open_studies(
            root, self.layout, incomplete=self.incomplete, seed=self.split_seed, options=self._layout_options(root)
        )

    def dataset(self, manifest: Manifest, labels: Labels, *, train: bool, seed: int) -> ViewDataset:
        """The pairs of the studies; with `train`, moved at random and with views dropped."""
        movement = Movement(flip=self.flip, rotate_degrees=self.rotate, shift=self.shift, scale=self.scale)
        return ViewDataset(
            manifest,
            labels=labels,
            fitting=self.fitting,
            movement=movement if train else None,
            pairing=self.pairing,
            single=self.alone,
            one_per_study=train and self.one_per_study,
            view_dropout=self.view_dropout if train else 0.0,
            seed=seed,
            cache_mb=self.cache_mb,
        )

    def _layout_options(self, root: str | Path) -> dict[str, Any]:
        if not self.options:
            return {}
        names = [self.layout] if self.layout != "auto" else [n for n in study_layouts() if _reads(n, Path(root))]
        parameters = inspect.signature(datasets.adapter(names[0]).read).parameters if names else {}
        found: dict[str, Any] = {}
        for text in self.options:
            name, _, value = text.partition("=")
            is_list = name in parameters and "Sequence" in str(parameters[name].annotation)
            number = _number(value)
            found[name] = number if number is not None else value.split("+") if is_list else value
        return found


def _reads(name: str, root: Path) -> bool:
    return bool(datasets.adapter(name).matches(root))


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
