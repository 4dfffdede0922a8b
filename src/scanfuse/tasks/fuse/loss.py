"""The training objective of image fusion: brightest pixel, strongest edge, structure of both sources.

    L       = w_pixel L_pixel + w_gradient L_gradient + w_ssim L_ssim          (weights 2, 10, 5)
    L_pixel    = mean | F - max(A, B) |
    L_gradient = mean | S(F) - max(S(A), S(B)) |,   S = |Sobel_x| + |Sobel_y| (+ |Sobel_z|)
    L_ssim     = 1 - SSIM(A, F) / 2 - SSIM(B, F) / 2

For images and for volumes: a volume of equal slices has the loss of its slice.

Source: Zhou and Khalvati, "ClinicalFMamba", 2025; weights as published.

Differences from the publication: both filters see replicated borders (Sobel) or whole windows only (SSIM)
instead of zeros outside the image, which would count a frame of false edges; everything is float32 whatever
the autocast type, because the variances of SSIM cancel in 16 bits. For volumes the published code squares the
gradient term, takes the larger signed derivative per axis over slices of cubes and weighs SSIM by 1; here volumes of
any sides have the terms and weights of images.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from scanfuse.config import Section
from scanfuse.layers.filters import gaussian_mean, sobel

__all__ = ["FusionLoss", "fusion_loss", "sobel_magnitude", "ssim_pair"]

_WINDOW = 11
_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2


class FusionLoss(Section):
    """Weights of the three terms."""

    pixel_weight: float = Field(2.0, ge=0, description="weight of the pixel term")
    gradient_weight: float = Field(10.0, ge=0, description="weight of the Sobel gradient term")
    ssim_weight: float = Field(5.0, ge=0, description="weight of the SSIM term")

    def further(
        self, fused: Float[Tensor, "b 1 *sides"], a: Float[Tensor, "b 1 *sides"], b: Float[Tensor, "b 1 *sides"]
    ) -> dict[str, tuple[float, Tensor]]:
        """Further terms by name, each with its weight: none here; see `extended_loss`."""
        return {}


def fusion_loss(
    fused: Float[Tensor, "b 1 *sides"],
    a: Float[Tensor, "b 1 *sides"],
    b: Float[Tensor, "b 1 *sides"],
    weights: FusionLoss,
) -> dict[str, Tensor]:
    """The weighted sum and its parts, all scalars, float32.

    Args:
        fused, a, b: images or volumes in [0, 1].
        weights: of the three terms, and further terms.

    Returns:
        `loss` (the weighted sum), `pixel`, `gradient`, `ssim_loss` and the further terms (the parts without weights)
        and `ssim`, the mean of SSIM(A, F) and SSIM(B, F).
    """
    with torch.autocast(device_type=fused.device.type, enabled=False):
        fused, a, b = fused.float(), a.float(), b.float()
        pixel = (fused - torch.maximum(a, b)).abs().mean()
        edges = torch.maximum(sobel_magnitude(a), sobel_magnitude(b))
        gradient = (sobel_magnitude(fused) - edges).abs().mean()
        with_a, with_b = ssim_pair(fused, a, b)
        similarity = 0.5 * (with_a + with_b)
        ssim_loss = 1 - similarity
        total = weights.pixel_weight * pixel + weights.gradient_weight * gradient + weights.ssim_weight * ssim_loss
        further = weights.further(fused, a, b)
        for weight, term in further.values():
            total = total + weight * term
    return {
        "loss": total,
        "pixel": pixel.detach(),
        "gradient": gradient.detach(),
        "ssim_loss": ssim_loss.detach(),
        **{name: term.detach() for name, (_, term) in further.items()},
        "ssim": similarity.detach(),
    }


def sobel_magnitude(image: Float[Tensor, "b 1 *sides"]) -> Float[Tensor, "b 1 *sides"]:
    """|Sobel_x| + |Sobel_y| with the kernels [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]] and its transpose.

    For volumes |Sobel_x| + |Sobel_y| + |Sobel_z|, each smoothed by [1, 2, 1] / 4 along the further side, so that a
    volume of equal slices has the magnitude of its slice.
    """
    return sobel(image).abs().sum(1, keepdim=True)


def ssim_pair(
    fused: Float[Tensor, "b 1 *sides"], a: Float[Tensor, "b 1 *sides"], b: Float[Tensor, "b 1 *sides"]
) -> tuple[Tensor, Tensor]:
    """SSIM(F, A) and SSIM(F, B), each the mean over whole Gaussian windows 11 wide (sigma 1.5, range 1).

    Images and volumes with a side smaller than the window are extended by their borders up to its size.
    Source: Wang et al., "Image quality assessment", IEEE TIP 2004, equation 13.
    """
    smallest = min(fused.shape[2:])
    if smallest < _WINDOW:
        grow = _WINDOW - smallest
        padding = (grow // 2, grow - grow // 2) * (fused.ndim - 2)
        fused, a, b = (F.pad(image, padding, mode="replicate") for image in (fused, a, b))
    # One blur over all maps: the moments of F serve both sources.
    maps = [fused, a, b, fused * fused, a * a, b * b, fused * a, fused * b]
    mean_f, mean_a, mean_b, ff, aa, bb, fa, fb = gaussian_mean(torch.cat(maps), _WINDOW, _SIGMA).chunk(len(maps))
    variance_f = ff - mean_f * mean_f
    first = _ssim(mean_f, mean_a, variance_f, aa - mean_a * mean_a, fa - mean_f * mean_a)
    second = _ssim(mean_f, mean_b, variance_f, bb - mean_b * mean_b, fb - mean_f * mean_b)
    return first, second


def _ssim(mean_x: Tensor, mean_y: Tensor, var_x: Tensor, var_y: Tensor, covariance: Tensor) -> Tensor:
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return (luminance * structure).mean()
