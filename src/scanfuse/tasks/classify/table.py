"""The tables of classifying runs: metrics of all results together, per study, per pair, per label and per subgroup.

A column is a run, an ensemble, or a cross-validation whose folds each scored what they held out. Every result is
decided by the threshold of whoever scored it, so a threshold here is one number per result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from scanfuse.data.manifest import Manifest, texts_of
from scanfuse.errors import UserError
from scanfuse.tables import Cell, Evaluation
from scanfuse.tasks.classify.classes import Classes
from scanfuse.tasks.classify.column import Column, MetricTable, metrics
from scanfuse.tasks.classify.operating_point import OperatingPoint, combine
from scanfuse.tasks.classify.prediction import Prediction, by_study, ensemble
from scanfuse.tasks.classify.subgroups import subgroup_columns, subgroup_tables

__all__ = ["Decided", "conditions", "evaluate_folds", "evaluate_together"]

ENSEMBLE = "ensemble"
POOLED = "out of fold"
_OWN = ("method", "run", "id", "group")


@dataclass(frozen=True)
class Decided:
    """Calibrated results of one run, per study and per sample, and the operating point that decides them."""

    point: OperatingPoint
    studies: list[Prediction]
    samples: list[Prediction]

    @classmethod
    def of(cls, raw: Sequence[Prediction], point: OperatingPoint, classes: Classes) -> "Decided":
        """From raw results, one per sample."""
        return cls(point, point.apply(by_study(raw, classes)), point.apply(raw))


def evaluate_together(
    runs: Mapping[str, Decided],
    classes: Classes,
    manifest: Manifest,
    split: str,
    *,
    joined: bool = False,
    by: Sequence[str] = (),
) -> Evaluation:
    """Every run on the same samples, and with `joined` their ensemble.

    Args:
        runs: by name, at least one.
        classes: what all of them predict.
        manifest: the samples.
        split: their name.
        joined: adds the mean of the runs' calibrated probabilities, cut at the mean of their thresholds.
        by: columns of the manifest whose values are subgroups.

    Raises:
        UserError: no such column, or a run whose name is taken.
    """
    if joined and ENSEMBLE in runs:
        raise UserError(f"A run has the name {ENSEMBLE!r}: rename its folder.")
    # A table of groups for each of several runs is too much, unless it was asked for.
    columns = subgroup_columns(manifest, by, usual=joined or len(runs) == 1)
    thresholds = {name: list(run.point.thresholds) for name, run in runs.items()}
    notes = _point_notes(runs)
    per_study = {name: Column.of(run.studies, thresholds[name]) for name, run in runs.items()}
    per_pair = {name: Column.of(run.samples, thresholds[name]) for name, run in runs.items()}
    if joined:
        point = combine([run.point for run in runs.values()])
        thresholds[ENSEMBLE] = list(point.thresholds)
        mean = ensemble([run.studies for run in runs.values()], classes)
        per_study[ENSEMBLE] = Column.of(mean, point.thresholds)
        if len({frozenset(result.id for result in run.samples) for run in runs.values()}) == 1:
            mean = ensemble([run.samples for run in runs.values()], classes)
            per_pair[ENSEMBLE] = Column.of(mean, point.thresholds)
        cuts = ", ".join(f"{cut:.3f}" for cut in point.thresholds[:4])
        notes.append(
            f"{ENSEMBLE}: the mean of the {len(runs)} members' calibrated probabilities"
            + (
                f"; its threshold is the mean of theirs ({cuts}{', ...' if len(point.thresholds) > 4 else ''})"
                if cuts
                else ""
            )
        )
    shown = [ENSEMBLE] if joined else list(per_study)
    evaluation = _tabulated(per_study, per_pair, classes, manifest.table[["id", *columns]], split, shown)
    evaluation.notes = [*manifest.notes, *evaluation.notes, *notes]
    evaluation.thresholds = thresholds
    evaluation.main = ENSEMBLE if joined else ""
    return evaluation


def evaluate_folds(
    runs: Mapping[str, Decided],
    classes: Classes,
    parts: Mapping[str, Manifest],
    split: str,
    *,
    by: Sequence[str] = (),
) -> Evaluation:
    """One column with the results of all folds, each on the samples that it held out, and a table of the folds.

    Args:
        runs: the folds by name, each with its results on its own part.
        classes: what all of them predict.
        parts: name -> what that fold held out.
        split: test or val.
        by: columns of the manifest whose values are subgroups.

    Raises:
        UserError: no such column.
    """
    first = next(iter(parts.values()))
    samples = pd.concat([part.table for part in parts.values()], ignore_index=True)
    columns = subgroup_columns(replace(first, table=samples), by)
    per_study = {name: Column.of(runs[name].studies, runs[name].point.thresholds) for name in parts}
    per_pair = {name: Column.of(runs[name].samples, runs[name].point.thresholds) for name in parts}
    pooled = {POOLED: Column.joined(list(per_study.values()))}
    pooled_pairs = {POOLED: Column.joined(list(per_pair.values()))}
    evaluation = _tabulated(pooled, pooled_pairs, classes, samples[["id", *columns]], split, [POOLED])
    by_id = {result.id: name for name, column in per_study.items() for result in column.results}
    evaluation.rows = [{"method": row["method"], "run": by_id[row["id"]], **row} for row in evaluation.rows]
    evaluation.notes = [
        *first.notes,
        *evaluation.notes,
        f"{POOLED}: each sample was scored by the one of {len(parts)} runs that held it out, with its threshold",
        *_point_notes(runs),
    ]
    if split == "val":
        evaluation.notes.append(
            "epoch, temperature and threshold of each run were chosen on these samples: the values are too good"
        )
    evaluation.parts["folds"] = _each_fold(per_study, classes, evaluation)
    return evaluation


def _point_notes(runs: Mapping[str, Decided]) -> list[str]:
    return [f"{name}: {note}" for name, run in runs.items() for note in run.point.notes]


def conditions(run: Decided, others: Mapping[str, Decided], classes: Classes, split: str) -> Evaluation:
    """One run beside itself under other conditions (an input missing, noise): a column for each.

    Studies that could not be scored under one of them, as they have nothing else, are left out of all columns. The
    thresholds are those of the run.
    """
    columns = {"as it is": run, **others}
    kept = set.intersection(*({result.id for result in each.studies} for each in columns.values()))
    tables = {
        name: Column.of([result for result in each.studies if result.id in kept], run.point.thresholds).table(classes)
        for name, each in columns.items()
    }
    found = _evaluation(tables, classes, split, "studies")
    found.better = dict.fromkeys(found.better, "none")  # conditions are no rivals
    left = len(run.studies) - len(kept)
    found.notes = [f"{left} studies have no other input and are left out"] if left else []
    return found


def _tabulated(
    studies: dict[str, Column],
    pairs: dict[str, Column],
    classes: Classes,
    samples: pd.DataFrame,
    split: str,
    shown: Sequence[str],
) -> Evaluation:
    """The table per study with its parts.

    `samples` has the column id and those to tabulate by; subgroups are shown of the methods in `shown`.
    """
    tables = {name: column.table(classes) for name, column in studies.items()}
    first = next(iter(tables.values()))
    evaluation = _evaluation(tables, classes, split, "studies")
    evaluation.notes = list(first.notes)
    by = [str(name) for name in samples if name != "id"]
    groups = {column: dict(zip(samples["id"], texts_of(samples[column]), strict=True)) for column in by}
    evaluation.rows = _rows(studies, classes, groups)
    has_pairs = len(next(iter(pairs.values())).results) != first.results
    if has_pairs:
        evaluation.parts["pairs"] = _evaluation(
            {name: column.table(classes) for name, column in pairs.items()}, classes, split, "pairs of views"
        )
        evaluation.parts["pairs"].rows = _rows(pairs, classes, {})
    if first.per_label:
        cells = {
            name: {label: Cell(*table.per_label[label]["auroc"]) for label in classes.labels}
            for name, table in tables.items()
        }
        labels = replace(evaluation, better=dict.fromkeys(classes.labels, "higher"), cells=cells, rows=[], parts={})
        labels.notes = ["each row is the AUROC of one label"]
        evaluation.parts["labels"] = labels
    for column, values in groups.items():
        for name in shown:
            of_pairs = pairs.get(name) if has_pairs else None
            found = subgroup_tables(studies[name], of_pairs, classes, column, values, split)
            where = f" of {name}" if len(shown) > 1 else ""
            evaluation.parts |= {f"{title}{where}": part for title, part in found.items()}
    return evaluation


def _evaluation(tables: Mapping[str, MetricTable], classes: Classes, split: str, unit: str) -> Evaluation:
    better = metrics(classes)
    cells = {name: {metric: Cell(*table.summary[metric]) for metric in better} for name, table in tables.items()}
    first = next(iter(tables.values()))
    return Evaluation(
        split,
        first.results,
        first.groups,
        list(tables),
        better,
        cells,
        [],
        unit=unit,
        who="patients",
        measure="value",
    )


def _each_fold(studies: Mapping[str, Column], classes: Classes, whole: Evaluation) -> Evaluation:
    """Every fold on its own part, and the mean of the folds."""
    tables = {name: column.table(classes) for name, column in studies.items()}
    found = _evaluation(tables, classes, whole.split, "studies")
    found.samples, found.groups = whole.samples, whole.groups
    found.cells["mean"] = {}
    for metric in found.better:
        values = np.array([found.cells[name][metric].mean for name in tables])
        mean = float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else float("nan")
        found.cells["mean"][metric] = Cell(mean, float("nan"), float("nan"))
    found.methods.append("mean")
    found.better = dict.fromkeys(found.better, "none")  # the folds are no rivals
    found.notes = ["each column is one fold on the samples that it held out; mean: of the folds"]
    return found


def _rows(
    columns: Mapping[str, Column], classes: Classes, groups: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """One dictionary per column and result: id, patient, subgroups, targets and probabilities."""
    rows = []
    for name, column in columns.items():
        for result in column.results:
            row: dict[str, Any] = {"method": name, "id": result.id, "group": result.group}
            # A column that looks like one of these would be taken for it.
            named = [by for by in groups if by not in _OWN and not by.startswith(("p_", "target"))]
            row |= {by: groups[by][result.study] for by in named}
            for position in range(classes.num_targets):
                label = f"target_{classes.labels[position]}" if classes.num_targets > 1 else "target"
                row[label] = int(result.target[position]) if result.mask[position] else ""
            rows.append(row | {f"p_{k}": float(p) for k, p in zip(classes.labels, result.probabilities, strict=True)})
    return rows
