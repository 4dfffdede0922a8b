"""Holm's correction for several comparisons: the chance of even one false finding stays below the level.

>>> from scanfuse.stats.holm import holm
>>> [round(float(p), 3) for p in holm([0.01, 0.04, 0.03])]
[0.03, 0.06, 0.06]
"""

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

__all__ = ["holm"]


def holm(p_values: ArrayLike) -> Float64[np.ndarray, " m"]:
    """Adjusted p-values in the order given; reject where they are at most the level.

    With p_(1) <= ... <= p_(m):   adjusted_(i) = max over j <= i of  min(1, (m - j + 1) p_(j)).

    It needs no assumption on how the comparisons depend on each other, and rejects whatever Bonferroni's would.
    A NaN (a comparison that could not be made) stays NaN and does not count in m.

    Args:
        p_values: m numbers in [0, 1] or NaN.

    Raises:
        ValueError: not one row, or a number outside [0, 1].

    Source: Holm 1979.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1:
        raise ValueError(f"p_values has shape {p.shape}; expected one row")
    made = np.flatnonzero(~np.isnan(p))
    if made.size and not 0 <= p[made].min() <= p[made].max() <= 1:
        raise ValueError(f"p-values run from {p[made].min()} to {p[made].max()}; they must lie between 0 and 1")
    order = made[np.argsort(p[made], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(order.size, 0, -1) * p[order]), 1)
    return adjusted
