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
    "SHORTS",
    "dot_bytes",
    "dot_of_bytes",
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


def dot_of_bytes(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Emit what :func:`dot_bytes` does."""
    emit = _dot_vnni if simd_path() in ("amx", "avx512") else _dot_shorts
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
