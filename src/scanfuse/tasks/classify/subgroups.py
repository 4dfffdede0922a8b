"""Results by subgroup: one row for each value of a column of the manifest, such as the body part or the sex.

A group's AUROC, sensitivity and specificity are those of its studies alone, with intervals over its patients; the
threshold is the run's. "group mean" is the mean of the groups' AUROC, as publications on MURA report it, with an
interval from resampling all patients together.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scanfuse.data.manifest import COLUMNS, Manifest
from scanfuse.errors import UserError
from scanfuse.metrics.classification.inputs import mean_of_defined
from scanfuse.stats.bootstrap import Weights, cluster_intervals
from scanfuse.tables import Cell, Evaluation
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.column import Column, MetricTable, statistic
from scanfuse.tasks.classify.prediction import Predictions

__all__ = ["grouped", "subgroup_columns", "subgroup_tables"]

MOST_GROUPS = 20
MOST_NUMBERS = 10
"""Different numbers in a column up to which each is a group of its own; more are cut at their quartiles."""

MEAN, ALL = "group mean", "all"
_UNKNOWN = "not given"
_NONE = Cell(float("nan"), float("nan"), float("nan"))


def subgroup_columns(manifest: Manifest, asked: Sequence[str], *, usual: bool = True) -> list[str]:
    """The columns to tabulate by: those asked for, else (with `usual`) what the data set is usually reported by.

    Raises:
        UserError: there is no such column.
    """
    further = [name for name in map(str, manifest.table) if name not in (*COLUMNS, *manifest.modalities)]
    for name in asked:
        if name not in further:
            raise UserError(f"The data have no column {name!r} for --by; there are: {', '.join(further) or 'none'}.")
    if asked:
        return list(dict.fromkeys(asked))
    if not usual:
        return []
    return [name for name in manifest.subgroups if name in further and manifest.table[name].nunique() > 1]


def grouped(values: Sequence[str], column: str) -> list[str]:
    """The subgroup of each value: the value, "not given" for "", or one of four ranges where it is a number.

    Args:
        values: text, one per study.
        column: its name, for the message.

    Raises:
        UserError: more than 20 groups.
    """
    series = pd.Series(list(values), dtype=str)
    filled = series[series != ""]
    numbers = pd.to_numeric(filled, errors="coerce")
    if filled.nunique() > MOST_NUMBERS and not numbers.isna().any():
        codes = pd.qcut(numbers, 4, labels=False, duplicates="drop")
        ends = numbers.groupby(codes).agg(["min", "max"])
        names = {code: f"{row['min']:g} to {row['max']:g}" for code, row in ends.iterrows()}
        found = codes.map(names).reindex(series.index, fill_value=_UNKNOWN)
        return [str(name) for name in found]
    if filled.nunique() > MOST_GROUPS:
        raise UserError(
            f"The column {column!r} has {filled.nunique()} different values: a table shows at most {MOST_GROUPS}."
        )
    return [value or _UNKNOWN for value in series]


def subgroup_tables(
    studies: Column, pairs: Column | None, classes: Classes, column: str, values: Mapping[str, str], split: str
) -> dict[str, Evaluation]:
    """Title -> table with the groups as rows; of pairs one more, of several labels their AUROC in each group.

    Args:
        studies: results per study.
        pairs: results per pair, where these are others.
        classes: what is predicted.
        column: what the groups are made by.
        values: study -> its value in that column.
        split: name of the samples.
    """
    names = [result.study for result in studies.results]
    group_of = dict(zip(names, grouped([values[name] for name in names], column), strict=True))
    order = _ordered(set(group_of.values()))
    second = "balanced_accuracy" if classes.kind == "multiclass" else "sensitivity"
    parts = _parts(studies, group_of, order)
    tables = {group: part.table(classes) for group, part in parts.items()}
    mean = _mean_auroc(studies, group_of, order, classes)
    made = {f"by {column}": _table(parts, tables, mean, classes, split, "studies", ("auroc", second, "specificity"))}
    if pairs is not None:
        of_pairs = _parts(pairs, group_of, order)
        found = {group: part.table(classes) for group, part in of_pairs.items()}
        mean = _mean_auroc(pairs, group_of, order, classes)
        made[f"pairs by {column}"] = _table(of_pairs, found, mean, classes, split, "pairs of views", ("auroc",))
    if classes.kind == "multilabel":
        per_label = {
            group: {label: Cell(*table.per_label[label]["auroc"]) for label in classes.labels}
            for group, table in tables.items()
        }
        whole, labels = tables[ALL], dict.fromkeys(classes.labels, "none")
        made[f"AUROC by {column}"] = Evaluation(
            split,
            whole.results,
            whole.groups,
            list(per_label),
            labels,
            per_label,
            [],
            unit="studies",
            who="patients",
            measure="value",
        )
    return made


def _table(
    parts: Mapping[str, Column],
    tables: Mapping[str, MetricTable],
    mean_auroc: Cell,
    classes: Classes,
    split: str,
    unit: str,
    rates: Sequence[str],
) -> Evaluation:
    """Columns are n, how many are positive (under the label, if there is one) and the rates.

    Rows are the groups, the mean of their AUROC, and all.
    """
    cells = {"n": {group: _count(table.results) for group, table in tables.items()}}
    if classes.kind != "multiclass":
        label = classes.labels[0] if classes.kind == "binary" else "positive"
        # A label may be called as another column is.
        name = "positive" if label in ("n", *rates) else label
        cells[name] = {group: _count(_positives(part)) for group, part in parts.items()}
    counts = list(cells)
    cells |= {rate: {group: Cell(*table.summary[rate]) for group, table in tables.items()} for rate in rates}
    cells["auroc"][MEAN] = mean_auroc
    rows = dict.fromkeys([*(group for group in parts if group != ALL), MEAN, ALL], "none")
    filled = {method: {row: found.get(row, _NONE) for row in rows} for method, found in cells.items()}
    whole = tables[ALL]
    return Evaluation(
        split,
        whole.results,
        whole.groups,
        list(filled),
        rows,
        filled,
        [],
        unit=unit,
        counts=counts,
        who="patients",
        measure="value",
    )


def _parts(column: Column, group_of: Mapping[str, str], order: Sequence[str]) -> dict[str, Column]:
    """The results of each group, and of all."""
    groups = [group_of[result.study] for result in column.results]
    return {group: column.where([name == group for name in groups]) for group in order} | {ALL: column}


def _ordered(groups: set[str]) -> list[str]:
    """By number where they start with one, else by name; what is not given comes last."""

    def key(group: str) -> tuple[bool, float, str]:
        number = pd.to_numeric(group.split(" to ")[0], errors="coerce")
        return group == _UNKNOWN, float("inf") if np.isnan(number) else float(number), group

    return sorted(groups, key=key)


def _count(value: int) -> Cell:
    return Cell(float(value), float("nan"), float("nan"))


def _positives(column: Column) -> int:
    """Studies with the positive class, or with any finding."""
    return sum(bool(((result.target == 1) & result.mask).any()) for result in column.results)


def _mean_auroc(column: Column, group_of: Mapping[str, str], order: Sequence[str], classes: Classes) -> Cell:
    """The mean of the groups' AUROC where they are defined; all groups see the same resampled patients."""
    groups = np.array([group_of[result.study] for result in column.results])
    rows = [np.flatnonzero(groups == group) for group in order]
    each = [statistic(Predictions.of([column.results[index] for index in part]), classes) for part in rows]

    def mean(weights: Weights) -> dict[str, np.ndarray]:
        return {
            "auroc": mean_of_defined([of(weights[:, part])["auroc"] for of, part in zip(each, rows, strict=True)])
        }

    return Cell(*cluster_intervals(mean, [result.group for result in column.results])["auroc"])
