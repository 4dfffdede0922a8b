"""Contrast and sharpness of the fused image alone: standard deviation, spatial frequency, average gradient."""

import numpy as np
from jaxtyping import Num

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["average_gradient", "spatial_frequency", "standard_deviation"]


def standard_deviation(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Standard deviation of the fused image's grey levels; higher means more contrast.

    SD = sqrt( mean (F - mean F)^2 )

    Convention: population form (divisor H W), 0..255 scale. Range 0 (constant) to 127.5. The sources are not used.

    Trap: the dark background counts; a brighter head on the same background raises SD without any better contrast.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Rao 1997.
    """
    f, _, _ = checked(fused, a, b)
    return float(np.std(f))


def spatial_frequency(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Spatial frequency, the root mean square of neighbour differences; higher means sharper (or noisier).

    SF = sqrt(RF^2 + CF^2),   RF^2 = mean (F[i, j] - F[i, j-1])^2,   CF^2 = mean (F[i, j] - F[i-1, j])^2

    Convention: each mean over the differences that exist, H (W - 1) and (H - 1) W of them; 0..255 scale.
    Range 0 (constant) to 255 sqrt(2). The sources are not used. NaN where a side is 1 pixel: no differences.

    Traps: the original paper divides both sums by H W (0.2 % smaller at 256 x 256); noise raises SF, so higher is not
    always better.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Eskicioglu, Fisher 1995.
    """
    f, _, _ = checked(fused, a, b)
    if min(f.shape) < 2:
        return float("nan")
    return float(np.sqrt(np.mean(np.diff(f, axis=0) ** 2) + np.mean(np.diff(f, axis=1) ** 2)))


def average_gradient(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Average gradient of the fused image; higher means sharper (or noisier).

    AG = mean sqrt( (gx^2 + gy^2) / 2 )

    Convention: central differences, one-sided at the border, mean over all H W pixels; 0..255 scale.
    Range 0 (constant) to 255. The sources are not used. NaN where a side is 1 pixel: no gradient.

    Traps: the textbook's forward differences give a larger value (by some 20 % on the reference images); a common
    toolbox divides the same sum by (H - 1)(W - 1); noise raises AG, so higher is not always better.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Cui, Feng, Xu, Li, Chen 2015.
    """
    f, _, _ = checked(fused, a, b)
    if min(f.shape) < 2:
        return float("nan")
    gy, gx = np.gradient(f)
    return float(np.mean(np.sqrt((gx**2 + gy**2) / 2)))
