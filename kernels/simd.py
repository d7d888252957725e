"""Vectors of 16 numbers for Numba, built on llvmlite.

LLVM unrolls a Python loop of 16 or 32 steps before its vectorizer sees it, and then computes one
number at a time. The types here say what is meant: ``int32x16`` and ``float32x16`` are LLVM
vectors, which LLVM maps to the host's registers (one of AVX-512, two of AVX2, four of SSE or
NEON).

``load_uint8(array, at)``, ``load_int8`` and ``load_float32`` read 16 elements from flat index
``at`` of a C-contiguous array of any number of dimensions, ``store_float32`` writes them; no bounds
are checked. The integer operators ``& | ^ << >> + -`` take vectors or integers; ``>>`` shifts zeros
in. The float operators ``+ - * /`` take vectors or floats, round each result to float32; ``fma``
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

__all__ = [
    "LANES",
    "absolute",
    "align_stack",
    "float32x16",
    "fma",
    "int32x16",
    "keep_lanes",
    "lanes",
    "load_float32",
    "load_int8",
    "load_int32",
    "load_uint8",
    "load_uint16",
    "max_lanes",
    "maximum",
    "prefetch",
    "prefetch_to_l2",
    "prefetch_to_write",
    "splat",
    "splat_at",
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


ROUND = 12582912.0
"""1.5 * 2**23: the sum with it has the nearest integer in its low bits."""

int32x16, float32x16 = Int32x16(), Float32x16()
INT = ir.VectorType(ir.IntType(32), LANES)
FLOAT = ir.VectorType(ir.FloatType(), LANES)


@register_model(Int32x16)
class _Int32x16Model(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, INT)


@register_model(Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, FLOAT)


def broadcast(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    """Return a vector with ``scalar`` in every lane."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)


def _as_vector(context: Any, builder: Any, value: Any, given: Any, wanted: Any) -> Any:
    """Return ``value`` as a vector; a scalar is converted to the lane's type and repeated."""
    if given == wanted:
        return value
    lane, vector = (types.int32, INT) if wanted == int32x16 else (types.float32, FLOAT)
    return broadcast(builder, context.cast(builder, value, given, lane), vector)


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
    (operator.xor, "xor"),
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
    (operator.truediv, "fdiv"),
):
    _define(_operation, float32x16, types.Float, _emit)


def element_pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return the address of element ``at``; no bounds check, no negative index."""
    made = context.make_array(array_type)(context, builder, array)
    return builder.gep(made.data, [at])


@intrinsic
def align_stack(typing: Any) -> Any:
    """Begin the memory of this function's variables at a multiple of 64 bytes.

    For one that has more vectors than the CPU has registers, and is not inlined: LLVM writes them
    to wherever the stack happens to be, in and out of step with cache lines from process to
    process, by which a loop takes up to 1.3 times as long.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        attributes = builder.function.attributes
        attributes.alignstack = 64
        attributes.add("nounwind")  # as all of Numba's; llvmlite prints none without a plain one
        return context.get_dummy_value()

    return types.void(), generate


def _prefetcher(name: str, write: int, doc: str, locality: int = 3) -> Any:
    """Make an intrinsic that asks for a cache line."""

    def ask(typing: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address = ir.IntType(8).as_pointer()
            place = element_pointer(context, builder, sig.args[0], *args)
            pointer = builder.bitcast(place, address)
            number = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [address, number, number, number])
            named = "llvm.prefetch.p0" if pointer.type.is_opaque else "llvm.prefetch.p0i8"
            function = cgutils.get_or_insert_function(builder.module, kind, named)
            builder.call(function, [pointer, *(number(each) for each in (write, locality, 1))])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    ask.__name__, ask.__doc__ = name, doc
    return intrinsic(ask)


prefetch = _prefetcher(
    "prefetch",
    0,
    "Ask for the cache line of element ``at``, which is soon to be read; waits for nothing.",
)
prefetch_to_l2 = _prefetcher(
    "prefetch_to_l2",
    0,
    "As ``prefetch``, into the second level, to which more lines can be on their way at a time.",
    locality=2,
)
prefetch_to_write = _prefetcher(
    "prefetch_to_write", 1, "As ``prefetch``, for a line that is soon to be written."
)


