"""What surrounds the kernels of the cpu backend: weights brought in, their gradients handed out.

Compiled, and not left to torch: torch's copies and sums are parallel, and for a while after each of them the idle
threads of OpenMP keep the processors busy that the scan's own threads need.
"""

from collections.abc import Callable
from typing import Any

from numba import njit

from scanfuse.ops.selective_scan.simd import transpose, width

__all__ = ["add_groups", "rows_of"]

jit: Callable[..., Any] = njit(nogil=True, boundscheck=False, error_model="numpy")


@jit
def rows_of(x: Any, stride_b: int, stride_k: int, stride_n: int, sizes: Any, target: Any) -> int:
    """(batch, k, n, L) with the last axis side by side, into target (batch, L, k, n) contiguous."""
    batch, length, k, n = sizes
    w = width(x)
    for b in range(batch):
        for r in range(k):
            source, goal = b * stride_b + r * stride_k, (b * length * k + r) * n
            whole = length // w * w
            for t in range(0, whole, w):
                for s in range(0, n // w * w, w):
                    transpose(x, source + s * stride_n + t, stride_n, target, goal + t * k * n + s, k * n)
            for t in range(length):
                for s in range(n // w * w if t < whole else 0, n):
                    target[goal + t * k * n + s] = x[source + s * stride_n + t]
    return 0


@jit
def add_groups(g: Any, batches: int, sums: Any, dB: Any, dC: Any, stride_k: int, stride_l: int, stride_n: int) -> int:
    """The sums of all groups, in their order, into dB and dC (batch, L, k, n) of these strides, batch outermost."""
    fours = g.states // 4 * 4
    size = g.routes * g.length * 2 * g.states
    for b in range(batches):
        for r in range(g.routes):
            for n in range(g.states):
                column, gap = (n // 4 * 8 + n % 4, 4) if n < fours else (2 * n, 1)
                for t in range(g.length):
                    at = b * g.groups * size + (r * g.length + t) * 2 * g.states + column
                    db, dc = sums[at], sums[at + gap]
                    for group in range(1, g.groups):
                        db += sums[at + group * size]
                        dc += sums[at + group * size + gap]
                    goal = b * g.routes * g.length * g.states + r * stride_k + t * stride_l + n * stride_n
                    dB[goal] = db
                    dC[goal] = dc
    return 0
