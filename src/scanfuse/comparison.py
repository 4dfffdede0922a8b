"""Runs against each other on the same held-out samples, with the tests that a reviewer asks for.

Classification: paired bootstrap over patients for every metric, DeLong's test for the AUROC (its variance summed over
patients), Holm's correction over runs (and labels). Image fusion: paired bootstrap over cases of the mean metrics.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanfuse import systems
from scanfuse.errors import UserError
from scanfuse.evaluate import Split, assign, decided_results, evaluate
from scanfuse.files import without_nan, write_text
from scanfuse.metrics.classification.inputs import ratio
from scanfuse.predict import Predictor
from scanfuse.stats.cluster_bootstrap import Difference, Statistic, Weights, cluster_differences
from scanfuse.stats.delong import AurocTest
from scanfuse.stats.holm import holm
from scanfuse.tasks import classify_compare

__all__ = ["Comparisons", "Row", "compare", "markdown", "print_comparisons"]

FEW_PATIENTS = 20
"""Below so many a bootstrap over patients and a normal test are too sure of themselves."""


@dataclass(frozen=True)
class Row:
    """One metric of one run against the reference: run - reference, 95 % interval, p-value and Holm's of it."""

    run: str
    metric: str
    test: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float


@dataclass(frozen=True)
class Comparisons:
    """All rows of a comparison, and on what it was made."""

    reference: str
    split: str
    samples: int
    groups: int
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def compare(
    predictors: dict[str, Predictor],
    data: str | Path,
    *,
    split: Split = "test",
    out: str | Path | None = None,
    quiet: bool = False,
) -> Comparisons:
    """Compares every run with the first one.

    Args:
        predictors: by name, the reference first; at least two, of one system and trained on the same split.
        data: folder or manifest with the data.
        split: which part.
        out: folder for comparison.md and comparison.json; None writes nothing.

    Raises:
        UserError: fewer than two runs, or runs that do not belong together.
    """
    if len(predictors) < 2:
        raise UserError("A comparison needs two runs or more: scanfuse compare RUN RUN --data DIR")
    manifest = assign(predictors, data, split)
    notes = list(manifest.notes)
    if split in ("train", "all"):
        notes.append("the models were trained on some or all of these samples")
    if isinstance(next(iter(predictors.values())).system, systems.Classifier):
        chosen = manifest if split == "all" else manifest.subset(split)
        found = _classifiers(predictors, chosen, split, notes, quiet)
    else:
        found = _fusions(predictors, data, split, notes, quiet)
    if out is not None:
        content = {**vars(found), "rows": [without_nan(vars(row)) for row in found.rows]}
        write_text(Path(out) / "comparison.json", json.dumps(content, indent=2) + "\n")
        write_text(Path(out) / "comparison.md", markdown(found))
    return found


def print_comparisons(found: Comparisons, console: Console | None = None) -> None:
    """One table per run on the console; bootstrap, unless a row says another test."""
    console = console or Console()
    console.print(f"{_title(found)}; bootstrap where no other test is named", highlight=False, markup=False)
    runs = list(dict.fromkeys(row.run for row in found.rows))
    corrected = len(runs) > 1 or any(row.adjusted > row.p_value for row in found.rows)
    for run in runs:
        table = Table(title=f"{escape(run)} - {escape(found.reference)}", title_justify="left")
        table.add_column("metric", overflow="fold")  # the numbers stay whole on a narrow console
        for name in ("difference", "p", *(["p (Holm)"] if corrected else [])):
            table.add_column(name, justify="right", no_wrap=True)
        for row in found.rows:
            if row.run == run:
                metric = row.metric if row.test == "bootstrap" else f"{row.metric} ({row.test})"
                table.add_row(*map(escape, (metric, *_texts(row)[: 3 if corrected else 2])))
        console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)


def markdown(found: Comparisons) -> str:
    """The same table in Markdown."""
    lines = [f"{_title(found)}.", "", "| run | metric | test | difference | p | p (Holm) |", "|---" * 6 + "|"]
    lines += [f"| {' | '.join([row.run, row.metric, row.test, *_texts(row)])} |" for row in found.rows]
    return "\n".join([*lines, "", *(f"Note: {note}." for note in found.notes)]).rstrip() + "\n"


