"""Which samples runs are scored on: those that none of them has seen, by the splits that the runs recorded.

Runs of one split are scored on the same samples. So are the folds of a cross-validation with a test set of its own
(`assign`). On what every fold held out for itself, each sample is scored by the one run that did not learn from it
(`out_of_fold`).
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd

from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.predict import Predictor

__all__ = ["Split", "assign", "is_cross_validation", "leakage", "out_of_fold"]

Split = Literal["test", "val", "train", "all"]

_CHOSEN = {"test": ("train", "val"), "val": ("train",)}
"""Split -> the splits whose patients must not be in it."""


def leakage(samples: pd.DataFrame, trained_on: pd.DataFrame) -> list[str]:
    """Groups of which a run has seen some rows in training or validation, while others count as test.

    Args:
        samples, trained_on: the rows to evaluate and those of the run's split.csv; columns group and split.
    """
    seen = set(trained_on.loc[trained_on["split"].isin(["train", "val"]), "group"])
    tested = set(samples.loc[samples["split"] == "test", "group"])
    return sorted(seen & tested)


def assign(predictors: dict[str, Predictor], data: str | Path, split: Split) -> Manifest:
    """The data with the split that the runs were trained on; unknown samples are test samples.

    Runs of different splits may stand together on test, if they agree on which samples these are.

    Raises:
        UserError: runs that do not belong together, or a leak.
    """
    first, *others = predictors
    manifest = _opened(predictors, data)
    recorded = {name: predictor.run.split() for name, predictor in predictors.items()}
    splits = {name: dict(zip(table["id"], table["split"], strict=True)) for name, table in recorded.items()}
    known = {
        name: manifest.table.assign(split=[found.get(sample, "test") for sample in manifest.table["id"]])
        for name, found in splits.items()
    }
    notes = [*_shared_notes(predictors), *manifest.notes]
    apart = next((name for name in others if splits[name] != splits[first]), None)
    if apart is not None:
        tested = {name: frozenset(table.loc[table["split"] == "test", "id"]) for name, table in known.items()}
        other = next((name for name in others if tested[name] != tested[first]), apart)
        if split != "test" or tested[other] != tested[first]:
            raise UserError(_refusal(first, other, recorded, split))
        notes.append("the runs were trained on different parts of the data; their test samples are the same")
    for name, table in known.items():
        shared = leakage(table, recorded[name])
        if shared and not any(note.startswith("leaky") for note in notes):
            if split == "test":
                raise UserError(
                    f"The cases {', '.join(shared[:5])} are in the training of {name} and among the test samples: "
                    "the result would be too good. Remove them, or use --on all to see it labelled as such."
                )
            notes.append(f"leaky: of {len(shared)} case(s) some samples were in the training and others were not")
    return replace(manifest, table=known[first], notes=tuple(dict.fromkeys(notes)))


def is_cross_validation(predictors: dict[str, Predictor], split: Split) -> bool:
    """True if each sample is in that split of exactly one run, apart from samples that all runs leave to the test."""
    recorded = [predictor.run.split() for predictor in predictors.values()]
    if len(recorded) < 2 or split not in _CHOSEN:
        return False
    if any(set(table["id"]) != set(recorded[0]["id"]) for table in recorded):
        return False
    times = _times(recorded, split)
    return bool(len(times)) and bool((times == 1).all())


def out_of_fold(predictors: dict[str, Predictor], data: str | Path, split: Split) -> dict[str, Manifest]:
    """Run -> the samples that it alone held out. All runs together are a cross-validation.

    Raises:
        UserError: runs of different systems, a leak, or data without any of the samples.
    """
    manifest = _opened(predictors, data)
    notes = [*_shared_notes(predictors), *manifest.notes]
    parts, missing = {}, 0
    for name, predictor in predictors.items():
        recorded = predictor.run.split()
        held_out = set(recorded.loc[recorded["split"] == split, "id"])
        table = manifest.table[manifest.table["id"].isin(held_out)].assign(split=split).reset_index(drop=True)
        missing += len(held_out) - len(table)
        seen = set(recorded.loc[recorded["split"].isin(_CHOSEN[split]), "group"])
        shared = sorted(seen & set(table["group"]))
        if shared and not any(note.startswith("leaky") for note in notes):
            raise UserError(
                f"The cases {', '.join(shared[:5])} are in the training of {name} and among its {split} samples: "
                "the result would be too good. Train again with a split by patient."
            )
        if len(table):
            parts[name] = replace(manifest, table=table)
    if not parts:
        raise UserError(f"{data} holds none of the samples that the runs held out: give the data of the training.")
    if missing:
        notes.append(f"{missing} sample(s) of the cross-validation are not in {data} and were left out")
    unknown = len(manifest) - manifest.table["id"].isin(set(recorded["id"])).sum()
    if unknown:
        notes.append(f"{unknown} sample(s) that the runs do not know were left out")
    return {name: replace(part, notes=tuple(dict.fromkeys(notes))) for name, part in parts.items()}


def _opened(predictors: dict[str, Predictor], data: str | Path) -> Manifest:
    first, *others = predictors
    for name in others:
        if predictors[name].system.config.system != predictors[first].system.config.system:
            raise UserError(f"{first} and {name} are runs of different systems: evaluate them one by one.")
    return predictors[first].system.open_data(Path(data), split=False)


def _shared_notes(predictors: dict[str, Predictor]) -> list[str]:
    """What all runs noted of their splits; that a split is leaky counts even if only one of them says so."""
    each = [predictor.run.split_notes() for predictor in predictors.values()]
    found = list(dict.fromkeys(note for notes in each for note in notes))
    return [note for note in found if note.startswith("leaky") or all(note in notes for notes in each)]


def _times(recorded: list[pd.DataFrame], split: str) -> pd.Series:
    """How many of the runs have each sample in that split, without the samples that are test in all runs."""
    every = pd.concat(recorded)
    tests = (every["split"] == "test").groupby(every["id"]).all()
    times = (every["split"] == split).groupby(every["id"]).sum()
    return times[~tests]


def _refusal(first: str, other: str, recorded: dict[str, pd.DataFrame], split: str) -> str:
    text = f"{first} and {other} were trained on different splits: a shared table would mislead."
    times = _times(list(recorded.values()), split) if split in _CHOSEN else pd.Series([], dtype=int)
    if len(times) and times.max() == 1:
        lacking = int((times == 0).sum())
        text += f" {lacking} sample(s) are in the {split} part of none: give all folds of the cross-validation."
    return text
