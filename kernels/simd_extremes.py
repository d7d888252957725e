"""Least and greatest numbers of lines of 64 bytes, 16 float32 or 8 float64, as they are.

To compare is exact in any type. Widened to float64 first, as ``simd64`` does for sums, float32
takes twice the vectors and a conversion each: 1.6 times the time in the cache.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

__all__ = [
    "all_kept",
    "fill_line",
    "greater",
    "greatest_of_line",
    "keep_where_numbers",
    "least_of_line",
    "lesser",
    "load_line",
    "next_line",
    "numbers_in_line",
]

BITS = 512


class Line(types.Type):
    """64 bytes of float32 or float64 numbers."""

    def __init__(self, element: types.Type) -> None:
        self.element = element
        super().__init__(name=f"Line({element})")

    @property
    def layout(self) -> ir.VectorType:
        """LLVM's type."""
        number = ir.DoubleType() if self.element == types.float64 else ir.FloatType()
        return ir.VectorType(number, BITS // self.element.bitwidth)

    def filled(self, number: float) -> ir.Constant:
        """Return the constant with ``number`` in every lane."""
        return ir.Constant(self.layout, [number] * self.layout.count)


@register_model(Line)
class _LineModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, numba_type.layout)


@intrinsic
def numbers_in_line(typing: Any, array: Any) -> Any:
    """Return how many elements of a float32 or float64 array a line holds."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, Line(array.dtype).layout.count)

    return types.intp(array), generate


@intrinsic
def load_line(typing: Any, array: Any, at: Any) -> Any:
    """Return the line from element ``at`` on of a C-contiguous float32 or float64 array."""
    line = Line(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(array)(context, builder, args[0])
        place = builder.gep(made.data, [args[1]])
        place = builder.bitcast(place, line.layout.as_pointer())
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return line(array, types.intp), generate


@intrinsic
def next_line(typing: Any, array: Any, at: Any) -> Any:
    """Return the first element after ``at`` that begins a line of the CPU's cache.

    Of an array whose elements lie across lines: some element at most a line after ``at``.
    """
    count = Line(array.dtype).layout.count

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(array)(context, builder, args[0])
        word = args[1].type
        address = builder.ptrtoint(builder.gep(made.data, [args[1]]), word)
        number = builder.udiv(address, word(array.dtype.bitwidth // 8))
        return builder.add(args[1], builder.sub(word(count), builder.urem(number, word(count))))

    return types.intp(array, types.intp), generate


@intrinsic
def fill_line(typing: Any, array: Any, number: Any) -> Any:
    """Return a line for the elements of an array with a float in every lane."""
    line = Line(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = context.cast(builder, args[1], sig.args[1], line.element)
        undefined, word = ir.Constant(line.layout, ir.Undefined), ir.IntType(32)
        places = ir.Constant(ir.VectorType(word, line.layout.count), [0] * line.layout.count)
        one = builder.insert_element(undefined, value, word(0))
        return builder.shuffle_vector(one, undefined, places)

    return line(array, types.float64), generate


def _chooser(comparison: str, name: str, doc: str) -> Any:
    """Make the intrinsic that takes ``a`` where the comparison with ``b`` holds, else ``b``."""

    def choose(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, *args), *args)

        return a(a, b), generate

    choose.__name__ = name
    choose.__doc__ = doc
    return intrinsic(choose)


lesser = _chooser("<", "lesser", "Return the lesser lanes; ``b`` where ``a`` is NaN.")
greater = _chooser(">", "greater", "Return the greater lanes; ``b`` where ``a`` is NaN.")


@intrinsic
def keep_where_numbers(typing: Any, x: Any, y: Any, kept: Any) -> Any:
    """Return ``kept`` in the lanes where neither ``x`` nor ``y`` is NaN, 0 in the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        numbers = builder.fcmp_ordered("ord", args[0], args[1])
        return builder.select(numbers, args[2], kept.filled(0.0))

    return kept(x, y, kept), generate


@intrinsic
def all_kept(typing: Any, kept: Any) -> Any:
    """Return whether no lane is 0 or NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = ir.IntType(kept.layout.count)
        lost = builder.bitcast(builder.fcmp_unordered("==", args[0], kept.filled(0.0)), bits)
        return builder.icmp_unsigned("==", lost, bits(0))

    return types.boolean(kept), generate


def _folder(comparison: str, name: str, doc: str) -> Any:
    """Make the intrinsic that folds a line to one number, half on half."""

    def fold(typing: Any, line: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            left, width = args[0], line.layout.count
            while width > 1:
                width //= 2
                places = ir.VectorType(ir.IntType(32), width)
                undefined = ir.Constant(left.type, ir.Undefined)
                low = builder.shuffle_vector(left, undefined, places(list(range(width))))
                high = builder.shuffle_vector(
                    left, undefined, places(list(range(width, 2 * width)))
                )
                chosen = builder.fcmp_ordered(comparison, low, high)
                left = builder.select(chosen, low, high)
            number = builder.extract_element(left, ir.IntType(32)(0))
            return context.cast(builder, number, line.element, types.float64)

        return types.float64(line), generate

    fold.__name__ = name
    fold.__doc__ = doc
    return intrinsic(fold)


least_of_line = _folder("<", "least_of_line", "Return the least lane, none of them NaN.")
greatest_of_line = _folder(">", "greatest_of_line", "Return the greatest lane, none of them NaN.")
