"""Vectors of 16 numbers for Numba, built on llvmlite.

LLVM unrolls a Python loop of 16 or 32 steps before its vectorizer sees it, and then computes one
number at a time. The types here say what is meant: ``int32x16`` and ``float32x16`` are LLVM
vectors, which LLVM maps to the host's registers (one of AVX-512, two of AVX2, four of SSE or
NEON).

``load_uint8(array, at)``, ``load_int8`` and ``load_float32`` read 16 elements from flat index
``at`` of a C-contiguous array of any number of dimensions, ``store_float32`` writes them; no bounds
are checked. The integer operators ``& | << >> + -`` take vectors or integers; ``>>`` shifts zeros
in. The float operators ``+ - *`` take vectors or floats and round each result to float32; ``fma``
rounds once where the CPU can.

A program that names its lanes fixes the order of its sums in the source, not in what the optimiser
found: ``sum_lanes`` always adds in one order, so the same bits come out of any tile shape.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from numbatch.kernels.simd_path import simd_path

__all__ = [
    "LANES",
    "dot_bytes",
    "exp",
    "float32x16",
    "fma",
    "int32x16",
    "lanes",
    "load_float32",
    "load_half",
    "load_int8",
    "load_int32",
    "load_uint8",
    "maximum",
    "prefetch",
    "splat",
    "splat_int32",
    "store_float32",
    "store_int32",
    "sum_lanes",
    "to_float32",
]

LANES = 16


class Int32x16(types.Type):
    """Sixteen 32-bit integers; their sign is in the operation, not in the type."""

    def __init__(self) -> None:
        super().__init__(name="int32x16")


class Float32x16(types.Type):
    """Sixteen float32 numbers."""

    def __init__(self) -> None:
        super().__init__(name="float32x16")


int32x16, float32x16 = Int32x16(), Float32x16()
_INT = ir.VectorType(ir.IntType(32), LANES)
_FLOAT = ir.VectorType(ir.FloatType(), LANES)


@register_model(Int32x16)
class _Int32x16Model(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _INT)


@register_model(Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _FLOAT)


def _broadcast(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    """Return a vector with ``scalar`` in every lane."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)


def _as_vector(context: Any, builder: Any, value: Any, given: Any, wanted: Any) -> Any:
    """Return ``value`` as a vector; a scalar is converted to the lane's type and repeated."""
    if given == wanted:
        return value
    lane, vector = (types.int32, _INT) if wanted == int32x16 else (types.float32, _FLOAT)
    return _broadcast(builder, context.cast(builder, value, given, lane), vector)


def _define(operation: Callable[..., Any], vector: Any, scalar: Any, emit: str) -> None:
    """Give an operator its meaning on ``vector``; ``emit`` names llvmlite's instruction."""

    class Typing(AbstractTemplate):
        key = operation

        def generic(self, args: Any, kws: Any) -> Any:
            known = all(arg == vector or isinstance(arg, scalar) for arg in args)
            if len(args) == 2 and known and vector in args:
                return signature(vector, *args)
            return None

    infer_global(operation)(Typing)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (
            _as_vector(context, builder, value, given, vector)
            for value, given in zip(args, sig.args, strict=True)
        )
        return getattr(builder, emit)(left, right)

    for left, right in ((vector, vector), (vector, scalar), (scalar, vector)):
        lower_builtin(operation, left, right)(lower)


for _operation, _emit in (
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.lshift, "shl"),
    (operator.rshift, "lshr"),
    (operator.add, "add"),
    (operator.sub, "sub"),
):
    _define(_operation, int32x16, types.Integer, _emit)
for _operation, _emit in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
):
    _define(_operation, float32x16, types.Float, _emit)


def _element_pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return the address of element ``at``; no bounds check, no negative index."""
    made = context.make_array(array_type)(context, builder, array)
    return builder.gep(made.data, [at])


@intrinsic
def prefetch(typing: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of element ``at``, which is soon to be read; waits for nothing."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(_element_pointer(context, builder, sig.args[0], *args), address)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
        name = "llvm.prefetch.p0" if pointer.type.is_opaque else "llvm.prefetch.p0i8"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [pointer, *(number(each) for each in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _loader(element: Any, name: str, widen: str) -> Any:
    """Make the intrinsic that loads 16 elements and widens them to 32 bits."""

    def load(typing: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _element_pointer(context, builder, sig.args[0], *args)
            packed = ir.VectorType(ir.IntType(element.bitwidth), LANES)
            pointer = builder.bitcast(pointer, packed.as_pointer())
            value = builder.load(pointer, align=1)
            return getattr(builder, widen)(value, _INT)

        return int32x16(array, types.intp), generate

    load.__name__ = name
    load.__doc__ = f"Return elements ``at`` to ``at + 15`` of a {element} array, {widen}ended."
    return intrinsic(load)


@intrinsic
def load_int32(typing: Any, array: Any, at: Any) -> Any:
    """Return the 64 bytes from element ``at`` of an array of any integers as 16 int32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(pointer, _INT.as_pointer()), align=1)

    return int32x16(array, types.intp), generate


