"""The Triton kernels of the scan; `triton.py` explains the plan and launches them.

Axes of a register block are (states, channels): channels are lanes, so sums over states stay within a lane. SUB
steps at a time, all loads come first, for none to wait for the arithmetic of the step before. `rate` is A log2(e),
so that exp(dt A) = 2^(dt rate). Channels beyond d, states beyond n and steps beyond the end read zeros and write
nothing.
"""
# Triton compiles these functions, in a language of its own: parameters without annotation are run-time values, the
# tuples grow by + as static_range unrolls.
# mypy: ignore-errors
# ruff: noqa: RUF005

import triton
import triton.language as tl

__all__ = ["backward", "carry", "ends", "forward", "gradient_ends"]

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _softplus(x, SOFTPLUS: tl.constexpr):
    """softplus(x) and its slope. log1p(z) = 2 atanh(z / (2 + z)), since log(1 + z) loses small z."""
    if not SOFTPLUS:
        return x, x * 0.0 + 1.0
    z = tl.exp2(tl.abs(x) * -_LOG2E)
    if x.dtype == tl.float64:
        w = 1.0 + z
        log1p = tl.where(w == 1.0, z, tl.log(w) * z / tl.where(w == 1.0, 1.0, w - 1.0))
    else:
        s = z / (2.0 + z)
        q = s * s
        p = 2.0 / 11 + q * (2.0 / 13)
        p = 2.0 / 7 + q * (2.0 / 9 + q * p)
        log1p = s * (2.0 + q * (2.0 / 3 + q * (2.0 / 5 + q * p)))
    slope = tl.where(x >= 0, 1.0, z) / (1.0 + z)
    return tl.maximum(x, 0.0) + log1p, slope


@triton.jit
def _place(k, d, chunks, LANES: tl.constexpr):
    """Which batch element, route, channel block and chunk this program has."""
    rest = tl.program_id(0).to(tl.int64)
    chunk = rest % chunks
    rest = rest // chunks
    blocks = tl.cdiv(d, LANES)
    block = rest % blocks
    rest = rest // blocks
    return rest // k, rest % k, block, chunk


@triton.jit
def _fixed_weights(W, rc, n, mask, N, VARYING: tl.constexpr):
    value = 0.0
    if not VARYING:
        value = tl.load(W + rc[None, :] * N + n[:, None], mask=mask, other=0.0)
    return value


