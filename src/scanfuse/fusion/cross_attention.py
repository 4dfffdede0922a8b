"""Cross-modal attention: every place of a picture asks the tokens of a table, one per feature."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from scanfuse.layers.linear import Linear

__all__ = ["CrossAttention"]


class CrossAttention(nn.Module):
    """y = x + W_o MHA(q = W_q LN x, k = W_k LN t, v = W_v LN t).

    With a single key the softmax is 1 whatever is asked: every place gets the same vector, and W_q and W_k get no
    gradient. So the keys are the features' own tokens, and fewer than two are refused.

    Parameters: 4 d^2 + 8 d, or d less without the bias of the keys.

    Args:
        dim: d. heads: of the attention. dropout: chance of dropping a weight, and a number of the result.
        key_bias: whether W_k has a bias, as published. It adds the same to every key, which the softmax takes away
            again, and never learns.

    Shape:
        x (b, l, d), tokens (b, f, d) with f >= 2, known (b, f) bool or None for all -> (b, l, d). Tokens that are not
        known are not asked; one at least must be.

    Raises:
        ValueError: d is no multiple of the heads; fewer than two tokens.

    Source: Vaswani et al., 2017; the published MambaDerm code, which has one key (the whole table as one vector).
    """

    def __init__(self, dim: int, *, heads: int = 8, dropout: float = 0.0, key_bias: bool = True) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be shared by {heads} heads; give a multiple")
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(dim)
        self.query, self.key, self.value, self.out = (Linear(dim, dim, bias=b) for b in (True, key_bias, True, True))
        # It adds nothing at first but a little: x passes as it is until the table has something to say.
        nn.init.trunc_normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b l d"], tokens: Float[Tensor, "b f d"], known: Bool[Tensor, "b f"] | None = None
    ) -> Float[Tensor, "b l d"]:
        q, k, v = self._heads(x, tokens)
        chance = self.dropout.p if self.training else 0.0
        mask = None if known is None else known[:, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=chance)
        return x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))

    def weights(self, x: Float[Tensor, "b l d"], tokens: Float[Tensor, "b f d"]) -> Float[Tensor, "b heads l f"]:
        """How much each place listens to each token; sums to 1 over the tokens."""
        q, k, _ = self._heads(x, tokens)
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)

    def _heads(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if tokens.shape[1] < 2:
            raise ValueError("attention over a single token is a constant: give two features or more")
        asked, told = self.norm(x), self.token_norm(tokens)
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.query(asked), self.key(told), self.value(told))
        )
        return q, k, v
