"""Edges of the fused image that neither source has, N^AB/F."""

import numpy as np
from jaxtyping import Float64, Num
from scipy.ndimage import correlate1d

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["nabf"]

_FAINT = 2.0  # grey levels: gradients below it weigh next to nothing
_FAINT_WEIGHT = 0.001


def nabf(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """False edges N^AB/F; lower is better.

    N = sum over positions where g_F > g_A and g_F > g_B of ((1 - Q_AF) w_A + (1 - Q_BF) w_B), over sum(w_A + w_B)
    Q_XF = sqrt(.9999 / (1 + exp(-19 (G - .5))) * .9995 / (1 + exp(-22 (T - .5))))
    G = min(g_X, g_F) / max(g_X, g_F),   T = | |angle_X - angle_F| - pi/2 | / (pi/2)
    w_X = g_X^1.5 where g_X >= 2, else .001

    g and angle = atan(gx / gy) are strength and orientation of the Sobel gradient.

    Convention: Sobel divided by 8, borders repeated; angle pi/2 where gy = 0, and 0 where there is no gradient; where
    g_X equals g_F, G = g_F as in the published program. Range 0..1.

    A position counts once the fused gradient exceeds those of both sources by any amount, and with all that it does
    not keep of either. So contrast that was raised on purpose counts like a seam; the pixelwise maximum, whose
    gradient nearly everywhere is that of one source, is near 0 by construction, and so is the average.

    NaN where neither source has any edge.

    Trap: the published program takes (fused, A, B), and the driver published with it calls it with (A, B, fused).

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Petrovic, Xydeas 2005; this form Shreyamsha Kumar 2012.
    """
    f, a, b = checked(fused, a, b)
    strength_f, angle_f = _edges(f)
    sources = [_edges(source) for source in (a, b)]
    is_false = (strength_f > sources[0][0]) & (strength_f > sources[1][0])
    lost = total = 0.0
    for strength, angle in sources:
        high = np.maximum(strength, strength_f)
        relative = np.minimum(strength, strength_f) / np.where(high > 0, high, 1.0)
        relative = np.where(strength == strength_f, strength_f, relative)
        aligned = np.abs(np.abs(angle - angle_f) - np.pi / 2) / (np.pi / 2)
        quality = np.sqrt(_sigmoid(19 * (relative - 0.5)) * _sigmoid(22 * (aligned - 0.5)) * (0.9999 * 0.9995))
        weight = np.where(strength >= _FAINT, strength**1.5, _FAINT_WEIGHT)
        lost += float(np.sum((1 - quality) * weight, where=is_false))
        total += float(np.sum(weight))
    return lost / total if any(strength.any() for strength, _ in sources) else float("nan")


def _edges(
    image: Float64[np.ndarray, "h w"],
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
    """Strength (grey levels per pixel) and orientation (-pi/2..pi/2) of the Sobel gradient."""
    smooth, difference = [0.25, 0.5, 0.25], [0.5, 0.0, -0.5]
    gx, gy = (
        correlate1d(correlate1d(image, smooth, axis=across, mode="nearest"), difference, axis=along, mode="nearest")
        for across, along in ((0, 1), (1, 0))
    )
    horizontal = gy == 0
    angle = np.arctan(gx / np.where(horizontal, 1.0, gy))
    angle[horizontal & (gx != 0)] = np.pi / 2
    angle[horizontal & (gx == 0)] = 0
    return np.hypot(gx, gy), angle


def _sigmoid(x: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    found: Float64[np.ndarray, "h w"] = 1 / (1 + np.exp(-x))
    return found
