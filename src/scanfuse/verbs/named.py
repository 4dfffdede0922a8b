"""Runs as a command names them: folders of runs, and of cross-validations for all their folds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scanfuse.errors import UserError
from scanfuse.options import pairs
from scanfuse.verbs.cross_validation import is_cross_validation, members
from scanfuse.verbs.predict import Predictor, load

__all__ = ["adjustments", "every_member", "load_apart", "load_named"]


def every_member(runs: Sequence[Path]) -> tuple[Path, ...]:
    """The runs, with the folds in place of the folder of a cross-validation."""
    return tuple(member for run in runs for member in members(run))


def adjustments(runs: Sequence[Path], options: Sequence[str]) -> dict[str, str]:
    """Settings of runs that are changed while they are applied, from words such as --window 64.

    Raises:
        UserError: no such option, or one that not all of the runs let a user change.
    """
    if not options:
        return {}
    if not runs:
        raise UserError("Name the run first, such as: scanfuse evaluate RUN --data DIR")
    allowed = [load(run, device="cpu").adjustable for run in runs]
    return pairs(options, [name for name in allowed[0] if all(name in each for each in allowed)])


def load_named(
    runs: Sequence[Path], device: str, slices: str | None = None, adjusted: Mapping[str, str] | None = None
) -> dict[str, Predictor]:
    """Predictors by the name of their folder, or by the whole path where two folders share a name.

    Args:
        runs: folders of runs.
        device: where to compute.
        slices: of volumes and stacks; None: those of the runs.
        adjusted: settings that may be changed when a run is applied.

    Raises:
        UserError: the same run twice, no such run, or a setting that may not be changed.
    """
    loaded = {name: load(run, device=device, adjusted=adjusted) for name, run in _names(runs).items()}
    for predictor in loaded.values() if slices is not None else ():
        predictor.choose_slice(str(slices))
    return loaded


def load_apart(runs: Sequence[Path], device: str) -> dict[str, Predictor | Mapping[str, Predictor]]:
    """As `load_named`; a cross-validation is its folds by name."""
    return {
        name: load_named(members(run), device) if is_cross_validation(run) else load(run, device=device)
        for name, run in _names(runs).items()
    }


def _names(runs: Sequence[Path]) -> dict[str, Path]:
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    if len(set(names)) < len(names):
        raise UserError("The same run was given twice.")
    return dict(zip(names, runs, strict=True))
