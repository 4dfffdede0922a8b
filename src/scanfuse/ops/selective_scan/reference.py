"""The scan as its definition says it: one step after another, in plain torch. Slow, exact, the oracle.

    dt_t = softplus(delta_t + delta_bias)                        (d)
    h_t  = exp(dt_t A) h_{t-1} + dt_t u_t B_t                     (d, n)
    y_t  = sum_n C_t h_t + D u_t                                  (d)

Any dtype, any device; the gradients are those of autograd, also the second ones.

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, algorithm 2, with the
simplified (Euler) discretisation of B that its published program uses.
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["scan"]


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

    The arguments are those that `operator.py` lays down: one floating dtype throughout.
    """
    batch, length, k, d = delta.shape
    routes = torch.arange(k, device=u.device)
    if orders is None:
        orders = torch.arange(length, device=u.device).expand(k, length)
    step_size = delta if delta_bias is None else delta + delta_bias
    if delta_softplus:
        step_size = functional.softplus(step_size)
    u = u.expand(batch, length, k, d)
    state = u.new_zeros(batch, k, d, A.shape[-1]) if initial_state is None else initial_state
    outputs = []
    for t in range(length):
        here = orders[:, t]
        dt = step_size[:, here, routes]  # (batch, k, d)
        x = u[:, here, routes]
        drive = (B if B.dim() == 3 else B[:, here, routes].unsqueeze(2)) * (dt * x).unsqueeze(-1)
        state = torch.exp(dt.unsqueeze(-1) * A) * state + drive
        y = ((C if C.dim() == 3 else C[:, here, routes].unsqueeze(2)) * state).sum(-1)
        outputs.append(y if D is None else y + D * x)
    step_of = torch.empty_like(orders).scatter_(1, orders, torch.arange(length, device=u.device).expand(k, length))
    natural = torch.stack(outputs, 1)[:, step_of.T, routes]
    return (natural.sum(2, keepdim=True) if merge else natural), state
