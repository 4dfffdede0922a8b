"""The tables of classifying runs: metrics of all results together, per study, per pair, per label and per subgroup.

A column is a run, an ensemble, or a cross-validation whose folds each scored what they held out. Every result is
decided by the threshold of whoever scored it, so a threshold here is one number per result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.evaluate.columns import Column
from scanfuse.evaluate.subgroups import subgroup_columns, subgroup_tables
from scanfuse.evaluate.tables import Cell, Evaluation
from scanfuse.predict import Ensemble, Predictor
from scanfuse.tasks.classify import MetricTable, Scored, Task, ensemble, metrics

__all__ = ["decided_results", "evaluate_folds", "evaluate_together"]

ENSEMBLE = "ensemble"
POOLED = "out of fold"
_OWN = ("method", "run", "id", "group")


def decided_results(
    predictors: dict[str, Predictor], manifest: Manifest, *, quiet: bool = False
) -> tuple[dict[str, list[Scored]], dict[str, list[Scored]]]:
    """Calibrated results of classifying runs: name -> per study, and name -> per pair."""
    studies, pairs = {}, {}
    for name, predictor in predictors.items():
        job, raw = predictor.classifier.job, list(predictor.raw(manifest, quiet=quiet))
        studies[name], pairs[name] = job.decided(raw), job.decision.apply(raw)
    return studies, pairs


def evaluate_together(
    predictors: dict[str, Predictor],
    manifest: Manifest,
    split: str,
    *,
    joined: bool = False,
    by: Sequence[str] = (),
    quiet: bool = False,
) -> tuple[Evaluation, dict[str, list[Scored]]]:
    """Every run on the same samples, and with `joined` their ensemble; also the runs' results per study.

    Args:
        predictors: by name, at least one.
        manifest: the samples.
        split: their name.
        joined: adds the mean of the runs' calibrated probabilities, cut at the mean of their thresholds.
        by: columns of the manifest whose values are subgroups.

    Raises:
        UserError: runs that predict other labels, or no such column.
    """
    if joined and ENSEMBLE in predictors:
        raise UserError(f"A run has the name {ENSEMBLE!r}: rename its folder.")
    task = _one_task(predictors)
    # A table of groups for each of several runs is too much, unless it was asked for.
    columns = subgroup_columns(manifest, by, usual=joined or len(predictors) == 1)
    studies, pairs = decided_results(predictors, manifest, quiet=quiet)
    thresholds = {name: list(predictor.classifier.job.decision.thresholds) for name, predictor in predictors.items()}
    notes = _decision_notes(predictors)
    per_study = {name: Column.of(found, thresholds[name]) for name, found in studies.items()}
    per_pair = {name: Column.of(found, thresholds[name]) for name, found in pairs.items()}
    if joined:
        decision = Ensemble(predictors).decision
        thresholds[ENSEMBLE] = list(decision.thresholds)
        per_study[ENSEMBLE] = Column.of(ensemble(list(studies.values()), task), decision.thresholds)
        if len({frozenset(result.id for result in found) for found in pairs.values()}) == 1:
            per_pair[ENSEMBLE] = Column.of(ensemble(list(pairs.values()), task), decision.thresholds)
        cuts = ", ".join(f"{cut:.3f}" for cut in decision.thresholds[:4])
        notes.append(
            f"{ENSEMBLE}: the mean of the {len(predictors)} members' calibrated probabilities"
            + (
                f"; its threshold is the mean of theirs ({cuts}{', ...' if len(decision.thresholds) > 4 else ''})"
                if cuts
                else ""
            )
        )
    shown = [ENSEMBLE] if joined else list(per_study)
    evaluation = _tabulated(per_study, per_pair, task, manifest.table[["id", *columns]], split, shown)
    evaluation.notes = [*manifest.notes, *evaluation.notes, *notes]
    evaluation.thresholds = thresholds
    return evaluation, studies


def evaluate_folds(
    predictors: dict[str, Predictor],
    parts: Mapping[str, Manifest],
    split: str,
    *,
    by: Sequence[str] = (),
    quiet: bool = False,
) -> Evaluation:
    """One column with the results of all folds, each on the samples that it held out, and a table of the folds.

    Args:
        predictors: the folds by name.
        parts: name -> what that fold held out; see `scanfuse.evaluate.samples.out_of_fold`.
        split: test or val.
        by: columns of the manifest whose values are subgroups.

    Raises:
        UserError: folds that predict other labels, or no such column.
    """
    task = _one_task(predictors)
    first = next(iter(parts.values()))
    samples = pd.concat([part.table for part in parts.values()], ignore_index=True)
    columns = subgroup_columns(replace(first, table=samples), by)
    per_study, per_pair = {}, {}
    for name, part in parts.items():
        studies, pairs = decided_results({name: predictors[name]}, part, quiet=quiet)
        thresholds = predictors[name].classifier.job.decision.thresholds
        per_study[name], per_pair[name] = Column.of(studies[name], thresholds), Column.of(pairs[name], thresholds)
    pooled = {POOLED: Column.joined(list(per_study.values()))}
    pooled_pairs = {POOLED: Column.joined(list(per_pair.values()))}
    evaluation = _tabulated(pooled, pooled_pairs, task, samples[["id", *columns]], split, [POOLED])
    by_id = {result.id: name for name, column in per_study.items() for result in column.results}
    evaluation.rows = [{"method": row["method"], "run": by_id[row["id"]], **row} for row in evaluation.rows]
    evaluation.notes = [
        *first.notes,
        *evaluation.notes,
        f"{POOLED}: each sample was scored by the one of {len(parts)} runs that held it out, with its threshold",
        *_decision_notes(predictors),
    ]
    if split == "val":
        evaluation.notes.append(
            "epoch, temperature and threshold of each run were chosen on these samples: the values are too good"
        )
    evaluation.parts["folds"] = _each_fold(per_study, task, evaluation)
    return evaluation


def _one_task(predictors: dict[str, Predictor]) -> Task:
    first, *others = predictors
    task = predictors[first].classifier.job.task
    for name in others:
        if predictors[name].classifier.job.task != task:
            raise UserError(f"{name} predicts other labels than {first}: evaluate them one by one.")
    return task


def _decision_notes(predictors: dict[str, Predictor]) -> list[str]:
    return [f"{name}: {note}" for name, run in predictors.items() for note in run.classifier.job.decision.notes]


def _tabulated(
    studies: dict[str, Column],
    pairs: dict[str, Column],
    task: Task,
    samples: pd.DataFrame,
    split: str,
    shown: Sequence[str],
) -> Evaluation:
    """The table per study with its parts.

    `samples` has the column id and those to tabulate by; subgroups are shown of the methods in `shown`.
    """
    tables = {name: column.table(task) for name, column in studies.items()}
    first = next(iter(tables.values()))
    evaluation = _evaluation(tables, task, split, "studies")
    evaluation.notes = list(first.notes)
    by = [str(name) for name in samples if name != "id"]
    groups = {column: dict(zip(samples["id"], samples[column], strict=True)) for column in by}
    evaluation.rows = _rows(studies, task, groups)
    has_pairs = len(next(iter(pairs.values())).results) != first.results
    if has_pairs:
        evaluation.parts["pairs"] = _evaluation(
            {name: column.table(task) for name, column in pairs.items()}, task, split, "pairs of views"
        )
        evaluation.parts["pairs"].rows = _rows(pairs, task, {})
    if first.per_label:
        cells = {
            name: {label: Cell(*table.per_label[label]["auroc"]) for label in task.labels}
            for name, table in tables.items()
        }
        labels = replace(evaluation, better=dict.fromkeys(task.labels, "higher"), cells=cells, rows=[], parts={})
        labels.notes = ["each row is the AUROC of one label"]
        evaluation.parts["labels"] = labels
    for column, values in groups.items():
        for name in shown:
            of_pairs = pairs.get(name) if has_pairs else None
            found = subgroup_tables(studies[name], of_pairs, task, column, values, split)
            where = f" of {name}" if len(shown) > 1 else ""
            evaluation.parts |= {f"{title}{where}": part for title, part in found.items()}
    return evaluation


def _evaluation(tables: Mapping[str, MetricTable], task: Task, split: str, unit: str) -> Evaluation:
    better = metrics(task)
    cells = {name: {metric: Cell(*table.summary[metric]) for metric in better} for name, table in tables.items()}
    first = next(iter(tables.values()))
    return Evaluation(split, first.results, first.groups, list(tables), better, cells, [], unit=unit)


def _each_fold(studies: Mapping[str, Column], task: Task, whole: Evaluation) -> Evaluation:
    """Every fold on its own part, and the mean of the folds."""
    tables = {name: column.table(task) for name, column in studies.items()}
    found = _evaluation(tables, task, whole.split, "studies")
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


def _rows(columns: Mapping[str, Column], task: Task, groups: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """One dictionary per column and result: id, patient, subgroups, targets and probabilities."""
    rows = []
    for name, column in columns.items():
        for result in column.results:
            row: dict[str, Any] = {"method": name, "id": result.id, "group": result.group}
            # A column that looks like one of these would be taken for it.
            named = [by for by in groups if by not in _OWN and not by.startswith(("p_", "target"))]
            row |= {by: groups[by][result.study] for by in named}
            for position in range(task.num_targets):
                label = f"target_{task.labels[position]}" if task.num_targets > 1 else "target"
                row[label] = int(result.target[position]) if result.mask[position] else ""
            rows.append(row | {f"p_{k}": float(p) for k, p in zip(task.labels, result.probabilities, strict=True)})
    return rows
