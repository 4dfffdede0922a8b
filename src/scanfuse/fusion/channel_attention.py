"""Cross-modal channel attention (CMCA): one modality decides which channels of the other one pass."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CMCA"]


class CMCA(nn.Module):
    """alpha = sigmoid(global_max(W1 ref) + global_mean(W1 ref));  out = alpha * (W2 query).

    W1 and W2 are 1x1 convolutions without bias. Parameters: 2 c^2.

    Args:
        channels: c.

    Shape:
        ref (b, c, h, w), query (b, c, h2, w2) -> (b, c, h2, w2); `ref` is pooled, so that its size is free.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025. The roles are those of the paper: the reference is pooled and
    the query is scaled; the published code names them the other way round.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ref_proj = nn.Conv2d(channels, channels, 1, bias=False)
        self.query_proj = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, ref: Float[Tensor, "b c h w"], query: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b c h2 w2"]:
        key = self.ref_proj(ref)
        alpha = torch.sigmoid(key.amax(dim=(2, 3)) + key.mean(dim=(2, 3)))
        return alpha[..., None, None] * F.conv2d(query, self.query_proj.weight)

    def weights(self, ref: Float[Tensor, "b j l"], lift: Float[Tensor, "c j"]) -> Float[Tensor, "b c j"]:
        """The same attention for maps that are linear in few numbers per position, without building the maps.

        With ref = lift r and query = lift q, where r and q have j numbers at each of l positions, the output is
        alpha * (W2 lift q): a c x j matrix per sample, which is returned, times q. Used for the features of a first
        convolution, where j is the 9 pixels under its kernel and a 1.
        """
        key_lift = self.ref_proj.weight.flatten(1) @ lift
        with torch.no_grad():
            peak = torch.bmm(key_lift.expand(ref.shape[0], -1, -1), ref).argmax(dim=2)
        at_peak = ref.gather(2, peak[:, None].expand(-1, ref.shape[1], -1))
        largest = torch.einsum("cj,bjc->bc", key_lift, at_peak)
        alpha = torch.sigmoid(largest + ref.mean(dim=2) @ key_lift.T)
        return alpha[..., None] * (self.query_proj.weight.flatten(1) @ lift)