@triton.jit
def ends(
    u, delta, A, B, bias, orders, ends, totals,
    u_b, u_l, u_k, u_d, delta_b, delta_l, delta_k, delta_d,
    L, k, d, N, chunks,
    ROUTED: tl.constexpr, VARYING_B: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr, SUB: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """1. State after each chunk from a zero start (b, k, chunks, n, d) and its sum of dt (b, k, chunks, d)."""
    b, r, block, chunk = _place(k, d, chunks, LANES)
    c = block * LANES + tl.arange(0, LANES)
    n = tl.arange(0, STATES)
    cm = c < d
    nm = n < N
    mask = nm[:, None] & cm[None, :]
    rc = r * d + c
    rate = tl.load(A + rc[None, :] * N + n[:, None], mask=mask, other=0.0) * _LOG2E
    fixed_b = _fixed_weights(B, rc, n, mask, N, VARYING_B)
    shift = rate.sum(0) * 0.0
    if HAS_BIAS:
        shift = tl.load(bias + rc, mask=cm, other=0.0)
    u_base = u + b * u_b + r * u_k + c * u_d
    delta_base = delta + b * delta_b + r * delta_k + c * delta_d
    h = rate * 0.0
    total = shift * 0.0
    start = chunk * CHUNK
    stop = tl.minimum(start + CHUNK, L)
    for t0 in range(start, stop, SUB):
        positions = ()
        valids = ()
        us = ()
        xs = ()
        for i in tl.static_range(SUB):
            valid = t0 + i < stop
            if ROUTED:
                position = tl.load(orders + r * L + t0 + i, mask=valid, other=0)
            else:
                position = tl.where(valid, t0 + i, 0)
            inside = cm & valid
            positions = positions + (position,)
            valids = valids + (valid,)
            us = us + (tl.load(u_base + position * u_l, mask=inside, other=0.0),)
            xs = xs + (tl.load(delta_base + position * delta_l, mask=inside, other=0.0),)
        for i in tl.static_range(SUB):
            dt, _ = _softplus(xs[i] + shift, SOFTPLUS)
            dt = tl.where(valids[i], dt, 0.0)
            weight_b = fixed_b
            if VARYING_B:
                weight_b = tl.load(B + ((b * L + positions[i]) * k + r) * N + n, mask=nm, other=0.0)[:, None]
            h = tl.exp2(dt[None, :] * rate) * h + (dt * us[i])[None, :] * weight_b
            total += dt
    row = (b * k + r) * chunks + chunk
    tl.store(ends + row * N * d + n[:, None] * d + c[None, :], h, mask=mask)
    tl.store(totals + row * d + c, total, mask=cm)


@triton.jit
def carry(
    A, totals, states, first, last,
    k, d, N, chunks,
    REVERSE: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """2. From what each chunk adds to what each chunk starts with, in place; forward in time, or backward."""
    b, r, block, _ = _place(k, d, 1, LANES)
    c = block * LANES + tl.arange(0, LANES)
    n = tl.arange(0, STATES)
    mask = (n < N)[:, None] & (c < d)[None, :]
    rate = tl.load(A + (r * d + c)[None, :] * N + n[:, None], mask=mask, other=0.0) * _LOG2E
    small = (b * k + r) * d * N + c[None, :] * N + n[:, None]
    carried = tl.load(first + small, mask=mask, other=0.0)
    for step in range(0, chunks):
        chunk = step
        if REVERSE:
            chunk = chunks - 1 - step
        row = (b * k + r) * chunks + chunk
        pointers = states + row * N * d + n[:, None] * d + c[None, :]
        added = tl.load(pointers, mask=mask, other=0.0)
        total = tl.load(totals + row * d + c, mask=c < d, other=0.0)
        tl.store(pointers, carried, mask=mask)
        carried = tl.exp2(total[None, :] * rate) * carried + added
    tl.store(last + small, carried, mask=mask)


@triton.jit
def forward(
    u, delta, A, B, C, D, bias, orders, starts, y,
    u_b, u_l, u_k, u_d, delta_b, delta_l, delta_k, delta_d, y_b, y_l, y_k, y_d,
    L, k, d, N, chunks,
    ROUTED: tl.constexpr, VARYING_B: tl.constexpr, VARYING_C: tl.constexpr, HAS_D: tl.constexpr,
    HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr, SUB: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """3. y of each chunk from its start."""
    b, r, block, chunk = _place(k, d, chunks, LANES)
    c = block * LANES + tl.arange(0, LANES)
    n = tl.arange(0, STATES)
    cm = c < d
    nm = n < N
    mask = nm[:, None] & cm[None, :]
    rc = r * d + c
    rate = tl.load(A + rc[None, :] * N + n[:, None], mask=mask, other=0.0) * _LOG2E
    fixed_b = _fixed_weights(B, rc, n, mask, N, VARYING_B)
    fixed_c = _fixed_weights(C, rc, n, mask, N, VARYING_C)
    shift = rate.sum(0) * 0.0
    skip = shift
    if HAS_BIAS:
        shift = tl.load(bias + rc, mask=cm, other=0.0)
    if HAS_D:
        skip = tl.load(D + rc, mask=cm, other=0.0)
    u_base = u + b * u_b + r * u_k + c * u_d
    delta_base = delta + b * delta_b + r * delta_k + c * delta_d
    y_base = y + b * y_b + r * y_k + c * y_d
    h = tl.load(starts + ((b * k + r) * chunks + chunk) * N * d + n[:, None] * d + c[None, :], mask=mask, other=0.0)
    start = chunk * CHUNK
    stop = tl.minimum(start + CHUNK, L)
    for t0 in range(start, stop, SUB):
        positions = ()
        valids = ()
        us = ()
        xs = ()
        for i in tl.static_range(SUB):
            valid = t0 + i < stop
            if ROUTED:
                position = tl.load(orders + r * L + t0 + i, mask=valid, other=0)
            else:
                position = tl.where(valid, t0 + i, 0)
            inside = cm & valid
            positions = positions + (position,)
            valids = valids + (valid,)
            us = us + (tl.load(u_base + position * u_l, mask=inside, other=0.0),)
            xs = xs + (tl.load(delta_base + position * delta_l, mask=inside, other=0.0),)
        for i in tl.static_range(SUB):
            dt, _ = _softplus(xs[i] + shift, SOFTPLUS)
            weight_b = fixed_b
            if VARYING_B:
                weight_b = tl.load(B + ((b * L + positions[i]) * k + r) * N + n, mask=nm, other=0.0)[:, None]
            weight_c = fixed_c
            if VARYING_C:
                weight_c = tl.load(C + ((b * L + positions[i]) * k + r) * N + n, mask=nm, other=0.0)[:, None]
            h = tl.exp2(dt[None, :] * rate) * h + (dt * us[i])[None, :] * weight_b
            out = tl.sum(h * weight_c, 0) + skip * us[i]
            tl.store(y_base + positions[i] * y_l, out, mask=cm & valids[i])


@triton.jit
def gradient_ends(
    delta, A, C, bias, orders, dy, ends, totals,
    delta_b, delta_l, delta_k, delta_d, dy_b, dy_l, dy_k, dy_d,
    L, k, d, N, chunks,
    ROUTED: tl.constexpr, VARYING_C: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr, SUB: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """1 of the backward. Gradient of the state before each chunk that comes from the chunk's own y; sum of dt."""
    b, r, block, chunk = _place(k, d, chunks, LANES)
    c = block * LANES + tl.arange(0, LANES)
    n = tl.arange(0, STATES)
    cm = c < d
    nm = n < N
    mask = nm[:, None] & cm[None, :]
    rc = r * d + c
    rate = tl.load(A + rc[None, :] * N + n[:, None], mask=mask, other=0.0) * _LOG2E
    fixed_c = _fixed_weights(C, rc, n, mask, N, VARYING_C)
    shift = rate.sum(0) * 0.0
    if HAS_BIAS:
        shift = tl.load(bias + rc, mask=cm, other=0.0)
    delta_base = delta + b * delta_b + r * delta_k + c * delta_d
    dy_base = dy + b * dy_b + r * dy_k + c * dy_d
    g = rate * 0.0
    total = shift * 0.0
    start = chunk * CHUNK
    stop = tl.minimum(start + CHUNK, L)
    subs = tl.cdiv(stop - start, SUB)
    for step in range(0, subs):
        t0 = start + (subs - 1 - step) * SUB
        positions = ()
        valids = ()
        dys = ()
        xs = ()
        for i in tl.static_range(SUB):
            valid = t0 + i < stop
            if ROUTED:
                position = tl.load(orders + r * L + t0 + i, mask=valid, other=0)
            else:
                position = tl.where(valid, t0 + i, 0)
            inside = cm & valid
            positions = positions + (position,)
            valids = valids + (valid,)
            dys = dys + (tl.load(dy_base + position * dy_l, mask=inside, other=0.0),)
            xs = xs + (tl.load(delta_base + position * delta_l, mask=inside, other=0.0),)
        for j in tl.static_range(SUB):
            dt, _ = _softplus(xs[SUB - 1 - j] + shift, SOFTPLUS)
            dt = tl.where(valids[SUB - 1 - j], dt, 0.0)
            weight_c = fixed_c
            if VARYING_C:
                weight_c = tl.load(C + ((b * L + positions[SUB - 1 - j]) * k + r) * N + n, mask=nm, other=0.0)[
                    :, None
                ]
            g = tl.exp2(dt[None, :] * rate) * (g + dys[SUB - 1 - j][None, :] * weight_c)
            total += dt
    row = (b * k + r) * chunks + chunk
    tl.store(ends + row * N * d + n[:, None] * d + c[None, :], g, mask=mask)
    tl.store(totals + row * d + c, total, mask=cm)


@triton.jit
def backward(
    u, delta, A, B, C, D, bias, orders, starts, gradients, dy, scratch,
    du, ddelta, dA, dB, dC, dD, dbias,
    u_b, u_l, u_k, u_d, delta_b, delta_l, delta_k, delta_d, dy_b, dy_l, dy_k, dy_d,
    du_b, du_l, du_k, du_d, ddelta_b, ddelta_l, ddelta_k, ddelta_d,
    batch, L, k, d, N, chunks,
    ROUTED: tl.constexpr, VARYING_B: tl.constexpr, VARYING_C: tl.constexpr, HAS_D: tl.constexpr,
    HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr, SUB: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """3 of the backward. All gradients of a chunk, from its start and from the gradient of its end."""
    b, r, block, chunk = _place(k, d, chunks, LANES)
    c = block * LANES + tl.arange(0, LANES)
    n = tl.arange(0, STATES)
    cm = c < d
    nm = n < N
    mask = nm[:, None] & cm[None, :]
    rc = r * d + c
    rate = tl.load(A + rc[None, :] * N + n[:, None], mask=mask, other=0.0) * _LOG2E
    fixed_b = _fixed_weights(B, rc, n, mask, N, VARYING_B)
    fixed_c = _fixed_weights(C, rc, n, mask, N, VARYING_C)
    shift = rate.sum(0) * 0.0
    skip = shift
    if HAS_BIAS:
        shift = tl.load(bias + rc, mask=cm, other=0.0)
    if HAS_D:
        skip = tl.load(D + rc, mask=cm, other=0.0)
    u_base = u + b * u_b + r * u_k + c * u_d
    delta_base = delta + b * delta_b + r * delta_k + c * delta_d
    dy_base = dy + b * dy_b + r * dy_k + c * dy_d
    du_base = du + b * du_b + r * du_k + c * du_d
    ddelta_base = ddelta + b * ddelta_b + r * ddelta_k + c * ddelta_d
    start = chunk * CHUNK
    stop = tl.minimum(start + CHUNK, L)
    subs = tl.cdiv(stop - start, SUB)
    row = (b * k + r) * chunks + chunk
    # The state before every SUB steps; a program reads only what it wrote itself.
    own = scratch + row * (CHUNK // SUB) * N * d + n[:, None] * d + c[None, :]
    h = tl.load(starts + row * N * d + n[:, None] * d + c[None, :], mask=mask, other=0.0)
    for step in range(0, subs):
        tl.store(own + step * N * d, h, mask=mask)
        for i in tl.static_range(SUB):
            t = start + step * SUB + i
            valid = t < stop
            if ROUTED:
                position = tl.load(orders + r * L + t, mask=valid, other=0)
            else:
                position = tl.where(valid, t, 0)
            inside = cm & valid
            x = tl.load(u_base + position * u_l, mask=inside, other=0.0)
            dt, _ = _softplus(tl.load(delta_base + position * delta_l, mask=inside, other=0.0) + shift, SOFTPLUS)
            weight_b = fixed_b
            if VARYING_B:
                weight_b = tl.load(B + ((b * L + position) * k + r) * N + n, mask=nm, other=0.0)[:, None]
            h = tl.exp2(dt[None, :] * rate) * h + (dt * x)[None, :] * weight_b
    tl.debug_barrier()
    g = tl.load(gradients + row * N * d + n[:, None] * d + c[None, :], mask=mask, other=0.0)
    sum_a = rate * 0.0
    sum_b = rate * 0.0
    sum_c = rate * 0.0
    sum_skip = shift * 0.0
    sum_shift = shift * 0.0
    for step in range(0, subs):
        sub = subs - 1 - step
        t0 = start + sub * SUB
        h = tl.load(own + sub * N * d, mask=mask, other=0.0)
        positions = ()
        valids = ()
        us = ()
        dts = ()
        slopes = ()
        dys = ()
        before = ()
        for i in tl.static_range(SUB):
            valid = t0 + i < stop
            if ROUTED:
                position = tl.load(orders + r * L + t0 + i, mask=valid, other=0)
            else:
                position = tl.where(valid, t0 + i, 0)
            inside = cm & valid
            x = tl.load(delta_base + position * delta_l, mask=inside, other=0.0) + shift
            dt, slope = _softplus(x, SOFTPLUS)
            positions = positions + (position,)
            valids = valids + (valid,)
            us = us + (tl.load(u_base + position * u_l, mask=inside, other=0.0),)
            dys = dys + (tl.load(dy_base + position * dy_l, mask=inside, other=0.0),)
            # Steps beyond the end leave state and gradient as they are: dt = 0, so exp(dt A) = 1.
            dts = dts + (tl.where(valid, dt, 0.0),)
            slopes = slopes + (tl.where(valid, slope, 0.0),)
        for i in tl.static_range(SUB):
            weight_b = fixed_b
            if VARYING_B:
                weight_b = tl.load(B + ((b * L + positions[i]) * k + r) * N + n, mask=nm, other=0.0)[:, None]
            before = before + (h,)
            h = tl.exp2(dts[i][None, :] * rate) * h + (dts[i] * us[i])[None, :] * weight_b
        for j in tl.static_range(SUB):
            valid = valids[SUB - 1 - j]
            at = positions[SUB - 1 - j]
            x = us[SUB - 1 - j]
            dt = dts[SUB - 1 - j]
            h = before[SUB - 1 - j]
            seen = dys[SUB - 1 - j]
            weight_b = fixed_b
            if VARYING_B:
                weight_b = tl.load(B + ((b * L + at) * k + r) * N + n, mask=nm, other=0.0)[:, None]
            weight_c = fixed_c
            if VARYING_C:
                weight_c = tl.load(C + ((b * L + at) * k + r) * N + n, mask=nm, other=0.0)[:, None]
            drive = (dt * x)[None, :]
            decay = tl.exp2(dt[None, :] * rate)
            after = decay * h + drive * weight_b
            whole = g + seen[None, :] * weight_c
            out = (((block * batch + b) * L + at) * k + r) * N + n
            if VARYING_B:
                tl.store(dB + out, tl.sum(tl.where(cm[None, :], whole * drive, 0.0), 1), mask=nm & valid)
            else:
                sum_b += whole * drive
            if VARYING_C:
                tl.store(dC + out, tl.sum(after * seen[None, :], 1), mask=nm & valid)
            else:
                sum_c += after * seen[None, :]
            g = whole * decay
            through = tl.sum(whole * weight_b, 0)
            past = g * h
            sum_a += dt[None, :] * past
            slope_dt = (tl.sum(past * rate, 0) * _LN2 + x * through) * slopes[SUB - 1 - j]
            sum_shift += slope_dt
            sum_skip += seen * x
            tl.store(du_base + at * du_l, dt * through + skip * seen, mask=cm & valid)
            tl.store(ddelta_base + at * ddelta_l, slope_dt, mask=cm & valid)
    # Partial sums (b, chunks, k, n, d) and (b, chunks, k, d).
    part = (b * chunks + chunk) * k + r
    whole_part = part * N * d + n[:, None] * d + c[None, :]
    tl.store(dA + whole_part, sum_a, mask=mask)
    if not VARYING_B:
        tl.store(dB + whole_part, sum_b, mask=mask)
    if not VARYING_C:
        tl.store(dC + whole_part, sum_c, mask=mask)
    if HAS_D:
        tl.store(dD + part * d + c, sum_skip, mask=cm)
    if HAS_BIAS:
        tl.store(dbias + part * d + c, sum_shift, mask=cm)
