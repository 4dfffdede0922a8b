"""The evaluation engine: runs and plain baselines on the same held-out samples, with intervals over cases.

A table's interval is a percentile bootstrap over groups (patients, cases), because the samples of one case are
not independent. Which samples these are is the matter of `samples`.

Fusion is scored image by image, and a table shows means. Classification (`classified`) is scored on all results
together: each run with the temperature and threshold of its own validation, per study and, as `parts`, per pair, per
label and by subgroup.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import track

from scanfuse import systems
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.evaluate.classified import decided_results, evaluate_folds, evaluate_together
from scanfuse.evaluate.samples import Split, assign, is_cross_validation, leakage, out_of_fold
from scanfuse.evaluate.tables import Cell, Evaluation, markdown, print_table, write
from scanfuse.explanation import write_examples
from scanfuse.predict import Predictor
from scanfuse.stats.bootstrap import interval

__all__ = [
    "Cell",
    "Evaluation",
    "Split",
    "assign",
    "decided_results",
    "evaluate",
    "is_cross_validation",
    "leakage",
    "markdown",
    "print_table",
]


def evaluate(
    predictors: dict[str, Predictor],
    data: str | Path,
    *,
    split: Split = "test",
    out: str | Path | None = None,
    pictures: int = 6,
    ensemble: bool = False,
    by: Sequence[str] = (),
    quiet: bool = False,
) -> Evaluation:
    """Scores runs and the system's baselines on the same samples.

    Where classifying runs are a cross-validation and each sample is in that split of exactly one of them, the table
    has one column, "out of fold": every sample scored by the run that held it out.

    Args:
        predictors: by the name that the table shows; all of one system. They share the split of their training, or at
            least the test samples, or are all the folds of a cross-validation.
        data: folder or manifest with the data.
        split: which part; samples that the runs have never seen a case of count as test.
        out: folder for table.md, evaluation.json, per_sample.csv and gallery.png; None writes nothing.
        pictures: rows of the gallery, spread over the cases, or studies explained for the report; 0 = none. There are
            none for several runs as one.
        ensemble: adds the mean of the runs' calibrated probabilities as a method.
        by: columns of the data set whose values are subgroups with results of their own; by default what the data set
            is usually reported by.
        quiet: no progress.

    Raises:
        UserError: no samples, runs that do not belong together, or a leak.
    """
    first = next(iter(predictors.values()))
    classifies = isinstance(first.system, systems.Classifier)
    if (ensemble or by) and not classifies:
        raise UserError(
            f"--ensemble and --by are for classification; {first.system.config.system} does not classify."
        )
    if ensemble and len(predictors) < 2:
        raise UserError("An ensemble needs two runs or more: scanfuse evaluate RUN RUN --ensemble --data DIR")
    if classifies and is_cross_validation(predictors, split):
        if ensemble:
            raise UserError(
                f"Each of these runs holds out another {split} part, which the others were trained on: the ensemble "
                "would be scored on its own training. Without --ensemble each sample is scored by its own fold."
            )
        pooled = evaluate_folds(predictors, out_of_fold(predictors, data, split), split, by=by, quiet=quiet)
        if out is not None:
            write(pooled, Path(out))
        return pooled
    manifest = assign(predictors, data, split)
    chosen = manifest if split == "all" else manifest.subset(split)
    if split in ("train", "all"):
        chosen = replace(chosen, notes=(*chosen.notes, "the models were trained on some or all of these samples"))
    if classifies:
        if split == "val":
            note = "epoch, temperature and threshold were chosen on these samples: the values are too good"
            chosen = replace(chosen, notes=(*chosen.notes, note))
        evaluation, studies = evaluate_together(predictors, chosen, split, joined=ensemble, by=by, quiet=quiet)
        if out is not None:
            write(evaluation, Path(out))
            if not ensemble:
                write_examples(first, chosen, studies[next(iter(predictors))], Path(out), pictures)
        return evaluation
    loaders = [predictor.each(chosen) for predictor in predictors.values()]
    rows: list[dict[str, Any]] = []
    shown = _spread(chosen, pictures)
    gallery: list[dict[str, Any]] = []
    for index, outcomes in enumerate(
        track(zip(*loaders, strict=True), "evaluating", len(chosen), transient=True, disable=quiet)
    ):
        results = {name: outcome[1] for name, outcome in zip(predictors, outcomes, strict=True)}
        for name, found in first.system.baselines(outcomes[0][0]).items():
            if name in results:
                raise UserError(f"A run has the name of the plain method {name!r}: rename its folder.")
            results[name] = found[0]
        for name, result in results.items():
            scores = first.system.score(result)
            rows.append({"method": name, "id": result.id, "group": result.group, **scores})
        if index in shown:
            gallery.append(results)
    evaluation = _summarise(rows, first.system.metrics(), split, list(chosen.notes))
    if out is not None:
        write(evaluation, Path(out))
        if gallery:
            first.system.gallery(gallery, Path(out) / "gallery.png")
    return evaluation


def _spread(manifest: Manifest, count: int) -> set[int]:
    """Positions of about `count` samples spread evenly, so that a gallery shows several cases."""
    total = len(manifest)
    count = min(count, total)
    return {round((index + 0.5) * total / count - 0.5) for index in range(count)} if count else set()


def _summarise(rows: list[dict[str, Any]], better: dict[str, str], split: str, notes: list[str]) -> Evaluation:
    table = pd.DataFrame(rows)
    methods = list(dict.fromkeys(table["method"]))
    cells = {
        method: {metric: Cell(*interval(part[metric].to_numpy(), part["group"].to_numpy())) for metric in better}
        for method in methods
        for part in [table[table["method"] == method]]
    }
    groups = table["group"].nunique()
    if groups < 5:
        notes = [*notes, f"only {groups} case(s): the intervals say little about other patients"]
    samples = len(table) // len(methods)
    return Evaluation(split, samples, groups, methods, better, cells, rows, notes)
