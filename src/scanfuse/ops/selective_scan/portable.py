"""The scan in plain torch operations, for any device: chunk after chunk, each chunk by doubling.

Within a chunk the pairs (a_t, b_t) of h_t = a_t h_{t-1} + b_t are combined over spans of 1, 2, 4, ... steps:
(a, b) after (a', b') is (a a', a b' + b). Only products of decays occur, never a quotient, so that nothing overflows
that does not overflow step by step. Work is L log2(chunk) instead of L, in log2(chunk) operations on whole chunks
instead of one after another. When gradients are wanted each chunk is recomputed in the backward
(`torch.utils.checkpoint`): what stays alive is one state per chunk, and a few tensors of
batch x chunk x k x d x n while a chunk is at work, held to 2^22 elements where chunks of 8 steps allow it.

Source: Hillis and Steele, "Data Parallel Algorithms", 1986.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

__all__ = ["scan"]

_LONGEST = 64
_SHORTEST = 8
_ELEMENTS = 1 << 22


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    orders: Tensor | None,
    initial_state: Tensor | None,
    *,
    delta_softplus: bool,
    merge: bool,
) -> tuple[Tensor, Tensor]:
    """Returns y (batch, L, k or 1, d) in natural order and the last state (batch, k, d, n).

    The arguments are those that `operator.py` lays down.
    """
    batch, length, k, d = delta.shape
    n = A.shape[-1]
    routes = torch.arange(k, device=u.device)
    steps = torch.arange(length, device=u.device).unsqueeze(1).expand(length, k)
    places = steps if orders is None else orders.T  # (L, k)
    step_size = delta if delta_bias is None else delta + delta_bias
    if delta_softplus:
        step_size = functional.softplus(step_size)
    shared = u.expand(batch, length, k, d)
    state = u.new_zeros(batch, k, d, n) if initial_state is None else initial_state
    recompute = torch.is_grad_enabled()
    chunk = max(_SHORTEST, min(_LONGEST, _ELEMENTS // max(1, batch * k * d * n)))
    outputs = []
    for start in range(0, length, chunk):
        here = places[start : start + chunk]
        arguments = (
            state,
            step_size[:, here, routes],
            shared[:, here, routes],
            A,
            B if B.dim() == 3 else B[:, here, routes],
            C if C.dim() == 3 else C[:, here, routes],
        )
        if recompute:
            y, state = checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state = _chunk(*arguments)
        outputs.append(y)
    ordered = torch.cat(outputs, 1)
    if orders is not None:
        step_of = torch.zeros_like(places).scatter_(0, places, steps)
        ordered = ordered[:, step_of, routes]
    if D is not None:
        ordered = ordered + D * shared
    return (ordered.sum(2, keepdim=True) if merge else ordered), state


def _chunk(state: Tensor, dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """state (batch, k, d, n); dt, u (batch, T, k, d); B, C (batch, T, k, n) or (k, d, n) -> y as u, next state."""
    B, C = (x if x.dim() == 3 else x.unsqueeze(3) for x in (B, C))
    a = torch.exp(dt.unsqueeze(-1) * A)
    h = (dt * u).unsqueeze(-1) * B
    h = torch.cat([h[:, :1] + a[:, :1] * state.unsqueeze(1), h[:, 1:]], 1)
    span, steps = 1, dt.shape[1]
    while span < steps:
        h = torch.cat([h[:, :span], torch.addcmul(h[:, span:], a[:, span:], h[:, :-span])], 1)
        if 2 * span < steps:
            a = torch.cat([a[:, :span], a[:, span:] * a[:, :-span]], 1)
        span *= 2
    return (h * C).sum(-1), h[:, -1]
