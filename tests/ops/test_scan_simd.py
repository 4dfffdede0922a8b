"""The vector type of the cpu backend, in the widths of every processor, not only of the one that runs the tests."""

from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from numba import njit, types
from numba.core import extending

from scanfuse.ops.selective_scan import simd


@pytest.mark.parametrize("rows", [2, 8], ids=["tile-of-one", "tile-of-four"])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_sums_of_lanes(lanes: int, rows: int) -> None:
    """Four lanes are float64 without AVX-512: fewer lanes than the eight sums of a tile of four."""

    @extending.intrinsic
    def emitted(typingctx: Any, source: Any, target: Any) -> Any:
        def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
            def at(array: Any, index: int, length: int) -> Any:
                vector = ir.VectorType(ir.DoubleType(), length)
                return simd._pointer(context, b, source, array, ir.Constant(ir.IntType(64), index), vector)

            loaded = [b.load(at(args[0], row * lanes, lanes), align=8) for row in range(rows)]
            b.store(simd._sum_rows(b, loaded), at(args[1], 0, rows), align=8)
            return context.get_dummy_value()

        return types.void(source, target), codegen

    @njit
    def sums(source: np.ndarray, target: np.ndarray) -> None:
        emitted(source, target)

    values = np.random.default_rng(0).integers(0, 1000, (rows, lanes)).astype(float)
    target = np.zeros(rows)
    sums(values.ravel(), target)
    np.testing.assert_array_equal(target, values.sum(1))
