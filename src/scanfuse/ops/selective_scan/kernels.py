"""The compiled part of the cpu backend: one task is some channel blocks of some routes of one sample.

Legend: w lanes of a unit (16 float32 with AVX-512, else 8), one channel a lane; a block is w neighbouring channels;
a chunk is `CHUNK` steps. `x_tw` is scratch of (CHUNK, w), `x_nw` of (states, w). Everything is flat, indices count
elements. The states go in tiles of four (or one) with the steps as the inner loop, so that the states of a tile stay
in registers while a chunk passes:

    gather delta, u of a chunk -> dt = softplus(delta + bias), x = dt u -> per tile, per step: h, y -> put y back

B and C are (batch, L, k, n) with the states of a position side by side. `fixed_b`, `fixed_c` (k, d, n), both or
neither, are factors of them that do not change over time; with None in their place numba leaves them out.
"""

from typing import Any, NamedTuple

import numpy as np

from scanfuse.ops.selective_scan.chunks import (
    CHUNK,
    column,
    gather,
    jit,
    keep,
    lane_row,
    places,
    put,
    recall,
    scratch,
    scratch_for,
    uncolumn,
)
from scanfuse.ops.selective_scan.simd import (
    FOUR,
    ONE,
    add_to,
    exp2,
    exp2_of_negative,
    fma,
    fold,
    lane_sums,
    load,
    repeat,
    slope,
    softplus,
    splat,
    spread,
    store,
    width,
)

__all__ = ["CHUNK", "Geometry", "backward_task", "forward_task", "is_permutation"]

GROUP = 8
"""Blocks of channels that the forward takes through a chunk before the next chunk: they lie side by side in memory,
so that a row is read whole while it is in the cache."""
LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453


class Geometry(NamedTuple):
    """Sizes and strides in elements; a stride of u's or y's route axis is 0 where the routes share it."""

    length: int
    routes: int
    channels: int
    states: int
    softplus: int
    ordered: int
    merge: int
    save: int
    groups: int
    B_b: int
    B_l: int
    B_k: int
    C_b: int
    C_l: int
    C_k: int
    u_b: int
    u_l: int
    u_k: int
    u_d: int
    delta_b: int
    delta_l: int
    delta_k: int
    delta_d: int
    y_b: int
    y_l: int
    y_k: int
    y_d: int
    du_b: int
    du_l: int
    du_k: int
    du_d: int
    ddelta_b: int
    ddelta_l: int
    ddelta_k: int
    ddelta_d: int


@jit
def _none_positive(x_nw: Any) -> bool:
    """Whether all values are 0 or below; NaN is not."""
    positive = 0
    for i in range(x_nw.size):
        positive += not x_nw[i] <= 0
    return positive == 0


@jit
def _advance(
    tile: Any, decaying: Any, at: int, n: int, steps: int, rows_b: Any, rows_c: Any, B: Any, C: Any, b_nw: Any,
    c_nw: Any, a_nw: Any, dt_tw: Any, x_tw: Any, h_nw: Any, y_tw: Any,
) -> None:  # fmt: skip
    """Takes the states of one tile through a chunk: h = 2^(dt a) h + x B, y += C . h.

    decaying: a tuple where no dt a is positive, which spares a comparison of each; None where it may be.
    at: where the block begins in the arrays of (states, w).
    """
    w = width(dt_tw)
    a = load(a_nw, at + n * w, tile)
    h = load(h_nw, at + n * w, tile)
    for t in range(steps):
        exponent = repeat(load(dt_tw, t * w, ONE), tile) * a
        decay = exp2(exponent) if decaying is None else exp2_of_negative(exponent)
        b = spread(B, rows_b[t] + n, tile)
        c = spread(C, rows_c[t] + n, tile)
        if b_nw is not None:
            b = b * load(b_nw, at + n * w, tile)
            c = c * load(c_nw, at + n * w, tile)
        h = fma(decay, h, repeat(load(x_tw, t * w, ONE), tile) * b)
        add_to(y_tw, t * w, fold(h * c, tile))
    store(h_nw, at + n * w, h)


