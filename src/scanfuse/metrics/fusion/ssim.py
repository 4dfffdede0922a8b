"""Structural similarity at one scale (SSIM) and at five (MS-SSIM)."""

import numpy as np
from jaxtyping import Float64, Num
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["ms_ssim", "ssim"]

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_MS_SSIM_SIDE = (_WINDOW - 1) * 2**4 + 1  # the fifth scale, a 16th of the side, must still hold one window


def ssim(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Structural similarity to the sources: (SSIM(F, A) + SSIM(F, B)) / 2; higher is better.

    SSIM(x, y) = mean of (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2))

    Convention: local moments under an 11 x 11 Gaussian of sigma 1.5, population (co)variance, C1 = (.01 * 255)^2,
    C2 = (.03 * 255)^2, mean over the (H - 10) x (W - 10) positions where the window lies inside the image.
    Computed by scikit-image. Range -1..1; 1 if and only if the fused image equals both sources.

    NaN where a side is below 11 pixels: no window fits.

    Traps: averaging over the padded full map (torchmetrics) moves the value by some .02; scikit-image's defaults are
    a 7 x 7 box and the sample covariance; some fusion tables print the sum of the two values.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, equations 13-17.
    """
    f, a, b = checked(fused, a, b)
    if min(f.shape) < _WINDOW:
        return float("nan")
    return float(
        np.mean(
            [
                structural_similarity(
                    f, source, data_range=255, gaussian_weights=True, sigma=_SIGMA, use_sample_covariance=False
                )
                for source in (a, b)
            ]
        )
    )


def ms_ssim(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Multi-scale structural similarity: (MS-SSIM(F, A) + MS-SSIM(F, B)) / 2; higher is better.

    MS-SSIM(x, y) = SSIM_5^w5 * prod over s = 1..4 of CS_s^ws,   CS = mean of (2 sxy + C2) / (sx^2 + sy^2 + C2)

    Convention: weights .0448 .2856 .3001 .2363 .1333, 2 x 2 mean pooling between scales, at each scale the window,
    constants and valid region of `ssim`; a mean CS (or SSIM_5) below 0 counts as 0, and then the product is 0.
    Range 0..1; 1 if the fused image equals both sources.

    NaN where a side is below 161 pixels: the window does not fit at the fifth scale. Fewer scales would be another
    quantity under the same name.

    Traps: the "MS_SSIM" of a common fusion toolbox is MEF-SSIM, a metric for exposure stacks; reflective padding
    (torchmetrics) moved the value by up to .5 on the reference images.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Wang, Simoncelli, Bovik 2003, equation 7.
    """
    images: tuple[Float64[np.ndarray, "h w"], ...] = checked(fused, a, b)
    if min(images[0].shape) < _MS_SSIM_SIDE:
        return float("nan")
    products = np.ones(2)
    for scale, weight in enumerate(_WEIGHTS):
        if scale:
            images = tuple(_halved(image) for image in images)
        f, *sources = images
        is_last = scale == len(_WEIGHTS) - 1
        found = [_similarity(f, source, luminance=is_last) for source in sources]
        products *= np.maximum(found, 0.0) ** weight
    return float(products.mean())


def _similarity(x: Float64[np.ndarray, "h w"], y: Float64[np.ndarray, "h w"], *, luminance: bool) -> float:
    """The mean of CS, or of SSIM with the term of luminance, over the positions where the window lies inside."""
    mean_x, mean_y, xx, yy, xy = (_local_mean(image) for image in (x, y, x * x, y * y, x * y))
    found = (2 * (xy - mean_x * mean_y) + _C2) / (xx - mean_x**2 + yy - mean_y**2 + _C2)
    if luminance:
        found *= (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return float(found.mean())


def _local_mean(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """The Gaussian mean at every position where the window lies inside."""
    reach = _WINDOW // 2
    smooth = gaussian_filter(image, _SIGMA, radius=reach)
    return smooth[reach:-reach, reach:-reach]


def _halved(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """Means of blocks of 2 x 2; where a side is odd, the first row and column are doubled before."""
    if any(side % 2 for side in image.shape):
        image = np.pad(image, ((1, 0), (1, 0)), mode="edge")
    height, width = (side // 2 * 2 for side in image.shape)
    image = image[:height, :width]
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4
