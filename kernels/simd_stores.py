"""Stores of rounded numbers for Numba: vectors as pairs of bfloat16, and single numbers.

How :mod:`numbatch.kernels.simd_bfloat16` lays numbers out is where they go.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.simd import FLOAT, INT, LANES, float32x16
from numbatch.kernels.simd_bfloat16 import (
    has_bfloat16,
    round_to_bfloat16,
    two_bfloat16,
    typed_pointer,
)

__all__ = [
    "store_every_second",
    "store_number",
    "store_pairs_across",
    "store_pairs_apart",
    "store_rounded",
]

_WORD = ir.IntType(32)


def _words(value: int) -> Any:
    return ir.Constant(INT, [value] * LANES)


def _to_bfloat16(builder: Any, x: Any) -> Any:
    """Return the bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = builder.bitcast(x, _WORD)
    odd = builder.and_(builder.lshr(bits, _WORD(16)), _WORD(1))
    nearest = builder.add(builder.add(bits, _WORD(0x7FFF)), odd)
    unordered = builder.fcmp_unordered("uno", x, x)
    nearest = builder.select(unordered, _WORD(0x7FC00000), nearest)
    return builder.trunc(builder.lshr(nearest, _WORD(16)), ir.IntType(16))


def _to_int8(builder: Any, x: Any) -> Any:
    kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
    rint = cgutils.get_or_insert_function(builder.module, kind, "llvm.rint.f32")
    return builder.trunc(builder.fptosi(builder.call(rint, [x]), _WORD), ir.IntType(8))


@intrinsic
def store_rounded(typing: Any, array: Any, at: Any, x: Any) -> Any:
    """Write a float32 to element ``at`` of a float32, uint16 (bfloat16) or int8 array, rounded."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = args[2]
        if array.dtype == types.uint16:
            value = _to_bfloat16(builder, value)
        elif array.dtype == types.int8:
            value = _to_int8(builder, value)
        pointer = typed_pointer(context, builder, array, args[0], args[1], value.type)
        builder.store(value, pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), generate


def _words_of_pairs(builder: Any, low: Any, high: Any) -> Any:
    """Return two vectors rounded to bfloat16, one after another, as 16 words of a pair each."""
    if has_bfloat16():
        return two_bfloat16(builder, low, high)
    low, high = (round_to_bfloat16(builder, each) for each in (low, high))
    even, odd = (
        builder.shuffle_vector(low, high, ir.Constant(INT, list(range(i, 2 * LANES, 2))))
        for i in (0, 1)
    )
    return builder.or_(builder.lshr(even, _words(16)), builder.and_(odd, _words(0xFFFF0000)))


@intrinsic
def store_pairs_apart(typing: Any, array: Any, at: Any, low: Any, high: Any) -> Any:
    """Round two vectors to 16 pairs of bfloat16 and write each 64 bytes after the one before.

    From element ``at`` of an array of any type.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = _words_of_pairs(builder, args[2], args[3])
        start = typed_pointer(context, builder, array, args[0], args[1], _WORD)
        for i in range(LANES):
            pointer = builder.gep(start, [ir.IntType(64)(16 * i)])
            builder.store(builder.extract_element(word, _WORD(i)), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16, float32x16), generate


@intrinsic
def store_pairs_across(typing: Any, array: Any, at: Any, x: Any, x_at: Any, stride: Any) -> Any:
    """Round 32 floats each of 16 rows to pairs of bfloat16 and write them pair by pair.

    Row ``r`` of a float32 array begins at element ``x_at + r * stride``; its pair ``p`` goes to the
    4 bytes ``64 * p + 4 * r`` after element ``at`` of an array of any type. Sixteen calls of
    :func:`store_pairs_apart` write the same, four bytes at a time.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lines = []
        for row in range(LANES):
            place = builder.add(args[3], builder.mul(args[4], ir.IntType(64)(row)))
            parts = []
            for offset in (0, LANES):
                element = builder.add(place, ir.IntType(64)(offset))
                pointer = typed_pointer(context, builder, x, args[2], element, FLOAT)
                parts.append(builder.load(pointer, align=1))
            lines.append(_words_of_pairs(builder, *parts))
        start = typed_pointer(context, builder, array, args[0], args[1], INT)
        for i, line in enumerate(_transposed(builder, lines)):
            builder.store(line, builder.gep(start, [ir.IntType(64)(i)]), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, x, types.intp, types.intp), generate


def _transposed(builder: Any, lines: list[Any]) -> list[Any]:
    """Return 16 vectors of 16 words with lines and lanes exchanged, in four rounds of shuffles."""
    for step in (8, 4, 2, 1):
        after = list(lines)
        low = [i % step + i // (2 * step) * 2 * step + i // step % 2 * LANES for i in range(LANES)]
        for i in range(LANES):
            if not i & step:
                for j, shift in ((i, 0), (i + step, step)):
                    order = ir.Constant(INT, [place + shift for place in low])
                    after[j] = builder.shuffle_vector(lines[i], lines[i + step], order)
        lines = after
    return lines


@intrinsic
def store_every_second(typing: Any, array: Any, at: Any, x: Any) -> Any:
    """Write 16 floats as bfloat16 to elements ``at``, ``at + 2``, ... of a uint16 array.

    What lies between is not touched: another thread may be writing it.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        short = ir.IntType(16)
        start = typed_pointer(context, builder, array, args[0], args[1], short)
        kind = ir.VectorType(short, 2 * LANES)
        halves = builder.bitcast(_words_of_pairs(builder, args[2], args[2]), kind)
        for i in range(LANES):
            pointer = builder.gep(start, [ir.IntType(64)(2 * i)])
            builder.store(builder.extract_element(halves, _WORD(i)), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), generate


@intrinsic
def store_number(typing: Any, array: Any, at: Any, x: Any) -> Any:
    """Write a float32 to the 4 bytes from element ``at`` of an array of any type."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = typed_pointer(context, builder, array, args[0], args[1], ir.FloatType())
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), generate
