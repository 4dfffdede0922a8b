"""How good the decisions at a threshold are: confusion matrix, accuracy, sensitivity, specificity, precision, F1.

All of them come from four counts. A rate whose denominator is 0 (no positives, nothing called positive) is NaN,
without a warning; it is not 0, which would be a statement about samples that do not exist.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Num
from numpy.typing import ArrayLike

from scanfuse.metrics.classification.inputs import checked, checked_weights, mean_of_defined, ratio

__all__ = [
    "Counts",
    "accuracy",
    "balanced_accuracy",
    "confusion_matrix",
    "counts",
    "f1",
    "macro_recall",
    "one_against_rest",
    "precision",
    "sensitivity",
    "specificity",
]

Rates = Float64[np.ndarray, "*classes r"]


class Counts(NamedTuple):
    """Weights of true and false positives and negatives, (r,) or (c, r) each, one column per weighting."""

    tp: Rates
    fp: Rates
    fn: Rates
    tn: Rates


def counts(
    target: ArrayLike, score: ArrayLike, threshold: ArrayLike = 0.5, weights: ArrayLike | None = None
) -> Counts:
    """The four counts of the decisions `score >= threshold`.

    Args:
        target: (n,), 0 or 1.
        score: (n,).
        threshold: in the unit of the score; one number, or (n,) where samples have their own.
        weights: (r, n) or (n,), not negative; None counts every sample once (r = 1).

    Raises:
        ValueError: see `inputs.checked` and `inputs.checked_weights`.
    """
    y, p = checked(target, score)
    w = checked_weights(weights, y.size)
    called = p >= np.asarray(threshold)
    return Counts(w @ (y & called), w @ (~y & called), w @ (y & ~called), w @ (~y & ~called))


def accuracy(c: Counts) -> Rates:
    """(tp + tn) / all, in [0, 1]; misleading where one class is rare. NaN without samples."""
    return ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn)


def sensitivity(c: Counts) -> Rates:
    """Recall, tp / (tp + fn), in [0, 1]. NaN without positives."""
    return ratio(c.tp, c.tp + c.fn)


def specificity(c: Counts) -> Rates:
    """tn / (tn + fp), in [0, 1]. NaN without negatives."""
    return ratio(c.tn, c.tn + c.fp)


def balanced_accuracy(c: Counts) -> Rates:
    """(sensitivity + specificity) / 2, in [0, 1], 0.5 for guessing. NaN unless both classes occur."""
    return (sensitivity(c) + specificity(c)) / 2


def precision(c: Counts) -> Rates:
    """Positive predictive value, tp / (tp + fp), in [0, 1]. NaN where nothing is called positive.

    It depends on how frequent positives are, so it does not carry over to another population.
    """
    return ratio(c.tp, c.tp + c.fp)


def f1(c: Counts) -> Rates:
    """2 tp / (2 tp + fp + fn), the harmonic mean of precision and sensitivity, in [0, 1]; 0 where none is found.

    NaN without positives, as the sensitivity is: an average over labels must not count a label that nobody has as 0.
    """
    return ratio(2 * c.tp, np.where(c.tp + c.fn > 0, 2 * c.tp + c.fp + c.fn, 0))


def confusion_matrix(
    target: Num[np.ndarray, " n"],
    predicted: Num[np.ndarray, " n"],
    num_classes: int,
    weights: ArrayLike | None = None,
) -> Float64[np.ndarray, "r c c"]:
    """Weight of the samples of true class i that are called j, at [:, i, j].

    Args:
        target, predicted: (n,), class numbers 0..num_classes-1.
        num_classes: c.
        weights: (r, n) or (n,); None counts every sample once (r = 1).

    Raises:
        ValueError: lengths differ, or a class number is out of range.
    """
    y, called = np.asarray(target), np.asarray(predicted)
    if y.ndim != 1 or y.shape != called.shape:
        raise ValueError(
            f"target has shape {y.shape} and predicted {called.shape}; they must be rows of equal length"
        )
    for name, values in (("target", y), ("predicted", called)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"{name} holds a class outside 0..{num_classes - 1}")
    w = checked_weights(weights, y.size)
    cell = np.zeros((y.size, num_classes**2))
    cell[np.arange(y.size), y.astype(int) * num_classes + called.astype(int)] = 1
    return (w @ cell).reshape(-1, num_classes, num_classes)


def one_against_rest(matrix: Float64[np.ndarray, "r c c"]) -> Counts:
    """The counts of each class against all others, (c, r) each, for macro averages over the first axis."""
    tp = np.diagonal(matrix, axis1=1, axis2=2).T
    fn = matrix.sum(axis=2).T - tp
    fp = matrix.sum(axis=1).T - tp
    return Counts(tp, fp, fn, matrix.sum(axis=(1, 2)) - tp - fn - fp)


def macro_recall(matrix: Float64[np.ndarray, "r c c"]) -> Rates:
    """Mean recall over the classes that occur: the balanced accuracy of several classes. NaN without samples."""
    return mean_of_defined(sensitivity(one_against_rest(matrix)))
