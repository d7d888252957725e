"""Vectors of 16, 32 and 64 unsigned numbers of 32 bits for Numba, whose least one is sought.

Merging the symbols of a piece needs the least of their ranks again and again, and three of them
replaced after each merge. Kept in registers, as a vector, that is a handful of instructions: two
registers of AVX-512 hold 32, four of AVX2, eight of SSE or NEON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = ["load_16", "load_32", "load_64", "put", "put_where", "smallest", "store"]

_NUMBER, _BYTE, _WORD = ir.IntType(32), ir.IntType(8), ir.IntType(64)


class RankLanes(types.Type):
    """So many unsigned numbers of 32 bits."""

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"rank_lanes({lanes})")
        self.lanes = lanes


@register_model(RankLanes)
class _RankLanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, ir.VectorType(_NUMBER, numba_type.lanes))


def _loader(lanes: int) -> Callable[..., Any]:
    """Make the intrinsic that reads so many lanes."""

    def load(typing: Any, pointer: Any, byte: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address = builder.gep(builder.bitcast(args[0], _BYTE.as_pointer()), [args[1]])
            vector = ir.VectorType(_NUMBER, lanes)
            return builder.load(builder.bitcast(address, vector.as_pointer()), align=4)

        return RankLanes(lanes)(pointer, types.intp), generate

    load.__name__ = f"load_{lanes}"
    load.__doc__ = f"Return the {lanes} numbers that lie ``byte`` bytes behind the pointer."
    return intrinsic(load)


load_16, load_32, load_64 = _loader(16), _loader(32), _loader(64)


@intrinsic
def put(typing: Any, vector: Any, lane: Any, number: Any) -> Any:
    """Return the vector with ``number`` in a lane; as it is where there is no such lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shape = args[0].type
        undefined = ir.Constant(shape, ir.Undefined)
        first = ir.Constant(ir.VectorType(_NUMBER, shape.count), [0] * shape.count)

        def everywhere(scalar: Any) -> Any:
            one = builder.insert_element(undefined, builder.trunc(scalar, _NUMBER), _NUMBER(0))
            return builder.shuffle_vector(one, undefined, first)

        places = ir.Constant(shape, list(range(shape.count)))
        here = builder.icmp_unsigned("==", places, everywhere(args[1]))
        return builder.select(here, everywhere(args[2]), args[0])

    return vector(vector, types.intp, types.uint64), generate


@intrinsic
def put_where(typing: Any, vector: Any, bits: Any, number: Any) -> Any:
    """Return the vector with ``number`` in each lane whose bit is set."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shape = args[0].type
        undefined = ir.Constant(shape, ir.Undefined)
        first = ir.Constant(ir.VectorType(_NUMBER, shape.count), [0] * shape.count)
        one = builder.insert_element(undefined, builder.trunc(args[2], _NUMBER), _NUMBER(0))
        everywhere = builder.shuffle_vector(one, undefined, first)
        width = ir.IntType(shape.count)
        low = args[1] if shape.count == 64 else builder.trunc(args[1], width)
        here = builder.bitcast(low, ir.VectorType(ir.IntType(1), shape.count))
        return builder.select(here, everywhere, args[0])

    return vector(vector, types.uint64, types.uint64), generate


@intrinsic
def store(typing: Any, vector: Any, pointer: Any, byte: Any) -> Any:
    """Write the numbers ``byte`` bytes behind the pointer."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = builder.gep(builder.bitcast(args[1], _BYTE.as_pointer()), [args[2]])
        builder.store(args[0], builder.bitcast(address, args[0].type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(vector, pointer, types.intp), generate


@intrinsic
def smallest(typing: Any, vector: Any) -> Any:
    """Return the least number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shape = args[0].type
        signature = ir.FunctionType(_NUMBER, [shape])
        name = f"llvm.vector.reduce.umin.v{shape.count}i32"
        function = cgutils.get_or_insert_function(builder.module, signature, name)
        return builder.zext(builder.call(function, [args[0]]), _WORD)

    return types.uint64(vector), generate
