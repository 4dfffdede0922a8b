"""The settings of data of two views per sample: which studies, which pairs, and how a picture becomes a square."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from scanfuse.config import Section
from scanfuse.data import layouts
from scanfuse.data.inputs.layout_settings import LayoutOptions, layout_of
from scanfuse.data.inputs.pairing import Pairing
from scanfuse.data.inputs.slices import checked_slice
from scanfuse.data.manifest import Manifest
from scanfuse.data.transforms.augment import Augmentation
from scanfuse.data.transforms.letterbox import Letterbox

__all__ = ["KIND", "ViewSettings"]

KIND = "view_pairs"


class ViewSettings(Section):
    """Studies of any number of views, read as pairs."""

    layout: Annotated[str, layout_of(KIND)] = Field("auto", description="of the folder; auto finds it")
    options: LayoutOptions = Field(
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

    slice: str = Field("", description="of volumes and stacks: axial:middle, coronal:40, frame:0")

    @field_validator("slice")
    @classmethod
    def _names_a_slice(cls, value: str) -> str:
        if value.strip().lower().endswith(":all"):
            raise ValueError("a view is one picture; name one slice, such as axial:middle")
        return checked_slice(value)

    @property
    def letterbox(self) -> Letterbox:
        """How a picture becomes a square."""
        return Letterbox(size=self.size, aspect=self.aspect, crop=self.crop, window=self.window)

    @property
    def augmentation(self) -> Augmentation:
        """How squares are moved at random in training."""
        return Augmentation(flip=self.flip, rotate_degrees=self.rotate, shift=self.shift, scale=self.scale)

    def open(self, root: str | Path, *, split: bool = True) -> Manifest:
        """The studies under `root`, with the layout's splits unless none are wanted.

        What needs no labels: a system whose labels come from the data looks at these targets.
        """
        request = layouts.Request(split="made" if split else "none", seed=self.split_seed, incomplete=self.incomplete)
        options = dict(text.split("=", 1) for text in self.options)
        return layouts.open_manifest(root, KIND, request, self.layout, options=options)
