"""The convolution along routes for one sample and a range of channels, on flat arrays and whole SIMD registers.

Shapes behind the flat arrays: x, dx (batch, L, d); weight (k, width, d), the channels innermost; bias (k, d);
orders (k, L); y, dy (batch, L, k, d). The gradients of weight and bias have a leading batch axis: every sample adds
to its own, so that no two threads write to one place. v is the value before the SiLU; the backward computes it again.
"""

import math
from typing import Any, NamedTuple

from numba import njit

from scanfuse.ops.selective_scan.simd import FOUR, ONE, add_to, fma, load, slope, splat, store, width

__all__ = ["Sizes", "backward_task", "forward_task"]

jit: Any = njit(nogil=True, boundscheck=False, error_model="numpy")


class Sizes(NamedTuple):
    """L, k, d and the taps of the convolution."""

    length: int
    routes: int
    d: int
    taps: int


@jit
def _value(
    s: Any, x: Any, weight: Any, bias: Any, orders: Any, sample: int, k: int, t: int, c: int, tile: Any
) -> Any:
    v = load(bias, k * s.d + c, tile)
    for j in range(min(s.taps, t + 1)):
        q = orders[k * s.length + t - j]
        w = load(weight, (k * s.taps + s.taps - 1 - j) * s.d + c, tile)
        v = fma(w, load(x, (sample * s.length + q) * s.d + c, tile), v)
    return v


@jit
def _value_of_one(s: Any, x: Any, weight: Any, bias: Any, orders: Any, sample: int, k: int, t: int, c: int) -> Any:
    v = bias[k * s.d + c]
    for j in range(min(s.taps, t + 1)):
        q = orders[k * s.length + t - j]
        v += weight[(k * s.taps + s.taps - 1 - j) * s.d + c] * x[(sample * s.length + q) * s.d + c]
    return v


@jit
def forward_task(
    s: Any, x: Any, weight: Any, bias: Any, orders: Any, y: Any, sample: int, first: int, end: int
) -> None:
    """y for one sample and the channels first..end-1."""
    w = width(x)
    for k in range(s.routes):
        for t in range(s.length):
            at = ((sample * s.length + orders[k * s.length + t]) * s.routes + k) * s.d
            c = first
            while c + 4 * w <= end:
                v = _value(s, x, weight, bias, orders, sample, k, t, c, FOUR)
                store(y, at + c, v * slope(v))
                c += 4 * w
            while c + w <= end:
                v1 = _value(s, x, weight, bias, orders, sample, k, t, c, ONE)
                store(y, at + c, v1 * slope(v1))
                c += w
            while c < end:
                v0 = _value_of_one(s, x, weight, bias, orders, sample, k, t, c)
                y[at + c] = v0 / (1 + math.exp(-v0))
                c += 1


@jit
def _push(
    s: Any,
    x: Any,
    weight: Any,
    bias: Any,
    orders: Any,
    dy: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    sample: int,
    k: int,
    t: int,
    c: int,
    at: int,
    tile: Any,
) -> None:
    """The gradients that one position of y sends to the positions under its taps."""
    v = _value(s, x, weight, bias, orders, sample, k, t, c, tile)
    sigmoid = slope(v)
    minus_v = v * splat(x, -1.0, tile)
    # d silu / dv = sigmoid (1 + v (1 - sigmoid))
    dv = load(dy, at + c, tile) * sigmoid * (fma(minus_v, sigmoid, v) + splat(x, 1.0, tile))
    route = sample * s.routes + k
    add_to(dbias, route * s.d + c, dv)
    for j in range(min(s.taps, t + 1)):
        q = (sample * s.length + orders[k * s.length + t - j]) * s.d + c
        tap = s.taps - 1 - j
        add_to(dx, q, dv * load(weight, (k * s.taps + tap) * s.d + c, tile))
        add_to(dweight, (route * s.taps + tap) * s.d + c, dv * load(x, q, tile))


@jit
def _push_one(
    s: Any,
    x: Any,
    weight: Any,
    bias: Any,
    orders: Any,
    dy: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    sample: int,
    k: int,
    t: int,
    c: int,
    at: int,
) -> None:
    v = _value_of_one(s, x, weight, bias, orders, sample, k, t, c)
    sigmoid = 1 / (1 + math.exp(-v))
    dv = dy[at + c] * sigmoid * (1 + v * (1 - sigmoid))
    route = sample * s.routes + k
    dbias[route * s.d + c] += dv
    for j in range(min(s.taps, t + 1)):
        q = (sample * s.length + orders[k * s.length + t - j]) * s.d + c
        tap = s.taps - 1 - j
        dx[q] += dv * weight[(k * s.taps + tap) * s.d + c]
        dweight[(route * s.taps + tap) * s.d + c] += dv * x[q]


@jit
def backward_task(
    s: Any,
    x: Any,
    weight: Any,
    bias: Any,
    orders: Any,
    dy: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    sample: int,
    first: int,
    end: int,
) -> None:
    """Adds one sample's gradients for the channels first..end-1 to dx, dweight and dbias, which start as zeros."""
    w = width(x)
    for k in range(s.routes):
        for t in range(s.length):
            at = ((sample * s.length + orders[k * s.length + t]) * s.routes + k) * s.d
            c = first
            while c + 4 * w <= end:
                _push(s, x, weight, bias, orders, dy, dx, dweight, dbias, sample, k, t, c, at, FOUR)
                c += 4 * w
            while c + w <= end:
                _push(s, x, weight, bias, orders, dy, dx, dweight, dbias, sample, k, t, c, at, ONE)
                c += w
            while c < end:
                _push_one(s, x, weight, bias, orders, dy, dx, dweight, dbias, sample, k, t, c, at)
                c += 1
