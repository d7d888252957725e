"""Vectors of bytes and of 16-bit integers for Numba, held in the 16 words of an ``Int32x16``."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.simd import (
    FLOAT,
    INT,
    LANES,
    ROUND,
    broadcast,
    element_pointer,
    float32x16,
    int32x16,
)
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "DOTS_BYTES",
    "SHORTS",
    "add_short_pairs",
    "dot_bytes",
    "dot_of_bytes",
    "dot_signed_bytes",
    "dot_to_shorts",
    "load_twice",
    "splat_bytes",
    "store_rounded_int8",
]


@intrinsic
def splat_bytes(typing: Any, array: Any, at: Any) -> Any:
    """Return the 4 bytes from element ``at`` of an array of any integers in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        word = builder.load(builder.bitcast(pointer, ir.IntType(32).as_pointer()), align=1)
        return broadcast(builder, word, INT)

    return int32x16(array, types.intp), generate


@intrinsic
def store_rounded_int8(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write floats of at most 127 to 16 elements of an int8 array, rounded half to even."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], args[0], args[1])
        shifted = builder.fadd(args[2], ir.Constant(FLOAT, [ROUND] * LANES))
        packed = ir.VectorType(ir.IntType(8), LANES)
        value = builder.trunc(builder.bitcast(shifted, INT), packed)
        builder.store(value, builder.bitcast(pointer, packed.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), generate


SHORTS = ir.VectorType(ir.IntType(16), 2 * LANES)


_BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)


def _dot_vnni(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """``vpdpbusd``: one instruction."""
    kind = ir.FunctionType(INT, [INT, _BYTES, _BYTES])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
    operands = [builder.bitcast(each, _BYTES) for each in (unsigned, signed)]
    return builder.call(function, [total, *operands])


def _dot_shorts(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Even and odd bytes as 16-bit numbers; LLVM knows the sums of pairs as ``pmaddwd``."""
    eight = ir.Constant(SHORTS, [8] * 2 * LANES)
    u, s = builder.bitcast(unsigned, SHORTS), builder.bitcast(signed, SHORTS)
    for a, b in (
        (builder.and_(u, ir.Constant(SHORTS, [255] * 2 * LANES)),
         builder.ashr(builder.shl(s, eight), eight)),
        (builder.lshr(u, eight), builder.ashr(s, eight)),
    ):  # fmt: skip
        total = builder.add(total, _pair_products(builder, a, b))
    return total


def _pair_products(builder: Any, a: Any, b: Any) -> Any:
    wide = ir.VectorType(ir.IntType(32), 2 * LANES)
    product = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    places = ir.VectorType(ir.IntType(32), LANES)
    undefined = ir.Constant(wide, ir.Undefined)
    even = builder.shuffle_vector(product, undefined, places(list(range(0, 2 * LANES, 2))))
    odd = builder.shuffle_vector(product, undefined, places(list(range(1, 2 * LANES, 2))))
    return builder.add(even, odd)


DOTS_BYTES = simd_path() in ("amx", "avx512")
"""Whether the path has an instruction for :func:`dot_bytes`."""


def _by_halves(builder: Any, name: str, operands: Any, result: Any) -> Any:
    """Call an instruction of AVX2 for each half of operands of 64 bytes; return both results."""
    kind = operands[0].type
    half = ir.VectorType(kind.element, kind.count // 2)
    result = ir.VectorType(result.element, result.count // 2)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [half, half]), f"llvm.x86.avx2.{name}"
    )
    parts = []
    for first in (0, half.count):
        places = ir.Constant(
            ir.VectorType(ir.IntType(32), half.count), list(range(first, first + half.count))
        )
        cut = [builder.shuffle_vector(each, each, places) for each in operands]
        parts.append(builder.call(function, cut))
    places = ir.Constant(
        ir.VectorType(ir.IntType(32), 2 * result.count), list(range(2 * result.count))
    )
    return builder.shuffle_vector(*parts, places)


@intrinsic
def dot_to_shorts(typing: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Return ``total`` plus the products of two unsigned with two signed bytes, as 32 shorts.

    All three are ``Int32x16``, whose bytes and shorts are meant. Exact while no sum leaves 16 bits:
    eight of them may be added if unsigned bytes are at most 15.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = builder.bitcast(args[0], SHORTS)
        products = _short_products(builder, *args[1:])
        return builder.bitcast(builder.add(total, products), INT)

    return int32x16(int32x16, int32x16, int32x16), generate


def _short_products(builder: Any, unsigned: Any, signed: Any) -> Any:
    if simd_path() == "avx2":
        operands = [builder.bitcast(each, _BYTES) for each in (unsigned, signed)]
        return _by_halves(builder, "pmadd.ub.sw", operands, SHORTS)
    eight = ir.Constant(SHORTS, [8] * 2 * LANES)
    u, s = (builder.bitcast(each, SHORTS) for each in (unsigned, signed))
    low = builder.and_(u, ir.Constant(SHORTS, [255] * 2 * LANES))
    even = builder.mul(low, builder.ashr(builder.shl(s, eight), eight))
    return builder.add(even, builder.mul(builder.lshr(u, eight), builder.ashr(s, eight)))


@intrinsic
def add_short_pairs(typing: Any, total: Any, shorts: Any) -> Any:
    """Return ``total`` plus, in each lane, the sum of its two shorts."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _add_pairs(builder, args[0], builder.bitcast(args[1], SHORTS))

    return int32x16(int32x16, int32x16), generate


def _add_pairs(builder: Any, total: Any, shorts: Any) -> Any:
    ones = ir.Constant(SHORTS, [1] * 2 * LANES)
    if simd_path() == "avx2":
        return builder.add(total, _by_halves(builder, "pmadd.wd", (shorts, ones), INT))
    return builder.add(total, _pair_products(builder, shorts, ones))


@intrinsic
def dot_signed_bytes(typing: Any, total: Any, a: Any, b: Any) -> Any:
    """Return ``total`` plus, in each lane, the products of four bytes of ``a`` and of ``b``.

    All bytes are signed, and those of ``b`` at least -127. Exact. On the way AVX2 sums two products
    of a byte without its sign, up to 128, in 16 bits.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = (builder.bitcast(each, _BYTES) for each in args[1:])
        negative = builder.icmp_signed("<", a, ir.Constant(_BYTES, [0] * 4 * LANES))
        size = builder.select(negative, builder.neg(a), a)
        if simd_path() == "avx2":
            signed = _by_halves(builder, "psign.b", (b, a), _BYTES)
        else:
            signed = builder.select(negative, builder.neg(b), b)
        products = _short_products(
            builder, builder.bitcast(size, INT), builder.bitcast(signed, INT)
        )
        return _add_pairs(builder, args[0], products)

    return int32x16(int32x16, int32x16, int32x16), generate


def dot_of_bytes(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Emit what :func:`dot_bytes` does."""
    emit = _dot_vnni if DOTS_BYTES else _dot_shorts
    return emit(builder, total, unsigned, signed)


@intrinsic
def dot_bytes(typing: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Return ``total`` plus, in each lane, the products of four unsigned with four signed bytes.

    Exact: the same on every path. All three are ``Int32x16``; the bytes of two are meant.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return dot_of_bytes(builder, *args)

    return int32x16(int32x16, int32x16, int32x16), generate


@intrinsic
def load_twice(typing: Any, array: Any, at: Any) -> Any:
    """Return 16 numbers of 16 bits from element ``at``, each in both halves of its lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        packed = ir.VectorType(ir.IntType(16), LANES)
        value = builder.load(builder.bitcast(pointer, packed.as_pointer()), align=1)
        places = ir.Constant(
            ir.VectorType(ir.IntType(32), 2 * LANES), [i // 2 for i in range(2 * LANES)]
        )
        return builder.bitcast(
            builder.shuffle_vector(value, ir.Constant(packed, ir.Undefined), places), INT
        )

    return int32x16(array, types.intp), generate
