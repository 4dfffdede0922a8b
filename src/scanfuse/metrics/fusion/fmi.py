"""Feature mutual information (FMI) over 3 x 3 windows."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Num
from scipy.fft import dctn

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["fmi"]

_SIDE = 3
_POSITIONS = _SIDE * _SIDE
_CHUNK = 4096  # windows per pass: nine rows of float64 stay in the cache


def fmi(
    fused: Num[np.ndarray, "h w"],
    a: Num[np.ndarray, "h w"],
    b: Num[np.ndarray, "h w"],
    feature: Literal["none", "gradient", "dct"] = "none",
) -> float:
    """Feature mutual information (fast form), the mean of FMI(F, A) and FMI(F, B); higher is better.

    FMI(F, X) = mean over all 3 x 3 windows of 2 I(p; q) / (H(p) + H(q))

    A window of F, stretched to 0..1 and divided by its sum, is read as a distribution p over the nine positions
    (column by column); q likewise from X. Their joint distribution is modelled as

        J = phi U + (1 - phi) p q,   phi = r / r_U

    where U is the Frechet bound (the coupling of p and q with the largest possible correlation r_U of positions, the
    smallest one if r < 0) and r is the Pearson correlation of the nine values of p and q. I = H(p) + H(q) - H(J).

    Convention: a constant window is the uniform distribution; two windows that are equal, or both constant, score 1;
    windows without any entropy score 0; logarithms of negative entries of J (phi may exceed 1) are of their
    magnitude, as in the authors' program.
    Range 0 to about 1; 1 where the fused image equals both sources. It is no strict upper end: single windows of
    nearly two grey levels reach 2, since phi may exceed 1. NaN where a side is below 3 pixels.

    Traps: what fusion tables call "FMI_pixel" is in a common toolbox the feature "edge", the default argument of the
    authors' function, which gives far higher values; the feature must be named with the number. Here it is the raw
    pixels. Constant background counts as 1 if the fused image has it too.

    Args:
        fused, a, b: (H, W), 0..255.
        feature: what the windows are taken from: the pixels ("none"), the horizontal central difference
            ("gradient") or the orthonormal 2D DCT of the whole image ("dct").

    Raises:
        ValueError: see `inputs.checked`; unknown feature.

    Source: Haghighat, Aghagolzadeh, Seyedarabi 2011; Haghighat, Razian 2014 (fast form).
    """
    if feature not in ("none", "gradient", "dct"):
        raise ValueError(f"feature is {feature!r}; give 'none', 'gradient' or 'dct'")
    images = checked(fused, a, b)
    if min(images[0].shape) < _SIDE:
        return float("nan")
    if feature == "gradient":
        f, a, b = (np.gradient(image, axis=1) for image in images)
    elif feature == "dct":
        f, a, b = (dctn(image, norm="ortho") for image in images)
    else:
        f, a, b = images
    windows_f = _windows(f)
    p_f, flat_f = _distributions(windows_f)
    total = 0.0
    for source in (a, b):
        windows = _windows(source)
        q, flat = _distributions(windows)
        same = np.all(windows == windows_f, axis=0) | (flat & flat_f)
        total += float(np.count_nonzero(same))
        p_left, q_left = p_f[:, ~same], q[:, ~same]
        for start in range(0, p_left.shape[1], _CHUNK):
            part = slice(start, start + _CHUNK)
            total += float(np.sum(_relative_information(p_left[:, part], q_left[:, part])))
    return total / (2 * windows_f.shape[1])


def _windows(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "9 n"]:
    """All 3 x 3 windows, one per column; rows are the positions, counted down the columns of the window."""
    rows, columns = image.shape[0] - _SIDE + 1, image.shape[1] - _SIDE + 1
    return np.stack([image[y : y + rows, x : x + columns].ravel() for x in range(_SIDE) for y in range(_SIDE)])


def _distributions(
    windows: Float64[np.ndarray, "9 n"],
) -> tuple[Float64[np.ndarray, "9 n"], Bool[np.ndarray, " n"]]:
    """Each window as a distribution over its positions, and which windows are constant."""
    low = windows.min(axis=0)
    span = windows.max(axis=0) - low
    flat = span == 0
    stretched = np.where(flat, 1.0, (windows - low) / np.where(flat, 1.0, span))
    return stretched / stretched.sum(axis=0), flat


def _relative_information(p: Float64[np.ndarray, "9 n"], q: Float64[np.ndarray, "9 n"]) -> Float64[np.ndarray, " n"]:
    """2 I / (H + H) of each pair of distributions."""
    r = _correlation(p, q)
    # The lower Frechet bound is the upper one with the positions of q counted backwards; so is the sign of r.
    q = np.where(r < 0, q[::-1], q)
    cdf_p, cdf_q = np.cumsum(p, axis=0), np.cumsum(q, axis=0)

    covariance = -np.sum(cdf_p, axis=0) * np.sum(cdf_q, axis=0)  # Hoeffding: sum of (U_ij - P_i Q_j)
    for i in range(_POSITIONS):
        covariance += np.minimum(cdf_p[i], cdf_q).sum(axis=0)
    deviations = _deviation(p) * _deviation(q)
    defined = (deviations > 0) & (covariance > 0)  # p or q on one position: the coupling is unique, phi is free
    phi = np.where(defined, np.abs(r) * deviations / np.where(defined, covariance, 1.0), 0.0)

    before_p = np.vstack([np.zeros_like(cdf_p[:1]), cdf_p[:-1]])
    before_q = np.vstack([np.zeros_like(cdf_q[:1]), cdf_q[:-1]])
    independent = (1 - phi) * p
    joint_entropy = np.zeros_like(r)
    for i in range(_POSITIONS):
        upper = np.minimum(cdf_p[i], cdf_q) - np.maximum(before_p[i], before_q)  # overlap of two intervals
        joint_entropy += _entropy(phi * np.maximum(upper, 0.0) + independent[i] * q)
    marginal = _entropy(p) + _entropy(q)
    return np.where(marginal > 0, 2 * (marginal - joint_entropy) / np.where(marginal > 0, marginal, 1.0), 0.0)


def _correlation(p: Float64[np.ndarray, "9 n"], q: Float64[np.ndarray, "9 n"]) -> Float64[np.ndarray, " n"]:
    """Pearson correlation of the nine values; 0 where one is uniform."""
    p, q = p - p.mean(axis=0), q - q.mean(axis=0)
    product = np.sqrt(np.sum(p * p, axis=0) * np.sum(q * q, axis=0))
    return np.where(product > 0, np.sum(p * q, axis=0) / np.where(product > 0, product, 1.0), 0.0)


def _deviation(p: Float64[np.ndarray, "9 n"]) -> Float64[np.ndarray, " n"]:
    """Standard deviation of the position."""
    position = np.arange(1.0, _POSITIONS + 1)
    return np.sqrt(np.maximum(position**2 @ p - (position @ p) ** 2, 0.0))


def _entropy(p: Float64[np.ndarray, "m n"]) -> Float64[np.ndarray, " n"]:
    """-sum p log2 |p| over the first axis; the tiny number makes 0 log 0 come out as 0."""
    return -np.sum(p * np.log2(np.abs(p) + 1e-300), axis=0)
