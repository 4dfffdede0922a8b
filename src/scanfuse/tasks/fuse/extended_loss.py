"""Further terms of the objective: information, edges, and edges that no source has.

    L = the loss of `scanfuse.tasks.fuse.loss`
        - w_information (log(VIF(A, F) + 0.02) + log(VIF(B, F) + 0.02)) / 2
        + w_edge (1 - Q)   + w_false (sum over positions of max(0, |S F| - max(|S A|, |S B|))) / sum max(|S A|, |S B|)

VIF is visual information fidelity over four scales (`metrics.fusion.vif`), Q the transfer of edges
(`metrics.fusion.qabf`), S the Sobel gradient. These terms are ours, not of a publication. They are the metrics'
own formulas, made differentiable, so a good score on these metrics is what was trained for and no evidence of
anything else: read the other metrics and the pictures, too.

Differences from the metrics
* Sums over a batch are divided by sums over the batch, so that a crop without content weighs nothing.
* The logarithm makes the poorer source count: the sum of both VIF is largest where one source is copied with its
  noise and the other one is dropped, which is no fusion.
* Of volumes all axial slices count, empty ones with nothing; the tables take the mean over at most 24 of them.
* Q takes the angle between directions as such. That of the metric jumps by two right angles at horizontal edges.
* Borders are replicated, not zero.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from scanfuse.layers.filters import gaussian_mean, sobel
from scanfuse.tasks.fuse.loss import FusionLoss

__all__ = ["ExtendedFusionLoss", "edge_transfer", "false_edges", "information"]

_WINDOWS = (17, 9, 5, 3)
_NOISE = 2.0
_FLOOR = 0.02
_TINY = 1e-8


class ExtendedFusionLoss(FusionLoss):
    """Weights of all terms, for images and for volumes; the last three are ours and off by default."""

    information_weight: float = Field(0.0, ge=0, description="weight of the visual information of both sources")
    edge_weight: float = Field(0.0, ge=0, description="weight of the transfer of the sources' edges")
    false_edge_weight: float = Field(0.0, ge=0, description="weight of edges stronger than those of both sources")

    def further(
        self, fused: Float[Tensor, "b 1 *sides"], a: Float[Tensor, "b 1 *sides"], b: Float[Tensor, "b 1 *sides"]
    ) -> dict[str, tuple[float, Tensor]]:
        """The terms that are switched on; of volumes they are taken over the axial slices, as in the tables."""
        if fused.ndim == 5:
            fused, a, b = (volume.transpose(1, 2).flatten(0, 1) for volume in (fused, a, b))
        found: dict[str, tuple[float, Tensor]] = {}
        if self.information_weight:
            kept = torch.stack(information(fused, a, b))
            found["information_loss"] = (self.information_weight, -torch.log(kept + _FLOOR).mean())
        if self.edge_weight:
            found["edge_loss"] = (self.edge_weight, 1 - edge_transfer(fused, a, b))
        if self.false_edge_weight:
            found["false_edges"] = (self.false_edge_weight, false_edges(fused, a, b))
        return found


def information(
    fused: Float[Tensor, "b 1 h w"], a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"]
) -> tuple[Tensor, Tensor]:
    """Visual information fidelity of both sources, VIF(A, F) and VIF(B, F): scalars, 0 to about 1.

    Images in [0, 1]. Scales whose window does not fit are left out; 0 where none fits or a source is constant.
    """
    f, a, b = 255 * fused, 255 * a, 255 * b
    kept = [f.new_zeros(()), f.new_zeros(())]
    there = [f.new_zeros(()), f.new_zeros(())]
    for scale, size in enumerate(_WINDOWS):
        if scale:
            f, a, b = (image[..., ::2, ::2] for image in _smooth(torch.cat([f, a, b], dim=1), size).split(1, dim=1))
        if min(f.shape[2:]) < size:
            break
        moments = _smooth(torch.cat([f, a, b, f * f, a * a, b * b, f * a, f * b], dim=1), size)
        mean_f, mean_a, mean_b, ff, aa, bb, fa, fb = moments.unbind(1)
        var_f = (ff - mean_f * mean_f).clamp_min(0)
        for source, (mean, square, product) in enumerate(((mean_a, aa, fa), (mean_b, bb, fb))):
            variance = (square - mean * mean).clamp_min(0)
            covariance = product - mean_f * mean
            # The small number keeps gradients finite where a source is flat.
            gain = (covariance / (variance + 1e-3)).clamp_min(0)
            rest = (var_f - gain * covariance).clamp_min(0)
            kept[source] = kept[source] + torch.log1p(gain * gain * variance / (rest + _NOISE)).sum()
            there[source] = there[source] + torch.log1p(variance / _NOISE).sum()
    of_a, of_b = (part / (whole + 1) for part, whole in zip(kept, there, strict=True))
    return of_a, of_b


def edge_transfer(
    fused: Float[Tensor, "b 1 h w"], a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"]
) -> Tensor:
    """Q of Xydeas and Petrovic: a scalar, 0 to about 0.98."""
    gradient_f = sobel(fused)
    strength_f = _length(gradient_f)
    kept = weight = fused.new_zeros(())
    for source in (a, b):
        gradient = sobel(source)
        strength = _length(gradient)
        relative = torch.minimum(strength, strength_f) / (torch.maximum(strength, strength_f) + 1e-4)
        cosine = (gradient * gradient_f).sum(1).abs() / (strength * strength_f)
        aligned = 1 - torch.acos(cosine.clamp(0, 1 - 1e-5)) / (math.pi / 2)
        quality = 0.9994 * torch.sigmoid(15 * (relative - 0.5)) * 0.9879 * torch.sigmoid(22 * (aligned - 0.8))
        kept = kept + (quality * strength).sum()
        weight = weight + strength.sum()
    return kept / (weight + 1e-3)


def false_edges(fused: Float[Tensor, "b 1 h w"], a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"]) -> Tensor:
    """Gradient beyond the stronger one of the sources, over the sum of the stronger ones: a scalar, 0 or more."""
    strongest = torch.maximum(_length(sobel(a)), _length(sobel(b)))
    return F.relu(_length(sobel(fused)) - strongest).sum() / (strongest.sum() + 1e-3)


def _length(gradient: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b h w"]:
    return torch.sqrt((gradient * gradient).sum(1) + _TINY)


def _smooth(images: Float[Tensor, "b k h w"], size: int) -> Float[Tensor, "b k h2 w2"]:
    """Gaussian mean over windows that lie inside, sigma = size / 5; what is smaller than it stays as it is."""
    if min(images.shape[2:]) < size:
        return images
    flat = gaussian_mean(images.flatten(0, 1).unsqueeze(1), size, size / 5)
    return flat.view(*images.shape[:2], *flat.shape[2:])
