"""How well scores rank positives above negatives: AUROC, average precision, and their curves.

A metric of one class only is undefined: NaN, without a warning. `auroc` and `average_precision` are scikit-learn's.
`weighted_ranking` gives the same numbers for thousands of weightings at once, as the bootstrap needs them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from sklearn import metrics as sklearn_metrics

from scanfuse.metrics.classification.inputs import checked, checked_weights, ratio

__all__ = [
    "Curve",
    "auroc",
    "average_precision",
    "precision_recall_curve",
    "roc_curve",
    "weighted_partial_auroc",
    "weighted_ranking",
    "weighted_retrieval",
]

NAN = float("nan")


class Curve(NamedTuple):
    """Points of a curve and the threshold of each (positive if score >= threshold); empty where undefined."""

    x: Float64[np.ndarray, " p"]
    y: Float64[np.ndarray, " p"]
    thresholds: Float64[np.ndarray, " p"]


def auroc(target: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve = P(score of a positive > score of a negative) + P(equal) / 2, in [0, 1].

    NaN unless both classes occur.

    Args:
        target: (n,), 0 or 1.
        score: (n,), higher means positive; any monotone scale.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Hanley, McNeil 1982; computed by scikit-learn.
    """
    y, p = checked(target, score)
    return float(sklearn_metrics.roc_auc_score(y, p)) if 0 < y.sum() < y.size else NAN


def average_precision(target: ArrayLike, score: ArrayLike) -> float:
    """Average precision, the step sum  sum_t (R_t - R_{t-1}) P_t  over distinct thresholds, in (0, 1].

    The trapezoid under the same points is another, too optimistic number. A useless score gives the prevalence.
    NaN without a positive; 1 without a negative.

    Args:
        target: (n,), 0 or 1.
        score: (n,), higher means positive.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Davis, Goadrich 2006; computed by scikit-learn.
    """
    y, p = checked(target, score)
    return float(sklearn_metrics.average_precision_score(y, p)) if y.any() else NAN


def roc_curve(target: ArrayLike, score: ArrayLike) -> Curve:
    """x = false positive rate, y = sensitivity, from (0, 0) to (1, 1); empty unless both classes occur."""
    y, p = checked(target, score)
    if not 0 < y.sum() < y.size:
        return _EMPTY
    return Curve(*sklearn_metrics.roc_curve(y, p, drop_intermediate=False))


def precision_recall_curve(target: ArrayLike, score: ArrayLike) -> Curve:
    """x = recall from 1 to 0, y = precision; the last point (0, 1) has threshold inf; empty without positives."""
    y, p = checked(target, score)
    if not y.any():
        return _EMPTY
    precision, recall, thresholds = sklearn_metrics.precision_recall_curve(y, p)
    return Curve(recall, precision, np.append(thresholds, np.inf))


def weighted_ranking(
    target: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None
) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """`auroc` and `average_precision` under r weightings of the samples at once.

    With P_s and N_s the weights of the positives and negatives at the distinct score s, and P, N their sums:

        AUROC  = sum over s of  P_s (N_<s + N_s / 2)  / (P N)
        AP     = sum over s of  P_s P_>=s / (P_>=s + N_>=s)  / P

    Args:
        target: (n,), 0 or 1.
        score: (n,), higher means positive.
        weights: (r, n) or (n,), not negative; None counts every sample once.

    Returns:
        (r,) each: the AUROC, NaN where one of the classes has no weight; the AP, NaN without positives.

    Raises:
        ValueError: see `inputs.checked` and `inputs.checked_weights`.
    """
    y, p = checked(target, score)
    w = checked_weights(weights, y.size)
    if not y.size:
        return np.full(len(w), NAN), np.full(len(w), NAN)
    order = np.argsort(p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(p[order]) > 0, True))  # of each distinct score
    w = np.take(w, order, axis=1)
    positive = np.cumsum(w * y[order], axis=1)
    every = np.cumsum(w, axis=1)
    if last.size < y.size:
        positive, every = np.take(positive, last, axis=1), np.take(every, last, axis=1)
    start = np.zeros((len(w), 1))
    positive_below, every_below = (np.concatenate([start, part[:, :-1]], axis=1) for part in (positive, every))
    at = positive - positive_below
    negative, negative_below = every - positive, every_below - positive_below
    num_positive, num_negative = positive[:, -1], negative[:, -1]
    favourable = np.einsum("rs,rs->r", at, negative + negative_below) / 2
    called = every[:, -1:] - every_below
    # Scores above all weighted samples call nothing positive and add no recall.
    called[called == 0] = 1
    precise = np.einsum("rs,rs->r", at, (num_positive[:, None] - positive_below) / called)
    return ratio(favourable, num_positive * num_negative), ratio(precise, num_positive)


