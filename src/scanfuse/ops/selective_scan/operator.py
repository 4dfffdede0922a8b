"""The torch operator behind the fast backends: fake kernels, autograd, one canonical form.

Legend: b batch, L positions of the map, k routes, d channels, n states. Canonical axes, with any strides:

    u (b, L, k or 1, d)    delta (b, L, k, d)    A (k, d, n)    D, delta_bias (k, d) or None
    B, C (b, L, k, n), or (k, d, n) where constant over batch and time
    orders (k, L) int64 or None (every route is the raster)    initial_state (b, k, d, n) or None

A fast backend is a module of this package with

    CHUNK: int                    # steps between two stored states
    forward(u, delta, A, B, C, D, delta_bias, orders, initial_state, *, delta_softplus: bool, merge: bool,
            time_last: bool, save: bool) -> (y, last_state, states)
    backward(dy, dlast_state, states, u, delta, A, B, C, D, delta_bias, orders, initial_state, *,
             delta_softplus: bool, merge: bool, time_last: bool)
        -> (du, ddelta, dA, dB, dC, dD, ddelta_bias, dinitial_state)
    unavailable_reason() -> str | None          # not asked of cpu

* All floating tensors arrive in one dtype, float32 or float64, on one device, on which the results must be, too.
* y (b, L, k, d), or (b, L, 1, d) with the routes added up if `merge`. `time_last` says which memory order is wanted
  for y, du, ddelta, dB and dC and will usually be found in u, delta, B and C: False (b, L, k, d) contiguous, True
  the same axes over memory (b, k, d, L). Another memory order is legal and costs a copy.
* last_state (b, k, d, n). states (b, k, ceil(L / CHUNK), n, d) contiguous: the state *before* each chunk of steps;
  with `save` false it has no elements and need not be written.
* dy has the axes of y, dlast_state those of last_state; either may be None, which means zero.
* Gradients have the axes of their tensors (dB is (k, d, n) for constant B); those of arguments that are None are
  None. A u shared by the routes gets the sum over the routes.
* Results are a function of the arguments and the thread count alone. Rows of `orders` are permutations; a backend
  that would otherwise leave its memory must check it and raise ValueError.
"""

from typing import Any

import torch
from torch import Tensor

from scanfuse.ops.selective_scan import backends, portable, reference

__all__ = ["scan"]