@jit
def _retreat(
    tile: Any, n: int, steps: int, rows_b: Any, rows_c: Any, B: Any, C: Any, b_nw: Any, c_nw: Any, a_nw: Any,
    dt_tw: Any, x_tw: Any, h_nw: Any, dy_tw: Any, carry_nw: Any, decay_tn: Any, h_tn: Any, da_nw: Any, db_nw: Any,
    dc_nw: Any, dx_tw: Any, ddt_tw: Any, sums: Any, sum_rows: Any,
) -> None:  # fmt: skip
    """Redoes the states of one tile in a chunk from the first one, then walks back through it.

    carry_nw: in, d loss / d h after the chunk as far as later steps cause it; out, the same before the chunk.
    ddt_tw gathers d loss / d dt as far as the decay causes it, divided by ln 2; dx_tw d loss / d x.
    """
    w = width(dt_tw)
    m = w * len(tile)
    a = load(a_nw, n * w, tile)
    h = load(h_nw, n * w, tile)
    store(h_tn, 0, h)
    for t in range(steps):
        decay = exp2(repeat(load(dt_tw, t * w, ONE), tile) * a)
        b = spread(B, rows_b[t] + n, tile)
        if b_nw is not None:
            b = b * load(b_nw, n * w, tile)
        h = fma(decay, h, repeat(load(x_tw, t * w, ONE), tile) * b)
        store(decay_tn, t * m, decay)
        store(h_tn, (t + 1) * m, h)
    carry = load(carry_nw, n * w, tile)
    da = splat(a_nw, 0.0, tile)
    db = splat(a_nw, 0.0, tile)
    dc = splat(a_nw, 0.0, tile)
    for back in range(steps):
        t = steps - 1 - back
        b = spread(B, rows_b[t] + n, tile)
        c = spread(C, rows_c[t] + n, tile)
        if b_nw is not None:
            b = b * load(b_nw, n * w, tile)
            c = c * load(c_nw, n * w, tile)
        dy = repeat(load(dy_tw, t * w, ONE), tile)
        dh = fma(c, dy, carry)
        carry = dh * load(decay_tn, t * m, tile)
        decayed = carry * load(h_tn, t * m, tile)
        da = fma(decayed, repeat(load(dt_tw, t * w, ONE), tile), da)
        add_to(ddt_tw, t * w, fold(decayed * a, tile))
        add_to(dx_tw, t * w, fold(dh * b, tile))
        db_t = dh * repeat(load(x_tw, t * w, ONE), tile)
        dc_t = dy * load(h_tn, (t + 1) * m, tile)
        if b_nw is not None:
            db = fma(db_t, spread(B, rows_b[t] + n, tile), db)
            dc = fma(dc_t, spread(C, rows_c[t] + n, tile), dc)
            db_t = db_t * load(b_nw, n * w, tile)
            dc_t = dc_t * load(c_nw, n * w, tile)
        add_to(sums, sum_rows[t] + 2 * n, lane_sums(db_t, dc_t, tile))
    store(carry_nw, n * w, carry)
    add_to(da_nw, n * w, da)
    if b_nw is not None:
        add_to(db_nw, n * w, db)
        add_to(dc_nw, n * w, dc)


