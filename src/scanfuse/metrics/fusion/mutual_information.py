"""Mutual information between the fused image and its sources: in bits (MI) and normalised by entropies (NMI)."""

import numpy as np
from jaxtyping import Float64, Num

from scanfuse.metrics.fusion.inputs import checked, eight_bit

__all__ = ["mutual_information", "normalised_mutual_information"]


def mutual_information(fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]) -> float:
    """Mutual information of the fused image with the sources, I(F; A) + I(F; B), in bits; higher is better.

    I(F; X) = H(F) + H(X) - H(F, X),   H = -sum p log2 p

    Convention: images rounded to 8 bits, joint histogram of 256 x 256 bins, logarithm to base 2, sum over the
    sources. Range 0 to H(A) + H(B); 0 where the fused image is constant or both sources are.

    Traps: a popular program uses natural logarithms (multiply by ln 2); another adds 1 to uint8 values with
    saturation and so merges two bins; 10 bins, numpy's default, is a different and much smaller number.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Qu, Zhang, Yan 2002.
    """
    f, a, b = checked(fused, a, b)
    total = 0.0
    for source in (a, b):
        h_f, h_x, h_fx = _entropies(f, source)
        total += max(h_f + h_x - h_fx, 0.0)  # rounding leaves -1e-16 for independent images
    return total


def normalised_mutual_information(
    fused: Num[np.ndarray, "h w"], a: Num[np.ndarray, "h w"], b: Num[np.ndarray, "h w"]
) -> float:
    """Mutual information relative to the mean entropy, Q_MI; higher is better.

    NMI = 2 [ I(A; F) / (H(A) + H(F)) + I(B; F) / (H(B) + H(F)) ]

    Convention: histograms as in `mutual_information`; the base of the logarithm cancels. Range 0..2; 2 where the
    fused image is a one-to-one relabelling of the grey levels of both sources.

    NaN where the fused image and a source are both constant: 0 / 0.

    Traps: Studholme's NMI, (H(X) + H(F)) / H(X, F) in 1..2 (scikit-image), is a different quantity of the same name,
    as is the quotient by the geometric mean of the entropies.

    Args:
        fused, a, b: (H, W), 0..255.

    Raises:
        ValueError: see `inputs.checked`.

    Source: Hossny, Nahavandi, Creighton 2008.
    """
    f, a, b = checked(fused, a, b)
    total = 0.0
    for source in (a, b):
        h_f, h_x, h_fx = _entropies(f, source)
        if h_f + h_x == 0:
            return float("nan")
        total += 2 * max(h_f + h_x - h_fx, 0.0) / (h_f + h_x)
    return total


def _entropies(x: Float64[np.ndarray, "h w"], y: Float64[np.ndarray, "h w"]) -> tuple[float, float, float]:
    """H(X), H(Y) and H(X, Y) in bits, of the 8-bit images."""
    pairs = eight_bit(x).ravel().astype(np.intp) * 256 + eight_bit(y).ravel()
    joint = np.bincount(pairs, minlength=256 * 256).reshape(256, 256) / x.size
    return _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0)), _entropy(joint)


def _entropy(p: Float64[np.ndarray, "..."]) -> float:
    p = p[p > 0]
    return float(np.sum(p * -np.log2(p)))
