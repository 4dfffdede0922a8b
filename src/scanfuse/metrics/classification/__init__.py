"""Metrics of classification: one column of a table of results, for the samples as they are or for many weightings.

    >>> import numpy as np
    >>> from scanfuse.metrics.classification import binary
    >>> y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.35, 0.8])
    >>> values = binary(y, p)
    >>> [round(float(values[name][0]), 3) for name in ("auroc", "auprc", "accuracy", "brier")]
    [0.75, 0.833, 0.5, 0.208]

`binary`, `multiclass` and `multilabel` return name -> (r,) for r weightings of the samples (r = 1 without weights):
what `scanfuse.stats.bootstrap` resamples. A metric that these samples leave undefined (one class only, no
sample with a known label) is NaN, without a warning and without an exception; averages leave it out.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Num
from numpy.typing import ArrayLike

from scanfuse.metrics.classification.calibration import (
    brier,
    ece,
    log_loss,
    multiclass_brier,
    multiclass_log_loss,
    top_label,
)
from scanfuse.metrics.classification.decision import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    counts,
    f1,
    macro_recall,
    one_against_rest,
    precision,
    sensitivity,
    specificity,
)
from scanfuse.metrics.classification.inputs import checked_weights, mean_of_defined, ratio
from scanfuse.metrics.classification.ranking import weighted_partial_auroc, weighted_ranking, weighted_retrieval

__all__ = ["BETTER", "binary", "multiclass", "multilabel"]

Values = dict[str, Float64[np.ndarray, " r"]]

BETTER: Mapping[str, Literal["higher", "lower"]] = MappingProxyType(
    {
        "auroc": "higher",
        "auprc": "higher",
        "pauc": "higher",
        "retrieval": "higher",
        "auroc_micro": "higher",
        "auprc_micro": "higher",
        "accuracy": "higher",
        "balanced_accuracy": "higher",
        "sensitivity": "higher",
        "specificity": "higher",
        "precision": "higher",
        "f1": "higher",
        "brier": "lower",
        "ece": "lower",
        "nll": "lower",
    }
)
"""Names in the order of the tables, and which direction is better. `nll` is the log loss; `pauc`, the area of the ROC
curve above a sensitivity, and `retrieval`, the share of positives among the highest scores of their group, are there
for one label and where they are asked for."""


def binary(
    target: ArrayLike,
    probability: ArrayLike,
    threshold: ArrayLike = 0.5,
    weights: ArrayLike | None = None,
    *,
    pauc_above: float = 0.0,
    groups: Sequence[str] = (),
    top: int = 0,
) -> Values:
    """All metrics of one label.

    Args:
        target: (n,), 0 or 1.
        probability: (n,), of class 1.
        threshold: positive if probability >= threshold; one number, or (n,) where samples have their own.
        weights: (r, n) or (n,), not negative; None counts every sample once.
        pauc_above: also `pauc`, the area of the ROC curve above this sensitivity; 0: without it.
        groups: of the samples, for `retrieval`.
        top: also `retrieval`, the share of positives among so many highest scores of their group; 0: without it.

    Raises:
        ValueError: see `inputs.checked`; a probability outside [0, 1].
    """
    c = counts(target, probability, threshold, weights)
    auroc, auprc = weighted_ranking(target, probability, weights)
    return {
        "auroc": auroc,
        "auprc": auprc,
        **({"pauc": weighted_partial_auroc(target, probability, weights, min_tpr=pauc_above)} if pauc_above else {}),
        **({"retrieval": weighted_retrieval(target, probability, groups, weights, top=top)} if top else {}),
        "accuracy": accuracy(c),
        "balanced_accuracy": balanced_accuracy(c),
        "sensitivity": sensitivity(c),
        "specificity": specificity(c),
        "precision": precision(c),
        "f1": f1(c),
        "brier": brier(target, probability, weights),
        "ece": ece(target, probability, weights),
        "nll": log_loss(target, probability, weights),
    }


def multiclass(
    target: Num[np.ndarray, " n"], probabilities: Float[np.ndarray, "n c"], weights: ArrayLike | None = None
) -> Values:
    """All metrics of one choice among c classes; the most probable class is the decision.

    auroc, auprc, specificity, precision and f1 are means over classes, each against the rest, where defined
    (precision leaves out a class that is never called); balanced_accuracy is the mean recall; brier runs to 2; ece is
    that of the top label. There is no sensitivity: its mean is the balanced accuracy.

    Args:
        target: (n,), class number 0..c-1.
        probabilities: (n, c).
        weights: (r, n) or (n,), not negative; None counts every sample once.
    """
    y, p = np.asarray(target), np.asarray(probabilities, np.float64)
    classes = range(p.shape[1])
    w = checked_weights(weights, len(p))
    matrix = confusion_matrix(y, p.argmax(axis=1), len(classes), w)
    each = one_against_rest(matrix)
    right, confidence = top_label(y, p)
    rankings = [weighted_ranking(y == c, p[:, c], w) for c in classes]
    return {
        "auroc": mean_of_defined([auroc for auroc, _ in rankings]),
        "auprc": mean_of_defined([auprc for _, auprc in rankings]),
        "accuracy": ratio(each.tp.sum(axis=0), matrix.sum(axis=(1, 2))),
        "balanced_accuracy": macro_recall(matrix),
        "specificity": mean_of_defined(specificity(each)),
        "precision": mean_of_defined(precision(each)),
        "f1": mean_of_defined(f1(each)),
        "brier": multiclass_brier(y, p, w),
        "ece": ece(right, confidence, w),
        "nll": multiclass_log_loss(y, p, w),
    }


def multilabel(
    target: Num[np.ndarray, "n l"],
    defined: Bool[np.ndarray, "n l"],
    probabilities: Float[np.ndarray, "n l"],
    thresholds: Sequence[ArrayLike] | None = None,
    weights: ArrayLike | None = None,
) -> tuple[Values, list[Values]]:
    """All metrics of l labels: averages over labels, and those of each label.

    A label's metrics use the samples for which it is defined. The average of a metric leaves out the labels for which
    it is NaN; averaging an undefined AUROC in as 0 or 0.5 would be wrong. auroc_micro and auprc_micro pool all
    defined entries, so that probabilities of different labels are ranked against each other.

    Args:
        target: (n, l), 0 or 1; anything where not defined.
        defined: (n, l), False where the label is not known.
        probabilities: (n, l).
        thresholds: for each label one number, or (n,); 0.5 throughout if None.
        weights: (r, n) or (n,), not negative; None counts every sample once.

    Returns:
        (averages, per label in order).

    Raises:
        ValueError: shapes differ; see `inputs.checked`.
    """
    y, known, p = np.asarray(target), np.asarray(defined, bool), np.asarray(probabilities, np.float64)
    if y.ndim != 2 or not y.shape == known.shape == p.shape:
        raise ValueError(f"target, defined, probabilities have shapes {y.shape}, {known.shape}, {p.shape}; need one")
    w = checked_weights(weights, len(y))
    cuts = [0.5] * y.shape[1] if thresholds is None else list(thresholds)
    each = [
        binary(y[rows, label], p[rows, label], np.broadcast_to(cut, len(y))[rows], w[:, rows])
        for label, (rows, cut) in enumerate(zip(known.T, cuts, strict=True))
    ]
    sample = np.nonzero(known)[0]
    auroc_micro, auprc_micro = weighted_ranking(y[known], p[known], w[:, sample])
    micro: Values = {"auroc_micro": auroc_micro, "auprc_micro": auprc_micro}
    averages = {name: mean_of_defined([values[name] for values in each]) for name in each[0]} if each else {}
    found = {**averages, **micro}
    return {name: found[name] for name in BETTER if name in found}, each
