"""The selective scan (S6): `scan_routes` over a map, `selective_scan` over a sequence in mamba-ssm's layout.

Files: `backends.py` chooses the program; `operator.py` is the torch operator, with its autograd; `reference.py`
is the definition in a plain loop, `portable.py` the same in chunks for any device, `cpu.py` (numba) and `triton.py`
the fast ones. README.md has the maths. The contract of a fast backend is in `operator.py`.
"""

from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional

from scanfuse.ops.selective_scan.backends import BackendUnavailable, available_backends, resolve_backend
from scanfuse.ops.selective_scan.operator import scan

__all__ = ["BackendUnavailable", "available_backends", "resolve_backend", "scan_routes", "selective_scan"]


@overload
def scan_routes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    orders: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_last_state: Literal[False] = False,
    merge: str = "sum",
    backend: str = "auto",
) -> Tensor: ...


@overload
def scan_routes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    orders: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_last_state: Literal[True],
    merge: str = "sum",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


@overload
def scan_routes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    orders: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    merge: str = "sum",
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]: ...


def scan_routes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    orders: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    merge: str = "sum",
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scans along k routes over one map, added up where they meet.

    Route r reads position `orders[r, t]` at step t; with everything below taken at that position and route:

        dt_t = softplus(delta_t + delta_bias)        h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t
        y_t  = sum_n C_t h_t + D u_t                 h_{-1} = initial_state or 0

    All tensors are in the natural order of the map, channels last; nothing is copied into flipped sequences.

    Args:
        u: (batch, L, d) shared by the routes, or (batch, L, k, d) one per route; any floating dtype.
        delta: (batch, L, k, d) step sizes before the bias and softplus.
        A: (k, d, n) continuous-time decay, usually negative.
        B: (batch, L, k, n) input weights.
        C: (batch, L, k, n) output weights.
        D: (k, d) skip weights, or None.
        delta_bias: (k, d), or None.
        orders: (k, L) int64, every row a permutation (see `scanfuse.ops.routes`); None: one raster route, k == 1.
        delta_softplus: apply softplus to the step sizes.
        initial_state: (batch, k, d, n) state before the first step, or None for zeros.
        return_last_state: also return the state after the last step.
        merge: "sum" adds the routes, "none" keeps them apart.
        backend: "auto", "reference", "portable", "cpu" or "triton".

    Returns:
        y (batch, L, d), or (batch, L, k, d) for merge="none", in the dtype of u; with `return_last_state` also the
        state (batch, k, d, n) in float32 (float64 for float64 u). Inside, everything is float32 (or float64 if u
        is), under autocast too.

    Raises:
        ValueError: shapes that do not fit, an empty axis, an order that is not a permutation, unknown merge/backend.
        BackendUnavailable: the backend asked for cannot run here.

    Source: Gu and Dao, 2023; routes over a map as in Liu et al. (VMamba), 2024.

    >>> from scanfuse.ops import routes
    >>> u, delta = torch.randn(1, 6, 8), torch.randn(1, 6, 4, 8)
    >>> B, C = torch.randn(2, 1, 6, 4, 2)
    >>> scan_routes(u, delta, -torch.rand(4, 8, 2), B, C, orders=routes.cross(2, 3)).shape
    torch.Size([1, 6, 8])
    """
    if merge not in ("sum", "none"):
        raise ValueError(f"merge must be 'sum' or 'none', got {merge!r}")
    if u.dim() not in (3, 4) or delta.dim() != 4 or A.dim() != 3:
        raise ValueError(
            f"u must be (batch, L, d) or (batch, L, k, d), delta (batch, L, k, d), A (k, d, n); "
            f"got u {tuple(u.shape)}, delta {tuple(delta.shape)}, A {tuple(A.shape)}"
        )
    batch, length, k, d = delta.shape
    n = A.shape[2]
    _check("u", u, (batch, length, d) if u.dim() == 3 else (batch, length, k, d), "delta", delta)
    _check("A", A, (k, d, n), "delta", delta)
    _check("B", B, (batch, length, k, n), "delta and A", delta, A)
    _check("C", C, (batch, length, k, n), "delta and A", delta, A)
    _check("D", D, (k, d), "delta", delta)
    _check("delta_bias", delta_bias, (k, d), "delta", delta)
    _check("orders", orders, (k, length), "delta", delta)
    _check("initial_state", initial_state, (batch, k, d, n), "delta and A", delta, A)
    if orders is None and k != 1:
        raise ValueError(f"orders is needed for more than one route: delta {tuple(delta.shape)} has k = {k}")
    if orders is not None and orders.dtype != torch.int64:
        raise ValueError(f"orders must be int64, got {orders.dtype}")
    y, last_state = scan(
        u.unsqueeze(2) if u.dim() == 3 else u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        orders,
        initial_state,
        delta_softplus=delta_softplus,
        merge=merge == "sum",
        time_last=False,
        backend=backend,
    )
    y = (y.squeeze(2) if merge == "sum" else y).to(u.dtype)
    return (y, last_state) if return_last_state else y


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    return_last_state: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The scan of one sequence, with the arguments and the meaning of mamba-ssm's `selective_scan_fn`.

        h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t,   y_t = (sum_n C_t h_t + D u_t) silu(z_t)

    Args:
        u: (batch, d, L) any floating dtype.
        delta: (batch, d, L) step sizes.
        A: (d, n).
        B: (d, n) constant, (batch, n, L) shared by the channels, or (batch, g, n, L) for g groups of d / g channels.
        C: as B; its form may differ from that of B.
        D: (d) or None.
        z: (batch, d, L) gate, applied after the D skip, or None.
        delta_bias: (d) or None.
        delta_softplus: dt = softplus(delta + delta_bias) instead of delta + delta_bias.
        return_last_state: also return h_{L-1}, which the gate does not touch. Its gradient is propagated.
        backend: see `scan_routes`.

    Returns:
        y (batch, d, L) in the dtype of u, rounded once, behind the gate; with `return_last_state` also the state
        (batch, d, n), float32 or float64.

    Raises:
        ValueError: shapes that do not fit.
        BackendUnavailable: the backend asked for cannot run here.

    >>> u, delta = torch.randn(2, 1, 4, 10)
    >>> selective_scan(u, delta, -torch.rand(4, 3), torch.randn(1, 3, 10), torch.randn(4, 3)).shape
    torch.Size([1, 4, 10])
    """
    if u.dim() != 3 or A.dim() != 2:
        raise ValueError(f"u must be (batch, d, L) and A (d, n); got {tuple(u.shape)} and {tuple(A.shape)}")
    batch, d, length = u.shape
    n = A.shape[1]
    groups = _groups("B", B, batch, d, n, length) or 1
    groups_c = _groups("C", C, batch, d, n, length) or 1
    if groups != groups_c and 1 not in (groups, groups_c):
        raise ValueError(f"B and C must have the same groups: {tuple(B.shape)} and {tuple(C.shape)}")
    k = max(groups, groups_c)
    _check("delta", delta, (batch, d, length), "u", u)
    _check("A", A, (d, n), "u", u)
    _check("D", D, (d,), "u", u)
    _check("z", z, (batch, d, length), "u", u)
    _check("delta_bias", delta_bias, (d,), "u", u)

    def by_group(x: Tensor) -> Tensor:
        return x.reshape(batch, k, d // k, length).permute(0, 3, 1, 2)

    def weights(x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x.reshape(k, d // k, n)
        x = x.unsqueeze(1) if x.dim() == 3 else x
        return x.expand(batch, k, n, length).permute(0, 3, 1, 2)

    y, last_state = scan(
        by_group(u),
        by_group(delta),
        A.reshape(k, d // k, n),
        weights(B),
        weights(C),
        None if D is None else D.reshape(k, d // k),
        None if delta_bias is None else delta_bias.reshape(k, d // k),
        None,
        None,
        delta_softplus=delta_softplus,
        merge=False,
        time_last=True,
        backend=backend,
    )
    y = y.permute(0, 2, 3, 1).reshape(batch, d, length)
    if z is not None:
        y = y * functional.silu(z.to(y.dtype))
    y = y.to(u.dtype)
    return (y, last_state.reshape(batch, d, n)) if return_last_state else y


def _groups(name: str, x: Tensor, batch: int, d: int, n: int, length: int) -> int | None:
    """How many groups B or C has; None if it is constant over time."""
    fits = {
        2: tuple(x.shape) == (d, n),
        3: tuple(x.shape) == (batch, n, length),
        4: x.dim() == 4 and tuple(x.shape) == (batch, x.shape[1], n, length) and x.shape[1] > 0,
    }
    if not fits.get(x.dim(), False):
        raise ValueError(
            f"{name} must be (d, n) = {(d, n)}, (batch, n, L) = {(batch, n, length)} or (batch, groups, n, L); "
            f"got {tuple(x.shape)}"
        )
    if x.dim() == 4 and d % x.shape[1]:
        raise ValueError(f"{name} {tuple(x.shape)} has {x.shape[1]} groups, which do not divide d = {d}")
    return None if x.dim() == 2 else 1 if x.dim() == 3 else x.shape[1]


def _check(name: str, x: Tensor | None, shape: tuple[int, ...], other: str, *others: Tensor) -> None:
    if x is not None and tuple(x.shape) != shape:
        given = " and ".join(str(tuple(o.shape)) for o in others)
        raise ValueError(f"{name} has shape {tuple(x.shape)}; with {other} {given} it must be {shape}")