def _classifiers(
    predictors: dict[str, Predictor], manifest: Any, split: str, notes: list[str], quiet: bool
) -> Comparisons:
    jobs = {name: predictor.classifier.job for name, predictor in predictors.items()}
    reference = next(iter(jobs))
    task = jobs[reference].task
    for name, job in jobs.items():
        if job.task != task:
            raise UserError(f"{name} predicts other labels than {reference}: they cannot be compared.")
    studies, _ = decided_results(predictors, manifest, quiet=quiet)
    # A study without any known target says nothing about which run is right.
    known = {name: [result for result in found if result.mask.any()] for name, found in studies.items()}
    if not known[reference]:
        raise UserError("No sample has a target: there is nothing to compare the runs by.")
    left_out = len(studies[reference]) - len(known[reference])
    if left_out:
        notes.append(f"{left_out} studies have no known target and were left out")
    thresholds = {name: job.decision.thresholds for name, job in jobs.items()}
    compared = classify_compare.compare(known, task, None if task.kind == "multiclass" else thresholds)
    if compared[0].patients < FEW_PATIENTS:
        notes.append(f"only {compared[0].patients} patient(s): intervals are too narrow and p-values too small")
    for name, job in jobs.items():
        notes += [f"{name}: {note}" for note in job.decision.notes]
    rows = []
    for each in compared:
        for label, test in each.delong.items():
            name = "auroc" if task.kind == "binary" else f"auroc of {label}"
            rows.append(_row(each.run, name, "DeLong", test, each.delong_adjusted[label]))
        for metric, difference in each.differences.items():
            rows.append(_row(each.run, metric, "bootstrap", difference, each.adjusted[metric]))
    return Comparisons(reference, split, compared[0].results, compared[0].patients, rows, notes)


def _fusions(
    predictors: dict[str, Predictor], data: str | Path, split: Split, notes: list[str], quiet: bool
) -> Comparisons:
    evaluation = evaluate(predictors, data, split=split, quiet=quiet)
    table = pd.DataFrame(evaluation.rows)
    reference, *others = predictors
    base = table[table["method"] == reference]
    rows = []
    for metric in evaluation.better:
        found: dict[str, Difference] = {}
        for name in others:
            values = table[table["method"] == name][metric].to_numpy(float)
            found[name] = _paired(values, base[metric].to_numpy(float), list(base["group"]))
        adjusted = holm([difference.p_value for difference in found.values()])
        rows += [
            _row(name, metric, "bootstrap", difference, float(p))
            for (name, difference), p in zip(found.items(), adjusted, strict=True)
        ]
    rows.sort(key=lambda row: others.index(row.run))
    return Comparisons(reference, split, evaluation.samples, evaluation.groups, rows, evaluation.notes)


def _paired(values: np.ndarray, base: np.ndarray, groups: list[str]) -> Difference:
    """Of two means over the samples where both are defined: a metric may not be for a small or empty image."""
    defined = np.isfinite(values) & np.isfinite(base)

    def mean_of(column: np.ndarray) -> Statistic:
        def statistic(weights: Weights) -> dict[str, np.ndarray]:
            return {"mean": ratio(weights[:, defined] @ column[defined], weights[:, defined].sum(axis=1))}

        return statistic

    return cluster_differences(mean_of(values), mean_of(base), groups)["mean"]


def _row(run: str, metric: str, test: str, found: Difference | AurocTest, adjusted: float) -> Row:
    difference = found.value if isinstance(found, Difference) else found.difference
    return Row(run, metric, test, difference, found.low, found.high, found.p_value, adjusted)


def _title(found: Comparisons) -> str:
    return (
        f"Difference to {found.reference} on {found.samples} {found.split} samples of {found.groups} patients; "
        "95 % interval and p over patients"
    )


def _texts(row: Row) -> list[str]:
    if math.isnan(row.difference):
        return ["not defined", "", ""]
    interval = f" [{row.low:+.3f},{row.high:+.3f}]" if math.isfinite(row.low) else ""
    return [f"{row.difference:+.3f}{interval}", _p(row.p_value), _p(row.adjusted)]


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.4f}"
