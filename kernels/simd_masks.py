"""Comparisons of 16 floats, and what is done with their outcome.

A comparison gives a mask: an int64 whose bit ``i`` tells of lane ``i``. So masks are counted,
tested and combined like any integer: ``count_bits(at_least(x, least))`` lanes are as large as
``least``, and ``mask & -2`` leaves lane 0 out. LLVM keeps them in AVX-512's mask registers, or as
vectors where there are none.

``load_part`` reads the end of an array that is no multiple of 16 long; ``store_where`` writes some
lanes next to each other, which is how a filter collects what it keeps.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.simd import LANES, float32x16, int32x16
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "above",
    "at_least",
    "count_bits",
    "equal",
    "largest_lane",
    "load_part",
    "lowest_bit",
    "not_numbers",
    "pack_lanes",
    "store_lanes_where",
    "store_where",
    "swap_neighbours",
    "where",
]

_INT = ir.VectorType(ir.IntType(32), LANES)
_FLOAT = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_MASK, _WORD = ir.IntType(LANES), ir.IntType(64)


def _to_lanes(builder: Any, mask: Any, lanes: int = LANES) -> Any:
    """Return an int64 mask as so many single bits."""
    bits = ir.VectorType(ir.IntType(1), lanes)
    return builder.bitcast(builder.trunc(mask, ir.IntType(lanes)), bits)


def _comparison(name: str, emit: str, operation: str, what: str) -> Any:
    """Make the intrinsic that compares two float vectors lane by lane."""

    def compare(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            bits = getattr(builder, emit)(operation, *args)
            return builder.zext(builder.bitcast(bits, _MASK), _WORD)

        return types.int64(float32x16, float32x16), generate

    compare.__name__ = name
    compare.__doc__ = f"Return the mask of the lanes where {what}."
    return intrinsic(compare)


above = _comparison("above", "fcmp_ordered", ">", "``a`` is larger than ``b``")
at_least = _comparison("at_least", "fcmp_ordered", ">=", "``a`` is ``b`` or larger")
equal = _comparison("equal", "fcmp_ordered", "==", "``a`` and ``b`` are equal numbers")
not_numbers = _comparison("not_numbers", "fcmp_unordered", "uno", "``a`` or ``b`` is NaN")


@intrinsic
def where(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """Return ``a`` in the lanes of the mask and ``b`` in the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(_to_lanes(builder, args[0]), args[1], args[2])

    return float32x16(types.int64, float32x16, float32x16), generate


@intrinsic
def count_bits(typing: Any, mask: Any) -> Any:
    """Return how many bits of an int64 are set."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), generate


@intrinsic
def lowest_bit(typing: Any, mask: Any) -> Any:
    """Return the place of the lowest set bit of an int64; 64 where there is none."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.int64(types.int64), generate


@intrinsic
def largest_lane(typing: Any, value: Any) -> Any:
    """Return the largest of 16 floats, none of them NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top, width = args[0], LANES
        while width > 1:
            width //= 2
            places = ir.VectorType(ir.IntType(32), width)
            undefined = ir.Constant(top.type, ir.Undefined)
            low = builder.shuffle_vector(top, undefined, places(list(range(width))))
            high = builder.shuffle_vector(top, undefined, places(list(range(width, 2 * width))))
            top = builder.select(builder.fcmp_ordered(">", low, high), low, high)
        return builder.extract_element(top, ir.IntType(32)(0))

    return types.float32(float32x16), generate


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def _suffix(vector: Any) -> str:
    element = vector.element
    kind = f"i{element.width}" if isinstance(element, ir.IntType) else "f32"
    return f"v{vector.count}{kind}"


@intrinsic
def load_part(typing: Any, array: Any, at: Any, count: Any, rest: Any) -> Any:
    """Return the ``count`` elements from ``at`` of a float32 array, 16 at most.

    The other lanes are ``rest``; nothing is read behind the elements.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array_type = sig.args[0]
        pointer = _pointer(context, builder, array_type, args[0], args[1], _FLOAT)
        wide = ir.VectorType(_WORD, LANES)
        undefined = ir.Constant(wide, ir.Undefined)
        count = builder.insert_element(undefined, args[2], ir.IntType(32)(0))
        count = builder.shuffle_vector(count, undefined, ir.Constant(_INT, [0] * LANES))
        mask = builder.icmp_signed("<", ir.Constant(wide, list(range(LANES))), count)
        undefined = ir.Constant(_FLOAT, ir.Undefined)
        rest = builder.insert_element(undefined, args[3], ir.IntType(32)(0))
        rest = builder.shuffle_vector(rest, undefined, ir.Constant(_INT, [0] * LANES))
        kind = ir.FunctionType(_FLOAT, [pointer.type, ir.IntType(32), _BITS, _FLOAT])
        address = "p0" if pointer.type.is_opaque else f"p0{_suffix(_FLOAT)}"
        name = f"llvm.masked.load.{_suffix(_FLOAT)}.{address}"
        load = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(load, [pointer, ir.IntType(32)(4), mask, rest])

    return float32x16(array, types.intp, types.intp, types.float32), generate


def pack_lanes(vector: Any) -> Any:
    """Make the code that writes the lanes of a mask next to each other; as :func:`store_where`.

    ``vector`` is LLVM's type: 64 bytes of floats or of integers.
    """
    align = 64 // vector.count

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, at, value, mask = args
        bits = _to_lanes(builder, mask, vector.count)
        if simd_path() in ("amx", "avx512"):
            # Packed in the register: written to memory directly, it is microcode on Zen 4.
            kind = ir.FunctionType(vector, [vector, vector, bits.type])
            name = f"llvm.x86.avx512.mask.compress.{_suffix(vector)}"
            pack = cgutils.get_or_insert_function(builder.module, kind, name)
            packed = builder.call(pack, [value, ir.Constant(vector, None), bits])
            pointer = _pointer(context, builder, sig.args[0], array, at, vector)
            builder.store(packed, pointer, align=align)
        else:
            pointer = _pointer(context, builder, sig.args[0], array, at, vector.element)
            for lane in range(vector.count):  # without branches: what is not wanted is overwritten
                place = ir.IntType(32)(lane)
                builder.store(builder.extract_element(value, place), pointer, align=align)
                step = builder.zext(builder.extract_element(bits, place), _WORD)
                pointer = builder.gep(pointer, [step])
        return context.get_dummy_value()

    return generate


@intrinsic
def store_where(typing: Any, array: Any, at: Any, value: Any, mask: Any) -> Any:
    """Write the lanes of the mask next to each other from element ``at`` of a float32 array.

    What follows them is overwritten: element ``at + 15`` is the last that may be.
    """
    generate = pack_lanes(_FLOAT)
    return types.void(array, types.intp, float32x16, types.int64), generate


@intrinsic
def store_lanes_where(typing: Any, array: Any, at: Any, value: Any, mask: Any) -> Any:
    """Do as :func:`store_where`, for an ``Int32x16`` and an array of 32-bit integers."""
    generate = pack_lanes(_INT)
    return types.void(array, types.intp, int32x16, types.int64), generate


@intrinsic
def swap_neighbours(typing: Any, x: Any) -> Any:
    """Return ``x`` with lanes 0 and 1, 2 and 3, ... exchanged."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [i ^ 1 for i in range(LANES)])
        return builder.shuffle_vector(args[0], ir.Constant(_FLOAT, ir.Undefined), places)

    return float32x16(float32x16), generate
