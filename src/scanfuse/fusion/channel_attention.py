"""Cross-modal channel attention (CMCA): one modality decides which channels of the other one pass."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scanfuse.layers.conv import CONVS, Dims

__all__ = ["CMCA", "lift_of", "neighbourhoods"]


class CMCA(nn.Module):
    """alpha = sigmoid(global_max(W1 ref) + global_mean(W1 ref));  out = alpha * (W2 query).

    W1 and W2 are 1-wide convolutions without bias. Parameters: 2 c^2.

    Args:
        channels: c. num_dims: sides of the maps, 2 or 3.

    Shape:
        ref (b, c, *sides), query (b, c, *other sides) -> that of query; `ref` is pooled, so that its size is free.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025. The roles are those of the paper: the reference is pooled and
    the query is scaled; the published code names them the other way round.
    """

    def __init__(self, channels: int, *, num_dims: Dims = 2) -> None:
        super().__init__()
        self.ref_proj = CONVS[num_dims](channels, channels, 1, bias=False)
        self.query_proj = CONVS[num_dims](channels, channels, 1, bias=False)

    def forward(self, ref: Float[Tensor, "b c *r"], query: Float[Tensor, "b c *q"]) -> Float[Tensor, "b c *q"]:
        key = self.ref_proj(ref)
        sides = tuple(range(2, key.ndim))
        alpha = torch.sigmoid(key.amax(dim=sides) + key.mean(dim=sides))
        return alpha[(..., *[None] * len(sides))] * self.query_proj(query)

    def weights(self, ref: Float[Tensor, "b j l"], lift: Float[Tensor, "c j"]) -> Float[Tensor, "b c j"]:
        """The same attention for maps that are linear in few numbers per position, without building the maps.

        With ref = lift r and query = lift q, where r and q have j numbers at each of l positions, the output is
        alpha * (W2 lift q): a c x j matrix per sample, which is returned, times q. Used for the features of a first
        convolution, where j is the pixels under its kernel and a 1.
        """
        key_lift = self.ref_proj.weight.flatten(1) @ lift
        with torch.no_grad():
            peak = torch.bmm(key_lift.expand(ref.shape[0], -1, -1), ref).argmax(dim=2)
        at_peak = ref.gather(2, peak[:, None].expand(-1, ref.shape[1], -1))
        largest = torch.einsum("cj,bjc->bc", key_lift, at_peak)
        return self._scaled(largest + ref.mean(dim=2) @ key_lift.T, lift)

    @torch.no_grad()
    def weights_by_parts(
        self, parts: Iterable[Float[Tensor, "b j _"]], lift: Float[Tensor, "c j"]
    ) -> Float[Tensor, "b c j"]:
        """`weights` of all parts side by side, holding one part at a time; for prediction, without gradients."""
        key_lift = self.ref_proj.weight.flatten(1) @ lift
        peaks, sums, count = [], [], 0
        for ref in parts:
            peaks.append(torch.bmm(key_lift.expand(ref.shape[0], -1, -1), ref).amax(dim=2))
            sums.append(ref.sum(dim=2))
            count += ref.shape[2]
        largest, mean = torch.stack(peaks).amax(dim=0), torch.stack(sums).sum(dim=0) / count
        return self._scaled(largest + mean @ key_lift.T, lift)

    def _scaled(self, key: Tensor, lift: Tensor) -> Tensor:
        return torch.sigmoid(key)[..., None] * (self.query_proj.weight.flatten(1) @ lift)


def lift_of(conv: nn.Conv2d | nn.Conv3d) -> Float[Tensor, "c j"]:
    """A 3-wide convolution of one channel as the matrix that takes `neighbourhoods` to its output."""
    return torch.cat([conv.weight.flatten(1), conv.bias[:, None]], dim=1)  # type: ignore[index]


def neighbourhoods(image: Float[Tensor, "b 1 *sides"]) -> Float[Tensor, "b j l"]:
    """The 3-wide neighbourhood of each position, zero outside, and a 1: (b, 10, h w) or (b, 28, d h w)."""
    num_dims = image.ndim - 2
    if num_dims == 2:
        pixels = F.unfold(image, 3, padding=1)
    else:
        around = F.pad(image, (1, 1) * num_dims)
        for side in range(2, image.ndim):
            around = around.unfold(side, 3, 1)
        pixels = around.flatten(image.ndim).movedim(-1, 1).reshape(image.shape[0], 3**num_dims, -1)
    return F.pad(pixels, (0, 0, 0, 1), value=1.0)
