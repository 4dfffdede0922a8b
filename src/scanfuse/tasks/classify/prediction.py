"""Results of a classification, per sample and per study, and the mathematics of gathering and averaging them.

logits (batch, c) --predictions_of--> [per pair] --by_study--> [per study] --ensemble--> [mean of several runs]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from scanfuse.errors import UserError
from scanfuse.stats.calibration import logits_of, probabilities_of
from scanfuse.tasks.classify.classes import Classes, one_logit

__all__ = ["Prediction", "Predictions", "by_study", "ensemble", "flip_average", "predictions_of"]


@dataclass(frozen=True)
class Prediction:
    """One result: a pair of views, or a study.

    Attributes:
        id: of the sample; that of the study once samples are gathered into studies.
        group: the patient.
        study: the study that the sample belongs to.
        logits: (c,) float64.
        probabilities: (c,) float64.
        target: (k,) float64; 0 where not known.
        mask: (k,) bool, True where the target is known.
    """

    id: str
    group: str
    study: str
    logits: Float64[np.ndarray, " c"]
    probabilities: Float64[np.ndarray, " c"]
    target: Float64[np.ndarray, " k"]
    mask: Bool[np.ndarray, " k"]


@dataclass(frozen=True)
class Predictions:
    """Results as arrays, one row a result."""

    ids: list[str]
    groups: list[str]
    logits: Float64[np.ndarray, "n c"]
    probabilities: Float64[np.ndarray, "n c"]
    target: Float64[np.ndarray, "n k"]
    mask: Bool[np.ndarray, "n k"]

    @classmethod
    def of(cls, results: Sequence[Prediction]) -> "Predictions":
        """Stacks results; ValueError if there are none."""
        if not results:
            raise ValueError("there are no results")
        return cls(
            [result.id for result in results],
            [result.group for result in results],
            np.stack([result.logits for result in results]),
            np.stack([result.probabilities for result in results]),
            np.stack([result.target for result in results]),
            np.stack([result.mask for result in results]),
        )


def predictions_of(logits: Float[Tensor, "b c"], batch: Mapping[str, Any], classes: Classes) -> list[Prediction]:
    """The results of a batch.

    Args:
        logits: the network's outputs, uncalibrated.
        batch: "target" and "mask" (b, k), and "meta": one dictionary per sample with "id", "group" and, where several
            samples make up a study, "study".
        classes: what is predicted.
    """
    values = one_logit(logits, classes).detach().double().cpu().numpy()
    probabilities = probabilities_of(values, classes.kind)
    targets, masks = batch["target"].double().cpu().numpy(), batch["mask"].cpu().numpy()
    return [
        Prediction(
            str(meta["id"]), str(meta["group"]), str(meta.get("study") or meta["id"]), row, probability, target, mask
        )
        for row, probability, target, mask, meta in zip(
            values, probabilities, targets, masks, batch["meta"], strict=True
        )
    ]


def by_study(results: Sequence[Prediction], classes: Classes) -> list[Prediction]:
    """One result per study, in order of appearance: the mean of the probabilities of its samples.

    Scores of pairs would weigh a study of n views by n (n - 1) / 2.

    Raises:
        UserError: samples of one study that differ in group or target.
    """
    studies: dict[str, list[Prediction]] = {}
    for result in results:
        studies.setdefault(result.study, []).append(result)
    gathered = []
    for study, members in studies.items():
        first = members[0]
        for other in members[1:]:
            same = np.array_equal(first.mask, other.mask) and np.array_equal(first.target, other.target)
            if other.group != first.group or not same:
                raise UserError(
                    f"{first.id} and {other.id} are of study {study!r} but differ in patient or target: mend them."
                )
        gathered.append(replace(_mean(members, classes), id=study))
    return gathered


def ensemble(members: Sequence[Sequence[Prediction]], classes: Classes) -> list[Prediction]:
    """The mean probability of several runs (folds, seeds) for the same samples, in the order of the first run.

    Raises:
        ValueError: no run, or runs of different samples.
    """
    if not members:
        raise ValueError("an ensemble needs at least one run")
    tables = [{result.id: result for result in results} for results in members]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise ValueError("the runs of an ensemble must score the same samples")
    return [_mean([table[result.id] for table in tables], classes) for result in members[0]]


def flip_average(
    forward: Callable[[dict[str, Any]], Float[Tensor, "b c"]],
    batch: dict[str, Any],
    classes: Classes,
    *,
    turns: bool = False,
) -> Float[Tensor, "b c2"]:
    """Test-time augmentation: logits of the mean probability of the pictures as they are and all flipped left-right.

    Args:
        forward: batch -> logits.
        batch: the inputs that it names under "present" and that are pictures (b, c, h, w) or volumes are flipped.
        classes: what is predicted.
        turns: all eight: as they are and flipped, each by no, one, two and three quarter turns.
    """
    pictures = [name for name in batch["present"] if batch[name].ndim >= 4]

    def moved(flip: bool, quarters: int) -> dict[str, Any]:
        found = {name: torch.rot90(batch[name], quarters, dims=(-2, -1)) for name in pictures}
        return batch | {name: picture.flip(-1) if flip else picture for name, picture in found.items()}

    ways = [(flip, quarters) for quarters in range(4 if turns else 1) for flip in (False, True)]
    each = [one_logit(forward(moved(*way)), classes).double() for way in ways]
    if classes.kind == "multiclass":
        return torch.stack([z.log_softmax(1) for z in each]).logsumexp(0) - np.log(len(each))
    # log p and log (1 - p) apart: their difference stays exact where p is close to 1.
    positive = torch.stack([torch.nn.functional.logsigmoid(z) for z in each]).logsumexp(0)
    negative = torch.stack([torch.nn.functional.logsigmoid(-z) for z in each]).logsumexp(0)
    return positive - negative


def _mean(members: Sequence[Prediction], classes: Classes) -> Prediction:
    if len(members) == 1:
        return members[0]
    probabilities = np.mean([member.probabilities for member in members], axis=0)
    return replace(members[0], probabilities=probabilities, logits=logits_of(probabilities[None], classes.kind)[0])
