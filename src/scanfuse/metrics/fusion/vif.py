"""Visual information fidelity in the pixel domain."""

import numpy as np
from jaxtyping import Float64, Num
from scipy.ndimage import correlate1d

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["vif"]

_WINDOWS = (17, 9, 5, 3)
_NOISE = 2.0  # variance of the neural noise, in squared grey levels
_TINY = 1e-10  # variances below it count as 0, as in the authors' program
_SMALLEST_SIDE = 41  # the 3 x 3 window still fits at the fourth scale


def vif(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Visual information fidelity, VIFp(A, F) + VIFp(B, F), each source as the reference; higher is better.

    VIFp(x, f) = sum log10(1 + g^2 sx^2 / (sv^2 + 2)) / sum log10(1 + sx^2 / 2)
    g = sxf / sx^2,   sv^2 = sf^2 - g sxf,   sums over the positions of all four scales

    Convention: local moments under Gaussian windows of 17, 9, 5, 3 pixels with sigma = size / 5, valid positions
    only; before scales 2-4 the images are smoothed with that scale's window (valid) and every second pixel is kept;
    a negative g counts as 0; noise variance 2 on 0..255; sum over the sources, not halved.
    Range 0 to about 2; 2 where the fused image equals both sources, more where it has more contrast than they have.

    NaN where a source is constant (it holds no information: 0 / 0) or a side is below 41 pixels (no window fits at
    the fourth scale).

    Traps: the wavelet-domain VIF and VIFF of Han 2013 are other metrics; swapping reference and fused image changes
    the value. Written here and not taken from piq because piq's square windows take 40 times as long, and its added
    constants score a constant source as 1.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Sheikh, Bovik 2006.
    """
    f, a, b = checked(fused, a, b)
    if min(f.shape) < _SMALLEST_SIDE:
        return float("nan")
    return _vifp(a, f) + _vifp(b, f)


def _vifp(x: Float64[np.ndarray, "h w"], f: Float64[np.ndarray, "h w"]) -> float:
    """VIFp of `f` with reference `x`."""
    kept = available = 0.0
    for scale, size in enumerate(_WINDOWS):
        if scale > 0:
            x, f = _smooth(x, size)[::2, ::2], _smooth(f, size)[::2, ::2]
        mean_x, mean_f = _smooth(x, size), _smooth(f, size)
        var_x = np.maximum(_smooth(x * x, size) - mean_x**2, 0)
        var_f = np.maximum(_smooth(f * f, size) - mean_f**2, 0)
        covariance = _smooth(x * f, size) - mean_x * mean_f

        gain = covariance / (var_x + _TINY)
        var_v = var_f - gain * covariance
        flat_x, flat_f = var_x < _TINY, var_f < _TINY
        lost = flat_x | (gain < 0)  # nothing of the reference is left: all variance of f is distortion
        gain[lost] = 0
        var_v[lost] = var_f[lost]
        gain[flat_f] = var_v[flat_f] = 0
        var_x[flat_x] = 0
        var_v = np.maximum(var_v, _TINY)

        kept += float(np.sum(np.log10(1 + gain**2 * var_x / (var_v + _NOISE))))
        available += float(np.sum(np.log10(1 + var_x / _NOISE)))
    return kept / available if available > 0 else float("nan")


def _smooth(image: Float64[np.ndarray, "h w"], size: int) -> Float64[np.ndarray, "h2 w2"]:
    """Gaussian mean over `size` x `size` windows (sigma = size / 5) that lie inside the image."""
    radius = size // 2
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * (size / 5) ** 2))
    weights /= weights.sum()
    image = correlate1d(image, weights, axis=0)[radius : image.shape[0] - radius]
    return correlate1d(image, weights, axis=1)[:, radius : image.shape[1] - radius]
