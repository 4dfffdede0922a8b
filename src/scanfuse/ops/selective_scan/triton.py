"""The scan on a GPU, in Triton: chunks of the sequence in parallel, channels in lanes, states in registers.

Legend: b batch, L positions, k routes, d channels, n states. The recurrence, with dt = softplus(delta + bias):

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t        y_t = C_t . h_t + D u_t

One program is one warp: 32 channels side by side, so that u, delta and y move in whole cache lines, and all n states
of a channel in the registers of its lane, so that the sum over n needs no exchange between lanes. It walks through
one chunk of `CHUNK` steps, one after the other, following `orders` as it goes; there are b k ceil(d / 32) ceil(L /
CHUNK) of them. Chunks become independent in three launches:

    1. every chunk from a zero state: where would it end, and how long is it (the sum of its dt)?
    2. over the chunks, a few steps: start of the next = exp(A sum dt) start + end. Never a division.
    3. every chunk again, from its true start: y.

An associative scan over tiles would need about twice the arithmetic, plus exchanges; the steps of a chunk cost the
least there is, and the parallelism lost over time comes back over chunks, routes, batch and channels.

The backward does the same from the end with the gradient of the state. The states inside a chunk are computed again:
once forward, leaving every `SUB`-th in scratch memory, then `SUB` at a time in registers while the gradient walks
back over them. Memory kept between forward and backward: n / CHUNK times that of delta; scratch of the backward:
n / SUB times. Nothing is added atomically: routes, channel blocks and chunks write partial sums that torch adds in a
fixed order, so results repeat bit for bit.

The kernels are in `triton_kernels.py`; this file launches them.

Computes in the dtype that arrives, float32 (or float64, in the interpreter). Correctness has been checked in Triton's
interpreter on a CPU (TRITON_INTERPRET=1 before the import); that the kernels compile for NVIDIA GPUs has been checked
without one. Run `pytest -m gpu` on a machine with a GPU before trusting speed or results there.
"""

import contextlib
from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from triton.runtime.interpreter import InterpretedFunction

from scanfuse.ops.selective_scan import triton_kernels as kernels

__all__ = ["CHUNK", "backward", "forward", "unavailable_reason"]

CHUNK = 64
_LANES = 32
# States that a lane keeps in registers while the backward walks back over SUB steps: more spill (ptxas, sm_90).
_KEPT_STATES = 64


def unavailable_reason() -> str | None:
    """None if the kernels can run here, else why not."""
    # Triton decides when it decorates the kernels, so a variable set later changes nothing.
    if isinstance(kernels.forward, InterpretedFunction) or torch.cuda.is_available():
        return None
    return "torch sees no GPU; use backend='cpu' (TRITON_INTERPRET=1 before the start runs the kernels on the CPU)"


