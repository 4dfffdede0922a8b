"""`scanfuse compare`: runs against each other on the same held-out samples, with the tests that reviewers ask for."""

from collections.abc import Mapping
from pathlib import Path

from scanfuse.errors import UserError
from scanfuse.tables import Comparisons, write_comparisons
from scanfuse.tasks import Asked
from scanfuse.verbs.predict import Predictor
from scanfuse.verbs.samples import Split, choose

__all__ = ["compare"]


def compare(
    predictors: Mapping[str, Predictor],
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
        quiet: no progress.

    Raises:
        UserError: fewer than two runs, or runs that do not belong together.
    """
    if len(predictors) < 2:
        raise UserError("A comparison needs two runs or more: scanfuse compare RUN RUN --data DIR")
    chosen = choose(predictors, data, split)
    methods = {name: predictor.method(chosen.manifest, quiet=quiet) for name, predictor in predictors.items()}
    task = next(iter(predictors.values())).system.task
    found = task.compare(methods, chosen.manifest, Asked(chosen.name, quiet=quiet))
    if out is not None:
        write_comparisons(found, Path(out))
    return found