_OVER_TIME = (0, 1, 3, 4)  # the gradients of u, delta, B and C


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
    time_last: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Runs the scan on canonical arguments of any floating dtypes: y and last state in float32, or float64 if u is.

    y is left that wide because what still follows (the gate of `selective_scan`) must not see it rounded, and neither
    must the gradient on its way back. The callers round at their very end.
    """
    _, length, k, d = delta.shape
    if 0 in (length, k, d, A.shape[-1]):
        raise ValueError(
            f"the scan needs at least one position, route, channel and state; got L = {length}, k = {k}, "
            f"d = {d}, n = {A.shape[-1]}"
        )
    given = (delta, A, B, C, D, delta_bias, orders, initial_state)
    for tensor in given:
        if tensor is not None and tensor.device != u.device:
            raise ValueError(f"all tensors must be on the device of u, {u.device}; one is on {tensor.device}")
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    name = backends.choose(backend, u.device.type, dtype)
    x, delta, A, B, C = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
    D, delta_bias, initial_state = (
        None if tensor is None else tensor.to(dtype) for tensor in (D, delta_bias, initial_state)
    )
    if name in ("reference", "portable"):
        if orders is not None and not torch.compiler.is_compiling():
            _check_permutations(orders)
        plain = reference.scan if name == "reference" else portable.scan
        return plain(
            x, delta, A, B, C, D, delta_bias, orders, initial_state, delta_softplus=delta_softplus, merge=merge
        )
    floats = (x, delta, A, B, C, D, delta_bias, initial_state)
    save = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in floats)
    y, last_state, _ = _forward(
        x,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        orders,
        initial_state,
        delta_softplus,
        merge,
        time_last,
        save,
        name,
    )
    return y, last_state


def _check_permutations(orders: Tensor) -> None:
    seen = torch.zeros_like(orders)
    inside = (orders >= 0) & (orders < orders.shape[1])
    seen.scatter_(1, orders.clamp(0, orders.shape[1] - 1), 1)
    if not bool((inside & (seen == 1)).all()):
        raise ValueError(f"every row of orders must be a permutation of 0..{orders.shape[1] - 1}")


def _empty(like: Tensor, batch: int, length: int, k: int, d: int, time_last: bool) -> Tensor:
    """Canonical axes (b, L, k, d) over memory (b, L, k, d) or (b, k, d, L)."""
    if time_last:
        return like.new_empty(batch, k, d, length).permute(0, 3, 1, 2)
    return like.new_empty(batch, length, k, d)


def _in_order(x: Tensor, time_last: bool) -> Tensor:
    if time_last:
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return x.contiguous()


def _num_chunks(length: int, name: str) -> int:
    chunk: int = backends.load(name).CHUNK
    return (length + chunk - 1) // chunk


@torch.library.custom_op("scanfuse::scan_forward", mutates_args=())
def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    orders: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    merge: bool,
    time_last: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    y, last_state, states = backends.load(backend).forward(
        u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        orders,
        initial_state,
        delta_softplus=delta_softplus,
        merge=merge,
        time_last=time_last,
        save=save,
    )
    return _in_order(y, time_last), last_state.contiguous(), states if save else u.new_empty(0)


@_forward.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    orders: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    merge: bool,
    time_last: bool,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, k, d = delta.shape
    n = A.shape[2]
    states = u.new_empty(batch, k, _num_chunks(length, backend), n, d) if save else u.new_empty(0)
    y = _empty(u, batch, length, 1 if merge else k, d, time_last)
    return y, u.new_empty(batch, k, d, n), states


@torch.library.custom_op("scanfuse::scan_backward", mutates_args=())
def _backward(
    dy: Tensor | None,
    dlast_state: Tensor | None,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    orders: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    merge: bool,
    time_last: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    gradients = backends.load(backend).backward(
        dy,
        dlast_state,
        states,
        u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        orders,
        initial_state,
        delta_softplus=delta_softplus,
        merge=merge,
        time_last=time_last,
    )
    # An operator cannot return None: an absent gradient is a tensor without elements.
    du, ddelta, dA, dB, dC, dD, dbias, dinitial = (
        u.new_empty(0)
        if x is None
        else _in_order(x, time_last)
        if i in _OVER_TIME and x.dim() == 4
        else x.contiguous()
        for i, x in enumerate(gradients)
    )
    return du, ddelta, dA, dB, dC, dD, dbias, dinitial


@_backward.register_fake
def _(
    dy: Tensor | None,
    dlast_state: Tensor | None,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    orders: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    merge: bool,
    time_last: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, length, k, d = delta.shape

    def like(x: Tensor | None) -> Tensor:
        return u.new_empty(0 if x is None else x.shape)

    def weights(x: Tensor) -> Tensor:
        return like(x) if x.dim() == 3 else _empty(u, batch, length, k, x.shape[3], time_last)

    return (
        _empty(u, batch, length, u.shape[2], d, time_last),
        _empty(u, batch, length, k, d, time_last),
        like(A),
        weights(B),
        weights(C),
        like(D),
        like(delta_bias),
        like(initial_state),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.delta_softplus, ctx.merge, ctx.time_last, ctx.save, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[2], *tensors)


def _differentiate(ctx: Any, dy: Tensor | None, dlast_state: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    states, u, delta, A, B, C, D, delta_bias, orders, initial_state = ctx.saved_tensors
    if not ctx.save:
        raise RuntimeError("scanfuse::scan_forward was called with save=False; its backward needs save=True")
    options: tuple[None, ...] = (None,) * 5
    if dy is None and dlast_state is None:
        return (None,) * 9 + options
    gradients = _backward(
        dy,
        dlast_state,
        states,
        u,
        delta,
        A,
        B,
        C,
        D,
        delta_bias,
        orders,
        initial_state,
        ctx.delta_softplus,
        ctx.merge,
        ctx.time_last,
        ctx.backend,
    )
    du, ddelta, dA, dB, dC, dD, dbias, dinitial = gradients
    return (
        du,
        ddelta,
        dA,
        dB,
        dC,
        None if D is None else dD,
        None if delta_bias is None else dbias,
        None,
        None if initial_state is None else dinitial,
        *options,
    )


def _refuse_second(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    raise RuntimeError(
        "the fast scan backends have no second derivative; use backend='reference' (or 'portable') for it"
    )


_forward.register_autograd(_differentiate, setup_context=_setup_context)
_backward.register_autograd(_refuse_second)
