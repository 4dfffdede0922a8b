"""How chunks come out of the arrays of the scan into scratch and back: what the kernels read and write with.

Legend as in `kernels`: w lanes of a unit, `x_tw` is scratch of (CHUNK, w), `x_nw` of (states, w); everything is flat.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import extending

from scanfuse.ops.selective_scan.simd import ONE, add_to, load, store, transpose, width

__all__ = [
    "CHUNK",
    "column",
    "gather",
    "jit",
    "keep",
    "lane_row",
    "places",
    "put",
    "recall",
    "scratch",
    "scratch_for",
    "uncolumn",
]

CHUNK = 64

jit: Callable[..., Any] = njit(nogil=True, boundscheck=False, error_model="numpy")


@jit
def scratch(like: Any, rows: int) -> Any:
    """rows * w elements on a 64-byte boundary: a load that straddles two cache lines costs two."""
    size = rows * width(like)
    buffer = np.empty(size + 16, like.dtype)
    skip = (64 - buffer.ctypes.data % 64) % 64 // like.itemsize
    return buffer[skip : skip + size]


def scratch_for(fixed: Any, like: Any, rows: int) -> Any:
    """Scratch if `fixed` is an array, else None."""
    return None if fixed is None else scratch(like, rows)


@extending.overload(scratch_for)
def _typed_scratch_for(fixed: Any, like: Any, rows: Any) -> Callable[..., Any]:
    # None has to be a matter of types, not of values: that is what lets numba drop the dead branches.
    def absent(fixed: Any, like: Any, rows: Any) -> Any:
        return None

    def present(fixed: Any, like: Any, rows: Any) -> Any:
        return scratch(like, rows)

    return absent if isinstance(fixed, types.NoneType) else present


@jit
def places(
    g: Any, orders: Any, batch: int, route: int, start: int, steps: int, positions: Any, rows_b: Any, rows_c: Any
) -> None:
    """Of every step of a chunk the position it reads and the first element of its rows in B and C."""
    for t in range(steps):
        position = orders[route * g.length + start + t] if g.ordered else start + t
        positions[t] = position
        rows_b[t] = batch * g.B_b + position * g.B_l + route * g.B_k
        rows_c[t] = batch * g.C_b + position * g.C_l + route * g.C_k


@jit
def gather(
    array: Any,
    base: int,
    stride_l: int,
    stride_d: int,
    positions: Any,
    steps: int,
    lanes: int,
    ordered: int,
    x_tw: Any,
) -> None:
    w = width(x_tw)
    done = 0
    if lanes == w and stride_d == 1:
        for t in range(steps):
            store(x_tw, t * w, load(array, base + positions[t] * stride_l, ONE))
        done = steps
    elif lanes == w and stride_l == 1 and not ordered:
        while done + w <= steps:
            transpose(array, base + positions[done], stride_d, x_tw, done * w, w)
            done += w
    for t in range(done, steps):
        at = base + positions[t] * stride_l
        for c in range(lanes):
            x_tw[t * w + c] = array[at + c * stride_d]
        for c in range(lanes, w):
            x_tw[t * w + c] = 0


@jit
def put(
    x_tw: Any,
    array: Any,
    base: int,
    stride_l: int,
    stride_d: int,
    positions: Any,
    steps: int,
    lanes: int,
    ordered: int,
    add: bool,
) -> None:
    w = width(x_tw)
    done = 0
    if lanes == w and stride_d == 1:
        if add:
            for t in range(steps):
                add_to(array, base + positions[t] * stride_l, load(x_tw, t * w, ONE))
        else:
            for t in range(steps):
                store(array, base + positions[t] * stride_l, load(x_tw, t * w, ONE))
        done = steps
    elif lanes == w and stride_l == 1 and not ordered and not add:
        while done + w <= steps:
            transpose(x_tw, done * w, w, array, base + positions[done], stride_d)
            done += w
    for t in range(done, steps):
        at = base + positions[t] * stride_l
        for c in range(lanes):
            array[at + c * stride_d] = array[at + c * stride_d] + x_tw[t * w + c] if add else x_tw[t * w + c]


@jit
def column(array: Any, base: int, states: int, lanes: int, scale: float, x_nw: Any) -> None:
    """(channel, state) rows of an array into (state, lane); absent lanes are 0."""
    w = width(x_nw)
    for n in range(states):
        for c in range(w):
            x_nw[n * w + c] = array[base + c * states + n] * scale if c < lanes else 0


@jit
def uncolumn(x_nw: Any, array: Any, base: int, states: int, lanes: int) -> None:
    w = width(x_nw)
    for c in range(lanes):
        for n in range(states):
            array[base + c * states + n] = x_nw[n * w + c]


@jit
def lane_row(array: Any, base: int, lanes: int, x_w: Any) -> None:
    for c in range(width(x_w)):
        x_w[c] = array[base + c] if array.size and c < lanes else 0


@jit
def keep(h_nw: Any, at: int, states_array: Any, base: int, states: int, channels: int, lanes: int) -> None:
    w = width(h_nw)
    for n in range(states):
        if lanes == w:
            store(states_array, base + n * channels, load(h_nw, at + n * w, ONE))
        else:
            for c in range(lanes):
                states_array[base + n * channels + c] = h_nw[at + n * w + c]


@jit
def recall(states_array: Any, base: int, states: int, channels: int, lanes: int, h_nw: Any) -> None:
    w = width(h_nw)
    for n in range(states):
        if lanes == w:
            store(h_nw, n * w, load(states_array, base + n * channels, ONE))
        else:
            for c in range(w):
                h_nw[n * w + c] = states_array[base + n * channels + c] if c < lanes else 0
