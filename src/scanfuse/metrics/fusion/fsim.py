"""Feature similarity from phase congruency and gradient."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Num
from scipy.ndimage import convolve

from scanfuse.metrics.fusion.inputs import checked
from scanfuse.metrics.fusion.phase_congruency import phase_congruency

__all__ = ["fsim"]

_SHORTEST_WAVE = 6  # pixels: wavelength of the finest log-Gabor filter
_REFERENCE_SIDE = 256  # pixels of the shorter side, to which larger images are averaged down
_T1, _T2 = 0.85, 160.0
_SCHARR = np.array([[3.0, 0.0, -3.0], [10.0, 0.0, -10.0], [3.0, 0.0, -3.0]]) / 16


def fsim(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Feature similarity to the sources: (FSIM(F, A) + FSIM(F, B)) / 2; higher is better.

    FSIM(x, y) = sum(S_PC S_G PCm) / sum(PCm),   PCm = max(PC_x, PC_y)
    S_PC = (2 PC_x PC_y + T1) / (PC_x^2 + PC_y^2 + T1),   S_G = (2 G_x G_y + T2) / (G_x^2 + G_y^2 + T2)

    PC is phase congruency, G the Scharr gradient magnitude.

    Convention: T1 = .85, T2 = 160 (for 0..255), log-Gabor filters of 4 scales (wavelength 6 pixels, doubling, sigma
    .55) and 4 orientations; the images are first averaged over blocks of max(1, round(min(H, W) / 256)) pixels.
    Luminance only. At most 2e-5 from the authors' program on the reference images.
    Range 0..1; 1 if the fused image equals both sources.

    NaN where the fused image and a source are both constant (neither has features: 0 / 0), or a side is below 6
    pixels, shorter than one wave of the finest filter.

    Traps: T2 belongs to the 0..255 scale, images on 0..1 score near 1 whatever they show; sigma and the number of
    orientations of phase congruency differ between programs, the values here are the authors' for FSIM.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Zhang, Zhang, Mou, Zhang 2011, equations 4-7.
    """
    f, a, b = checked(fused, a, b)
    if min(f.shape) < _SHORTEST_WAVE:
        return float("nan")
    if np.ptp(f) == 0 and (np.ptp(a) == 0 or np.ptp(b) == 0):
        return float("nan")  # only rounding errors would be compared
    of_f, *of_sources = (_features(image.tobytes(), image.shape) for image in (f, a, b))
    return float(np.mean([_similarity(of_f, each) for each in of_sources]))


class _Features(NamedTuple):
    congruency: Float64[np.ndarray, "h w"]
    gradient: Float64[np.ndarray, "h w"]


@lru_cache(maxsize=3)  # the sources are met again with the next fused image
def _features(content: bytes, shape: tuple[int, int]) -> _Features:
    image = np.frombuffer(content, np.float64).reshape(shape)
    block = max(1, round(min(shape) / _REFERENCE_SIDE))
    if block > 1:
        height, width = (side // block for side in shape)
        image = image[: height * block, : width * block].reshape(height, block, width, block).mean(axis=(1, 3))
    across, down = (convolve(image, kernel, mode="constant") for kernel in (_SCHARR, _SCHARR.T))
    return _Features(phase_congruency(image), np.hypot(across, down))


def _similarity(x: _Features, y: _Features) -> float:
    weight = np.maximum(x.congruency, y.congruency)
    alike = _alike(x.congruency, y.congruency, _T1) * _alike(x.gradient, y.gradient, _T2)
    return float((alike * weight).sum() / weight.sum())


def _alike(x: Float64[np.ndarray, "h w"], y: Float64[np.ndarray, "h w"], floor: float) -> Float64[np.ndarray, "h w"]:
    return (2 * x * y + floor) / (x * x + y * y + floor)
