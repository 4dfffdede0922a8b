"""`scanfuse compare`: runs against each other on the same held-out samples, with the tests that reviewers ask for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanfuse.errors import UserError
from scanfuse.systems import ability
from scanfuse.tables import Comparisons, write_comparisons
from scanfuse.tasks import Asked
from scanfuse.verbs.predict import Predictor
from scanfuse.verbs.samples import Split, choose, is_cross_validation, out_of_fold

__all__ = ["compare"]


def compare(
    predictors: Mapping[str, Predictor | Mapping[str, Predictor]],
    data: str | Path,
    *,
    split: Split = "test",
    out: str | Path | None = None,
    quiet: bool = False,
) -> Comparisons:
    """Compares every run with the first one.

    Args:
        predictors: by name, the reference first; at least two that predict the same and were trained on the same
            split, or cross-validations: their folds by name, each of which scores what it held out.
        data: folder or manifest with the data.
        split: which part.
        out: folder for comparison.md and comparison.json; None writes nothing.
        quiet: no progress.

    Raises:
        UserError: fewer than two runs, or runs that do not belong together.
    """
    if len(predictors) < 2:
        raise UserError("A comparison needs two runs or more: scanfuse compare RUN RUN --data DIR")
    folds = {name: each for name, each in predictors.items() if isinstance(each, Mapping)}
    runs = {name: each for name, each in predictors.items() if isinstance(each, Predictor)}
    if folds and runs:
        name, other = next(iter(folds)), next(iter(runs))
        raise UserError(f"{name} is a cross-validation and {other} a run: compare runs with runs.")
    found = _of_folds(folds, data, split, quiet) if folds else _of_runs(runs, data, split, quiet)
    if out is not None:
        write_comparisons(found, Path(out))
    return found


def _of_runs(runs: Mapping[str, Predictor], data: str | Path, split: Split, quiet: bool) -> Comparisons:
    chosen = choose(runs, data, split)
    methods = {name: run.method(chosen.manifests[name], quiet=quiet) for name, run in runs.items()}
    task = next(iter(runs.values())).system.task
    return task.compare(methods, chosen.manifest, Asked(chosen.name, quiet=quiet))


def _of_folds(
    runs: Mapping[str, Mapping[str, Predictor]], data: str | Path, split: Split, quiet: bool
) -> Comparisons:
    methods, samples = {}, None
    for name, folds in runs.items():
        if not is_cross_validation(folds, split):
            raise UserError(f"The folds of {name} do not hold out each {split} sample once: compare them run by run.")
        parts = out_of_fold(folds, data, split)
        if parts is None:
            raise UserError(f"{data} holds none of the samples that {name} knows: give the data of the training.")
        methods[name] = {fold: folds[fold].method(part, quiet=quiet) for fold, part in parts.items()}
        samples = samples or next(iter(parts.values()))
    task: Any = next(iter(next(iter(runs.values())).values())).system.task
    compare_folds = ability(task, "compare_folds")
    if compare_folds is None or samples is None:
        raise UserError("Cross-validations of this task cannot be compared: compare their runs one by one.")
    found: Comparisons = compare_folds(methods, samples, Asked(split, quiet=quiet))
    return found
