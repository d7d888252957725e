"""Sixteen rows folded at a time: each row's largest, or its sum, in a lane of its own.

To fold one vector to a number takes four steps that wait for each other. Sixteen rows together take
fifteen steps for all, two rearrangements and an operation each, most of which wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.simd import FLOAT, LANES, element_pointer, float32x16

__all__ = ["largest_of_four", "largest_of_rows", "sum_of_rows"]


def _load(builder: Any, pointer: Any, at: Any) -> Any:
    place = builder.bitcast(builder.gep(pointer, [at]), FLOAT.as_pointer())
    return builder.load(place, align=4)


def _fold_rows(builder: Any, rows: list[Any], combine: Callable[..., Any]) -> Any:
    """Fold each of 16 vectors half with half, in the order of ``simd.sum_lanes``.

    A vector of the list holds the lanes that are left of one row after those of another.
    """
    width = LANES
    while len(rows) > 1:
        width //= 2
        places = [i for i in range(2 * LANES) if i // width % 2 == 0]
        low = ir.Constant(ir.VectorType(ir.IntType(32), LANES), places)
        high = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [i + width for i in places])
        rows = [
            combine(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
            for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
    return rows[0]


def _largest_of(count: int, name: str, doc: str) -> Any:
    """Make an intrinsic that finds the largest of each of ``count`` rows."""

    def find(typing: Any, array: Any, at: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def larger(a: Any, b: Any) -> Any:
                return builder.select(builder.fcmp_ordered(">", a, b), a, b)

            pointer = element_pointer(context, builder, sig.args[0], *args[:2])
            rows, word = [], ir.IntType(64)
            for row in range(count):
                start = builder.mul(args[2], word(row))
                found = [
                    _load(builder, pointer, builder.add(start, word(i * LANES))) for i in range(4)
                ]
                rows.append(larger(larger(*found[:2]), larger(*found[2:])))
            return _fold_rows(builder, rows * (LANES // count), larger)

        return float32x16(array, types.intp, types.intp), generate

    find.__name__, find.__doc__ = name, doc
    return intrinsic(find)


largest_of_rows = _largest_of(
    LANES,
    "largest_of_rows",
    "Return in lane ``r`` the largest of 64 floats from index ``at + r * stride`` on, none NaN.",
)
largest_of_four = _largest_of(
    4, "largest_of_four", "As ``largest_of_rows``, of four rows; lane ``r`` has row ``r % 4``."
)


@intrinsic
def sum_of_rows(typing: Any, array: Any, at: Any) -> Any:
    """Return in lane ``r`` the sum of 16 floats from index ``at + 16 * r`` on.

    Bit for bit what ``simd.sum_lanes`` returns for each.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], *args)
        rows = [_load(builder, pointer, ir.IntType(64)(row * LANES)) for row in range(LANES)]
        return _fold_rows(builder, rows, builder.fadd)

    return float32x16(array, types.intp), generate
