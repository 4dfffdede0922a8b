"""Entropy (EN) of the fused image."""

import numpy as np
from jaxtyping import Num
from skimage.measure import shannon_entropy

from scanfuse.metrics.fusion.inputs import checked, eight_bit

__all__ = ["entropy"]


def entropy(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Shannon entropy of the fused image's grey levels, in bits; higher means more levels in use.

    EN = -sum p(g) log2 p(g) over the 256 grey levels g, with 0 log 0 = 0. Computed by scikit-image.

    Convention: the image is rounded to 8 bits first, logarithm to base 2. Range 0 (constant) to 8 (all levels equal).
    The sources are not used.

    Traps: counting the distinct values of a float image gives up to log2(H W) = 16 bits at 256 x 256, the entropy of
    the pixel count; noise raises entropy, so higher is not always better.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Shannon 1948; as a fusion metric Roberts, van Aardt, Ahmed 2008.
    """
    f, _, _ = checked(fused, a, b)
    return float(shannon_entropy(eight_bit(f))) + 0.0  # + 0.0 turns the -0.0 of a constant image into 0
