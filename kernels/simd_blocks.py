"""Sixteen blocks of 32 numbers folded at a time, each to a number in a lane of its own.

To fold one block takes five steps that wait for each other, at the end of which stands a number
that the next ones wait for; sixteen together take three to four times less.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.simd import FLOAT, INT, LANES, element_pointer, float32x16, int32x16
from numbatch.kernels.simd_bytes import dot_of_bytes

__all__ = ["largest_of_blocks", "store_alternating", "sums_of_blocks"]

BLOCK = 2 * LANES


def _places(width: int) -> tuple[ir.Constant, ir.Constant]:
    """Return the lanes of two vectors that are low and high halves of runs of ``2 * width``."""
    low = [i for i in range(2 * LANES) if i // width % 2 == 0]
    kind = ir.VectorType(ir.IntType(32), LANES)
    return ir.Constant(kind, low), ir.Constant(kind, [i + width for i in low])


def _load(builder: Any, pointer: Any, offset: int, kind: Any) -> Any:
    place = builder.gep(pointer, [ir.IntType(64)(offset)])
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=1)


@intrinsic
def largest_of_blocks(typing: Any, array: Any, at: Any) -> Any:
    """Return in lane ``b`` the largest, by size, of 32 floats from index ``at + 32 * b`` on.

    NaN where one is NaN, infinity where one is infinite.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        sign = ir.Constant(INT, [0x7FFFFFFF] * LANES)

        def larger(a: Any, b: Any) -> Any:  # sizes of floats are in the order of their bits
            return builder.select(builder.icmp_unsigned(">", a, b), a, b)

        def sizes(offset: int) -> Any:
            return builder.and_(_load(builder, pointer, offset, INT), sign)

        rows = [larger(sizes(BLOCK * b), sizes(BLOCK * b + LANES)) for b in range(LANES)]
        width = LANES
        while len(rows) > 1:
            width //= 2
            low, high = _places(width)
            rows = [
                larger(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        return builder.bitcast(rows[0], FLOAT)

    return float32x16(array, types.intp), generate


@intrinsic
def sums_of_blocks(typing: Any, array: Any, at: Any) -> Any:
    """Return in lane ``b`` the sum of 32 int8 numbers from index ``at + 32 * b`` on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        ones, zero = ir.Constant(INT, [0x01010101] * LANES), ir.Constant(INT, [0] * LANES)
        rows = [  # each has two blocks, 8 lanes of 4 numbers each
            dot_of_bytes(builder, zero, ones, _load(builder, pointer, 2 * BLOCK * pair, INT))
            for pair in range(LANES // 2)
        ]
        for width in (4, 2, 1):
            low, high = _places(width)
            rows = [
                builder.add(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        return rows[0]

    if array.dtype != types.int8:
        return None
    return int32x16(array, types.intp), generate


@intrinsic
def store_alternating(typing: Any, array: Any, at: Any, first: Any, second: Any) -> Any:
    """Write a lane of ``first``, then one of ``second``, and so on: 32 floats."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], args[0], args[1])
        kind = ir.VectorType(ir.IntType(32), LANES)
        for half in range(2):
            lanes = [lane for i in range(8) for lane in (8 * half + i, 8 * half + i + LANES)]
            value = builder.shuffle_vector(args[2], args[3], ir.Constant(kind, lanes))
            place = builder.gep(pointer, [ir.IntType(64)(half * LANES)])
            builder.store(value, builder.bitcast(place, FLOAT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16, float32x16), generate
