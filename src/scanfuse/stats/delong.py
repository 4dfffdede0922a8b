"""DeLong's variance of the AUROC, and the test of two AUROCs.

For a positive i with score x_i and a negative j with score z_j, psi = 1, 1/2 or 0 as x_i is above, equal to or below
z_j. The AUROC is the mean of psi; V10_i its mean over the negatives, V01_j over the positives. For k scores,

    covariance = S10 / m + S01 / n,     S10, S01 the sample covariances of V10 and V01 (divisors m - 1 and n - 1).

V10 and V01 come from mid-ranks, in n log n time. With `groups` (patients with several samples, which are not
independent) the deviations are summed within each group first, including those between its own positives and
negatives; groups of one sample each give the formula above exactly.

Source: DeLong, DeLong, Clarke-Pearson 1988; Sun, Xu 2014 (mid-ranks); Obuchowski 1997 (groups).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy import special, stats

from scanfuse.metrics.classification.inputs import checked

__all__ = ["AurocTest", "Delong", "delong", "delong_test"]

Groups = Sequence[Hashable] | np.ndarray

NAN = float("nan")


@dataclass(frozen=True)
class Delong:
    """AUROCs of k scores on the same samples.

    Attributes:
        auroc: (k,).
        covariance: (k, k); NaN where it cannot be estimated (fewer than two positives or negatives, or groups).
    """

    auroc: Float64[np.ndarray, " k"]
    covariance: Float64[np.ndarray, "k k"]


class AurocTest(NamedTuple):
    """Difference of two AUROCs (first - second), its interval, the test statistic and the two-sided p-value."""

    difference: float
    low: float
    high: float
    statistic: float
    p_value: float


def delong(target: ArrayLike, scores: ArrayLike, groups: Groups | None = None) -> Delong:
    """AUROCs and their covariance.

    Args:
        target: (n,), 0 or 1.
        scores: (k, n) or (n,), higher means positive.
        groups: n labels of what is independent (patients); None: every sample.

    Returns:
        NaN throughout if only one class occurs.

    Raises:
        ValueError: shapes differ; see `metrics.classification.inputs.checked`.
    """
    rows = np.atleast_2d(np.asarray(scores, np.float64))
    y = checked(target, rows[0])[0]
    for row in rows[1:]:
        checked(target, row)
    k, positives, negatives = len(rows), int(y.sum()), int((~y).sum())
    if not positives or not negatives:
        return Delong(np.full(k, NAN), np.full((k, k), NAN))
    v = np.empty((k, y.size))
    for index, row in enumerate(rows):
        rank_all = stats.rankdata(row)
        v[index, y] = (rank_all[y] - stats.rankdata(row[y])) / negatives
        v[index, ~y] = 1 - (rank_all[~y] - stats.rankdata(row[~y])) / positives
    auroc = v[:, y].mean(axis=1)
    labels = (
        np.arange(y.size)
        if groups is None
        else np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)[1]
    )
    if labels.shape != y.shape:
        raise ValueError(f"there are {labels.size} groups for {y.size} samples; give one per sample")
    return Delong(auroc, _covariance(v - auroc[:, None], y, labels))


def delong_test(
    target: ArrayLike, first: ArrayLike, second: ArrayLike, groups: Groups | None = None, level: float = 0.95
) -> AurocTest:
    """Whether two scores of the same samples differ in AUROC.

    z = (A1 - A2) / sqrt(var1 + var2 - 2 cov),   p = 2 Phi(-|z|)

    Two scores that rank alike give z = 0, p = 1. A difference whose estimated variance is 0 (one score perfect, the
    other perfectly wrong) has no normal test: z and p are NaN.

    Args:
        target: (n,), 0 or 1.
        first, second: (n,), higher means positive.
        groups: as in `delong`.
        level: coverage of the interval of the difference.
    """
    quantile = _quantile(level)
    found = delong(target, [np.asarray(first, np.float64), np.asarray(second, np.float64)], groups)
    contrast = np.array([1.0, -1.0])
    difference = float(contrast @ found.auroc)
    variance = float(contrast @ found.covariance @ contrast)
    # Rounding leaves about 1e-19 where two scores rank alike.
    variance = 0.0 if abs(variance) < 1e-15 else variance
    if math.isnan(variance) or variance < 0 or (variance == 0 and abs(difference) > 1e-12):
        return AurocTest(difference, NAN, NAN, NAN, NAN)
    error = math.sqrt(variance)
    z = difference / error if error else 0.0
    half = quantile * error
    return AurocTest(difference, difference - half, difference + half, z, float(2 * special.ndtr(-abs(z))))


def _covariance(deviation: np.ndarray, y: np.ndarray, labels: np.ndarray) -> Float64[np.ndarray, "k k"]:
    """From the deviations (k, n) of V10 (where y) and V01 (elsewhere) from the AUROC, summed within groups."""
    num_groups = int(labels.max()) + 1
    sums = []
    for part in (y, ~y):
        sums.append(np.stack([np.bincount(labels[part], row, num_groups) for row in deviation[:, part]]))
    with_positive, with_negative = (np.unique(labels[part]).size for part in (y, ~y))
    if with_positive < 2 or with_negative < 2:
        return np.full((len(deviation),) * 2, NAN)
    m, n = int(y.sum()), int((~y).sum())
    positive, negative = (total / count for total, count in zip(sums, (m, n), strict=True))
    cross = positive @ negative.T
    return (
        positive @ positive.T * with_positive / (with_positive - 1)
        + negative @ negative.T * with_negative / (with_negative - 1)
        + (cross + cross.T) * num_groups / (num_groups - 1)
    )


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    return float(special.ndtri((1 + level) / 2))
