"""The settings of data of two views per sample: which studies, which pairs, and how a picture becomes a square."""

import inspect
import types
import typing
from collections.abc import Sequence
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
from scanfuse.errors import UserError

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

    def open(self, root: str | Path, *, split: bool = True) -> Manifest:
        """The studies under `root`, with splits unless these are not wanted; see `open_studies`."""
        return open_studies(
            root,
            self.layout,
            incomplete=self.incomplete,
            seed=self.split_seed,
            options=self._layout_options(root),
            split=split,
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
        """The options with values as the layout's `read` takes them; unknown names are left to `open_studies`."""
        if not self.options:
            return {}
        names = [self.layout] if self.layout != "auto" else [n for n in study_layouts() if _reads(n, Path(root))]
        if not names:
            return {}
        layout = max(names, key=lambda name: datasets.adapter(name).RANK)
        parameters = inspect.signature(datasets.adapter(layout).read).parameters
        found: dict[str, Any] = {}
        for text in self.options:
            name, _, value = text.partition("=")
            found[name] = _value(name, value, parameters[name].annotation) if name in parameters else value
        return found


def _reads(name: str, root: Path) -> bool:
    return bool(datasets.adapter(name).matches(root))


def _value(name: str, text: str, annotation: Any) -> Any:
    """The text as a value of the annotated kind: a number, one of a few words, or words joined by "+".

    Raises:
        UserError: it is none.
    """
    kinds = typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)
    words = [word for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)]
    number = _number(text)
    if number in words or text in words:
        return number if number in words else text
    for kind in kinds:
        if typing.get_origin(kind) is Sequence:
            return text.split("+")
        if kind is str:
            return text
        if kind is float and number is not None:
            return number
    expected = f"one of {', '.join(map(str, words))}" if words else "a number" if float in kinds else ""
    if not expected:
        raise UserError(f"The option {name!r} cannot be given as text; it is for programs.")
    raise UserError(f"The option {name!r} cannot be {text!r}; it is {expected}.")


_UNIONS = (typing.Union, types.UnionType)


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