@jit
def forward_task(
    g: Any, u: Any, delta: Any, A: Any, B: Any, C: Any, fixed_b: Any, fixed_c: Any, D: Any, bias: Any, orders: Any,
    initial: Any, y: Any, last: Any, states: Any, batch: int, first_route: int, end_route: int, first: int, end: int,
) -> None:  # fmt: skip
    """Channels first..end-1 (a multiple of w, but for the last) of some routes of one sample."""
    w = width(u)
    dt_tw, x_tw, y_tw = scratch(u, CHUNK), scratch(u, CHUNK), scratch(u, CHUNK)
    a_all, h_all = scratch(u, GROUP * g.states), scratch(u, GROUP * g.states)
    b_all, c_all = scratch_for(fixed_b, u, GROUP * g.states), scratch_for(fixed_c, u, GROUP * g.states)
    d_all, bias_all, decaying = scratch(u, GROUP), scratch(u, GROUP), np.empty(GROUP, np.bool_)
    positions, rows_b, rows_c = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
    chunks = (g.length + CHUNK - 1) // CHUNK
    fours = g.states // 4 * 4
    size = g.states * w
    # Where time is innermost the rows of a block are long already.
    together = (GROUP if g.u_d == 1 else 1) * w
    for group in range(first, end, together):
        blocks = (min(together, end - group) + w - 1) // w
        for route in range(first_route, end_route):
            for block in range(blocks):
                channel = group + block * w
                lanes = min(w, end - channel)
                lane_base = route * g.channels + channel
                mine = slice(block * size, (block + 1) * size)
                column(A, lane_base * g.states, g.states, lanes, LOG2E, a_all[mine])
                if fixed_b is not None:
                    column(fixed_b, lane_base * g.states, g.states, lanes, 1.0, b_all[mine])
                    column(fixed_c, lane_base * g.states, g.states, lanes, 1.0, c_all[mine])
                lane_row(D, lane_base, lanes, d_all[block * w : (block + 1) * w])
                lane_row(bias, lane_base, lanes, bias_all[block * w : (block + 1) * w])
                if initial.size:
                    state_base = (batch * g.routes * g.channels + lane_base) * g.states
                    column(initial, state_base, g.states, lanes, 1.0, h_all[mine])
                else:
                    h_all[mine] = 0
                decaying[block] = g.softplus and _none_positive(a_all[mine])
            for chunk in range(chunks):
                start = chunk * CHUNK
                steps = min(CHUNK, g.length - start)
                places(g, orders, batch, route, start, steps, positions, rows_b, rows_c)
                for block in range(blocks):
                    channel = group + block * w
                    lanes = min(w, end - channel)
                    at = block * size
                    skip, shift = load(d_all, block * w, ONE), load(bias_all, block * w, ONE)
                    u_base = batch * g.u_b + route * g.u_k + channel * g.u_d
                    delta_base = batch * g.delta_b + route * g.delta_k + channel * g.delta_d
                    y_base = batch * g.y_b + route * g.y_k + channel * g.y_d
                    gather(delta, delta_base, g.delta_l, g.delta_d, positions, steps, lanes, g.ordered, dt_tw)
                    gather(u, u_base, g.u_l, g.u_d, positions, steps, lanes, g.ordered, x_tw)
                    for t in range(steps):
                        dt = load(dt_tw, t * w, ONE) + shift
                        if g.softplus:
                            dt = softplus(dt)
                        x = load(x_tw, t * w, ONE)
                        store(y_tw, t * w, skip * x)
                        store(x_tw, t * w, dt * x)
                        store(dt_tw, t * w, dt)
                    if g.save:
                        base = ((batch * g.routes + route) * chunks + chunk) * g.states * g.channels + channel
                        keep(h_all, at, states, base, g.states, g.channels, lanes)
                    if decaying[block]:
                        for n in range(0, fours, 4):
                            _advance(
                                FOUR, ONE, at, n, steps, rows_b, rows_c, B, C, b_all, c_all, a_all, dt_tw, x_tw,
                                h_all, y_tw,
                            )  # fmt: skip
                        for n in range(fours, g.states):
                            _advance(
                                ONE, ONE, at, n, steps, rows_b, rows_c, B, C, b_all, c_all, a_all, dt_tw, x_tw,
                                h_all, y_tw,
                            )  # fmt: skip
                    else:
                        for n in range(0, fours, 4):
                            _advance(
                                FOUR, None, at, n, steps, rows_b, rows_c, B, C, b_all, c_all, a_all, dt_tw, x_tw,
                                h_all, y_tw,
                            )  # fmt: skip
                        for n in range(fours, g.states):
                            _advance(
                                ONE, None, at, n, steps, rows_b, rows_c, B, C, b_all, c_all, a_all, dt_tw, x_tw,
                                h_all, y_tw,
                            )  # fmt: skip
                    add = g.merge and route > 0
                    put(y_tw, y, y_base, g.y_l, g.y_d, positions, steps, lanes, g.ordered, add)
            for block in range(blocks):
                channel = group + block * w
                state_base = ((batch * g.routes + route) * g.channels + channel) * g.states
                h_nw = h_all[block * size : (block + 1) * size]
                uncolumn(h_nw, last, state_base, g.states, min(w, end - channel))