@intrinsic
def store_int32(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write an ``Int32x16`` to the 64 bytes from element ``at`` of an array of any integers."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _INT.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, int32x16), generate


@intrinsic
def load_half(typing: Any, array: Any, at: Any) -> Any:
    """Return 16 float16 numbers, given as a uint16 array, from element ``at`` as float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, sig.args[0], *args)
        packed = ir.VectorType(ir.HalfType(), LANES)
        return builder.fpext(
            builder.load(builder.bitcast(pointer, packed.as_pointer()), align=1), _FLOAT
        )

    return float32x16(array, types.intp), generate


load_uint8 = _loader(types.uint8, "load_uint8", "zext")
load_int8 = _loader(types.int8, "load_int8", "sext")


@intrinsic
def store_float32(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write a ``Float32x16`` to elements ``at`` to ``at + 15`` of a float32 array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _FLOAT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), generate


@intrinsic
def lanes(typing: Any) -> Any:
    """Return the vector 0, 1, ..., 15."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(_INT, list(range(LANES)))

    return int32x16(), generate


@intrinsic
def to_float32(typing: Any, value: Any) -> Any:
    """Convert the signed integers of an ``Int32x16`` to the nearest float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(args[0], _FLOAT)

    return float32x16(int32x16), generate


@intrinsic
def load_float32(typing: Any, array: Any, at: Any) -> Any:
    """Return elements ``at`` to ``at + 15`` of a float32 array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(pointer, _FLOAT.as_pointer()), align=4)

    return float32x16(array, types.intp), generate


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """Return a vector with the float ``value`` in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, args[0], _FLOAT)

    return float32x16(types.float32), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` of three float vectors."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # fmuladd, not fma: on a CPU without the instruction fma calls a slow exact routine.
        function = ir.FunctionType(_FLOAT, [_FLOAT] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

    return float32x16(float32x16, float32x16, float32x16), generate


@intrinsic
def sum_lanes(typing: Any, value: Any) -> Any:
    """Return the sum of 16 lanes: half is added to half (0 + 8, 1 + 9, ...) until one is left."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total, width = args[0], LANES
        while width > 1:
            width //= 2
            places = ir.VectorType(ir.IntType(32), width)
            undefined = ir.Constant(total.type, ir.Undefined)
            low = builder.shuffle_vector(total, undefined, places(list(range(width))))
            high = builder.shuffle_vector(total, undefined, places(list(range(width, 2 * width))))
            total = builder.fadd(low, high)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(float32x16), generate


@intrinsic
def splat_int32(typing: Any, value: Any) -> Any:
    """Return a vector with the int32 ``value`` in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, args[0], _INT)

    return int32x16(types.int32), generate


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """Return the larger of each pair of floats: ``a`` where it is larger, else ``b``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return float32x16(float32x16, float32x16), generate


# Cephes' expf: exp(r) = 1 + r + r * r * P(r) for |r| <= ln(2) / 2.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the low bits


@intrinsic
def exp(typing: Any, x: Any) -> Any:
    """Return e to the power of each lane: within 2 units in the last place, NaN stays NaN.

    0 below -87.33, where float32 has no normal number; infinity above 88.72.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args

        def constant(value: float) -> Any:
            return ir.Constant(_FLOAT, [value] * LANES)

        def add_product(a: Any, b: Any, c: Any) -> Any:
            function = ir.FunctionType(_FLOAT, [_FLOAT] * 3)
            name = f"llvm.fmuladd.v{LANES}f32"
            called = cgutils.get_or_insert_function(builder.module, function, name)
            return builder.call(called, [a, b, c])

        shifted = add_product(x, constant(1.44269504088896341), constant(_ROUND))
        whole = builder.fsub(shifted, constant(_ROUND))
        rest = add_product(whole, constant(-_LN2_HIGH), x)
        rest = add_product(whole, constant(-_LN2_LOW), rest)
        series = constant(_EXP[0])
        for factor in _EXP[1:]:
            series = add_product(series, rest, constant(factor))
        series = add_product(series, builder.fmul(rest, rest), rest)
        series = builder.fadd(series, constant(1.0))
        # The integer goes to the exponent: its low bits stand where `shifted` keeps them.
        power = builder.shl(builder.bitcast(shifted, _INT), ir.Constant(_INT, [23] * LANES))
        value = builder.bitcast(builder.add(builder.bitcast(series, _INT), power), _FLOAT)
        small = builder.fcmp_ordered("<", x, constant(-87.33))
        value = builder.select(small, constant(0.0), value)
        large = builder.fcmp_ordered(">", x, constant(88.72))
        value = builder.select(large, constant(float("inf")), value)
        return builder.select(builder.fcmp_unordered("uno", x, x), x, value)

    return float32x16(float32x16), generate


_BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)
_SHORTS = ir.VectorType(ir.IntType(16), 2 * LANES)


def _dot_vnni(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """``vpdpbusd``: one instruction."""
    kind = ir.FunctionType(_INT, [_INT, _BYTES, _BYTES])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
    operands = [builder.bitcast(each, _BYTES) for each in (unsigned, signed)]
    return builder.call(function, [total, *operands])


def _dot_shorts(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Even and odd bytes as 16-bit numbers; LLVM knows the sums of pairs as ``pmaddwd``."""
    eight = ir.Constant(_SHORTS, [8] * 2 * LANES)
    u, s = builder.bitcast(unsigned, _SHORTS), builder.bitcast(signed, _SHORTS)
    for a, b in (
        (builder.and_(u, ir.Constant(_SHORTS, [255] * 2 * LANES)),
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


@intrinsic
def dot_bytes(typing: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Return ``total`` plus, in each lane, the products of four unsigned with four signed bytes.

    Exact: the same on every path. All three are ``Int32x16``; the bytes of two are meant.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emit = _dot_vnni if simd_path() in ("amx", "avx512") else _dot_shorts
        return emit(builder, *args)

    return int32x16(int32x16, int32x16, int32x16), generate
