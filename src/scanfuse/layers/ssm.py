"""The parameters of a selective state-space model over routes, and the scan by them.

Every Mamba-like layer of this library owns the same five tensors, one slice per route, in the layout of the published
VMamba checkpoints: `register_ssm` gives them to a module, `scan_by` scans a map with those of a module. Letters: K
routes, I inner channels, N states per channel, R rank of the step size, L positions.

    x_proj_weight  (K, R + 2N, I)   position -> (step size, B, C)
    dt_projs_weight (K, I, R)       step size, rank R -> I channels
    dt_projs_bias  (K, I)           added to the step size before softplus
    A_logs         (K * I, N)       A = -exp(A_logs)
    Ds             (K * I)          skip connection

They are raw parameters, not `nn.Linear` modules: a model-wide `model.apply(init)` that resets every Linear must not
destroy the special initial values of the step size. And they are registered on the layer itself, not on a part of it,
so that their names in a state dict are those of the published checkpoints.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from scanfuse.layers.linear import linear, route_linear
from scanfuse.ops import scan_routes

__all__ = [
    "SSMParameters",
    "dt_rank_for",
    "initial_dt_bias",
    "initial_ssm",
    "project",
    "register_ssm",
    "scan_by",
    "transition",
    "without_weight_decay",
]

_UNDECAYED = ("A_logs", "Ds", "dt_projs_bias")


class SSMParameters(NamedTuple):
    """The five tensors, in the order of the module docstring."""

    x_proj_weight: nn.Parameter
    dt_projs_weight: nn.Parameter
    dt_projs_bias: nn.Parameter
    A_logs: nn.Parameter
    Ds: nn.Parameter


def dt_rank_for(dim: int) -> int:
    """Rank of the step-size projection: ceil(dim / 16), with dim the width of the model (not the inner width)."""
    return math.ceil(dim / 16)


def initial_dt_bias(num_routes: int, d_inner: int, *, low: float = 1e-3, high: float = 0.1) -> Tensor:
    """Bias (K, I) for which softplus(bias) is log-uniform in [low, high], drawn independently for every route.

    softplus^-1(t) = t + log(1 - exp(-t)). The published ClinicalFMamba code does this for its first route only.
    """
    dt = torch.exp(torch.empty(num_routes, d_inner).uniform_(math.log(low), math.log(high))).clamp_min(1e-4)
    return dt + torch.log(-torch.expm1(-dt))


def initial_ssm(num_routes: int, d_inner: int, d_state: int, dt_rank: int) -> SSMParameters:
    """Fresh parameters: S4D-real A (1..N on every channel), D = 1, step sizes log-uniform in [0.001, 0.1].

    x_proj is uniform in +-1/sqrt(I) (what a bias-free `nn.Linear` gets), dt_projs_weight uniform in +-1/sqrt(R).

    Source: Gu and Dao, "Mamba", 2023, section 3.6; Liu et al., "VMamba", 2024.
    """
    x_proj = torch.empty(num_routes, dt_rank + 2 * d_state, d_inner).uniform_(-1, 1) / math.sqrt(d_inner)
    dt_weight = torch.empty(num_routes, d_inner, dt_rank).uniform_(-1, 1) / math.sqrt(dt_rank)
    a_logs = torch.log(torch.arange(1, d_state + 1, dtype=torch.float32)).repeat(num_routes * d_inner, 1)
    return SSMParameters(
        nn.Parameter(x_proj),
        nn.Parameter(dt_weight),
        nn.Parameter(initial_dt_bias(num_routes, d_inner)),
        nn.Parameter(a_logs),
        nn.Parameter(torch.ones(num_routes * d_inner)),
    )


def transition(a_logs: Tensor, num_routes: int) -> Tensor:
    """A = -exp(A_logs) as (K, I, N) from (K * I, N); negative, so every state decays."""
    return -torch.exp(a_logs).unflatten(0, (num_routes, -1))


def project(x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Position-wise (delta, B, C) of every route, all in the natural order of the map.

    Args:
        x: (batch, L, I) seen by all routes alike, or (batch, L, K, I) one map per route.
        x_proj_weight: (K, R + 2N, I). dt_projs_weight: (K, I, R).

    Returns:
        delta (batch, L, K, I) without bias and before softplus, B and C (batch, L, K, N).
    """
    num_routes, _, rank = dt_projs_weight.shape
    if x.dim() == 3:
        dbc = linear(x, x_proj_weight.flatten(0, 1)).unflatten(-1, (num_routes, -1))
    else:
        dbc = route_linear(x, x_proj_weight)
    num_states = (dbc.shape[-1] - rank) // 2
    dt, B, C = dbc.split([rank, num_states, num_states], dim=-1)
    return route_linear(dt, dt_projs_weight), B, C


def register_ssm(module: nn.Module, *, num_routes: int, d_inner: int, d_state: int, dt_rank: int) -> None:
    """Gives a module the five tensors, under the names of the module docstring, with the values of `initial_ssm`.

    Args:
        num_routes: K. d_inner: I. d_state: N. dt_rank: R, see `dt_rank_for`.
    """
    for name, parameter in initial_ssm(num_routes, d_inner, d_state, dt_rank)._asdict().items():
        module.register_parameter(name, parameter)


def scan_by(
    module: nn.Module,
    u: Tensor,
    orders: Tensor,
    *,
    guide: Tensor | None = None,
    read_out: Callable[[Tensor], Tensor] | None = None,
    merge: Literal["sum", "none"] = "sum",
) -> Tensor:
    """The selective scan of a map, with the parameters that `register_ssm` gave to the module.

        delta_k, B_k, C_k = projections of u_k, or of the guide
        y_k = scan along route k of (u_k; delta_k, A_k, B_k, C_k, D_k)

    Args:
        module: owner of the five tensors, with K routes.
        u: (batch, L, I) seen by all routes alike, or (batch, L, K, I) one map per route.
        orders: (K, L) int64, the routes; see `scanfuse.ops.routes`.
        guide: what the projections read instead of u, in either of u's shapes. None: u itself.
        read_out: from the projected C (batch, L, K, N) to the C that reads the states out, in the same shape. None:
            the projected one.
        merge: "sum" adds the routes where they meet, "none" keeps them apart.

    Returns:
        (batch, L, I), for merge="none" (batch, L, K, I); natural order, dtype of u.
    """
    ssm = SSMParameters(*[getattr(module, name) for name in SSMParameters._fields])
    num_routes = len(ssm.x_proj_weight)
    delta, B, C = project(u if guide is None else guide, ssm.x_proj_weight, ssm.dt_projs_weight)
    return scan_routes(
        u,
        delta,
        transition(ssm.A_logs, num_routes),
        B,
        C if read_out is None else read_out(C),
        ssm.Ds.unflatten(0, (num_routes, -1)),
        ssm.dt_projs_bias,
        orders,
        merge=merge,
    )


def without_weight_decay(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that an optimiser should not decay: A_logs, Ds, all biases and all norms.

    Decay would pull A towards -1 and the step sizes towards softplus(0), away from what they are initialised for.
    """
    return frozenset(
        name
        for name, parameter in module.named_parameters()
        if parameter.dim() <= 1 or name.rpartition(".")[2] in _UNDECAYED or name.endswith("bias")
    )
