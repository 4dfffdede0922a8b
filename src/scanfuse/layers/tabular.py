"""A clinical table as tokens: one per feature, missing values learned, unknown categories a category of their own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scanfuse.layers.linear import Linear

__all__ = ["TableEncoder", "TableTokens"]


class TableTokens(nn.Module):
    """One token per feature, so that attention over a table has keys to choose from.

    With k = 1 where feature f is known and 0 where it is missing:

        number     t_f = (k x + (1 - k) fill_f) w_f + b_f + (1 - k) m_f
        category   t_f = k E_f[x] + b_f + (1 - k) m_f

    fill (a number per feature) and m (a vector per feature) are learned. E_f[0] stands for a category that training
    has not seen; it is never trained, so it starts and stays at zero: only b_f speaks. It is no parameter.

    Parameters, for n numbers, c categorical features with s categories in all, and width d:
    n (d + 1) + s d + 2 (n + c) d.

    Args:
        categories: for each feature its number of categories, 0 for a number.
        dim: d.

    Shape:
        (batch, F, 2), values and flags of `scanfuse.data.transforms.table` -> (batch, F, d).

    Raises:
        ValueError: no feature, or a table of another width.

    Source: after Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021 (feature tokens); the
    missing indicator and the learned fill are ours.
    """

    numeric: Tensor
    nominal: Tensor
    offsets: Tensor

    def __init__(self, categories: Sequence[int], dim: int) -> None:
        super().__init__()
        if not categories:
            raise ValueError("a table needs at least one feature")
        counts = torch.tensor(categories)
        self.num_features = len(categories)
        self.dim = dim
        numeric, nominal = torch.nonzero(counts == 0)[:, 0], torch.nonzero(counts)[:, 0]
        starts = torch.cumsum(counts[nominal], 0) - counts[nominal]
        for name, value in (("numeric", numeric), ("nominal", nominal), ("offsets", starts)):
            self.register_buffer(name, value, persistent=False)
        scale = dim**-0.5
        if len(numeric):
            self.fill = nn.Parameter(torch.zeros(len(numeric)))
            self.weight = nn.Parameter(torch.empty(len(numeric), dim).uniform_(-scale, scale))
        if len(nominal):
            self.embedding = nn.Parameter(torch.empty(int(counts.sum()), dim).uniform_(-scale, scale))
        self.bias = nn.Parameter(torch.empty(self.num_features, dim).uniform_(-scale, scale))
        self.indicator = nn.Parameter(torch.empty(self.num_features, dim).uniform_(-scale, scale))

    def forward(self, table: Tensor) -> Tensor:
        if table.shape[1:] != (self.num_features, 2):
            raise ValueError(f"a table of {self.num_features} features is (batch, {self.num_features}, 2), not "
                             f"{tuple(table.shape)}")  # fmt: skip
        value, known = table[..., 0], table[..., 1]
        missing = (1 - known)[..., None]
        tokens = self.bias + missing * self.indicator
        if len(self.numeric):
            x, k = value[:, self.numeric], known[:, self.numeric]
            x = k * x + (1 - k) * self.fill
            tokens = tokens.index_add(1, self.numeric, (x[..., None] * self.weight).to(tokens.dtype))
        if len(self.nominal):
            code = value[:, self.nominal].round().long()
            # Row 0 is "unknown": no token of its own. It is looked up at 1 and then multiplied by zero.
            found = self.embedding[self.offsets + code.clamp(min=1) - 1]
            there = (known[:, self.nominal] * (code > 0))[..., None]
            tokens = tokens.index_add(1, self.nominal, (there * found).to(tokens.dtype))
        return tokens


class TableEncoder(nn.Module):
    """The tokens of a table as one vector: e = LN(W_2 GELU(LN(W_1 (t_1, ..., t_F) / sqrt(F)))).

    The sum of the tokens is already any linear map of the features; what follows bends it.

    Args:
        dim: d, in and out.
        hidden: width between.
        dropout: chance of dropping a hidden number in training.

    Shape:
        (batch, F, d) -> (batch, d).
    """

    def __init__(self, dim: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Linear(dim, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout), Linear(hidden, dim),
            nn.LayerNorm(dim),
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> Tensor:
        pooled: Tensor = self.layers(tokens.sum(dim=1) / tokens.shape[1] ** 0.5)
        return pooled
