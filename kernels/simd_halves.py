"""Vectors of float16 for Numba, in the 16 words of an ``Int32x16``, and what unpacks to them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.simd import FLOAT, INT, LANES, element_pointer, float32x16, int32x16
from numbatch.kernels.simd_bytes import SHORTS
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "fma_halves",
    "load_half",
    "load_halves_of_bytes",
    "look_up_shorts",
    "low_bytes_shifted",
    "multiply_halves",
    "short_bfloat16",
]


@intrinsic
def load_half(typing: Any, array: Any, at: Any) -> Any:
    """Return the 16 float16 numbers from element ``at`` of an array of any integers as float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        packed = ir.VectorType(ir.IntType(16), LANES)
        bits = builder.load(builder.bitcast(pointer, packed.as_pointer()), align=1)
        if simd_path() == "portable":
            return _widened(builder, builder.zext(bits, INT))
        halves = ir.VectorType(ir.HalfType(), LANES)
        return builder.fpext(builder.bitcast(bits, halves), FLOAT)

    return float32x16(array, types.intp), generate


def _widened(builder: Any, bits: Any) -> Any:
    """Return the float32 of float16 bits, for CPUs that have no instruction for it.

    LLVM would call a routine that is not there.
    """

    def words(value: int) -> Any:
        return ir.Constant(INT, [value] * LANES)

    size = builder.shl(builder.and_(bits, words(0x7FFF)), words(13))
    scale = ir.Constant(FLOAT, [2.0**112] * LANES)  # from one exponent's bias to the other's
    value = builder.bitcast(builder.fmul(builder.bitcast(size, FLOAT), scale), INT)
    wrong = builder.icmp_unsigned(">=", size, words(0x7C00 << 13))  # infinity or NaN
    value = builder.select(wrong, builder.or_(size, words(0x7F800000)), value)
    sign = builder.shl(builder.and_(bits, words(0x8000)), words(16))
    return builder.bitcast(builder.or_(value, sign), FLOAT)


_HALVES = ir.VectorType(ir.HalfType(), 2 * LANES)


@intrinsic
def look_up_shorts(typing: Any, table: Any, places: Any) -> Any:
    """Return, for each of 32 numbers of 16 bits, the ``table`` entry that its low 5 bits name.

    AVX-512 only.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(SHORTS, [SHORTS, SHORTS])
        name = "llvm.x86.avx512.permvar.hi.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        operands = [builder.bitcast(each, SHORTS) for each in args]
        return builder.bitcast(builder.call(function, operands), INT)

    return int32x16(int32x16, int32x16), generate


@intrinsic
def fma_halves(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` of 32 float16 numbers, rounded once."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_HALVES, [_HALVES] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.v32f16")
        operands = [builder.bitcast(each, _HALVES) for each in args]
        return builder.bitcast(builder.call(function, operands), INT)

    return int32x16(int32x16, int32x16, int32x16), generate


@intrinsic
def multiply_halves(typing: Any, a: Any, b: Any) -> Any:
    """Return the products of 32 float16 numbers."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (builder.bitcast(each, _HALVES) for each in args)
        return builder.bitcast(builder.fmul(left, right), INT)

    return int32x16(int32x16, int32x16), generate


@intrinsic
def load_halves_of_bytes(typing: Any, array: Any, at: Any) -> Any:
    """Return 32 signed bytes from element ``at`` as float16 numbers."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        packed = ir.VectorType(ir.IntType(8), 2 * LANES)
        pointer = element_pointer(context, builder, sig.args[0], *args)
        value = builder.load(builder.bitcast(pointer, packed.as_pointer()), align=1)
        value = builder.sitofp(builder.sext(value, SHORTS), _HALVES)
        return builder.bitcast(value, INT)

    return int32x16(array, types.intp), generate


@intrinsic(prefer_literal=True)
def low_bytes_shifted(typing: Any, a: Any, count: Any) -> Any:
    """Return 32 numbers of 16 bits whose low bytes are those of ``a`` shifted right by a literal.

    What is in the high bytes does not matter to ``look_up_shorts``. A shift proper would do, but
    only one of the two vector units shifts, the one that has most to do where tiles are unpacked;
    this is the other one's.
    """
    bits = count.literal_value

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        many = ir.VectorType(ir.IntType(8), 4 * LANES)
        control = ir.Constant(many, [i // 2 * 16 + bits for i in range(8)] * 8)
        kind = ir.FunctionType(many, [many, many])
        name = "llvm.x86.avx512.pmultishift.qb.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        moved = builder.call(function, [control, builder.bitcast(args[0], many)])
        return builder.bitcast(moved, INT)

    return int32x16(int32x16, count), generate


@intrinsic
def short_bfloat16(typing: Any, a: Any) -> Any:
    """Round 32 float16 numbers, not subnormal, to bfloat16 times 2**-112, half away from 0.

    Their exponents take the place of bfloat16's lower exponent bits: a shift that rounds, which is
    what a product's high half is (``vpmulhrsw``), and a mask.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def constant(number: int) -> Any:
            return ir.Constant(SHORTS, [number] * 2 * LANES)

        kind = ir.FunctionType(SHORTS, [SHORTS, SHORTS])
        name = "llvm.x86.avx512.pmul.hr.sw.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        # (a * 2**12 + 2**14) >> 15
        moved = builder.call(function, [builder.bitcast(args[0], SHORTS), constant(1 << 12)])
        return builder.bitcast(builder.and_(moved, constant(0x8FFF)), INT)

    return int32x16(int32x16), generate
