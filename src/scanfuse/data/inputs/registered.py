"""What all inputs of registered pictures or volumes share: where they lie, and how they are split by patient."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from scanfuse.config import Section
from scanfuse.data import layouts
from scanfuse.data.inputs import Fitted
from scanfuse.data.inputs.layout_settings import known_layout
from scanfuse.data.manifest import Manifest, Row
from scanfuse.data.readers import Image
from scanfuse.errors import UserError

__all__ = ["PairedSettings", "SourceSettings", "common_size", "refuse_fitted"]


class SourceSettings(Section):
    """Where registered files lie, and how they are split.

    Attributes:
        KIND: of the layouts that may be read.
    """

    KIND: ClassVar[str]

    layout: str = Field("auto", description="layout of the folder; auto finds it")
    split_seed: int = Field(0, ge=0, description="seed of the split by patient")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="share of the samples for validation, whole patients")
    test_fraction: float = Field(
        0.15, ge=0, lt=1, description="share of the samples for the test, whole patients; 0 with --folds: each fold's"
    )
    group_pattern: str | None = Field(None, description="regular expression that finds the patient in a file's name")

    @field_validator("layout")
    @classmethod
    def _is_a_layout(cls, value: str) -> str:
        return known_layout(cls.KIND, value)

    @property
    def fractions(self) -> dict[str, float]:
        """Shares of the samples by split."""
        train = 1 - self.val_fraction - self.test_fraction
        if train <= 0:
            raise UserError(
                "val_fraction and test_fraction leave nothing to train on: together they must be below 1."
            )
        return {"train": train, "val": self.val_fraction, "test": self.test_fraction}

    def opened(
        self,
        root: Path,
        modalities: tuple[str, ...],
        *,
        split: Literal["made", "published", "none"],
        incomplete: layouts.Incomplete,
    ) -> Manifest:
        """The samples under `root` with their files of these modalities."""
        request = layouts.Request(
            modalities=modalities,
            split=split,
            seed=self.split_seed,
            fractions=self.fractions,
            group_pattern=self.group_pattern,
            incomplete=incomplete,
        )
        return layouts.open_manifest(root, self.KIND, request, self.layout)


class PairedSettings(SourceSettings):
    """Pairs of registered files of two modalities."""

    pair: str = Field("T1CE-FLAIR", description="the two modalities, such as CT-MRI, SPECT-MRI, T1CE-FLAIR, T1-T2")

    @field_validator("pair")
    @classmethod
    def _two_names(cls, value: str) -> str:
        if len([name for name in value.split("-") if name]) != 2 or value.count("-") != 1:
            raise ValueError("expected two modalities joined by a dash, such as CT-MRI or T1CE-FLAIR")
        return value

    @property
    def modalities(self) -> tuple[str, str]:
        """Names of the two inputs in lower case, the order of the pair."""
        first, second = self.pair.lower().split("-")
        return first, second


def refuse_fitted(fitted: Fitted, what: str) -> None:
    """Raises UserError if a run stores fitted values of inputs that have none."""
    if fitted:
        raise UserError(f"The run stores fitted values, but {what} have none; it was made by another program.")


def common_size(row: Row, images: dict[str, Image]) -> tuple[int, int]:
    """Rows and columns that all pictures of a sample have; UserError where they differ, or there is none."""
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
