"""Early fusion without weights: registered inputs as the channels of one stack."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["stacked"]


def stacked(
    batch: Mapping[str, Float[Tensor, "b c *places"]],
    names: Sequence[str],
    present: Mapping[str, Bool[Tensor, " b"]],
) -> Float[Tensor, "b c2 *places"]:
    """The named inputs side by side, zeros where one is not present, whatever stands there.

    Raises:
        ValueError: a sample has none of them.
    """
    there = torch.stack([present[name] for name in names])
    if not bool(there.any(dim=0).all()):
        raise ValueError("a sample has none of its inputs: leave it out")
    parts = []
    for name, flags in zip(names, there, strict=True):
        x = batch[name]
        parts.append(torch.where(flags.view(-1, *(1,) * (x.ndim - 1)), x, torch.zeros_like(x)))
    return torch.cat(parts, dim=1)
