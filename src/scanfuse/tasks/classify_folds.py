"""Cross-validation by patient, and batches in which rare classes are as frequent as others."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, Num
from pydantic import Field, model_validator
from sklearn.model_selection import StratifiedGroupKFold

from scanfuse.config import Section
from scanfuse.data.manifest import Manifest
from scanfuse.errors import UserError
from scanfuse.tasks.classify import Task, parse_targets

__all__ = ["FoldConfig", "SamplingConfig", "assign_folds", "balanced_order", "sampling_weights", "with_fold"]


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


class SamplingConfig(Section):
    """How training samples are drawn."""

    sampling: bool = Field(
        False, description="draw classes equally often", json_schema_extra={"flag": "balanced-sampling"}
    )


def assign_folds(
    groups: list[str],
    target: Num[np.ndarray, "n k"],
    mask: Bool[np.ndarray, "n k"],
    task: Task,
    *,
    folds: int,
    seed: int = 0,
) -> Int[np.ndarray, " n"]:
    """The fold (0..folds-1) of every sample: no patient in two folds, outcomes spread evenly.

    Several labels are spread by the rarest one that a sample has; outcomes of fewer than `folds` samples are spread
    with the most frequent one. The result depends on the order of the rows and the seed.

    Args:
        groups: n labels of patients.
        target, mask: see `Task`.
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
    strata = _strata(target, mask, task)
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    # What is rarer than the folds cannot be in each of them; the splitter would warn of it.
    pooled = np.where(counts[index] >= folds, index, counts.argmax())
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    assigned = np.empty(len(groups), int)
    for number, (_, held_out) in enumerate(splitter.split(pooled, pooled, groups)):
        assigned[held_out] = number
    return assigned


def with_fold(manifest: Manifest, task: Task, *, folds: int, fold: int, seed: int = 0) -> Manifest:
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
        raise UserError("The published split of this data set is leaky; use --split case for a cross-validation.")
    table = manifest.table
    fixed = (table["split"] == "test").to_numpy()
    if not fixed.any() and folds < 3:
        raise UserError("Without test samples a cross-validation needs --folds 3: one to test, one to validate.")
    rest = table[~fixed]
    target, mask = parse_targets(list(rest["target"]), task)
    number = assign_folds(list(rest["group"]), target, mask, task, folds=folds, seed=seed)
    split = np.full(len(table), "test", object)
    if fixed.any():
        split[~fixed] = np.where(number == fold, "val", "train")
        note = f"fold {fold} of {folds} validates; the test samples are the same in every fold"
    else:
        roles = {fold: "test", (fold + 1) % folds: "val"}
        split[~fixed] = [roles.get(int(n), "train") for n in number]
        note = f"fold {fold} of {folds} is the test part, fold {(fold + 1) % folds} validates"
    return replace(manifest, table=table.assign(split=split), notes=(*manifest.notes, note))


def sampling_weights(
    target: Num[np.ndarray, "n k"], mask: Bool[np.ndarray, "n k"], task: Task
) -> Float64[np.ndarray, " n"]:
    """How likely a sample should be drawn, mean 1, so that classes come up equally often.

    One over the number of samples of its class; with several labels the mean of this over its known labels. A sample
    without any known target has the weight 1.

    Args:
        target, mask: of the training samples, see `Task`.
    """
    known = np.asarray(mask, bool)
    share = np.full(target.shape, np.nan)
    for column in range(target.shape[1]):
        rows = known[:, column]
        _, index, counts = np.unique(target[rows, column], return_inverse=True, return_counts=True)
        share[rows, column] = rows.sum() / (len(counts) * counts[index]) if rows.any() else []
    number = known.sum(axis=1)
    weights = np.where(number > 0, np.where(known, share, 0).sum(axis=1) / np.maximum(number, 1), 1.0)
    return weights / weights.mean()


def balanced_order(weights: Float64[np.ndarray, " n"], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch, n draws with replacement by weight; a function of its arguments alone.

    The counterpart of `scanfuse.train.epoch_order`.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    drawn = torch.multinomial(torch.from_numpy(weights), len(weights), replacement=True, generator=generator)
    order: list[int] = drawn.tolist()
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def _strata(target: Num[np.ndarray, "n k"], mask: Bool[np.ndarray, "n k"], task: Task) -> Int[np.ndarray, " n"]:
    """One number per sample: its class, or its rarest positive label; -1 where nothing is known or positive."""
    if task.kind != "multilabel":
        return np.where(mask[:, 0], target[:, 0].astype(int), -1)
    positive = (target == 1) & mask
    frequency = np.where(positive, positive.sum(axis=0), np.inf)
    return np.where(positive.any(axis=1), frequency.argmin(axis=1), -1)
