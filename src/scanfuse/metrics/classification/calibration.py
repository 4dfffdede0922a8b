"""Whether probabilities mean what they say: Brier score, log loss, calibration error, reliability curve.

Calibration error. Probabilities are sorted into equal bins [k/b, (k+1)/b), the last one closed, and

    ECE = sum over bins of  (weight of the bin / all weight) * | observed frequency - mean probability |.

Binary: the probability of the positive class against its frequency. More than two classes: the probability of the
most probable class against how often it is right (Guo et al. 2017). The value depends on the number of bins, and is
above 0 for a perfect model with few samples; compare only values of equal bins on equal samples.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Num
from numpy.typing import ArrayLike

from scanfuse.metrics.classification.inputs import Weights, checked, checked_weights, ratio

__all__ = [
    "BINS",
    "Reliability",
    "brier",
    "ece",
    "log_loss",
    "multiclass_brier",
    "multiclass_log_loss",
    "reliability",
    "top_label",
]

BINS = 15
_SMALLEST = 1e-15


class Reliability(NamedTuple):
    """The reliability curve: one entry per bin, NaN in empty bins.

    Attributes:
        edges: (b + 1,), borders of the bins.
        counts: (b,), samples in each bin.
        confidence: (b,), mean probability.
        frequency: (b,), share of positives.
    """

    edges: Float64[np.ndarray, " b1"]
    counts: Int[np.ndarray, " b"]
    confidence: Float64[np.ndarray, " b"]
    frequency: Float64[np.ndarray, " b"]


def brier(target: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None) -> Float64[np.ndarray, " r"]:
    """mean (p - y)^2, in [0, 1], lower is better; p = 0.5 throughout gives 0.25. NaN without samples.

    Args:
        target: (n,), 0 or 1.
        probability: (n,), of class 1, in [0, 1].
        weights: (r, n) or (n,), not negative; None counts every sample once (r = 1).

    Raises:
        ValueError: see `inputs.checked`; a probability outside [0, 1].

    Source: Brier 1950.
    """
    y, p, w = _checked(target, probability, weights)
    return ratio(w @ (p - y) ** 2, w.sum(axis=1))


def multiclass_brier(
    target: Num[np.ndarray, " n"], probabilities: Float[np.ndarray, "n c"], weights: ArrayLike | None = None
) -> Float64[np.ndarray, " r"]:
    """mean over samples of  sum over classes of (p - y)^2, in [0, 2]; for two classes twice the binary value."""
    p = np.asarray(probabilities, np.float64)
    w = checked_weights(weights, len(p))
    return ratio(w @ ((p - np.eye(p.shape[1])[np.asarray(target, int)]) ** 2).sum(axis=1), w.sum(axis=1))


def log_loss(
    target: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None
) -> Float64[np.ndarray, " r"]:
    """Negative log likelihood, -mean log p(true class), natural logarithm, 0 and up; p is kept 1e-15 from 0 and 1.

    Arguments as `brier`.
    """
    y, p, w = _checked(target, probability, weights)
    true = np.clip(np.where(y, p, 1 - p), _SMALLEST, 1)
    return ratio(w @ -np.log(true), w.sum(axis=1))


def multiclass_log_loss(
    target: Num[np.ndarray, " n"], probabilities: Float[np.ndarray, "n c"], weights: ArrayLike | None = None
) -> Float64[np.ndarray, " r"]:
    """-mean log p(true class), natural logarithm, 0 and up; p is kept 1e-15 from 0."""
    p = np.asarray(probabilities, np.float64)
    w = checked_weights(weights, len(p))
    true = np.clip(p[np.arange(len(p)), np.asarray(target, int)], _SMALLEST, 1)
    return ratio(w @ -np.log(true), w.sum(axis=1))


def ece(
    target: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None, *, bins: int = BINS
) -> Float64[np.ndarray, " r"]:
    """Expected calibration error, in [0, 1], lower is better; see the module. NaN without samples.

    Arguments as `brier`; for more than two classes give what `top_label` returns.
    """
    y, p, w = _checked(target, probability, weights)
    gap = np.zeros((y.size, bins))
    gap[np.arange(y.size), _bin(p, bins)] = p - y
    return ratio(np.abs(w @ gap).sum(axis=1), w.sum(axis=1))


def reliability(target: ArrayLike, probability: ArrayLike, *, bins: int = BINS) -> Reliability:
    """The reliability curve behind `ece`; arguments as there."""
    y, p, _ = _checked(target, probability, None)
    place = _bin(p, bins)
    count = np.bincount(place, minlength=bins)
    return Reliability(
        edges=np.arange(bins + 1) / bins,
        counts=count,
        confidence=ratio(np.bincount(place, p, bins), count),
        frequency=ratio(np.bincount(place, y, bins), count),
    )


def top_label(
    target: Num[np.ndarray, " n"], probabilities: Float[np.ndarray, "n c"]
) -> tuple[Num[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Whether the most probable class is right (0 or 1), and its probability; of equal ones the first counts."""
    p = np.asarray(probabilities, np.float64)
    return (p.argmax(axis=1) == np.asarray(target)).astype(int), p.max(axis=1, initial=0.0)


def _checked(
    target: ArrayLike, probability: ArrayLike, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, Weights]:
    y, p = checked(target, probability)
    if p.size and not 0 <= p.min() <= p.max() <= 1:
        raise ValueError(f"probabilities run from {p.min()} to {p.max()}; they must lie between 0 and 1")
    return y, p, checked_weights(weights, y.size)


def _bin(p: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((p * bins).astype(int), bins - 1)
