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
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Float64
from pydantic import Field

from scanfuse.config import Section
from scanfuse.data.inputs import Fitted
from scanfuse.data.transforms.forest import Forest, fit_forest
from scanfuse.data.transforms.leaks import ALMOST_PERFECT, classes_of, leak_of, separation
from scanfuse.errors import UserError

__all__ = ["Feature", "Table", "TableSettings"]

Kind = Literal["numeric", "ordinal", "categorical"]

_MISSING = ("", "na", "n/a", "nan", "null")
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


class _Column(NamedTuple):
    """A column's texts, each different one looked at once: a table of 400,000 rows has columns of a few words.

    Attributes:
        codes: of every row, the place of its text in `different`.
        different: the different texts.
        gone: which of these say that nothing is known.
        number: these as numbers, not finite where they are none.
    """

    codes: np.ndarray
    different: np.ndarray
    gone: np.ndarray
    number: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str] | np.ndarray) -> "_Column":
        codes, different = pd.factorize(np.asarray(texts, object))
        number = _numbers(different)
        gone = np.zeros(len(different), bool)
        words = ~np.isfinite(number)  # what is a number is not missing, and most columns are numbers
        gone[words] = _are_missing(different[words])
        return cls(codes, different, gone, number)


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
        self, texts: Sequence[str] | np.ndarray
    ) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Values, whether they are known, and whether they make no sense (a word where a number is expected)."""
        return self._encoded(_Column.of(texts))

    def _encoded(
        self, column: "_Column"
    ) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        codes, different, gone, number = column
        if self.kind == "categorical":
            places = {level: number for number, level in enumerate(self.levels, start=1)}
            value = np.array([places.get(_canonical(text), 0) for text in different], np.float64)
            return np.where(gone, 0.0, value)[codes], ~gone[codes], np.zeros(len(codes), bool)
        wrong = ~np.isfinite(number) & ~gone
        known = np.isfinite(number) & ~gone
        if self.kind == "ordinal":
            number = np.interp(number, [float(level) for level in self.levels], range(len(self.levels)))
        value = np.where(known, np.clip((number - self.mean) / self.scale, -_CLIP, _CLIP), 0.0)
        return value[codes], known[codes], wrong[codes]


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
            training: text, one row a sample, columns that may become features.
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
            texts = np.asarray(training[name], object)
            column = _Column.of(texts)
            feature = _feature(name, column)
            if isinstance(feature, str):
                left_out[name] = feature
                continue
            value, known, _ = feature._encoded(column)
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
            texts = np.asarray(rows[feature.name], object)
            value, known, odd = feature.encode(texts)
            found[:, place, 0], found[:, place, 1] = value, known
            for row in np.flatnonzero(odd):
                wrong.setdefault(
                    int(row),
                    f"{feature.name} is {texts[row]!r}, but a number is expected; leave it empty if unknown.",
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


def _feature(name: str, column: _Column) -> Feature | str:
    """The feature of a column's training texts, or why it cannot be one."""
    codes, different, gone, number = column
    are_numbers = bool(np.isfinite(number[~gone]).all())
    known = ~gone[codes]
    missing = len(codes) - int(known.sum())
    levels = np.unique(number[~gone]) if are_numbers else np.array(sorted({_canonical(t) for t in different[~gone]}))
    if len(levels) < 2:
        return "it has one value in all training rows" if len(levels) else "it is empty in all training rows"
    unit = next((unit for pattern, unit in _UNITS if re.fullmatch(pattern, name.lower())), "")
    if len(levels) == 2 or not are_numbers:
        if len(levels) > _MOST_CATEGORIES:
            return f"it has {len(levels)} different texts in {known.sum()} rows, as free text or an identifier has"
        words = sorted({_canonical(text) for text in different[~gone]})
        return Feature(name, "categorical", unit, tuple(words), missing=missing)
    values = number[codes][known]
    if len(levels) <= _MOST_LEVELS and (levels == np.rint(levels)).all():
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
    alone = separation(known.astype(np.float64), np.ones(len(known), bool), classes, is_ordered=False)
    if alone >= ALMOST_PERFECT:
        found.append(
            f"whether {feature.name} is missing alone tells the classes apart ({alone:.3f} of 1): it may give the "
            "target away"
        )
    return found


def _are_missing(texts: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Which cells say that nothing is known."""
    return np.array([text.strip().lower() in _MISSING for text in texts], bool)


def _numbers(texts: np.ndarray) -> Float64[np.ndarray, " n"]:
    """The texts as numbers, not finite where they are none."""
    return np.asarray(pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce"), np.float64)


def _canonical(text: str) -> str:
    """One spelling for a category: numbers without needless zeros, words in lower case with single blanks."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    return f"{number:g}" if np.isfinite(number) else " ".join(text.split()).casefold()
