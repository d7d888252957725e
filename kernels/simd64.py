"""Vectors of 8 float64 numbers for Numba, built on llvmlite; see ``simd`` for why.

``load_numbers(array, at)`` reads 8 elements of a float32 or float64 array and widens them exactly,
so one body serves both types and gives the same bits. The operators ``+ - *`` take vectors or
floats and round each result to float64; nothing is reordered or contracted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

__all__ = [
    "LANES64",
    "fill",
    "fill_alternate",
    "float64x8",
    "last_lanes",
    "load_numbers",
    "sum_alternate",
    "sum_lanes64",
    "swap_pairs",
    "where_number",
]

LANES64 = 8


class Float64x8(types.Type):
    """Eight float64 numbers."""

    def __init__(self) -> None:
        super().__init__(name="float64x8")


float64x8 = Float64x8()
_DOUBLE = ir.VectorType(ir.DoubleType(), LANES64)


@register_model(Float64x8)
class _Float64x8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _DOUBLE)


def _broadcast(builder: Any, scalar: Any) -> Any:
    """Return a vector with the double ``scalar`` in every lane."""
    undefined = ir.Constant(_DOUBLE, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), LANES64), [0] * LANES64)
    return builder.shuffle_vector(one, undefined, places)


def _define(operation: Callable[..., Any], emit: str) -> None:
    """Give an operator its meaning on ``float64x8``; ``emit`` names llvmlite's instruction."""

    class Typing(AbstractTemplate):
        key = operation

        def generic(self, args: Any, kws: Any) -> Any:
            known = all(arg == float64x8 or isinstance(arg, types.Float) for arg in args)
            if len(args) == 2 and known and float64x8 in args:
                return signature(float64x8, *args)
            return None

    infer_global(operation)(Typing)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (
            value
            if given == float64x8
            else _broadcast(builder, context.cast(builder, value, given, types.float64))
            for value, given in zip(args, sig.args, strict=True)
        )
        return getattr(builder, emit)(left, right)

    for left, right in (
        (float64x8, float64x8),
        (float64x8, types.Float),
        (types.Float, float64x8),
    ):
        lower_builtin(operation, left, right)(lower)


for _operation, _emit in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
):
    _define(_operation, _emit)


@intrinsic
def load_numbers(typing: Any, array: Any, at: Any) -> Any:
    """Return elements ``at`` to ``at + 7`` of a C-contiguous float32 or float64 array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(sig.args[0])(context, builder, args[0])
        wide = sig.args[0].dtype == types.float64
        packed = _DOUBLE if wide else ir.VectorType(ir.FloatType(), LANES64)
        pointer = builder.bitcast(builder.gep(made.data, [args[1]]), packed.as_pointer())
        value = builder.load(pointer, align=8 if wide else 4)
        return value if wide else builder.fpext(value, _DOUBLE)

    return float64x8(array, types.intp), generate


@intrinsic
def fill(typing: Any, value: Any) -> Any:
    """Return a vector with ``value`` in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, args[0])

    return float64x8(types.float64), generate


@intrinsic
def fill_alternate(typing: Any, even: Any, odd: Any) -> Any:
    """Return a vector with ``even`` in lanes 0, 2, 4, 6 and ``odd`` in the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = ir.Constant(ir.VectorType(ir.IntType(32), LANES64), [0, LANES64] * 4)
        vectors = (_broadcast(builder, each) for each in args)
        return builder.shuffle_vector(*vectors, places)

    return float64x8(types.float64, types.float64), generate


@intrinsic
def swap_pairs(typing: Any, x: Any) -> Any:
    """Return ``x`` with lanes 0 and 1, 2 and 3, ... exchanged."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = ir.Constant(
            ir.VectorType(ir.IntType(32), LANES64), [i ^ 1 for i in range(LANES64)]
        )
        return builder.shuffle_vector(args[0], ir.Constant(_DOUBLE, ir.Undefined), places)

    return float64x8(float64x8), generate


def _fold(builder: Any, total: Any, lanes: int) -> Any:
    """Add half of a vector to its other half until so many lanes are left."""
    width = total.type.count
    while width > lanes:
        width //= 2
        places = ir.VectorType(ir.IntType(32), width)
        undefined = ir.Constant(total.type, ir.Undefined)
        low = builder.shuffle_vector(total, undefined, places(list(range(width))))
        high = builder.shuffle_vector(total, undefined, places(list(range(width, 2 * width))))
        total = builder.fadd(low, high)
    return total


@intrinsic
def sum_alternate(typing: Any, x: Any) -> Any:
    """Return the sum of lanes 0, 2, 4, 6 and the sum of the others: (0 + 4) + (2 + 6)."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = _fold(builder, args[0], 2)
        both = [builder.extract_element(total, ir.IntType(32)(i)) for i in (0, 1)]
        return context.make_tuple(builder, sig.return_type, both)

    return types.UniTuple(types.float64, 2)(float64x8), generate


@intrinsic
def where_number(typing: Any, x: Any, value: Any) -> Any:
    """Return ``value`` in the lanes where ``x`` is not NaN, 0 in the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = builder.fcmp_ordered("ord", args[0], args[0])
        return builder.select(number, args[1], ir.Constant(_DOUBLE, [0.0] * LANES64))

    return float64x8(float64x8, float64x8), generate


@intrinsic
def last_lanes(typing: Any, x: Any, count: Any) -> Any:
    """Return ``x`` in its last ``count`` lanes, 0 in the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = ir.VectorType(ir.IntType(64), LANES64)
        undefined = ir.Constant(places, ir.Undefined)
        one = builder.insert_element(undefined, args[1], ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES64), [0] * LANES64)
        count = builder.shuffle_vector(one, undefined, zeros)
        from_end = ir.Constant(places, list(range(LANES64, 0, -1)))
        kept = builder.icmp_signed("<=", from_end, count)
        return builder.select(kept, args[0], ir.Constant(_DOUBLE, [0.0] * LANES64))

    return float64x8(float64x8, types.int64), generate


@intrinsic
def sum_lanes64(typing: Any, value: Any) -> Any:
    """Return the sum of 8 lanes: half is added to half (0 + 4, 1 + 5, ...) until one is left."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = _fold(builder, args[0], 1)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float64(float64x8), generate
