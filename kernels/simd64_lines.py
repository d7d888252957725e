"""Sums of float32 or float64 numbers in four vectors of 8 float64, at the speed of memory.

Element ``j`` of what is added goes to vector ``j // 8 % 4``, lane ``j % 8``, so one body serves
both types and gives the same bits.

How to read was tried on a Xeon with arrays that lie in no cache. 32 bytes at a time: a core asks
for the lines that follow when it sees a line read twice, and loads of 64 bytes read it once (1.2
times the time). 512 bytes between two branches, or a block's end, which the core does not foresee,
costs 80 ns (1.1 times). Asking for lines by ``prefetch``, which helps where the array lies in a
cache, costs 1.1 to 1.25 times. What is long is read at four places in turn: a core looks only so
far ahead, and float32, which takes three instructions for 32 bytes where float64 takes one, looks
less far (one place to four: 1.3 to 1.7 times as fast in float32, up to 1.2 in float64; in the cache
the same).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from numbatch.kernels.simd64 import LANES64, float64x8

__all__ = [
    "add_eight",
    "add_four_eights",
    "add_stretch",
    "join_vectors",
    "start_sums",
    "stretch_of",
]

VECTORS = 4
STRETCH = 512
"""Bytes of a stretch."""

HALF = LANES64 // 2
_HALF = ir.VectorType(ir.DoubleType(), HALF)
_WHOLE = ir.VectorType(ir.DoubleType(), LANES64)
_FLOATS = ir.VectorType(ir.FloatType(), LANES64)


class VectorSums(types.Type):
    """Four vectors of 8 sums; those of float64 in halves, which LLVM does not join to one load."""

    def __init__(self, element: types.Type) -> None:
        self.element = element
        super().__init__(name=f"VectorSums({element})")

    @property
    def layout(self) -> Any:
        """LLVM's type: an array of the vectors, or of their halves."""
        if self.element == types.float64:
            return ir.ArrayType(_HALF, 2 * VECTORS)
        return ir.ArrayType(_WHOLE, VECTORS)


@register_model(VectorSums)
class _VectorSumsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, numba_type.layout)


def _stretch(element: types.Type) -> int:
    return STRETCH * 8 // element.bitwidth


@intrinsic
def stretch_of(typing: Any, array: Any) -> Any:
    """Return how many elements of a float32 or float64 array are a stretch."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, _stretch(sig.args[0].dtype))

    return types.intp(array), generate


@intrinsic
def start_sums(typing: Any, array: Any) -> Any:
    """Return sums of 0, to which elements of a float32 or float64 array are added."""
    kind = VectorSums(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(kind.layout, None)

    return kind(array), generate


def _adder(count: Callable[[types.Type], int], name: str, doc: str) -> Any:
    """Make the intrinsic that adds a fixed number of elements."""

    def add(typing: Any, sums: Any, array: Any, at: Any) -> Any:
        wide = sums.element == types.float64
        packed = _HALF if wide else _FLOATS

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            made = context.make_array(array)(context, builder, args[1])
            start = builder.gep(made.data, [args[2]])
            start = builder.bitcast(start, packed.as_pointer())
            sums = args[0]
            for number in range(count(array.dtype) // packed.count):
                place = builder.gep(start, [ir.Constant(ir.IntType(64), number)])
                read = builder.load(place, align=array.dtype.bitwidth // 8)
                lane = number % sig.return_type.layout.count
                read = read if wide else builder.fpext(read, _WHOLE)
                total = builder.fadd(builder.extract_value(sums, lane), read)
                sums = builder.insert_value(sums, total, lane)
            return sums

        return sums(sums, array, types.intp), generate

    add.__name__ = name
    add.__doc__ = f"Return ``sums`` with {doc} of a C-contiguous array added, from ``at`` on."
    return intrinsic(add)


add_stretch = _adder(_stretch, "add_stretch", "a stretch")
add_four_eights = _adder(lambda _: 4 * LANES64, "add_four_eights", "32 elements")
add_eight = _adder(lambda _: LANES64, "add_eight", "8 elements, to the first vector,")


@intrinsic
def join_vectors(typing: Any, sums: Any, rest: Any) -> Any:
    """Return the four vectors added, with one more to the second: (0 + (1 + rest)) + (2 + 3)."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = sums.layout.count
        parts = [builder.extract_value(args[0], i) for i in range(count)]
        if count > VECTORS:
            places = ir.Constant(ir.VectorType(ir.IntType(32), LANES64), list(range(LANES64)))
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [builder.shuffle_vector(low, high, places) for low, high in pairs]
        first = builder.fadd(parts[0], builder.fadd(parts[1], args[1]))
        return builder.fadd(first, builder.fadd(*parts[2:]))

    return float64x8(sums, rest), generate
