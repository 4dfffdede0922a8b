"""`scanfuse evaluate`: runs and plain baselines on the same held-out samples, with intervals over cases.

Which samples these are is the matter of `samples`; what is made of the results is the matter of their task.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scanfuse import systems
from scanfuse.errors import UserError
from scanfuse.files import file_name
from scanfuse.pretrained import is_shipped
from scanfuse.tables import Evaluation, write
from scanfuse.tasks import Asked
from scanfuse.verbs.explain import can_explain, write_examples
from scanfuse.verbs.predict import Predictor
from scanfuse.verbs.samples import Split, choose, is_cross_validation, out_of_fold

__all__ = ["IN_RUN", "evaluate"]

IN_RUN = "in the run"
"""As the folder of an evaluation: one in the first run's, named after the samples."""


def evaluate(
    predictors: Mapping[str, Predictor],
    data: str | Path,
    *,
    split: Split = "test",
    out: str | Path | None = None,
    home: Path | None = None,
    pictures: int = 6,
    ensemble: bool = False,
    by: Sequence[str] = (),
    each_missing: bool = False,
    perturbed: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Scores runs and the system's baselines on the same samples.

    Where runs are a cross-validation and each sample is in that split of exactly one of them, the table has one
    column, "out of fold": every sample scored by the run that held it out.

    Args:
        predictors: by the name that the table shows; all of one system. They share the split of their training, or at
            least the test samples, or are all the folds of a cross-validation.
        data: folder or manifest with the data.
        split: which part; samples that the runs have never seen a case of count as test.
        out: folder for table.md, evaluation.json, per_sample.csv and pictures; `IN_RUN` makes one in the first run;
            None writes nothing.
        home: the folder whose evaluations `IN_RUN` means, if it is not the first run: that of a cross-validation.
        pictures: rows of a gallery, spread over the cases, or results explained for the report; 0 = none. There are
            none for several runs as one.
        ensemble: adds the mean of the runs as a method.
        by: columns of the data set whose values are subgroups with results of their own; by default what the data set
            is usually reported by.
        each_missing: also with each input missing in turn, where the system knows missing inputs.
        perturbed: also on samples spoilt on purpose, where the input kind knows how.
        quiet: no progress.

    Raises:
        UserError: no samples, runs that do not belong together, or a leak.
    """
    first = next(iter(predictors.values()))
    task = first.system.task
    if ensemble and len(predictors) < 2:
        raise UserError("An ensemble needs two runs or more: scanfuse evaluate RUN RUN --ensemble --data DIR")
    if ensemble and systems.ability(task, "joined") is None:
        raise UserError(f"Runs of {first.system.config.system} cannot be joined: evaluate them without --ensemble.")
    if out == IN_RUN and home is None and is_shipped(first.run.path):
        raise UserError(f"{first.run.path} is part of the installation: say where the table goes, with --out DIR.")
    rows = 0 if out is None else pictures
    parts = out_of_fold(predictors, data, split) if is_cross_validation(predictors, split) else None
    if parts is not None:
        if each_missing or perturbed:
            raise UserError("Tables with inputs missing or spoilt are made of single runs: name one fold.")
        methods = {name: predictors[name].method(part, quiet=quiet) for name, part in parts.items()}
        found = task.evaluate_folds(methods, parts, Asked(split, ensemble, by, rows, quiet))
        found.notes.extend(_changed(predictors))
        return _written(found, home or first.run.path, out, f"out-of-fold-{split}")
    chosen = choose(predictors, data, split)
    methods = {
        name: predictor.method(chosen.manifests[name], each_missing=each_missing, perturbed=perturbed, quiet=quiet)
        for name, predictor in predictors.items()
    }
    found = task.evaluate(methods, chosen.manifest, Asked(chosen.name, ensemble, by, rows, quiet))
    found.notes.extend(_changed(predictors))
    own = f"external-{file_name(Path(data).resolve().name)}" if chosen.name == "external" else chosen.name
    found = _written(found, home or first.run.path, out, f"ensemble-{own}" if ensemble else own)
    if found.folder is not None and can_explain(first.system) and not ensemble:
        write_examples(first, chosen.manifest, found.examples, found.folder)
    return found


def _changed(predictors: Mapping[str, Predictor]) -> list[str]:
    """The note that a table of changed settings carries."""
    changed = {name: value for predictor in predictors.values() for name, value in predictor.changed.items()}
    said = ", ".join(f"{name} {value}" for name, value in changed.items())
    return [f"computed with {said}, not as the runs were trained"] if said else []


def _written(found: Evaluation, home: Path, out: str | Path | None, name: str) -> Evaluation:
    if out is not None:
        found.folder = home / "evaluation" / name if out == IN_RUN else Path(out)
        write(found, found.folder)
    return found
