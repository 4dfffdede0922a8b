"""The scan on the CPU: kernels compiled by numba at first use, kept on disk, run by a pool of threads.

The work is cut into (sample, group of channel blocks) tasks, and by route too where routes share neither u nor y;
within a task the routes follow one another, so that no two threads ever write to the same place. Partial sums of
dB and dC are kept per group and added in a fixed order: results depend on the arguments and on the number of
threads, never on their timing. The pool has `torch.get_num_threads()` threads; numba's own parallel layer, which
survives neither a fork nor a threaded server, is not used.

Memory beyond arguments, results and gradients: the state before every chunk of 64 steps (n / 64 of the bytes of u per
route) and, in the backward, 2 n / d of them per group for dB and dC.

`forward` and `backward` have the signatures and the meaning that `operator.py` lays down.
"""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from scanfuse.ops import threads
from scanfuse.ops.selective_scan import arrangement, kernels
from scanfuse.ops.selective_scan.kernels import CHUNK, Geometry

__all__ = ["CHUNK", "backward", "forward"]

_log = logging.getLogger("scanfuse.ops")
_BLOCK = 16  # channels; a group of channels is a multiple of it, and so of every processor's unit


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
    """Returns y, the last state and, with `save`, the state before every chunk."""
    batch, length, k, d = delta.shape
    n = A.shape[2]
    u, delta = _readable(u, orders), _readable(delta, orders)
    _check(orders)
    y = _results(u, batch, length, 1 if merge else k, d, time_last)
    last = u.new_empty(batch, k, d, n)
    states = u.new_empty((batch, k, -(-length // CHUNK), n, d) if save else 0)
    fixed_b, fixed_c, rows_b, rows_c = _weights(B, C, delta)
    strided = (u, delta, y, u, delta)
    geometry = _geometry(A, rows_b, rows_c, strided, orders, delta_softplus, merge, save, 0)
    arguments = [
        *_flat(u, delta, A.contiguous(), rows_b, rows_c),
        *(None if x is None else _flat(x)[0] for x in (fixed_b, fixed_c)),
        *_flat(*(_whole(x, u) for x in (D, delta_bias))),
        _flat_orders(orders),
        *_flat(_whole(initial_state, u), y, last, states),
    ]
    apart = u.shape[2] == k and not merge
    tasks = _tasks(batch, k, d, apart, 4)
    threads.run([(geometry, *arguments, *task[:5]) for task in tasks], _kernels().forward)
    return y, last, states


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
    """Returns the gradients of u, delta, A, B, C, D, delta_bias and initial_state."""
    batch, length, k, d = delta.shape
    n = A.shape[2]
    u, delta = _readable(u, orders), _readable(delta, orders)
    _check(orders)
    if dy is None:
        dy = u.new_zeros(1).expand(batch, length, 1 if merge else k, d)
    dy = _readable(dy, orders)
    du = _results(u, batch, length, u.shape[2], d, time_last)
    ddelta = _results(u, batch, length, k, d, time_last)
    fixed_b, fixed_c, rows_b, rows_c = _weights(B, C, delta)
    per_sample = [u.new_empty(batch, k, d, n) for _ in range(2)]
    dA, dinitial = per_sample
    dfixed_b = u.new_empty((batch, k, d, n) if fixed_b is not None else 0)
    dfixed_c = u.new_empty((batch, k, d, n) if fixed_c is not None else 0)
    dD, dbias = u.new_empty(batch, k, d), u.new_empty(batch, k, d)
    # Where u and dy belong to one route each, the routes can be apart; du must not be shared either.
    apart = u.shape[2] == k and not merge
    tasks = _tasks(batch, k, d, apart, 1)
    groups = 1 + max((task[5] for task in tasks), default=0)
    sums = u.new_empty(batch, groups, k, length, 2 * n)
    strided = (u, delta, dy, du, ddelta)
    geometry = _geometry(A, rows_b, rows_c, strided, orders, delta_softplus, merge, False, groups)
    arguments = [
        *_flat(dy, _whole(dlast_state, u), states, u, delta, A.contiguous(), rows_b, rows_c),
        *(None if x is None else _flat(x)[0] for x in (fixed_b, fixed_c)),
        *_flat(*(_whole(x, u) for x in (D, delta_bias))),
        _flat_orders(orders),
        *_flat(du, ddelta, dA, sums, dfixed_b, dfixed_c, dD, dbias, dinitial),
    ]
    threads.run([(geometry, *arguments, *task) for task in tasks], _kernels().backward)
    dB, dC = (_results(u, batch, length, k, n, time_last) for _ in range(2))
    _, step, route, state = dB.stride()
    _kernels().add_groups(geometry, batch, *_flat(sums, dB, dC), route, step, state)
    return (
        du,
        ddelta,
        _over_samples(dA),
        dB if B.dim() == 4 else _over_samples(dfixed_b),
        dC if C.dim() == 4 else _over_samples(dfixed_c),
        None if D is None else _over_samples(dD),
        None if delta_bias is None else _over_samples(dbias),
        None if initial_state is None else dinitial,
    )


def _over_samples(x: Tensor) -> Tensor:
    return x[0] if len(x) == 1 else x.sum(0)


def _tasks(batch: int, k: int, d: int, apart: bool, per_thread: int) -> list[tuple[int, int, int, int, int, int]]:
    """(sample, first route, end route, first channel, end channel, group): about `per_thread` for every thread."""
    spans = [(r, r + 1) for r in range(k)] if apart else [(0, k)]
    blocks = -(-d // _BLOCK)
    wanted = -(-torch.get_num_threads() * per_thread // max(1, batch * len(spans)))
    groups = min(blocks, wanted)
    edges = [min(d, i * blocks // groups * _BLOCK) for i in range(groups + 1)]
    return [(b, r0, r1, edges[i], edges[i + 1], i) for i in range(groups) for b in range(batch) for r0, r1 in spans]


class _Kernels(NamedTuple):
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    is_permutation: Callable[..., Any]
    rows_of: Callable[..., Any]
    add_groups: Callable[..., Any]


@functools.lru_cache(maxsize=1)
def _kernels() -> _Kernels:
    """The compiled forward and backward tasks and the test of orders, cached on disk; the text is in the key.

    Numba looks for changes only in the file of the function that it caches; the number is in the closure, and with
    it in the key.
    """
    here = Path(__file__).parent
    text = b"".join((here / name).read_bytes() for name in ("simd.py", "chunks.py", "kernels.py", "arrangement.py"))
    version = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")

    def forward_entry(*arguments: Any) -> int:
        kernels.forward_task(*arguments)
        return version

    def backward_entry(*arguments: Any) -> int:
        kernels.backward_task(*arguments)
        return version

    def is_permutation(*arguments: Any) -> bool:
        answer: bool = kernels.is_permutation(*arguments)
        return answer and version >= 0

    def rows_of(*arguments: Any) -> int:
        arrangement.rows_of(*arguments)
        return version

    def add_groups(*arguments: Any) -> int:
        arrangement.add_groups(*arguments)
        return version

    return _Kernels(*map(_compiled, (forward_entry, backward_entry, is_permutation, rows_of, add_groups)))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        compiled: Callable[..., Any] = njit(nogil=True, cache=True)(function)
    except RuntimeError as error:
        _log.warning("the scan is compiled anew in every process (%s); set NUMBA_CACHE_DIR to a folder", error)
        compiled = njit(nogil=True)(function)
    return compiled


def _check(orders: Tensor | None) -> None:
    # A position outside the map would be read and written outside the tensors.
    if orders is not None and not _kernels().is_permutation(_flat_orders(orders), *orders.shape):
        raise ValueError(f"every row of orders must be a permutation of 0..{orders.shape[1] - 1}")


def _readable(x: Tensor, orders: Tensor | None) -> Tensor:
    """x with strides that the kernel reads fast: channels last, or time last where the route is the raster."""
    if x.stride(3) == 1 or x.shape[3] == 1 or (orders is None and x.stride(1) == 1):
        return x
    return x.contiguous()


def _results(like: Tensor, batch: int, length: int, k: int, d: int, time_last: bool) -> Tensor:
    if time_last:
        return like.new_empty(batch, k, d, length).permute(0, 3, 1, 2)
    return like.new_empty(batch, length, k, d)


def _weights(B: Tensor, C: Tensor, delta: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    """B and C as factors (k, d, n) and (batch, L, k, n), one of them ones; no factors if both vary over time."""
    if B.dim() == C.dim() == 4:
        return None, None, _rows(B), _rows(C)
    batch, length, k, d = delta.shape
    ones = B.new_ones(batch, length, k, B.shape[-1])
    fixed = [x.contiguous() if x.dim() == 3 else x.new_ones(k, d, x.shape[-1]) for x in (B, C)]
    rows = [ones if x.dim() == 3 else _rows(x) for x in (B, C)]
    return fixed[0], fixed[1], rows[0], rows[1]


def _rows(x: Tensor) -> Tensor:
    """x (batch, L, k, n) with the states of a position side by side.

    Not by `contiguous()`, for the reason that `arrangement.py` gives.
    """
    if x.stride(3) == 1 or x.shape[3] == 1:
        return x
    if x.stride(1) != 1 or x.numel() == 0:
        return x.contiguous()
    rows = x.new_empty(x.shape)
    b, _, k, n = x.stride()
    _kernels().rows_of(*_flat(x), b, k, n, tuple(x.shape), *_flat(rows))
    return rows


def _whole(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if x is None else x.contiguous()


def _flat(*tensors: Tensor) -> list[np.ndarray]:
    """The memory of each tensor from its first element to its last, as a one-dimensional array: one compilation."""
    arrays = []
    for x in tensors:
        if x.is_contiguous():  # most are, and this way takes a third of the time
            arrays.append(x.detach().numpy().reshape(-1))
            continue
        span = 1 + sum((s - 1) * t for s, t in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
        arrays.append(x.detach().as_strided((span,), (1,)).numpy())
    return arrays


def _flat_orders(orders: Tensor | None) -> np.ndarray:
    return np.empty(0, np.int64) if orders is None else orders.contiguous().view(-1).numpy()


def _geometry(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    strided: tuple[Tensor, ...],
    orders: Tensor | None,
    delta_softplus: bool,
    merge: bool,
    save: bool,
    groups: int,
) -> Geometry:
    strides = [*B.stride()[:3], *C.stride()[:3]]
    for x in strided:
        b, step, route, channel = x.stride()
        strides += [b, step, 0 if x.shape[2] == 1 else route, channel]
    k, d, n = A.shape
    switches = [int(delta_softplus), int(orders is not None), int(merge), int(save)]
    return Geometry._make([strided[1].shape[1], k, d, n, *switches, groups, *strides])
