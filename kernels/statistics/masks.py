"""Comparisons of 64 numbers at a time, a bit for each, the lowest for the first."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["MASK", "numbers_between"]

MASK = 64


@intrinsic
def numbers_between(typing: Any, values: Any, at: Any, low: Any, high: Any) -> Any:
    """Return which of elements ``at`` to ``at + 63`` are in [low, high], as a uint64; NaN is not.

    ``values`` is a contiguous float32 or float64 array whose dtype holds ``low`` and ``high``
    exactly. No bounds are checked.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = sig.args[0].dtype
        number = ir.DoubleType() if element == types.float64 else ir.FloatType()
        vector = ir.VectorType(number, MASK)
        made = context.make_array(sig.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(made.data, [args[1]]), vector.as_pointer())
        loaded = builder.load(pointer, align=element.bitwidth // 8)
        undefined = ir.Constant(vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), MASK), [0] * MASK)

        def compare(operation: str, bound: Any) -> Any:
            if element != types.float64:
                bound = builder.fptrunc(bound, number)
            one = builder.insert_element(undefined, bound, ir.IntType(32)(0))
            every = builder.shuffle_vector(one, undefined, zeros)
            return builder.fcmp_ordered(operation, loaded, every)

        inside = builder.and_(compare(">=", args[2]), compare("<=", args[3]))
        return builder.bitcast(inside, ir.IntType(64))

    return types.uint64(values, types.intp, types.float64, types.float64), generate
