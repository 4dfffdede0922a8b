"""Dual-level attention fusion: slices to one patient, then patient and clinical table to one decision.

slices f (b,s,d) --+ place --> self-attention --> t (b,s,d) -- attention pooling --> c (b,d), weights (b,s)
                                                  |                                  |
                                                  +----------- keys -----+           +-- asks --+
table tokens (b,f,d) ------------------ keys --- asked by c              |                      |
table e (b,d) ---------------------------------------- asks -------------+--> c', e' --> gate --> h, c' e'
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from scanfuse.fusion.cross_attention import CrossAttention
from scanfuse.layers.linear import Linear
from scanfuse.layers.vss import MLP

__all__ = ["AttentionPooling", "GatedCrossModal", "Joined", "MeanPooling", "SliceAttention", "SlicePlace"]

_WAVES = 6


class SlicePlace(nn.Module):
    """Where a slice lies, as a vector: W [z; sin(2^k pi z); cos(2^k pi z)], k = 0..5.

    z is the place between the first and the last slice, not the number of the slice: scans with another number of
    slices are alike.

    Shape:
        (b, s) in [0, 1] -> (b, s, d).
    """

    waves: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("waves", math.pi * 2.0 ** torch.arange(_WAVES), persistent=False)
        self.map = Linear(1 + 2 * _WAVES, dim)

    def forward(self, place: Float[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        angle = place[..., None] * self.waves
        found: Tensor = self.map(torch.cat([place[..., None], angle.sin(), angle.cos()], dim=-1))
        return found


class SliceAttention(nn.Module):
    """Level 1, first half: slices listen to each other.

        t = f + place(z);   t += MHSA(LN t) over the slices that are there;   t += MLP(LN t)

    Parameters: 8 d^2 + 22 d.

    Args:
        dim: d. heads: a divisor of d. dropout: chance of dropping a number of a branch in training.

    Shape:
        features (b, s, d), place (b, s) in [0, 1], seen (b, s) bool -> (b, s, d), zeros where not seen. A patient
        without any slice is all zeros.
    """

    def __init__(self, dim: int, *, heads: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be shared by {heads} heads; give a multiple")
        self.place = SlicePlace(dim)
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim, bias=False)  # a bias of the keys would change nothing
        self.out = Linear(dim, dim)
        self.mlp = MLP(dim, 2 * dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, features: Float[Tensor, "b s d"], place: Float[Tensor, "b s"], seen: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "b s d"]:
        t = features + self.place(place)
        q, k, v = self.qkv(self.norm(t)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=_askable(seen)[:, None, None])
        t = t + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        t = t + self.dropout(self.mlp(self.mlp_norm(t)))
        return torch.where(seen[..., None], t, torch.zeros_like(t))


class AttentionPooling(nn.Module):
    """Level 1, second half: c = sum_s a_s t_s,   a = softmax_s(v^T tanh(U t_s)) over the slices that are there.

    Parameters: d^2 + 2 d.

    Shape:
        t (b, s, d), seen (b, s) bool -> c (b, d) and weights (b, s), which sum to 1, or are 0 without any slice.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = Linear(dim, dim)
        self.score = nn.Parameter(torch.empty(dim).uniform_(-1, 1) / math.sqrt(dim))

    def forward(
        self, t: Float[Tensor, "b s d"], seen: Bool[Tensor, "b s"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b s"]]:
        scores = torch.tanh(self.inner(t)) @ self.score
        weights = scores.masked_fill(~_askable(seen), -torch.inf).softmax(dim=1) * seen
        return (weights[..., None] * t).sum(dim=1), weights


class MeanPooling(nn.Module):
    """What an ablation puts in place of level 1: the mean of the slices that are there; the same shapes."""

    def forward(
        self, t: Float[Tensor, "b s d"], seen: Bool[Tensor, "b s"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b s"]]:
        weights = seen.to(t.dtype) / seen.sum(dim=1, keepdim=True).clamp(min=1)
        return (weights[..., None] * t).sum(dim=1), weights


class Joined(NamedTuple):
    """What level 2 puts out: h and c' e' side by side (b, 2 d), and the gate (b, 2) of scan and table."""

    features: Tensor
    gate: Tensor


class GatedCrossModal(nn.Module):
    """Level 2: scan and table ask each other, and a gate says how much each counts.

        c' = c + attention(q = LN c, keys = the table's tokens)
        e' = e + attention(q = LN e, keys = the slices that are there, and "no slice")
        g  = softmax(W [c'; e'; c' e']),   h = g_1 c' + g_2 e'

    "No slice" is a learned key, so that there are always two keys or more (attention over one is a constant), and one
    where no slice is. What is missing has a gate of 0.

    Parameters: 8 d^2 + 21 d + 2.

    Args:
        dim: d. heads: of both attentions. dropout: see `CrossAttention`.

    Shape:
        scan (b, d), slices (b, s, d), table (b, d), tokens (b, f, d) with f >= 2, seen (b, s) bool, present (b, 2)
        bool: scan, table -> `Joined`.
    """

    def __init__(self, dim: int, *, heads: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.no_slice = nn.Parameter(0.02 * torch.randn(dim))
        self.ask_table = CrossAttention(dim, heads=heads, dropout=dropout, key_bias=False)
        self.ask_slices = CrossAttention(dim, heads=heads, dropout=dropout, key_bias=False)
        self.gate = Linear(3 * dim, 2)

    def forward(
        self,
        scan: Float[Tensor, "b d"],
        slices: Float[Tensor, "b s d"],
        table: Float[Tensor, "b d"],
        tokens: Float[Tensor, "b f d"],
        seen: Bool[Tensor, "b s"],
        present: Bool[Tensor, "b 2"],
    ) -> Joined:
        keys = torch.cat([slices, self.no_slice.to(slices.dtype).expand(len(slices), 1, -1)], dim=1)
        known = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
        c = self.ask_table(scan[:, None], tokens)[:, 0]
        e = self.ask_slices(table[:, None], keys, known)[:, 0]
        scores = self.gate(torch.cat([c, e, c * e], dim=-1))
        gate = scores.masked_fill(~_askable(present), -torch.inf).softmax(dim=-1) * present
        return Joined(torch.cat([gate[:, :1] * c + gate[:, 1:] * e, c * e], dim=-1), gate)


def _askable(seen: Tensor) -> Tensor:
    """The same, but all true where nothing is: a softmax over nothing is not a number."""
    return seen | ~seen.any(dim=1, keepdim=True)
