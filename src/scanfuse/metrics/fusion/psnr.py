"""Peak signal-to-noise ratio."""

import numpy as np
from jaxtyping import Num

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["psnr"]


def psnr(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Peak signal-to-noise ratio of the fused image against both sources, in dB; higher is better.

    PSNR = 10 log10(255^2 / MSE) with MSE = (MSE(F, A) + MSE(F, B)) / 2.

    Convention: the peak is 255, fixed; the two mean squared errors are averaged before the logarithm.
    Range: above 0 for images on 0..255, with no upper end; infinity where the fused image equals both sources.

    Traps: the mean of the two PSNRs is a different number (never smaller), and infinite as soon as the fused image
    equals one source; a published toolbox scales the images to 0..1 but keeps the peak 255, which adds 48.13 dB;
    another takes the maximum of the fused image as the peak. When the sources differ, no image exceeds the plain
    average of the two in this metric, so a higher PSNR does not mean a better fusion.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.
    """
    f, a, b = checked(fused, a, b)
    mean_squared_error = (np.mean((f - a) ** 2) + np.mean((f - b) ** 2)) / 2
    if mean_squared_error == 0:
        return float("inf")
    return float(10 * np.log10(255**2 / mean_squared_error))
