"""Clinical tables: a schema fitted on training rows alone, and rows by it as numbers for a network.

    training rows --fit--> Table --encode--> (n, F, 2)     [..., 0] the value, [..., 1] whether it is known

What a column is, its text says: numbers, a few levels in order, or categories. Nothing is filled in: a missing value
stays missing (0, with a flag of 0), and a category that training has not seen is "unknown" (number 0).

    kind          value
    numeric       (x - mean) / scale, clipped to 10 standard deviations
    ordinal       the same of the level's place; between and beyond levels: linear, and the nearest end
    categorical   the number of the category from 1, 0 = unknown
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Float64
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.inputs import Fitted
from scanfuse.data.transforms.column import Column
from scanfuse.data.transforms.forest import Forest, fit_forest
from scanfuse.data.transforms.leaks import ALMOST_PERFECT, classes_of, leak_of, separation
from scanfuse.errors import UserError

__all__ = ["Feature", "Table", "TableSettings"]

Kind = Literal["numeric", "ordinal", "categorical"]

_MOST_LEVELS = 10
"""Whole numbers of so few different values are levels in order."""
_MOST_CATEGORIES = 100
_CLIP = 10.0
_UNITS = ((r".*(mm2|_mm\^2)", "mm2"), (r".*mm", "mm"), (r".*_cm", "cm"), (r".*_kg", "kg"), (r"age(_.*)?", "years"))


class TableSettings(Section):
    """Which columns of the table are features."""

    columns: tuple[str, ...] = Field((), description="of the table, by name; none: all that do not leak")
    allow_leaks: tuple[str, ...] = Field((), description="columns to use although they would give the target away")
    keep_features: int = Field(0, ge=0, description="the so many best by a random forest on training rows; 0 = all")


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
        name: of the column.
        kind: how its values are read.
        unit: as the name says, such as "mm"; "" if it does not.
        levels: ordinal: the levels in order; categorical: the categories, numbered from 1.
        mean, scale: of numbers, and of places of levels; 0 and 1 for categories.
        missing: training rows without a value.
    """

    name: str
    kind: Kind
    unit: str = ""
    levels: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    missing: int = 0

    @property
    def num_categories(self) -> int:
        """Categories without "unknown"; 0 for numbers and levels in order."""
        return len(self.levels) if self.kind == "categorical" else 0

    def encode(
        self, column: Column
    ) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Values, whether they are known, and whether they make no sense (a word where a number is expected)."""
        number, known = column.number, ~column.gone
        if self.kind == "categorical":
            places = {level: number for number, level in enumerate(self.levels, start=1)}
            codes, words = column.different
            value = np.array([places.get(word, 0) for word in words], np.float64)[codes]
            return np.where(known, value, 0.0), known, np.zeros(len(codes), bool)
        wrong = ~np.isfinite(number) & known
        known = known & ~wrong
        if self.kind == "ordinal":
            number = np.interp(number, [float(level) for level in self.levels], range(len(self.levels)))
        value = np.where(known, np.clip((number - self.mean) / self.scale, -_CLIP, _CLIP), 0.0)
        return value, known, wrong


@dataclass(frozen=True)
class Table:
    """The schema of a table.

    Attributes:
        features: in the order of the columns.
        left_out: further columns of the training table, and why they are no features.
        forest: what picked the features, if they were picked.
        warnings: what a reader must know, such as a column that predicts too well.
    """

    features: tuple[Feature, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    forest: Forest | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        training: pd.DataFrame,
        target: Sequence[str],
        settings: TableSettings | None = None,
        *,
        seed: int = 0,
    ) -> "Table":
        """The schema of training rows; looks at nothing else.

        Args:
            training: one row a sample, columns that may become features, of text or of numbers with nan for missing.
            target: one text a row, "" where not known: to warn, and for the forest.
            settings: which columns.
            seed: of the forest.

        Raises:
            UserError: an asked column is not there or would leak.
        """
        settings = settings or TableSettings()
        wanted = _wanted(training, settings)
        classes = classes_of(target)
        features, left_out, warnings, columns = [], dict(wanted), [], []
        for name in (name for name, reason in wanted.items() if not reason):
            column = Column.of(training[name])
            feature = _feature(name, column)
            if isinstance(feature, str):
                left_out[name] = feature
                continue
            value, known, _ = feature.encode(column)
            warnings += _suspect(feature, value, known, classes)
            features.append(feature)
            columns.append(np.where(known, value, np.nan))
        found = tuple(features)
        forest = None
        if settings.keep_features and found:
            names = [feature.name for feature in found]
            forest = fit_forest(np.stack(columns, axis=1), classes, names, keep=settings.keep_features, seed=seed)
            for name in set(names) - set(forest.kept):
                left_out[name] = "not among the best by the forest"
            found = tuple(feature for feature in found if feature.name in forest.kept)
        return cls(found, {name: why for name, why in left_out.items() if why}, forest, tuple(warnings))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def categories(self) -> tuple[int, ...]:
        """For each feature its categories without "unknown", 0 for numbers: what a network must know of a table."""
        return tuple(feature.num_categories for feature in self.features)

    def encode(self, rows: pd.DataFrame) -> tuple[Float32[np.ndarray, "n f 2"], dict[int, str]]:
        """The rows by this schema; a column that is not there is missing throughout.

        Returns:
            values and flags, and for rows that cannot be read (by position) what is wrong with the first such cell.
        """
        found = np.zeros((len(rows), len(self.features), 2), np.float32)
        wrong: dict[int, str] = {}
        for place, feature in enumerate(self.features):
            if feature.name not in rows:
                continue
            column = Column.of(rows[feature.name])
            value, known, odd = feature.encode(column)
            found[:, place, 0], found[:, place, 1] = value, known
            for row in np.flatnonzero(odd):
                wrong.setdefault(
                    int(row),
                    f"{feature.name} is {column.cells[row]!r}, but a number is expected; leave it empty if unknown.",
                )
        return found, wrong

    def encode_row(self, row: Mapping[str, Any]) -> Float32[np.ndarray, "f 2"]:
        """One row given by hand; columns that are left out, or would be by their name, are passed over.

        Raises:
            UserError: a name that the table never had, or a word where a number is expected.
        """
        known = {*self.names, *self.left_out}
        for name in row:
            if name not in known and leak_of(name) is None:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.names)}."
                raise UserError(f"The table of this run has no column {name!r}; {hint}")
        texts = {name: "" if value is None else str(value) for name, value in row.items()}
        found, wrong = self.encode(pd.DataFrame([texts], dtype=str))
        if wrong:
            raise UserError(f"In the given row {wrong[0]}")
        return cast(Any, found[0])

    def fitted(self) -> Fitted:
        """What is to be stored: names and categories as plain values, means and scales as float64 tensors."""
        values: dict[str, Any] = {
            "features": [
                {
                    "name": feature.name,
                    "kind": feature.kind,
                    "unit": feature.unit,
                    "levels": list(feature.levels),
                    "missing": feature.missing,
                }
                for feature in self.features
            ],
            "left_out": dict(self.left_out),
            "warnings": list(self.warnings),
        }
        if self.forest is not None:
            values["forest"] = self.forest.as_dict()
        numbers = [(feature.mean, feature.scale) for feature in self.features]
        statistics = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 2)
        return Fitted({"table": values}, {"table": statistics})

    @classmethod
    def restore(cls, fitted: Fitted) -> "Table":
        """The inverse of `fitted`; UserError where it is damaged."""
        try:
            values, statistics = fitted.values["table"], fitted.tensors["table"]
            features = tuple(
                Feature(
                    name=str(item["name"]),
                    kind=item["kind"],
                    unit=str(item["unit"]),
                    levels=tuple(map(str, item["levels"])),
                    mean=mean,
                    scale=scale,
                    missing=int(item["missing"]),
                )
                for item, (mean, scale) in zip(values["features"], statistics.tolist(), strict=True)
            )
            forest = Forest.from_dict(values["forest"]) if "forest" in values else None
            return cls(features, dict(values["left_out"]), forest, tuple(values["warnings"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The run's record of its table (fitted.json, fitted.safetensors) is missing or damaged "
                f"({type(error).__name__}: {error}): restore it, or train again."
            ) from None


def _wanted(training: pd.DataFrame, settings: TableSettings) -> dict[str, str]:
    """Column -> "" if it may be a feature, else why not."""
    for name in (*settings.columns, *settings.allow_leaks):
        if name not in training:
            near = difflib.get_close_matches(name, map(str, training), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(str, training))}."
            raise UserError(f"The table has no column {name!r}; {hint}")
    reasons: dict[str, str] = {}
    for column in map(str, training):
        reason = leak_of(column)
        if column in settings.allow_leaks:
            reasons[column] = ""
        elif settings.columns and column not in settings.columns:
            reasons[column] = "not asked for"
        elif reason and column in settings.columns:
            raise UserError(
                f"The column {column!r} would give the target away: {reason}. Leave it out of --columns, or take the "
                f"responsibility with --allow-leaks {column}."
            )
        else:
            reasons[column] = reason or ""
    return reasons


def _feature(name: str, column: Column) -> Feature | str:
    """The feature of a column's training rows, or why it cannot be one."""
    known = ~column.gone
    are_numbers = bool(np.isfinite(column.number[known]).all())
    missing = len(known) - int(known.sum())
    levels = column.levels if are_numbers else np.zeros(0)
    number = len(levels) if are_numbers else len(column.words)
    if number < 2:
        return "it has one value in all training rows" if number else "it is empty in all training rows"
    unit = next((unit for pattern, unit in _UNITS if re.fullmatch(pattern, name.lower())), "")
    if number == 2 or not are_numbers:
        if number > _MOST_CATEGORIES:
            return f"it has {number} different texts in {known.sum()} rows, as free text or an identifier has"
        return Feature(name, "categorical", unit, column.words, missing=missing)
    values = column.number[known]
    if number <= _MOST_LEVELS and (levels == np.rint(levels)).all():
        values = np.searchsorted(levels, values).astype(np.float64)
        words = [f"{level:g}" for level in levels]
        return Feature(name, "ordinal", unit, tuple(words), float(values.mean()), float(values.std()), missing)
    return Feature(name, "numeric", unit, (), float(values.mean()), float(values.std()), missing)


def _suspect(feature: Feature, value: np.ndarray, known: np.ndarray, classes: np.ndarray) -> list[str]:
    """Warnings of a column that alone tells the classes apart, by its value or by being missing."""
    found = []
    alone = separation(value, known, classes, is_ordered=feature.kind != "categorical")
    if alone >= ALMOST_PERFECT:
        found.append(f"{feature.name} alone tells the classes apart ({alone:.3f} of 1): it may give the target away")
    if known.all():
        return found
    alone = separation(known.astype(np.float64), np.ones(len(known), bool), classes, is_ordered=False)
    if alone >= ALMOST_PERFECT:
        found.append(
            f"whether {feature.name} is missing alone tells the classes apart ({alone:.3f} of 1): it may give the "
            "target away"
        )
    return found
