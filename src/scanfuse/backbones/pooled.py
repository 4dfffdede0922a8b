"""The usual end of a classifier: the mean over an encoder's map, and one linear layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PooledClassifier"]


class PooledClassifier(nn.Module):
    """x (b, c, *places) -> encoder -> map (`fused`) -> mean over places -> dropout -> logits (b, num_outputs).

    Args:
        encoder: x -> map (b, dim, *places).
        dim: channels of its map.
        num_outputs: logits.
        dropout: chance of dropping a channel of the mean in training.

    Shape:
        Any number of places' axes. The logits are float32 under autocast too.
    """

    def __init__(self, encoder: nn.Module, dim: int, *, num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.fused = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_outputs)

    def forward(self, x: Float[Tensor, "b c *places"]) -> Float[Tensor, "b n"]:
        z: Tensor = self.fused(self.encoder(x))
        pooled = self.dropout(z.flatten(2).mean(2))
        with torch.autocast(pooled.device.type, enabled=False):
            logits: Tensor = self.head(pooled.to(self.head.weight.dtype))
        return logits
