"""Metrics of volume fusion: PSNR and SSIM in three dimensions, the others as the mean over axial slices."""

import numpy as np
from jaxtyping import Num
from skimage.metrics import structural_similarity

from scanfuse.metrics.fusion import METRICS, score

__all__ = ["LEAST_SHARE", "MOST_SLICES", "score_volume"]

MOST_SLICES = 24
"""Slices that the mean is over at most: some metrics take a second for a few of them."""

LEAST_SHARE = 0.05
"""Of the values above 0 in the fullest slice: what a slice needs to be counted.

A slice in which a resampling has left five voxels of three grey levels would else weigh as much as one through the
middle of a head.
"""

_WINDOW = 11
_VOLUMETRIC = ("psnr", "ssim")


def score_volume(
    fused: Num[np.ndarray, "d h w"], a: Num[np.ndarray, "d h w"], b: Num[np.ndarray, "d h w"]
) -> dict[str, float]:
    """All metrics of one fused volume, with the keys of `METRICS`.

    psnr: 10 log10(255^2 / MSE) with the mean of both mean squared errors, over all voxels. ssim: as for images with
    a Gaussian window of 11 voxels along each side, over positions where it lies inside; NaN where a side is shorter.
    All others: the mean over axial slices in which `LEAST_SHARE` as many positions as in the fullest one have a value
    above 0 in a source, of those where the metric is defined; if there are more than `MOST_SLICES`, that many,
    evenly spread.

    Args:
        fused, a, b: slices first, 0..255.

    Raises:
        ValueError: shapes that differ, or what `scanfuse.metrics.fusion.score` refuses.
    """
    if not fused.shape == a.shape == b.shape or fused.ndim != 3:
        raise ValueError(f"need three volumes of one shape, not {fused.shape}, {a.shape} and {b.shape}")
    fused, a, b = (np.asarray(volume, np.float64) for volume in (fused, a, b))
    found = {"psnr": _psnr(fused, a, b), "ssim": _ssim(fused, a, b)}
    content = np.count_nonzero((a > 0) | (b > 0), axis=(1, 2))
    filled = np.flatnonzero((content > 0) & (content >= LEAST_SHARE * content.max()))
    if len(filled) > MOST_SLICES:
        filled = filled[np.rint(np.linspace(0, len(filled) - 1, MOST_SLICES)).astype(int)]
    names = [name for name in METRICS if name not in _VOLUMETRIC]
    rows = [score(*_bytes(fused[index], a[index], b[index]), names) for index in filled]
    for name in names:
        values = np.array([row[name] for row in rows])
        values = values[np.isfinite(values)]
        found[name] = float(values.mean()) if len(values) else float("nan")
    return {name: found[name] for name in METRICS}


def _bytes(*images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole grey levels: dim slices at the end of a volume must not be taken for images on the scale 0..1."""
    fused, a, b = (np.rint(image) for image in images)
    return fused, a, b


def _psnr(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    error = (np.mean((fused - a) ** 2) + np.mean((fused - b) ** 2)) / 2
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _ssim(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    if min(fused.shape) < _WINDOW:
        return float("nan")
    return float(
        np.mean(
            [
                structural_similarity(
                    fused, source, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                )
                for source in (a, b)
            ]
        )
    )
