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
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from scanfuse.ops import threads
from scanfuse.ops.selective_scan import kernels
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
    geometry = _geometry(u, delta, A, y, u, delta, orders, delta_softplus, merge, save)
    fixed_b, fixed_c, rows_b, rows_c = _weights(B, C, delta)
    arguments = [
        *_flat(u, delta, A.contiguous(), rows_b, rows_c),
        *(None if x is None else _flat(x)[0] for x in (fixed_b, fixed_c)),
        *_flat(*(_whole(x, u) for x in (D, delta_bias))),
        _flat_orders(orders),
        *_flat(_whole(initial_state, u), y, last, states),
    ]
    apart = u.shape[2] == k and not merge
    tasks = _tasks(batch, k, d, apart, 4)
    threads.run([(geometry, *arguments, *task[:5]) for task in tasks], _kernels()[0])
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
    geometry = _geometry(u, delta, A, dy, du, ddelta, orders, delta_softplus, merge, False)
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
    sums = u.new_zeros(batch, groups, k, length, 2 * n)
    arguments = [
        *_flat(dy, _whole(dlast_state, u), states, u, delta, A.contiguous(), rows_b, rows_c),
        *(None if x is None else _flat(x)[0] for x in (fixed_b, fixed_c)),
        *_flat(*(_whole(x, u) for x in (D, delta_bias))),
        _flat_orders(orders),
        *_flat(du, ddelta, dA, sums, dfixed_b, dfixed_c, dD, dbias, dinitial),
    ]
    threads.run([(geometry, *arguments, *task[:5], task[0] * groups + task[5]) for task in tasks], _kernels()[1])
    dB, dC = _unpack_sums(sums.sum(1) if groups > 1 else sums[:, 0], n)
    return (
        du,
        ddelta,
        dA.sum(0),
        dB if B.dim() == 4 else dfixed_b.sum(0),
        dC if C.dim() == 4 else dfixed_c.sum(0),
        None if D is None else dD.sum(0),
        None if delta_bias is None else dbias.sum(0),
        None if initial_state is None else dinitial,
    )


def _unpack_sums(sums: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(batch, k, L, 2n), tiles of four dB and four dC, then single pairs -> dB, dC (batch, L, k, n)."""
    fours = n // 4 * 4
    sums = sums.transpose(1, 2)
    halves = []
    for i in range(2):
        parts = [sums[..., j + 4 * i : j + 4 * i + 4] for j in range(0, 2 * fours, 8)]
        parts.append(sums[..., 2 * fours + i :: 2])
        halves.append(torch.cat(parts, -1))
    return halves[0], halves[1]


def _tasks(batch: int, k: int, d: int, apart: bool, per_thread: int) -> list[tuple[int, int, int, int, int, int]]:
    """(sample, first route, end route, first channel, end channel, group): about `per_thread` for every thread."""
    spans = [(r, r + 1) for r in range(k)] if apart else [(0, k)]
    blocks = -(-d // _BLOCK)
    wanted = -(-torch.get_num_threads() * per_thread // max(1, batch * len(spans)))
    groups = min(blocks, wanted)
    edges = [min(d, i * blocks // groups * _BLOCK) for i in range(groups + 1)]
    return [(b, r0, r1, edges[i], edges[i + 1], i) for i in range(groups) for b in range(batch) for r0, r1 in spans]


@functools.lru_cache(maxsize=1)
def _kernels() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The compiled forward and backward tasks and the test of orders, cached on disk; the text is in the key.

    Numba looks for changes only in the file of the function that it caches; the number is in the closure, and with
    it in the key.
    """
    here = Path(__file__).parent
    text = b"".join((here / name).read_bytes() for name in ("simd.py", "kernels.py"))
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

    return _compiled(forward_entry), _compiled(backward_entry), _compiled(is_permutation)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        compiled: Callable[..., Any] = njit(nogil=True, cache=True)(function)
    except RuntimeError as error:
        _log.warning("the scan is compiled anew in every process (%s); set NUMBA_CACHE_DIR to a folder", error)
        compiled = njit(nogil=True)(function)
    return compiled


def _check(orders: Tensor | None) -> None:
    # A position outside the map would be read and written outside the tensors.
    if orders is not None and not _kernels()[2](_flat_orders(orders), *orders.shape):
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
        return None, None, B.contiguous(), C.contiguous()
    batch, length, k, d = delta.shape
    ones = B.new_ones(batch, length, k, B.shape[-1])
    fixed = [x.contiguous() if x.dim() == 3 else x.new_ones(k, d, x.shape[-1]) for x in (B, C)]
    rows = [ones if x.dim() == 3 else x.contiguous() for x in (B, C)]
    return fixed[0], fixed[1], rows[0], rows[1]


def _whole(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if x is None else x.contiguous()


def _flat(*tensors: Tensor) -> list[np.ndarray]:
    """The memory of each tensor from its first element to its last, as a one-dimensional array: one compilation."""
    arrays = []
    for x in tensors:
        span = 1 + sum((s - 1) * t for s, t in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
        arrays.append(x.detach().as_strided((span,), (1,)).numpy())
    return arrays


def _flat_orders(orders: Tensor | None) -> np.ndarray:
    return np.empty(0, np.int64) if orders is None else orders.contiguous().view(-1).numpy()


def _geometry(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    y: Tensor,
    du: Tensor,
    ddelta: Tensor,
    orders: Tensor | None,
    delta_softplus: bool,
    merge: bool,
    save: bool,
) -> Geometry:
    strides: list[int] = []
    for x in (u, delta, y, du, ddelta):
        b, length, k, d = x.stride()
        strides += [b, length, 0 if x.shape[2] == 1 else k, d]
    k, d, n = A.shape
    switches = [int(delta_softplus), int(orders is not None), int(merge), int(save)]
    return Geometry(delta.shape[1], k, d, n, *switches, *strides)