def forward(
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
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The forward of the contract in `operator.py`."""
    batch, length, k, d = delta.shape
    n = A.shape[2]
    shared = _Shared(u, delta, A, B, C, D, delta_bias, orders, delta_softplus)
    states = u.new_empty(batch, k, shared.chunks, n, d)
    totals = u.new_empty(batch, k, shared.chunks, d)
    last_state = u.new_empty(batch, k, d, n)
    first = u.new_zeros(batch, k, d, n) if initial_state is None else initial_state.contiguous()
    y = _like_memory(u, (batch, length, k, d), time_last)
    with _on_device(u):
        kernels.ends[shared.grid](
            u, delta, shared.A, shared.B, shared.bias, shared.orders, states, totals,
            *_strides(u), *_strides(delta), *shared.sizes,
            VARYING_B=shared.varying_b, **shared.constants,
        )  # fmt: skip
        shared.carry(totals, states, first, last_state, reverse=False)
        kernels.forward[shared.grid](
            u, delta, shared.A, shared.B, shared.C, shared.D, shared.bias, shared.orders, states, y,
            *_strides(u), *_strides(delta), *_strides(y), *shared.sizes,
            VARYING_B=shared.varying_b, VARYING_C=shared.varying_c, HAS_D=D is not None, **shared.constants,
        )  # fmt: skip
    return y.sum(2, keepdim=True) if merge and k > 1 else y, last_state, states if save else u.new_empty(0)


def backward(
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
    *,
    delta_softplus: bool,
    merge: bool,
    time_last: bool,
) -> tuple[Tensor | None, ...]:
    """The backward of the contract in `operator.py`."""
    batch, length, k, d = delta.shape
    n = A.shape[2]
    shared = _Shared(u, delta, A, B, C, D, delta_bias, orders, delta_softplus)
    if dy is None:
        dy = u.new_zeros(1, 1, 1, 1)
    dy = dy.expand(batch, length, k, d)
    blocks = triton.cdiv(d, _LANES)
    partial = (batch, shared.chunks, k, n, d)
    totals = u.new_empty(batch, k, shared.chunks, d)
    gradients = u.new_empty(batch, k, shared.chunks, n, d)
    scratch = u.new_empty(batch, k, shared.chunks, CHUNK // shared.sub, n, d)
    dfirst = u.new_empty(batch, k, d, n)
    dlast = u.new_zeros(batch, k, d, n) if dlast_state is None else dlast_state.contiguous()
    du = _like_memory(u, (batch, length, k, d), time_last)
    ddelta = _like_memory(u, (batch, length, k, d), time_last)
    dA = u.new_empty(partial)
    dB = u.new_empty((blocks, *B.shape) if shared.varying_b else partial)
    dC = u.new_empty((blocks, *C.shape) if shared.varying_c else partial)
    dD = None if D is None else u.new_empty(batch, shared.chunks, k, d)
    dbias = None if delta_bias is None else u.new_empty(batch, shared.chunks, k, d)
    with _on_device(u):
        kernels.gradient_ends[shared.grid](
            delta, shared.A, shared.C, shared.bias, shared.orders, dy, gradients, totals,
            *_strides(delta), *_strides(dy), *shared.sizes,
            VARYING_C=shared.varying_c, **shared.constants,
        )  # fmt: skip
        shared.carry(totals, gradients, dlast, dfirst, reverse=True)
        kernels.backward[shared.grid](
            u, delta, shared.A, shared.B, shared.C, shared.D, shared.bias, shared.orders, states, gradients, dy,
            scratch, du, ddelta, dA, dB, dC, dA if dD is None else dD, dA if dbias is None else dbias,
            *_strides(u), *_strides(delta), *_strides(dy), *_strides(du), *_strides(ddelta), batch, *shared.sizes,
            VARYING_B=shared.varying_b, VARYING_C=shared.varying_c, HAS_D=D is not None, **shared.constants,
        )  # fmt: skip

    def by_channel(x: Tensor) -> Tensor:
        return x.sum((0, 1)).transpose(1, 2)

    return (
        du.sum(2, keepdim=True) if u.shape[2] == 1 and k > 1 else du,
        ddelta,
        by_channel(dA),
        dB.sum(0) if shared.varying_b else by_channel(dB),
        dC.sum(0) if shared.varying_c else by_channel(dC),
        None if dD is None else dD.sum((0, 1)),
        None if dbias is None else dbias.sum((0, 1)),
        None if initial_state is None else dfirst,
    )


class _Shared:
    """What the launches of one call have in common: contiguous small tensors, the grid, sizes and constants."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        delta_bias: Tensor | None,
        orders: Tensor | None,
        delta_softplus: bool,
    ) -> None:
        batch, length, k, d = delta.shape
        n = A.shape[2]
        self.A, self.B, self.C = A.contiguous(), B.contiguous(), C.contiguous()
        # A kernel argument that its constants switch off still has to be a tensor.
        self.D = self.A if D is None else D.contiguous()
        self.bias = self.A if delta_bias is None else delta_bias.contiguous()
        self.orders = self.A if orders is None else _checked(orders.contiguous())
        self.varying_b, self.varying_c = B.dim() == 4, C.dim() == 4
        self.chunks = triton.cdiv(length, CHUNK)
        self.lines = batch * k * triton.cdiv(d, _LANES)
        self.grid = (self.lines * self.chunks,)
        self.sizes = (length, k, d, n, self.chunks)
        states = triton.next_power_of_2(n)
        self.sub = max(1, min(8, _KEPT_STATES // states))
        self.warp: dict[str, Any] = {"STATES": states, "LANES": _LANES, "num_warps": 1}
        self.constants: dict[str, Any] = {
            "ROUTED": orders is not None,
            "HAS_BIAS": delta_bias is not None,
            "SOFTPLUS": delta_softplus,
            "CHUNK": CHUNK,
            "SUB": self.sub,
            **self.warp,
        }

    def carry(self, totals: Tensor, states: Tensor, first: Tensor, last: Tensor, *, reverse: bool) -> None:
        kernels.carry[(self.lines,)](
            self.A, totals, states, first, last, *self.sizes[1:], REVERSE=reverse, **self.warp
        )  # fmt: skip


_permutations: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _checked(orders: Tensor) -> Tensor:
    """Raises ValueError unless every row is a permutation. Remembered, as the question waits for the GPU."""
    if _permutations.get(orders) != orders._version:
        length = orders.shape[1]
        if not bool((orders.sort(1).values == torch.arange(length, device=orders.device)).all()):
            raise ValueError(f"every row of orders must be a permutation of 0..{length - 1}")
        _permutations[orders] = orders._version
    return orders


def _strides(x: Tensor) -> tuple[int, ...]:
    """In elements, of the axes (b, L, k, d); 0 along axes of size 1, which stand for all of theirs."""
    return tuple(0 if size == 1 else stride for size, stride in zip(x.shape, x.stride(), strict=True))


def _like_memory(u: Tensor, shape: tuple[int, int, int, int], time_last: bool) -> Tensor:
    batch, length, k, d = shape
    return u.new_empty(batch, k, d, length).permute(0, 3, 1, 2) if time_last else u.new_empty(shape)


def _on_device(u: Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(u.device) if u.is_cuda else contextlib.nullcontext()
