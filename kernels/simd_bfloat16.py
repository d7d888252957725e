"""Vectors of bfloat16 and of other narrow numbers for Numba, widened to float32.

A bfloat16 is the upper half of a float32; arrays of it are uint16. What is read here lies in pairs:
32 numbers that are two vectors, the even one and the odd one of each pair. In a uint16 array the
two of a pair are neighbours (as the CPU's own products of pairs want them); in a float32 or int8
array the 16 even ones come first, then the 16 odd ones.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.simd import FLOAT, INT, LANES, element_pointer, float32x16, int32x16
from numbatch.kernels.simd_bytes import SHORTS
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "dot_pairs",
    "exp2_short",
    "join_pairs",
    "load_pairs",
    "pair_bfloat16",
    "prefetch_bytes",
    "store_bfloat16",
    "store_two_bfloat16",
]

_WORD = ir.IntType(32)
_BYTES = ir.VectorType(ir.IntType(8), LANES)


def typed_pointer(
    context: Any, builder: Any, array_type: Any, array: Any, at: Any, kind: Any
) -> Any:
    """Return the address of element ``at`` as one of values of a kind; no bounds check."""
    made = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(builder.gep(made.data, [at]), kind.as_pointer())


def _constant(value: float) -> Any:
    return ir.Constant(FLOAT, [value] * LANES)


def _words(value: int) -> Any:
    return ir.Constant(INT, [value] * LANES)


class _BFloat(ir.Type):
    """LLVM's ``bfloat``, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


def has_bfloat16() -> bool:
    """Return whether the path has the instructions for bfloat16."""
    wide = simd_path() in ("amx", "avx512")
    return wide and bool(llvm.get_host_cpu_features().get("avx512bf16", False))


def two_bfloat16(builder: Any, low: Any, high: Any) -> Any:
    """Return 32 floats rounded to bfloat16, one after another, as 16 words; AVX512-BF16 only.

    The instruction takes subnormal numbers for 0, as the CPU's products of bfloat16 do.
    """
    kind = ir.FunctionType(_PAIRS, [FLOAT, FLOAT])
    name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.bitcast(builder.call(function, [high, low]), INT)


def round_to_bfloat16(builder: Any, value: Any) -> Any:
    """Return the bits of floats, rounded to the nearest, half to even, in the higher 16 bits."""

    def constant(number: int) -> Any:
        return ir.Constant(INT, [number] * LANES)

    bits = builder.bitcast(value, INT)
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    rounded = builder.add(bits, builder.add(odd, constant(0x7FFF)))
    # The carry of a NaN's fraction must not make a number of it.
    nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(nan, builder.or_(bits, constant(0x400000)), rounded)


