"""Feature similarity from phase congruency and gradient."""

import numpy as np
from jaxtyping import Num

from scanfuse.metrics.fusion.inputs import checked

__all__ = ["fsim"]

_SHORTEST_WAVE = 6  # pixels: wavelength of the finest log-Gabor filter


def fsim(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Feature similarity to the sources: (FSIM(F, A) + FSIM(F, B)) / 2; higher is better.

    FSIM(x, y) = sum(S_PC S_G PCm) / sum(PCm),   PCm = max(PC_x, PC_y)
    S_PC = (2 PC_x PC_y + T1) / (PC_x^2 + PC_y^2 + T1),   S_G = (2 G_x G_y + T2) / (G_x^2 + G_y^2 + T2)

    PC is phase congruency, G the Scharr gradient magnitude.

    Convention: T1 = .85, T2 = 160 (for 0..255), log-Gabor filters of 4 scales (wavelength 6 pixels, doubling, sigma
    .55) and 4 orientations; the images are first averaged over blocks of max(1, round(min(H, W) / 256)) pixels.
    Luminance only. Computed by piq in float64, at most 2e-5 from the authors' program on the reference images.
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
    import piq  # imports torchvision, several seconds; only this function needs it
    import torch

    f, a, b = checked(fused, a, b)
    if min(f.shape) < _SHORTEST_WAVE:
        return float("nan")
    if np.ptp(f) == 0 and (np.ptp(a) == 0 or np.ptp(b) == 0):
        return float("nan")  # piq would weight the padded border with rounding errors of the phase congruency
    x = torch.from_numpy(np.stack([f, f])[:, None])
    y = torch.from_numpy(np.stack([a, b])[:, None])
    return float(piq.fsim(x, y, data_range=255.0, chromatic=False))
