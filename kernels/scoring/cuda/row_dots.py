"""Products of two rows of bfloat16 weights with one input, from memory to registers directly."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of
from numbatch.kernels.scoring.cuda.words import stream_words

__all__ = ["add_row_dots"]

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


class _Reader:
    """Emits loads from one array."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.context, self.builder, self.kind, self.array = context, builder, kind, array

    def words(self, at: Any, offset: int, count: int = 4) -> list[Any]:
        """Load ``count`` words of 4 bytes from flat element ``at + offset``."""
        builder = self.builder
        element = builder.add(at, ir.Constant(_I64, offset)) if offset else at
        pointer = element_pointer(self.context, builder, self.kind, self.array, element)
        vector = ir.VectorType(_I32, count)
        loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4 * count)
        return [builder.extract_element(loaded, ir.Constant(_I32, i)) for i in range(count)]

    def stream(self, at: Any, offset: int) -> list[Any]:
        """Load four words that are read once."""
        element = self.builder.add(at, ir.Constant(_I64, offset)) if offset else at
        return stream_words(
            self.builder,
            element_pointer(self.context, self.builder, self.kind, self.array, element),
        )


@intrinsic(prefer_literal=True)
def add_row_dots(typingctx, total, weights, at, x, x_at, steps):
    """Add the products of two rows of bfloat16 weights with one input, 256 columns a step.

    Parameters
    ----------
    total : tuple of four float32
        Two sums for each row: of even and of odd columns.
    weights, x : uint16 arrays
    at : tuple of two int64
        Flat elements of this lane's first piece of 8 columns in both rows.
    x_at : int64
        The same of the input.
    steps : int
        A literal. All their loads are under way at once.
    """
    count = int(steps.literal_value)

    def emit(context, builder, signature, args):
        total_, weights_, at_, x_, x_at_, _ = args
        reader = _Reader(context, builder, signature.args[1], weights_)
        inputs = _Reader(context, builder, signature.args[3], x_)
        rows, totals = elements(builder, at_, 2), elements(builder, total_, 4)
        loaded = [[reader.stream(row, 256 * step) for row in rows] for step in range(count)]
        for step in range(count):
            for i, word in enumerate(inputs.words(x_at_, 256 * step)):
                numbers = _two_floats(builder, word)
                for row in range(2):
                    weight = _two_floats(builder, loaded[step][row][i])
                    for half in range(2):
                        place = 2 * row + half
                        operands = [weight[half], numbers[half], totals[place]]
                        template = "fma.rn.f32 $0, $1, $2, $3;"
                        totals[place] = assembly(builder, template, _F32, "=f,f,f,f", operands)
        return tuple_of(builder, totals)

    return total(total, weights, at, x, types.int64, steps), emit


def _two_floats(builder: Any, word: Any) -> list[Any]:
    """Return the two bfloat16 numbers of a word as float32."""
    low = builder.shl(word, ir.Constant(_I32, 16))
    high = builder.and_(word, ir.Constant(_I32, 0xFFFF0000))
    return [builder.bitcast(low, _F32), builder.bitcast(high, _F32)]