@intrinsic
def pair_bfloat16(typing: Any, even: Any, odd: Any) -> Any:
    """Return 32 numbers rounded to bfloat16: in a lane one of ``even``, above it one of ``odd``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if has_bfloat16():
            halves = builder.bitcast(two_bfloat16(builder, *args), SHORTS)
            order = [i // 2 + i % 2 * LANES for i in range(2 * LANES)]
            places = ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), order)
            return builder.bitcast(builder.shuffle_vector(halves, halves, places), INT)
        low, high = (round_to_bfloat16(builder, part) for part in args)
        low = builder.lshr(low, ir.Constant(INT, [16] * LANES))
        high = builder.and_(high, ir.Constant(INT, [0xFFFF0000] * LANES))
        return builder.or_(low, high)

    return int32x16(float32x16, float32x16), generate


@intrinsic
def store_bfloat16(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write 16 floats, rounded to bfloat16, to elements ``at`` to ``at + 15`` of a uint16 array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], args[0], args[1])
        half = ir.VectorType(ir.IntType(16), LANES)
        if has_bfloat16():
            halves = builder.bitcast(two_bfloat16(builder, args[2], args[2]), SHORTS)
            places = ir.Constant(INT, list(range(LANES)))
            bits = builder.shuffle_vector(halves, halves, places)
        else:
            bits = round_to_bfloat16(builder, args[2])
            bits = builder.trunc(builder.lshr(bits, ir.Constant(INT, [16] * LANES)), half)
        builder.store(bits, builder.bitcast(pointer, half.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), generate


@intrinsic
def dot_pairs(typing: Any, total: Any, a: Any, b: Any) -> Any:
    """Return ``total`` plus, in each lane, the products of two pairs of bfloat16, in float32.

    With AVX512-BF16 one instruction (which takes subnormal numbers for 0); elsewhere two fused
    products, the lower of the pair first. The paths may differ in the last bit.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total, a, b = args
        if has_bfloat16():
            kind = ir.FunctionType(FLOAT, [FLOAT, _PAIRS, _PAIRS])
            name = "llvm.x86.avx512bf16.dpbf16ps.512"
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            pairs = [builder.bitcast(each, _PAIRS) for each in (a, b)]
            return builder.call(function, [total, *pairs])
        sixteen = ir.Constant(INT, [16] * LANES)
        mask = ir.Constant(INT, [0xFFFF0000] * LANES)
        kind = ir.FunctionType(FLOAT, [FLOAT] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        for part in (
            lambda each: builder.shl(each, sixteen),
            lambda each: builder.and_(each, mask),
        ):
            operands = [builder.bitcast(part(each), FLOAT) for each in (a, b)]
            total = builder.call(function, [*operands, total])
        return total

    return float32x16(float32x16, int32x16, int32x16), generate


@intrinsic
def load_pairs(typing: Any, array: Any, at: Any) -> Any:
    """Return elements ``at`` to ``at + 31`` as two vectors: even and odd ones of 16 pairs.

    The array is float32, int8, or uint16 (bfloat16).
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def part(kind: Any, offset: int) -> Any:
            place = builder.add(args[1], ir.IntType(64)(offset))
            pointer = typed_pointer(context, builder, array, args[0], place, kind)
            return builder.load(pointer, align=1)

        if array.dtype == types.float32:
            both = part(FLOAT, 0), part(FLOAT, LANES)
        elif array.dtype == types.int8:
            both = tuple(builder.sitofp(part(_BYTES, i), FLOAT) for i in (0, LANES))
        else:
            word = part(INT, 0)
            both = (
                builder.bitcast(builder.shl(word, _words(16)), FLOAT),
                builder.bitcast(builder.and_(word, _words(0xFFFF0000)), FLOAT),
            )
        return context.make_tuple(builder, sig.return_type, both)

    if array.dtype not in (types.float32, types.int8, types.uint16):
        return None
    return types.UniTuple(float32x16, 2)(array, types.intp), generate


@intrinsic
def join_pairs(typing: Any, array: Any, at: Any, even: Any, odd: Any) -> Any:
    """Write 16 pairs of bfloat16, neighbours, from two vectors whose numbers are bfloat16 already.

    To the 64 bytes from element ``at`` of an array of any type.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        low, high = (builder.bitcast(each, INT) for each in args[2:])
        word = builder.or_(builder.lshr(low, _words(16)), builder.and_(high, _words(0xFFFF0000)))
        pointer = typed_pointer(context, builder, array, args[0], args[1], INT)
        builder.store(word, pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16, float32x16), generate


@intrinsic
def prefetch_bytes(typing: Any, array: Any, at: Any, count: Any) -> Any:
    """Ask for ``count`` bytes from element ``at``; they go to the second cache.

    One line in 1,024 bytes is asked for: the CPU sees the direction and fetches the rest, and
    asking for each line was no faster.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        start = typed_pointer(context, builder, array, args[0], args[1], ir.IntType(8))
        address, number = ir.IntType(8).as_pointer(), ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [address, _WORD, _WORD, _WORD])
        name = "llvm.prefetch.p0" if start.type.is_opaque else "llvm.prefetch.p0i8"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        with cgutils.for_range_slice(builder, number(0), args[2], number(1024)) as (index, _):
            line = builder.gep(start, [index])
            builder.call(function, [line, _WORD(0), _WORD(2), _WORD(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@intrinsic
def store_two_bfloat16(typing: Any, array: Any, at: Any, low: Any, high: Any) -> Any:
    """Round two vectors to 32 bfloat16, one after another; AVX-512 with BF16 only.

    Written to the 64 bytes from element ``at`` of an array of any type.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = typed_pointer(context, builder, array, args[0], args[1], INT)
        builder.store(two_bfloat16(builder, args[2], args[3]), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16, float32x16), generate


# 2**f for 0 <= f < 1: 1 + f * P(f), fitted for the least relative error.
_EXP2 = (0.07706706, 0.22764497, 0.69511679)


@intrinsic
def exp2_short(typing: Any, x: Any) -> Any:
    """Return 2 to the power of each lane: within 1e-4 of it; AVX-512 only.

    For what is then rounded to bfloat16, which is 20 times as coarse. 1 for 0, 0 for minus
    infinity, NaN for NaN.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args
        half, all_lanes, current = ir.IntType(16), 0xFFFF, 4

        def call(name: str, operands: list[Any]) -> Any:
            full = [*operands, _constant(0.0), half(all_lanes), _WORD(current)]
            kind = ir.FunctionType(FLOAT, [each.type for each in full])
            function = cgutils.get_or_insert_function(
                builder.module, kind, f"llvm.x86.avx512.mask.{name}.ps.512"
            )
            return builder.call(function, full)

        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(FLOAT, [FLOAT] * 3), f"llvm.fmuladd.v{LANES}f32"
        )
        rest = call("reduce", [x, _WORD(1)])  # x - floor(x)
        series = _constant(_EXP2[0])
        for factor in (*_EXP2[1:], 1.0):
            series = builder.call(multiply_add, [series, rest, _constant(factor)])
        return call("scalef", [series, x])

    return float32x16(float32x16), generate