def weighted_partial_auroc(
    target: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None, *, min_tpr: float = 0.8
) -> Float64[np.ndarray, " r"]:
    """Area under the ROC curve above `min_tpr`, in [0, 1 - min_tpr], under r weightings of the samples at once.

    The score of ISIC 2024 for min_tpr 0.8. (r,), NaN where one of the classes has no weight.

    Between the curve's points (f, t) it is a sum over segments: with t' = max(t_0, min_tpr) and f' the place on the
    segment at t', (t_1 - t') (1 - (f' + f_1) / 2).

    Args:
        target: (n,), 0 or 1.
        score: (n,), higher means positive.
        weights: (r, n) or (n,), not negative; None counts every sample once.
        min_tpr: in [0, 1).

    Raises:
        ValueError: see `inputs.checked` and `inputs.checked_weights`; min_tpr out of range.
    """
    if not 0 <= min_tpr < 1:
        raise ValueError(f"min_tpr is {min_tpr}; it must be at least 0 and below 1")
    y, p = checked(target, score)
    w = checked_weights(weights, y.size)
    if not y.size:
        return np.full(len(w), NAN)
    order = np.argsort(-p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(-p[order]) > 0, True))  # of each distinct score
    w = np.take(w, order, axis=1)
    positive = np.take(np.cumsum(w * y[order], axis=1), last, axis=1)
    negative = np.take(np.cumsum(w * (1 - y[order]), axis=1), last, axis=1)
    start = np.zeros((len(w), 1))
    t, f = (
        np.concatenate([start, ratio(part, np.broadcast_to(part[:, -1:], part.shape))], axis=1)
        for part in (positive, negative)
    )
    t_0, t_1, f_0, f_1 = t[:, :-1], t[:, 1:], f[:, :-1], f[:, 1:]
    rise = t_1 - t_0
    share = np.clip((min_tpr - t_0) / np.where(rise > 0, rise, 1), 0, 1)
    each = (1 - share) * rise * (1 - (f_0 + share * (f_1 - f_0) + f_1) / 2)
    area = np.where(t_1 > min_tpr, each, 0).sum(axis=1)
    return np.where((positive[:, -1] > 0) & (negative[:, -1] > 0), area, NAN)


def weighted_retrieval(
    target: ArrayLike, score: ArrayLike, groups: Sequence[str], weights: ArrayLike | None = None, *, top: int
) -> Float64[np.ndarray, " r"]:
    """Share of the positives that are among the `top` highest scores of their own group.

    What a reader finds who looks at so many samples of every group (patient): with w the weights,

        sum_i w_i y_i h_i / sum_i w_i y_i,   h_i = min(max((top - above_i) / equal_i, 0), 1),

    above_i being how many samples of its group have a higher score than i, and equal_i how many have the same, i
    among them: of equal scores any is as likely to be looked at. (r,), NaN where no positive has weight; 1 where no
    group has more than `top` samples.

    Args:
        target: (n,), 0 or 1.
        score: (n,), higher means positive.
        groups: n labels.
        weights: (r, n) or (n,), not negative; None counts every sample once. They do not change what is looked at.
        top: at least 1.

    Raises:
        ValueError: see `inputs.checked` and `inputs.checked_weights`; top below 1, another number of groups.
    """
    y, p = checked(target, score)
    w = checked_weights(weights, y.size)
    if top < 1 or len(groups) != y.size:
        raise ValueError(f"top is {top} and there are {len(groups)} groups for {y.size} samples")
    _, group = np.unique(np.asarray(groups, object).astype(str), return_inverse=True)
    order = np.lexsort((-p, group))
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    place = np.arange(y.size) - np.repeat(first, np.diff(first, append=y.size))  # within its group, from 0
    new = (np.diff(group[order], prepend=-1) != 0) | (np.diff(-p[order], prepend=0.0) != 0)
    start = np.flatnonzero(new)  # of each run of equal scores
    equal = np.diff(start, append=y.size)
    found = np.empty(y.size)
    found[order] = np.repeat(np.clip((top - place[start]) / equal, 0, 1), equal)
    positive = w @ y
    return ratio(w @ (y * found), positive)


_EMPTY = Curve(np.empty(0), np.empty(0), np.empty(0))
