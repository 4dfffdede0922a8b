"""Cross-validation by group (patient, scene): k parts that share no group and are alike in their outcomes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int, Num
from pydantic import Field, model_validator
from sklearn.model_selection import StratifiedGroupKFold

from scanfuse.config import Section
from scanfuse.data.labels import Labels
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError

__all__ = ["FoldConfig", "assign_folds", "folded", "strata", "with_fold"]


class FoldConfig(Section):
    """Which part of a cross-validation a run is."""

    folds: int = Field(0, ge=0, description="parts of the cross-validation; 0 = none, one split")
    fold: int = Field(0, ge=0, description="the one part to hold out, from 0; all, or left out: one run for each")
    fold_seed: int = Field(0, ge=0, description="seed of the assignment to folds")

    @model_validator(mode="after")
    def _fold_is_one_of_them(self) -> "FoldConfig":
        if self.fold and self.fold >= self.folds:
            there = f"with --folds {self.folds} they are 0 to {self.folds - 1}" if self.folds else "give --folds too"
            raise ValueError(f"there is no fold {self.fold}: {there}")
        return self


def strata(targets: Sequence[str], labels: Labels) -> Int[np.ndarray, " n"]:
    """What is to be as frequent in every part, one number per row: its class, or its rarest positive finding.

    -1 where nothing is known or positive.

    Raises:
        UserError: a target that the labels do not know.
    """
    if not targets:
        return np.zeros(0, int)
    known = {text: labels.encode(text) for text in dict.fromkeys(targets)}
    target: Num[np.ndarray, "n k"] = np.stack([np.atleast_1d(known[text][0]) for text in targets])
    mask: Bool[np.ndarray, "n k"] = np.stack([np.atleast_1d(known[text][1]) for text in targets])
    if labels.kind != "multilabel":
        return np.where(mask[:, 0], target[:, 0].astype(int), -1)
    positive = (target == 1) & mask
    frequency = np.where(positive, positive.sum(axis=0), np.inf)
    return np.where(positive.any(axis=1), frequency.argmin(axis=1), -1)


def assign_folds(
    groups: Sequence[str], strata: Int[np.ndarray, " n"], *, folds: int, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """The fold (0..folds-1) of every row: no group in two folds, the strata spread evenly.

    Strata of fewer than `folds` rows are spread with the most frequent one. The result depends on the order of the
    rows and the seed.

    Args:
        groups: n labels of patients.
        strata: n numbers, see `strata`.
        folds: at least 2.

    Raises:
        UserError: fewer patients than folds, or fewer than two folds.

    Source: scikit-learn's StratifiedGroupKFold.
    """
    if folds < 2:
        raise UserError(f"A cross-validation needs at least 2 folds, not {folds}.")
    num_groups = len(set(groups))
    if num_groups < folds:
        raise UserError(f"{folds} folds need at least as many patients; there are {num_groups}. Use fewer --folds.")
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    # What is rarer than the folds cannot be in each of them; the splitter would warn of it.
    pooled = np.where(counts[index] >= folds, index, counts.argmax())
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    assigned = np.empty(len(groups), int)
    for number, (_, held_out) in enumerate(splitter.split(pooled, pooled, groups)):
        assigned[held_out] = number
    return assigned


def folded(manifest: Manifest, folds: FoldConfig, labels: Labels | None = None) -> Manifest:
    """The manifest with the splits of this part of a cross-validation; as it is without one.

    Args:
        labels: what the targets mean, which are then as frequent in every part; None: targets do not matter.
    """
    if not folds.folds:
        return manifest
    return with_fold(manifest, labels, folds=folds.folds, fold=folds.fold, seed=folds.fold_seed)


def with_fold(manifest: Manifest, labels: Labels | None, *, folds: int, fold: int, seed: int = 0) -> Manifest:
    """The manifest with the splits of one run of a cross-validation.

    With test samples: these stay, fold number `fold` of the rest validates; the runs together are an ensemble.
    Without: fold number `fold` is the test part and the next one validates, so that no sample is scored by a model
    that was stopped, calibrated or cut on it; the test parts of all runs together are all samples, each once.

    Raises:
        UserError: no such fold, too few patients or folds, or a leaky manifest.
    """
    if not 0 <= fold < folds:
        raise UserError(f"There is no fold {fold}: with --folds {folds} they are 0 to {folds - 1}.")
    if manifest.is_leaky:
        raise UserError("The published split of this data set is leaky; leave --split out for a cross-validation.")
    table = manifest.table
    fixed = (table["split"] == "test").to_numpy()
    if not fixed.any() and folds < 3:
        raise UserError("Without test samples a cross-validation needs --folds 3: one to test, one to validate.")
    rest = table[~fixed]
    alike = np.zeros(len(rest), int) if labels is None else strata(list(rest["target"]), labels)
    number = assign_folds(list(rest["group"]), alike, folds=folds, seed=seed)
    split = np.full(len(table), "test", object)
    if fixed.any():
        split[~fixed] = np.where(number == fold, "val", "train")
        note = f"fold {fold} of {folds} validates; the test samples are the same in every fold"
    else:
        roles = {fold: "test", (fold + 1) % folds: "val"}
        split[~fixed] = [roles.get(int(n), "train") for n in number]
        note = f"fold {fold} of {folds} is the test part, fold {(fold + 1) % folds} validates"
    return replace(manifest, table=table.assign(split=split), notes=(*manifest.notes, note))
