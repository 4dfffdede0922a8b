"""Cross-modal channel attention (CMCA): one modality decides which channels of the other one pass."""

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
        with torch.no_grad():
            peak = torch.bmm(self.keys(lift).expand(ref.shape[0], -1, -1), ref).argmax(dim=2)
        at_peak = ref.gather(2, peak[:, None].expand(-1, ref.shape[1], -1))
        return self.weights_at(at_peak, ref.mean(dim=2), lift)

    def keys(self, lift: Float[Tensor, "c j"]) -> Float[Tensor, "c j"]:
        """W1 lift: what makes the map that is pooled of the numbers at a position."""
        return self.ref_proj.weight.flatten(1) @ lift

    def weights_at(
        self, at_peak: Float[Tensor, "b j c"], mean: Float[Tensor, "b j"], lift: Float[Tensor, "c j"]
    ) -> Float[Tensor, "b c j"]:
        """`weights` from the numbers r where each channel of W1 lift r is largest, and from their mean."""
        keys = self.keys(lift)
        largest = torch.einsum("cj,bjc->bc", keys, at_peak)
        alpha = torch.sigmoid(largest + mean @ keys.T)
        return alpha[..., None] * (self.query_proj.weight.flatten(1) @ lift)


def lift_of(conv: nn.Conv2d | nn.Conv3d) -> Float[Tensor, "c j"]:
    """A 3-wide convolution of one channel as the matrix that takes `neighbourhoods` to its output."""
    return torch.cat([conv.weight.flatten(1), conv.bias[:, None]], dim=1)  # type: ignore[index]


def neighbourhoods(image: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 10 l"]:
    """The 3 x 3 pixels around each position, zero outside, and a 1."""
    return F.pad(F.unfold(image, 3, padding=1), (0, 0, 0, 1), value=1.0)