def _loader(element: Any, name: str, widen: str) -> Any:
    """Make the intrinsic that loads 16 elements and widens them to 32 bits."""

    def load(typing: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = element_pointer(context, builder, sig.args[0], *args)
            packed = ir.VectorType(ir.IntType(element.bitwidth), LANES)
            pointer = builder.bitcast(pointer, packed.as_pointer())
            value = builder.load(pointer, align=1)
            return getattr(builder, widen)(value, INT)

        return int32x16(array, types.intp), generate

    load.__name__ = name
    load.__doc__ = f"Return elements ``at`` to ``at + 15`` of a {element} array, {widen}ended."
    return intrinsic(load)


@intrinsic
def load_int32(typing: Any, array: Any, at: Any) -> Any:
    """Return the 64 bytes from element ``at`` of an array of any integers as 16 int32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(pointer, INT.as_pointer()), align=1)

    return int32x16(array, types.intp), generate


@intrinsic
def store_int32(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write an ``Int32x16`` to the 64 bytes from element ``at`` of an array of any integers."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, INT.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, int32x16), generate


load_uint8 = _loader(types.uint8, "load_uint8", "zext")
load_uint16 = _loader(types.uint16, "load_uint16", "zext")
load_int8 = _loader(types.int8, "load_int8", "sext")


@intrinsic
def store_float32(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write a ``Float32x16`` to the 64 bytes from element ``at`` of an array of any type."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, FLOAT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), generate


@intrinsic
def lanes(typing: Any) -> Any:
    """Return the vector 0, 1, ..., 15."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(INT, list(range(LANES)))

    return int32x16(), generate


@intrinsic
def to_float32(typing: Any, value: Any) -> Any:
    """Convert the signed integers of an ``Int32x16`` to the nearest float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(args[0], FLOAT)

    return float32x16(int32x16), generate


@intrinsic
def load_float32(typing: Any, array: Any, at: Any) -> Any:
    """Return the 64 bytes from element ``at`` of an array, of any type, as 16 float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(pointer, FLOAT.as_pointer()), align=4)

    return float32x16(array, types.intp), generate


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """Return a vector with the float ``value`` in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return broadcast(builder, args[0], FLOAT)

    return float32x16(types.float32), generate


@intrinsic
def splat_at(typing: Any, array: Any, at: Any) -> Any:
    """Return a vector with element ``at`` of a float32 array in every lane.

    One instruction, where ``splat(array[at])`` takes five more, in case ``at`` is negative.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        return broadcast(builder, builder.load(pointer), FLOAT)

    return float32x16(array, types.intp), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` of three float vectors."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # fmuladd, not fma: on a CPU without the instruction fma calls a slow exact routine.
        function = ir.FunctionType(FLOAT, [FLOAT] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

    return float32x16(float32x16, float32x16, float32x16), generate


def _fold(builder: Any, value: Any, combine: Callable[..., Any]) -> Any:
    """Combine half with half (0 with 8, 1 with 9, ...) until one lane is left."""
    width = LANES
    while width > 1:
        width //= 2
        places = ir.VectorType(ir.IntType(32), width)
        undefined = ir.Constant(value.type, ir.Undefined)
        low = builder.shuffle_vector(value, undefined, places(list(range(width))))
        high = builder.shuffle_vector(value, undefined, places(list(range(width, 2 * width))))
        value = combine(low, high)
    return builder.extract_element(value, ir.IntType(32)(0))


@intrinsic
def sum_lanes(typing: Any, value: Any) -> Any:
    """Return the sum of 16 lanes: half is added to half (0 + 8, 1 + 9, ...) until one is left."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fold(builder, args[0], builder.fadd)

    return types.float32(float32x16), generate


@intrinsic
def max_lanes(typing: Any, value: Any) -> Any:
    """Return the largest of 16 lanes, found in the order of :func:`sum_lanes`; none may be NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def larger(low: Any, high: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", low, high), low, high)

        return _fold(builder, args[0], larger)

    return types.float32(float32x16), generate


@intrinsic
def keep_lanes(typing: Any, value: Any, begin: Any, end: Any, other: Any) -> Any:
    """Return lanes ``begin`` to ``end - 1`` of a float vector, elsewhere the float ``other``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = ir.Constant(INT, list(range(LANES)))
        # Beyond the lanes the bounds are cut, so that 32 bits hold any position.
        low, high = ir.IntType(64)(0), ir.IntType(64)(LANES)
        begin, end = (_clamped(builder, each, low, high) for each in args[1:3])
        after = builder.icmp_signed(">=", lanes, broadcast(builder, begin, INT))
        before = builder.icmp_signed("<", lanes, broadcast(builder, end, INT))
        inside = builder.and_(after, before)
        return builder.select(inside, args[0], broadcast(builder, args[3], FLOAT))

    return float32x16(float32x16, types.int64, types.int64, types.float32), generate


def _clamped(builder: Any, value: Any, low: Any, high: Any) -> Any:
    value = builder.select(builder.icmp_signed("<", value, low), low, value)
    value = builder.select(builder.icmp_signed(">", value, high), high, value)
    return builder.trunc(value, ir.IntType(32))


@intrinsic
def splat_int32(typing: Any, value: Any) -> Any:
    """Return a vector with the int32 ``value`` in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return broadcast(builder, args[0], INT)

    return int32x16(types.int32), generate


@intrinsic
def absolute(typing: Any, x: Any) -> Any:
    """Return each float without its sign."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        mask = ir.Constant(INT, [0x7FFFFFFF] * LANES)
        return builder.bitcast(builder.and_(builder.bitcast(args[0], INT), mask), FLOAT)

    return float32x16(float32x16), generate


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """Return the larger of each pair of floats: ``a`` where it is larger, else ``b``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return float32x16(float32x16, float32x16), generate
