"""Bootstrap intervals of statistics of a whole table (AUROC, F1, ...), with whole groups (patients) resampled.

`scanfuse.stats.bootstrap` does this for means. A statistic here is a function of weights, how often every sample was
drawn: of a matrix (r, n), one resample per row, it returns name -> (r,). So all metrics of two systems see the same
patients in every resample, and nothing is copied.

    >>> import numpy as np
    >>> from scanfuse.metrics.classification import binary
    >>> from scanfuse.stats.cluster_bootstrap import cluster_intervals
    >>> y, p = np.array([0, 0, 1, 1, 0, 1]), np.array([0.1, 0.6, 0.35, 0.8, 0.2, 0.9])
    >>> patients = ["a", "a", "b", "c", "d", "e"]
    >>> found = cluster_intervals(lambda weights: binary(y, p, weights=weights), patients)["auroc"]
    >>> round(found.value, 3), found.low <= found.value <= found.high
    (0.889, True)
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

__all__ = ["Difference", "Estimate", "Statistic", "cluster_differences", "cluster_intervals", "of_rows"]

Weights = Float64[np.ndarray, "r n"]
Statistic = Callable[[Weights], dict[str, Float64[np.ndarray, " r"]]]
"""Weights (r, n) of the samples -> name -> (r,); NaN where a resample leaves the statistic undefined."""

_BLOCK = 250_000
_ROWS = 32
"""Numbers in one block of weights: 2 MB stay in the cache; and the fewest resamples in it."""


class Estimate(NamedTuple):
    """A statistic of all samples and the ends of its confidence interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A statistic of the first minus that of the second, its interval, and the two-sided p-value of 0."""

    value: float
    low: float
    high: float
    p_value: float


def cluster_intervals(
    statistic: Statistic,
    groups: Sequence[Hashable] | np.ndarray,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
    shifted: Collection[str] = (),
) -> dict[str, Estimate]:
    """The values of all samples and percentile intervals over resampled groups.

    Each repeat draws G of the G groups with replacement; the interval runs between the order statistics that leave
    floor((1 - level) / 2 * repeats) of the repeats outside at either end. The draws are those of
    `bootstrap.interval` for equal groups and seed, so a mean gets the same interval from both.

    Resamples that leave a statistic undefined (no positive was drawn) are left out. Where these are more than half,
    or with a single group, the ends are NaN. With few groups the interval is too narrow; see `bootstrap.interval`.

    Args:
        statistic: see `Statistic`.
        groups: n labels, the patient of each sample; compared as strings.
        level: coverage, strictly between 0 and 1.
        repeats: number of resamples, at least 1.
        seed: of the draws.
        shifted: names of statistics that are means of absolute values, such as the calibration error. Resampling
            adds noise, which their absolute values turn into an upward bias, so that the interval of a small one may
            miss its own value: their repeats are moved down to have the mean `value`, and low is at least 0.

    Raises:
        ValueError: no groups; level or repeats out of range.

    Source: Efron, Tibshirani 1993, chapters 10 (bias) and 13; Davison, Hinkley 1997, section 3.8 (clusters).
    """
    values, resampled = _resample(statistic, groups, level, repeats, seed)
    found = {}
    for name, value in values.items():
        draws = resampled[name]
        low, high = _ends(draws, level)
        if name in shifted and not np.isnan(low):
            bias = float(np.nanmean(draws)) - value
            low, high = max(0.0, low - bias), high - bias
        found[name] = Estimate(value, low, high)
    return found


def cluster_differences(
    first: Statistic,
    second: Statistic,
    groups: Sequence[Hashable] | np.ndarray,
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired comparison of two statistics of the same samples: both see the same resampled groups.

    p = 2 (1 + b) / (1 + repeats), at most 1, where b is the smaller of the numbers of repeats whose difference is
    at most 0 and at least 0: the level at which the interval would just touch 0. It cannot be below
    2 / (1 + repeats). NaN where the interval is.

    Arguments as `cluster_intervals`; only names that both statistics return are compared.
    """

    def difference(weights: Weights) -> dict[str, Float64[np.ndarray, " r"]]:
        a, b = first(weights), second(weights)
        return {name: a[name] - b[name] for name in a if name in b}

    values, resampled = _resample(difference, groups, level, repeats, seed)
    found = {}
    for name, value in values.items():
        low, high = _ends(resampled[name], level)
        draws = resampled[name][~np.isnan(resampled[name])]
        fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
        p = float("nan") if np.isnan(low) else min(1.0, 2 * (1 + fewer) / (1 + draws.size))
        found[name] = Difference(value, low, high, p)
    return found


def of_rows(function: Callable[[Int[np.ndarray, " m"]], dict[str, float]]) -> Statistic:
    """Any function of row numbers (with repeats) as a `Statistic`: one call per resample, so much slower.

    Args:
        function: m row numbers of the samples -> name -> value.
    """

    def statistic(weights: Weights) -> dict[str, Float64[np.ndarray, " r"]]:
        rows = np.arange(weights.shape[1])
        each = [function(np.repeat(rows, row.astype(int))) for row in weights]
        return {name: np.array([values[name] for values in each], np.float64) for name in each[0]}

    return statistic


def _resample(
    statistic: Statistic, groups: Sequence[Hashable] | np.ndarray, level: float, repeats: int, seed: int
) -> tuple[dict[str, float], dict[str, Float64[np.ndarray, " repeats"]]]:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; it must be at least 1")
    if not len(groups):
        raise ValueError("there are no groups; a bootstrap needs at least one sample")
    names, member = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    values = {name: float(value[0]) for name, value in statistic(np.ones((1, len(groups)))).items()}
    if len(names) == 1:
        return values, {name: np.full(repeats, np.nan) for name in values}
    blocks = [statistic(weights) for weights in _draws(member, len(names), repeats, seed)]
    return values, {name: np.concatenate([block[name] for block in blocks]) for name in values}


def _draws(member: np.ndarray, num_groups: int, repeats: int, seed: int) -> Iterator[Weights]:
    """Weights of the samples, some rows at a time; the generator draws row by row, so blocks change nothing."""
    rng = np.random.default_rng(seed)
    chances = np.full(num_groups, 1 / num_groups)
    rows = max(_ROWS, _BLOCK // len(member))
    for start in range(0, repeats, rows):
        times_drawn = rng.multinomial(num_groups, chances, size=min(rows, repeats - start))
        yield times_drawn[:, member].astype(np.float64)


def _ends(draws: Float64[np.ndarray, " repeats"], level: float) -> tuple[float, float]:
    defined = np.sort(draws[~np.isnan(draws)])
    if 2 * defined.size <= draws.size:
        return float("nan"), float("nan")
    outside = int((1 - level) / 2 * defined.size)
    return float(defined[outside]), float(defined[defined.size - 1 - outside])
