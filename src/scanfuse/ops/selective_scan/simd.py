"""Vectors for numba: loads, stores, arithmetic, exp2 and softplus on whole SIMD registers.

Numba's loops are vectorised only when LLVM sees fit, and a call of exp never is. Here a vector is a type of its own
(an LLVM `<n x float>` or `<n x double>`), and every function is an `@intrinsic` that emits the instructions.

A *unit* is `width(array)` lanes: 16 float32 where the processor has AVX-512, else 8; half of that for float64. A
*tile* is a tuple whose length (1 or 4) says how many units lie side by side in one vector: `load(a, i, FOUR)` is
four registers. LLVM splits wide vectors into registers, so that code written once for a tile is unrolled code.
Arrays are one-dimensional and contiguous; indices count elements and are not checked.

In float32, exp2 is within 1.1e-7 relative of the true value, exactly 1 at 0, 0 below -127 and inf from 128;
softplus and its slope are within 2e-7 + 6e-8 |v| relative. float64 calls the C library lane by lane: exact, for
tests, slow. NaN stays NaN.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config, extending
from numba.core.datamodel import models, register_default

__all__ = [
    "FOUR",
    "ONE",
    "add_to",
    "exp2",
    "exp2_of_negative",
    "fma",
    "fold",
    "lane_sums",
    "load",
    "repeat",
    "slope",
    "softplus",
    "splat",
    "spread",
    "store",
    "transpose",
    "width",
]

intrinsic: Callable[..., Any] = extending.intrinsic

ONE = (0,)
FOUR = (0, 0, 0, 0)

# 2^f on [-1/2, 1/2], minimax in relative error with the value 1 at 0: f (c1 + f (c2 + ...)) + 1.
_EXP2 = (0.6931469775976773, 0.24022242083111275, 0.055507337444714866, 0.009671512785812218, 0.001326472725265121)
# log(1 + z) / z on [0, 1], minimax in relative error.
_LOG1P = (
    0.9999999952875289,
    -0.49999902424390774,
    0.33329962441105865,
    -0.24954133822339838,
    0.19675939857383262,
    -0.15305593802843928,
    0.10603656339365229,
    -0.056959543658572837,
    0.0198514651518603,
    -0.0032440253700990185,
)
_LOG2E = 1.4426950408889634
_LINEAR_FROM = 20.0  # softplus(x) = x beyond, as torch has it; the difference is 2e-9


class Vector(types.Type):
    """`lanes` floats of one type in SIMD registers."""

    def __init__(self, scalar: Any, lanes: int) -> None:
        self.scalar = scalar
        self.lanes = lanes
        super().__init__(name=f"vector({scalar} x {lanes})")


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_scalar(fe_type.scalar), fe_type.lanes))


def _scalar(ty: Any) -> ir.Type:
    return ir.DoubleType() if ty == types.float64 else ir.FloatType()


def _unit(scalar: Any) -> int:
    features = config.CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    lanes = 16 if "+avx512f" in features.split(",") else 8
    return lanes // 2 if scalar == types.float64 else lanes


def _constant(ty: ir.Type, value: float | int) -> ir.Constant:
    if isinstance(ty, ir.VectorType):
        return ir.Constant(ty, [value] * ty.count)
    return ir.Constant(ty, value)


def _shuffle(b: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _concat(b: Any, parts: list[Any]) -> Any:
    """Vectors of equal length side by side; their number is a power of two."""
    while len(parts) > 1:
        n = parts[0].type.count
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_shuffle(b, x, y, list(range(2 * n))) for x, y in pairs]
    return parts[0]


def _split(b: Any, v: Any, parts: int) -> list[Any]:
    n = v.type.count // parts
    return [_shuffle(b, v, v, list(range(i * n, i * n + n))) for i in range(parts)]


def _pointer(context: Any, b: Any, ty: Any, array: Any, index: Any, target: ir.Type) -> Any:
    data = context.make_array(ty)(context, b, array).data
    return b.bitcast(b.gep(data, [index]), target.as_pointer())


def _fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    # fmuladd, not fma: a processor without the instruction multiplies and adds instead of calling a function.
    name = f"llvm.fmuladd.v{x.type.count}f{64 if isinstance(x.type.element, ir.DoubleType) else 32}"
    fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(x.type, [x.type] * 3), name)
    return b.call(fn, [x, y, z])


def _larger(b: Any, bound: float, x: Any) -> Any:
    """max(x, bound), with NaN kept (one x86 instruction)."""
    c = _constant(x.type, bound)
    return b.select(b.fcmp_ordered(">", c, x), c, x)


def _smaller(b: Any, bound: float, x: Any) -> Any:
    c = _constant(x.type, bound)
    return b.select(b.fcmp_ordered("<", c, x), c, x)


def _call_lanes(b: Any, name: str, x: Any) -> Any:
    """A function of the C library, lane by lane."""
    ty = x.type.element
    fn = cgutils.get_or_insert_function(b.module, ir.FunctionType(ty, [ty]), name)
    result = ir.Constant(x.type, ir.Undefined)
    for lane in range(x.type.count):
        at = ir.Constant(ir.IntType(32), lane)
        result = b.insert_element(result, b.call(fn, [b.extract_element(x, at)]), at)
    return result


def _exp2(b: Any, x: Any, bounded: bool = True) -> Any:
    if isinstance(x.type.element, ir.DoubleType):
        return _call_lanes(b, "exp2", x)
    x = _larger(b, -127.0, x)
    if bounded:
        x = _smaller(b, 128.0, x)
    # Adding 1.5 * 2^23 leaves round(x) in the low bits of the mantissa; shifted up it goes onto the exponent.
    magic = _constant(x.type, 12582912.0)
    shifted = b.fadd(x, magic)
    f = b.fsub(x, b.fsub(shifted, magic))
    p = _constant(x.type, _EXP2[-1])
    for c in (*reversed(_EXP2[:-1]), 1.0):
        p = _fma(b, p, f, _constant(x.type, c))
    integers = ir.VectorType(ir.IntType(32), x.type.count)
    exponent = b.shl(b.bitcast(shifted, integers), _constant(integers, 23))
    return b.bitcast(b.add(b.bitcast(p, integers), exponent), x.type)


def _decay(b: Any, x: Any) -> Any:
    """exp(-|x|)."""
    negative = b.select(b.fcmp_ordered(">", x, _constant(x.type, 0.0)), b.fneg(x), x)
    if isinstance(x.type.element, ir.DoubleType):
        return _call_lanes(b, "exp", negative)
    return _exp2(b, b.fmul(negative, _constant(x.type, _LOG2E)), bounded=False)


def _softplus(b: Any, x: Any) -> Any:
    z = _decay(b, x)
    positive = _larger(b, 0.0, x)
    if isinstance(x.type.element, ir.DoubleType):
        log = _call_lanes(b, "log1p", z)
    else:
        q = _constant(x.type, _LOG1P[-1])
        for c in reversed(_LOG1P[:-1]):
            q = _fma(b, q, z, _constant(x.type, c))
        log = b.fmul(q, z)
    linear = b.fcmp_ordered(">", x, _constant(x.type, _LINEAR_FROM))
    return b.select(linear, x, b.fadd(positive, log))


def _slope(b: Any, x: Any) -> Any:
    z = _decay(b, x)
    one = _constant(x.type, 1.0)
    above = b.fcmp_ordered(">", x, _constant(x.type, 0.0))
    value = b.fdiv(b.select(above, one, z), b.fadd(one, z))
    return b.select(b.fcmp_ordered(">", x, _constant(x.type, _LINEAR_FROM)), one, value)


def _unary(emit: Callable[[Any, Any], Any], v: Vector) -> Any:
    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return emit(b, args[0])

    return v(v), codegen


@intrinsic
def width(typingctx: Any, array: Any) -> Any:
    """Lanes of a unit of this array's type."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, _unit(array.dtype))

    return types.intp(array), codegen


