"""Correlation of the fused image with its sources: CC, and the sum of the correlations of differences, SCD."""

import numpy as np
from jaxtyping import Float64, Num

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["correlation", "sum_of_correlations_of_differences"]


def correlation(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Correlation of the fused image with the sources: (r(F, A) + r(F, B)) / 2; higher is better.

    r(x, y) = sum (x - mean x)(y - mean y) / sqrt( sum (x - mean x)^2 sum (y - mean y)^2 )   (Pearson)

    Range -1..1; 1 where the fused image is a brighter or stretched copy of both sources: scale and offset do not
    count. NaN where any of the three images is constant: r is undefined.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Pearson 1895; as a fusion metric see the survey of Ma, Ma, Li 2019, section 3.
    """
    f, a, b = checked(fused, a, b)
    return (_pearson(f, a) + _pearson(f, b)) / 2


def sum_of_correlations_of_differences(
    fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]
) -> float:
    """Sum of the correlations of differences: what one source adds, compared with that source; higher is better.

    SCD = r(F - B, A) + r(F - A, B),   r as in `correlation`

    Convention: differences of floats, with sign. Range -2..2.

    NaN where a source is constant, or where the fused image equals a source up to an offset, since then nothing was
    added and r is undefined.

    Traps: a difference of uint8 images wraps around below 0; a fused image that overshoots (A + B, clipped) scores
    higher than a faithful one.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Aslantas, Bendes 2015.
    """
    f, a, b = checked(fused, a, b)
    return _pearson(f - b, a) + _pearson(f - a, b)


def _pearson(x: Float64[np.ndarray, "h w"], y: Float64[np.ndarray, "h w"]) -> float:
    # A constant image is found by its extremes: its mean is rounded, so its deviations need not be exactly 0.
    if x.min() == x.max() or y.min() == y.max():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y)))
