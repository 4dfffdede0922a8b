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
        ref, query (b, c, h, w) -> (b, c, h, w). The maps may differ in size: `ref` is pooled.

    Source: Zhou and Khalvati, "ClinicalFMamba", 2025. The roles are those of the paper: the reference is pooled and
    the query is scaled; the published code names them the other way round.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ref_proj = nn.Conv2d(channels, channels, 1, bias=False)
        self.query_proj = nn.Conv2d(channels, channels, 1, bias=False)

    def attention(self, ref: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        """alpha in (0, 1)."""
        key = self.ref_proj(ref)
        return torch.sigmoid(key.amax(dim=(2, 3)) + key.mean(dim=(2, 3)))

    def forward(self, ref: Float[Tensor, "b c h w"], query: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b c h2 w2"]:
        alpha = self.attention(ref)
        return alpha[..., None, None] * F.conv2d(query, self.query_proj.weight)