@intrinsic
def exp2(typingctx: Any, v: Any) -> Any:
    """2^v."""
    return _unary(_exp2, v)


@intrinsic
def exp2_of_negative(typingctx: Any, v: Any) -> Any:
    """2^v for v <= 0 (or NaN), one instruction less."""
    return _unary(lambda b, x: _exp2(b, x, bounded=False), v)


@intrinsic
def softplus(typingctx: Any, v: Any) -> Any:
    """log(1 + e^v), and v itself beyond 20."""
    return _unary(_softplus, v)


@intrinsic
def slope(typingctx: Any, v: Any) -> Any:
    """The derivative of softplus: 1 / (1 + e^-v), and 1 beyond 20."""
    return _unary(_slope, v)


@intrinsic
def load(typingctx: Any, array: Any, index: Any, tile: Any) -> Any:
    """array[index : index + len(tile) * width(array)]."""
    result = Vector(array.dtype, len(tile) * _unit(array.dtype))

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        target = context.get_value_type(result)
        return b.load(_pointer(context, b, array, args[0], args[1], target), align=array.dtype.bitwidth // 8)

    return result(array, types.intp, tile), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, v: Any) -> Any:
    """array[index : index + lanes of v] = v."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        at = _pointer(context, b, array, args[0], args[1], args[2].type)
        b.store(args[2], at, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, v), codegen


@intrinsic
def add_to(typingctx: Any, array: Any, index: Any, v: Any) -> Any:
    """array[index : index + lanes of v] += v."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        at = _pointer(context, b, array, args[0], args[1], args[2].type)
        align = array.dtype.bitwidth // 8
        b.store(b.fadd(b.load(at, align=align), args[2]), at, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, v), codegen