@jit
def backward_task(
    g: Any, dy: Any, dlast: Any, states: Any, u: Any, delta: Any, A: Any, B: Any, C: Any, fixed_b: Any, fixed_c: Any,
    D: Any, bias: Any, orders: Any, du: Any, ddelta: Any, dA: Any, sums: Any, dfixed_b: Any, dfixed_c: Any, dD: Any,
    dbias: Any, dinitial: Any, batch: int, first_route: int, end_route: int, first: int, end: int, group: int,
) -> None:  # fmt: skip
    """The gradients of what `forward_task` computes for the same channels and routes.

    dA, dfixed_b, dfixed_c, dinitial (batch, k, d, n), dD, dbias (batch, k, d): per sample, for the caller to add up.
    sums (batch, groups, k, L, 2n): this task sums into its group, row by position; a tile's columns are dB, then dC.
    """
    w = width(u)
    dt_tw, x_tw, u_tw, dy_tw = scratch(u, CHUNK), scratch(u, CHUNK), scratch(u, CHUNK), scratch(u, CHUNK)
    slope_tw, dx_tw, ddt_tw = scratch(u, CHUNK), scratch(u, CHUNK), scratch(u, CHUNK)
    decay_tn, h_tn = scratch(u, CHUNK * 4), scratch(u, CHUNK * 4 + 4)
    a_nw, h_nw, carry_nw, da_nw = (
        scratch(u, g.states),
        scratch(u, g.states),
        scratch(u, g.states),
        scratch(u, g.states),
    )
    b_nw, c_nw = scratch_for(fixed_b, u, g.states), scratch_for(fixed_c, u, g.states)
    db_nw, dc_nw = scratch(u, g.states), scratch(u, g.states)
    d_w, bias_w = scratch(u, 1), scratch(u, 1)
    positions, rows_b, rows_c = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
    sum_rows = np.empty(CHUNK, np.int64)
    chunks = (g.length + CHUNK - 1) // CHUNK
    fours = g.states // 4 * 4
    sums_base = (batch * g.groups + group) * g.routes * g.length
    for i in range(
        (sums_base + first_route * g.length) * 2 * g.states, (sums_base + end_route * g.length) * 2 * g.states
    ):
        sums[i] = 0
    for channel in range(first, end, w):
        lanes = min(w, end - channel)
        for route in range(first_route, end_route):
            lane_base = route * g.channels + channel
            row_base = batch * g.routes * g.channels + lane_base
            state_base = row_base * g.states
            column(A, lane_base * g.states, g.states, lanes, LOG2E, a_nw)
            if fixed_b is not None:
                column(fixed_b, lane_base * g.states, g.states, lanes, 1.0, b_nw)
                column(fixed_c, lane_base * g.states, g.states, lanes, 1.0, c_nw)
            lane_row(D, lane_base, lanes, d_w)
            lane_row(bias, lane_base, lanes, bias_w)
            if dlast.size:
                column(dlast, state_base, g.states, lanes, 1.0, carry_nw)
            else:
                carry_nw[:] = 0
            da_nw[:] = 0
            db_nw[:] = 0
            dc_nw[:] = 0
            skip, shift = load(d_w, 0, ONE), load(bias_w, 0, ONE)
            u_base = batch * g.u_b + route * g.u_k + channel * g.u_d
            delta_base = batch * g.delta_b + route * g.delta_k + channel * g.delta_d
            dy_base = batch * g.y_b + route * g.y_k + channel * g.y_d
            du_base = batch * g.du_b + route * g.du_k + channel * g.du_d
            ddelta_base = batch * g.ddelta_b + route * g.ddelta_k + channel * g.ddelta_d
            dskip, dshift = splat(u, 0.0, ONE), splat(u, 0.0, ONE)
            for back in range(chunks):
                chunk = chunks - 1 - back
                start = chunk * CHUNK
                steps = min(CHUNK, g.length - start)
                places(g, orders, batch, route, start, steps, positions, rows_b, rows_c)
                for t in range(steps):
                    sum_rows[t] = (sums_base + route * g.length + positions[t]) * 2 * g.states
                gather(delta, delta_base, g.delta_l, g.delta_d, positions, steps, lanes, g.ordered, dt_tw)
                gather(u, u_base, g.u_l, g.u_d, positions, steps, lanes, g.ordered, u_tw)
                gather(dy, dy_base, g.y_l, g.y_d, positions, steps, lanes, g.ordered, dy_tw)
                for t in range(steps):
                    dt = load(dt_tw, t * w, ONE) + shift
                    if g.softplus:
                        store(slope_tw, t * w, slope(dt))
                        dt = softplus(dt)
                    store(x_tw, t * w, dt * load(u_tw, t * w, ONE))
                    store(dt_tw, t * w, dt)
                    store(dx_tw, t * w, splat(u, 0.0, ONE))
                    store(ddt_tw, t * w, splat(u, 0.0, ONE))
                base = ((batch * g.routes + route) * chunks + chunk) * g.states * g.channels + channel
                recall(states, base, g.states, g.channels, lanes, h_nw)
                for n in range(0, fours, 4):
                    _retreat(
                        FOUR, n, steps, rows_b, rows_c, B, C, b_nw, c_nw, a_nw, dt_tw, x_tw, h_nw, dy_tw, carry_nw,
                        decay_tn, h_tn, da_nw, db_nw, dc_nw, dx_tw, ddt_tw, sums, sum_rows,
                    )  # fmt: skip
                for n in range(fours, g.states):
                    _retreat(
                        ONE, n, steps, rows_b, rows_c, B, C, b_nw, c_nw, a_nw, dt_tw, x_tw, h_nw, dy_tw, carry_nw,
                        decay_tn, h_tn, da_nw, db_nw, dc_nw, dx_tw, ddt_tw, sums, sum_rows,
                    )  # fmt: skip
                dskip_chunk, dshift_chunk = splat(u, 0.0, ONE), splat(u, 0.0, ONE)
                for t in range(steps):
                    u_t, dy_t, dx = load(u_tw, t * w, ONE), load(dy_tw, t * w, ONE), load(dx_tw, t * w, ONE)
                    ddt = fma(dx, u_t, load(ddt_tw, t * w, ONE) * splat(u, LN2, ONE))
                    if g.softplus:
                        ddt = ddt * load(slope_tw, t * w, ONE)
                    dshift_chunk = dshift_chunk + ddt
                    dskip_chunk = fma(dy_t, u_t, dskip_chunk)
                    store(u_tw, t * w, fma(dx, load(dt_tw, t * w, ONE), skip * dy_t))
                    store(dt_tw, t * w, ddt)
                dskip, dshift = dskip + dskip_chunk, dshift + dshift_chunk
                add = g.du_k == 0 and route > 0
                put(u_tw, du, du_base, g.du_l, g.du_d, positions, steps, lanes, g.ordered, add)
                put(dt_tw, ddelta, ddelta_base, g.ddelta_l, g.ddelta_d, positions, steps, lanes, g.ordered, False)
            uncolumn(da_nw, dA, state_base, g.states, lanes)
            uncolumn(carry_nw, dinitial, state_base, g.states, lanes)
            if fixed_b is not None:
                uncolumn(db_nw, dfixed_b, state_base, g.states, lanes)
                uncolumn(dc_nw, dfixed_c, state_base, g.states, lanes)
            store(d_w, 0, dskip)
            store(bias_w, 0, dshift)
            for c in range(lanes):
                dD[row_base + c] = d_w[c]
                dbias[row_base + c] = bias_w[c]


@jit
def is_permutation(orders: Any, routes: int, length: int) -> bool:
    """Whether every row of (routes, length) holds 0..length-1, once each."""
    seen = np.empty(length, np.uint8)
    for route in range(routes):
        seen[:] = 0
        for t in range(length):
            position = orders[route * length + t]
            if position < 0 or position >= length or seen[position]:
                return False
            seen[position] = 1
    return True
