"""What every classification metric checks first, and the form of the weights that the bootstrap uses."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import ArrayLike

__all__ = ["Weights", "checked", "checked_weights", "mean_of_defined", "ratio"]

Weights = Float64[np.ndarray, "r n"]
"""How often each of n samples counts in each of r weightings, 0 and up; the bootstrap's draws are such rows."""


def checked(target: ArrayLike, score: ArrayLike) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Targets as booleans and scores as float64.

    Args:
        target: n values 0 or 1 (or booleans).
        score: n numbers, higher means positive.

    Raises:
        ValueError: not one-dimensional, different lengths, a target other than 0 and 1, a score that is not finite.
    """
    y, p = np.asarray(target), np.asarray(score, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"target has shape {y.shape} and score {p.shape}; they must be one row of equal length")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"target holds {np.setdiff1d(y, (0, 1))[0]!r}; a binary target is 0 or 1")
    if not np.isfinite(p).all():
        raise ValueError(f"{int((~np.isfinite(p)).sum())} of {p.size} scores are not finite")
    return y.astype(bool), p


def checked_weights(weights: ArrayLike | None, count: int) -> Weights:
    """Weights as a matrix (r, n); None gives one row of ones.

    Raises:
        ValueError: another number of columns than samples, or a negative weight.
    """
    if weights is None:
        return np.ones((1, count))
    w = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    if w.ndim != 2 or w.shape[1] != count:
        raise ValueError(f"weights have shape {w.shape}; the last side must be the number of samples, {count}")
    if w.size and w.min() < 0:
        raise ValueError(f"a weight is {w.min()}; weights must not be negative")
    return w


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Float64[np.ndarray, "..."]:
    """numerator / denominator, NaN where the denominator is 0; no warning."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def mean_of_defined(values: ArrayLike) -> Float64[np.ndarray, "..."]:
    """Mean over the first axis of what is not NaN; NaN where nothing is defined; no warning."""
    v = np.asarray(values, np.float64)
    defined = ~np.isnan(v)
    return ratio(np.where(defined, v, 0.0).sum(axis=0), defined.sum(axis=0))