@intrinsic
def splat(typingctx: Any, array: Any, value: Any, tile: Any) -> Any:
    """`value` in every lane of a vector of the array's type."""
    result = Vector(array.dtype, len(tile) * _unit(array.dtype))

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        x = context.cast(b, args[1], value, array.dtype)
        one = b.insert_element(ir.Constant(ir.VectorType(x.type, 1), ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
        return _shuffle(b, one, one, [0] * result.lanes)

    return result(array, value, tile), codegen


@intrinsic
def spread(typingctx: Any, array: Any, index: Any, tile: Any) -> Any:
    """array[index + j] in every lane of unit j."""
    result = Vector(array.dtype, len(tile) * _unit(array.dtype))

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        unit = result.lanes // len(tile)
        parts = []
        for j in range(len(tile)):
            single = ir.VectorType(_scalar(array.dtype), 1)
            index = b.add(args[1], ir.Constant(args[1].type, j))
            at = _pointer(context, b, array, args[0], index, single)
            x = b.load(at, align=array.dtype.bitwidth // 8)
            parts.append(_shuffle(b, x, x, [0] * unit))
        return _concat(b, parts)

    return result(array, types.intp, tile), codegen


@intrinsic
def repeat(typingctx: Any, v: Any, tile: Any) -> Any:
    """The same unit len(tile) times."""
    result = Vector(v.scalar, v.lanes * len(tile))

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return _concat(b, [args[0]] * len(tile))

    return result(v, tile), codegen


@intrinsic
def fold(typingctx: Any, v: Any, tile: Any) -> Any:
    """The sum of the units, a unit."""
    result = Vector(v.scalar, v.lanes // len(tile))

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        parts = _split(b, args[0], len(tile))
        while len(parts) > 1:
            parts = [b.fadd(x, y) for x, y in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return result(v, tile), codegen


@intrinsic
def lane_sums(typingctx: Any, p: Any, q: Any, tile: Any) -> Any:
    """For every unit of p, then of q, the sum of its lanes: 2 * len(tile) numbers."""
    result = Vector(p.scalar, 2 * len(tile))

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        rows = _split(b, args[0], len(tile)) + _split(b, args[1], len(tile))
        return _sum_rows(b, rows)

    return result(p, q, tile), codegen


def _sum_rows(b: Any, rows: list[Any]) -> Any:
    """One number a row. Two rows at a time become one that holds partial sums of both, half as many of each.

    Rows of fewer lanes than there are rows are down to one number for each of theirs before they are one row; from
    then on they are only put side by side.
    """
    lanes = rows[0].type.count
    owner = [[r] * lanes for r in range(len(rows))]  # whose partial sum a lane holds
    span = 2
    while len(rows) > 1 or len(owner[0]) > len(set(owner[0])):
        n = len(owner[0])
        if len(rows) > 1 and n == len(set(owner[0])):
            rows, owner = [_concat(b, rows)], [[who for row in owner for who in row]]
        elif len(rows) > 1:
            # Within 128 bits while possible: there the two shuffles are the cheap unpack instructions.
            half = span // 2 if n >= 4 and span <= 4 else 0
            if half and n % 4 == 0:
                low = [i + j for i in range(0, n, 4) for j in _unpack(half, 0, n)]
                high = [i + j for i in range(0, n, 4) for j in _unpack(half, 1, n)]
            else:
                low = [*range(n // 2), *range(n, n + n // 2)]
                high = [*range(n // 2, n), *range(n + n // 2, 2 * n)]
            span *= 2
            merged, owners = [], []
            for i in range(0, len(rows), 2):
                merged.append(b.fadd(_shuffle(b, rows[i], rows[i + 1], low), _shuffle(b, rows[i], rows[i + 1], high)))
                both = owner[i] + owner[i + 1]
                owners.append([both[j] for j in low])
            rows, owner = merged, owners
        else:
            # Lanes of one owner in pairs: first of each pair, second of each pair.
            low, high = [], []
            waiting: dict[int, int] = {}
            for i, who in enumerate(owner[0]):
                if who in waiting:
                    low.append(waiting.pop(who))
                    high.append(i)
                else:
                    waiting[who] = i
            rows = [b.fadd(_shuffle(b, rows[0], rows[0], low), _shuffle(b, rows[0], rows[0], high))]
            owner = [[owner[0][j] for j in low]]
    order = sorted(range(len(owner[0])), key=lambda i: owner[0][i])
    return _shuffle(b, rows[0], rows[0], order)


def _unpack(half: int, upper: int, n: int) -> list[int]:
    """Lanes of one 128-bit group of the unpack instructions: single floats (half 1) or pairs (half 2)."""
    if half == 1:
        return [2 * upper, n + 2 * upper, 2 * upper + 1, n + 2 * upper + 1]
    return [2 * upper, 2 * upper + 1, n + 2 * upper, n + 2 * upper + 1]


@intrinsic
def transpose(
    typingctx: Any, source: Any, index: Any, stride: Any, target: Any, target_index: Any, target_stride: Any
) -> Any:
    """A square of w = width(source): target[ti + c * ts + r] = source[i + r * s + c] for r, c in 0..w-1."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        w = _unit(source.dtype)
        vector = ir.VectorType(_scalar(source.dtype), w)
        align = source.dtype.bitwidth // 8
        rows = []
        for r in range(w):
            at = b.add(args[1], b.mul(args[2], ir.Constant(args[2].type, r)))
            rows.append(b.load(_pointer(context, b, source, args[0], at, vector), align=align))
        s = 1
        while s < w:
            even = [lane if (lane // s) % 2 == 0 else w + lane - s for lane in range(w)]
            odd = [lane + s if (lane // s) % 2 == 0 else w + lane for lane in range(w)]
            for r in range(w):
                if (r // s) % 2 == 0:
                    x, y = rows[r], rows[r + s]
                    rows[r], rows[r + s] = _shuffle(b, x, y, even), _shuffle(b, x, y, odd)
            s *= 2
        for r in range(w):
            at = b.add(args[4], b.mul(args[5], ir.Constant(args[5].type, r)))
            b.store(rows[r], _pointer(context, b, target, args[3], at, vector), align=align)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, target, i, i), codegen


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once where the processor can."""

    def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return _fma(b, *args)

    return x(x, y, z), codegen


def _register(symbol: Any, method: str) -> None:
    @extending.type_callable(symbol)
    def typer(context: Any) -> Any:
        def resolve(x: Any, y: Any) -> Any:
            return x if isinstance(x, Vector) and x == y else None

        return resolve

    @extending.lower_builtin(symbol, Vector, Vector)
    def lower(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return getattr(b, method)(*args)


_register(operator.add, "fadd")
_register(operator.mul, "fmul")
