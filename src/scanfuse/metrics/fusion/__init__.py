"""Metrics of image fusion: one fused image against its two sources.

    >>> import numpy as np
    >>> from scanfuse.metrics.fusion import score
    >>> a, b = np.zeros((16, 16)), np.tile(np.arange(16.0) * 17, (16, 1))
    >>> {name: round(value, 3) for name, value in score((a + b) / 2, a, b, names=["psnr", "en", "sd"]).items()}
    {'psnr': 10.649, 'en': 4.0, 'sd': 39.183}

Images are (H, W), one channel, on the 0..255 scale: float or integer, equal values give equal results. For a colour
source give its luminance. Each function's docstring states formula, convention, range and what it returns where the
quantity is undefined: NaN for constant or too small images, never an exception and never a made-up number.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Num

from scanfuse.metrics.fusion.correlation import correlation, sum_of_correlations_of_differences
from scanfuse.metrics.fusion.entropy import entropy
from scanfuse.metrics.fusion.fmi import fmi
from scanfuse.metrics.fusion.fsim import fsim
from scanfuse.metrics.fusion.inputs import checked
from scanfuse.metrics.fusion.mutual_information import mutual_information, normalised_mutual_information
from scanfuse.metrics.fusion.nabf import nabf
from scanfuse.metrics.fusion.psnr import psnr
from scanfuse.metrics.fusion.qabf import qabf
from scanfuse.metrics.fusion.sharpness import average_gradient, spatial_frequency, standard_deviation
from scanfuse.metrics.fusion.ssim import ms_ssim, ssim
from scanfuse.metrics.fusion.vif import vif

__all__ = ["METRICS", "Metric", "score"]


@runtime_checkable
class FusionMetric(Protocol):
    """A number from a fused image and its two sources, all (H, W) on 0..255."""

    def __call__(
        self, fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"], /
    ) -> float: ...


class Metric(NamedTuple):
    """Which direction is better, and the function."""

    better: Literal["higher", "lower", "none"]
    function: FusionMetric


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "psnr": Metric("higher", psnr),
        "ssim": Metric("higher", ssim),
        "ms_ssim": Metric("higher", ms_ssim),
        "fsim": Metric("higher", fsim),
        "fmi": Metric("higher", fmi),
        "en": Metric("higher", entropy),
        "mi": Metric("higher", mutual_information),
        "nmi": Metric("higher", normalised_mutual_information),
        "sd": Metric("higher", standard_deviation),
        "sf": Metric("higher", spatial_frequency),
        "ag": Metric("higher", average_gradient),
        "cc": Metric("higher", correlation),
        "scd": Metric("higher", sum_of_correlations_of_differences),
        "vif": Metric("higher", vif),
        "qabf": Metric("higher", qabf),
        "nabf": Metric("lower", nabf),
    }
)
"""All metrics by key, in the order of the tables."""


def score(
    fused: Num[np.ndarray, "h w"],
    a: Num[np.ndarray, "h w"],
    b: Num[np.ndarray, "h w"],
    names: Iterable[str] | None = None,
) -> dict[str, float]:
    """The metrics of one fused image.

    Args:
        fused, a, b: (H, W), one channel each, integers or floats on the 0..255 scale.
        names: keys of `METRICS`, returned in this order; all of them if None.

    Returns:
        One float per name: NaN where a metric is undefined for these images, and infinity for the PSNR of three
        equal images.

    Raises:
        ValueError: an unknown name; images that `inputs.checked` refuses.
    """
    chosen = list(METRICS) if names is None else list(names)
    for name in chosen:
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; there are {', '.join(METRICS)}")
    fused, a, b = checked(fused, a, b)
    return {name: METRICS[name].function(fused, a, b) for name in chosen}
