"""Edge information transferred from the sources to the fused image, Q^AB/F."""

import numpy as np
from jaxtyping import Float64, Num
from scipy.ndimage import correlate1d

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["qabf"]


def qabf(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Edge transfer Q^AB/F; higher is better.

    Q = sum(Q_AF g_A + Q_BF g_B) / sum(g_A + g_B)
    Q_XF = .9994 / (1 + exp(-15 (G - .5))) * .9879 / (1 + exp(-22 (T - .8)))
    G = min(g_X, g_F) / max(g_X, g_F),   T = 1 - |angle_X - angle_F| / (pi / 2)

    g and angle = atan(gy / gx) are strength and orientation of the Sobel gradient.

    Convention: zero padding; angle pi/2 where gx = 0; weights g (exponent L = 1); where g_X equals g_F, G = g_F as in
    the published programs (the paper's 1 differs by at most 2.5e-4 on the reference images). Range 0..1; about .98
    for identical images, since the two sigmoids stop below 1.

    NaN where neither source has any edge (both black; a constant grey has the edge of the zero padding).

    Traps: atan jumps from pi/2 to -pi/2 at horizontal edges, so T can fall to -1 for nearly equal angles; the variant
    "Q_G" of another toolbox has other constants and another mean, and is not comparable.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Xydeas, Petrovic 2000, equations 1-7.
    """
    f, a, b = checked(fused, a, b)
    strength_f, angle_f = _edges(f)
    transferred = weight = 0.0
    for source in (a, b):
        strength, angle = _edges(source)
        quality = _preservation(strength, angle, strength_f, angle_f)
        transferred += float(np.sum(quality * strength))
        weight += float(np.sum(strength))
    return transferred / weight if weight > 0 else float("nan")


def _edges(
    image: Float64[np.ndarray, "h w"],
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
    """Strength (grey levels) and orientation (-pi/2..pi/2) of the Sobel gradient, zero-padded."""
    smooth, difference = [1.0, 2.0, 1.0], [1.0, 0.0, -1.0]  # as in a true convolution: the kernel is flipped
    gx, gy = (
        correlate1d(correlate1d(image, smooth, axis=across, mode="constant"), difference, axis=along, mode="constant")
        for across, along in ((0, 1), (1, 0))
    )
    vertical = gx == 0
    angle = np.arctan(-gy / np.where(vertical, 1.0, gx))  # gy grows upwards in the published programs
    angle[vertical] = np.pi / 2
    return np.hypot(gx, gy), angle


def _preservation(
    strength_x: Float64[np.ndarray, "h w"],
    angle_x: Float64[np.ndarray, "h w"],
    strength_f: Float64[np.ndarray, "h w"],
    angle_f: Float64[np.ndarray, "h w"],
) -> Float64[np.ndarray, "h w"]:
    """Q_XF per pixel, 0..1."""
    high = np.maximum(strength_x, strength_f)
    relative = np.minimum(strength_x, strength_f) / np.where(high > 0, high, 1.0)
    relative = np.where(strength_x == strength_f, strength_f, relative)
    aligned = 1 - np.abs(angle_x - angle_f) / (np.pi / 2)
    of_strength = 0.9994 / (1 + np.exp(-15 * (relative - 0.5)))
    of_angle = 0.9879 / (1 + np.exp(-22 * (aligned - 0.8)))
    return of_strength * of_angle
