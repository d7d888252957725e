"""Products of 16 rows of weights with up to 16 inputs, from memory to tensor cores directly.

A lane loads 16 bytes of weights at a time as they lie in memory, and 16 bytes of the same columns
of the inputs; which of them meet in a sum does not matter as long as both sides agree. Packed
weights are turned into bfloat16 whole numbers, which is exact, and each block's sum is multiplied
by the block's scale in float32: no weight is rounded.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.scoring.cuda.tiles import _mma
from numbatch.kernels.scoring.cuda.words import (
    _assembly,
    _element_pointer,
    _elements,
    _stream,
    _tuple,
)

__all__ = ["add_row_dots", "add_weights", "load_weights", "store_sums"]

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
GROUP = 128
"""Columns that a lane's 16 bytes of 4-bit weights belong to, with three other lanes."""

_MINUS_136, _MINUS_128 = 0xC308, 0xC300
"""Bits of bfloat16 numbers."""

GROUPS = 2
"""Groups that are loaded before the first is used."""


class _Reader:
    """Emits loads from one array."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.context, self.builder, self.kind, self.array = context, builder, kind, array

    def words(self, at: Any, offset: int, count: int = 4) -> list[Any]:
        """Load ``count`` words of 4 bytes from flat element ``at + offset``."""
        builder = self.builder
        element = builder.add(at, ir.Constant(_I64, offset)) if offset else at
        pointer = _element_pointer(self.context, builder, self.kind, self.array, element)
        vector = ir.VectorType(_I32, count)
        loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4 * count)
        return [builder.extract_element(loaded, ir.Constant(_I32, i)) for i in range(count)]

    def stream(self, at: Any, offset: int) -> list[Any]:
        """Load four words that are read once."""
        element = self.builder.add(at, ir.Constant(_I64, offset)) if offset else at
        return _stream(
            self.builder,
            _element_pointer(self.context, self.builder, self.kind, self.array, element),
        )


def _bent(builder: Any, word: Any, shift: int, less: int) -> Any:
    """Turn two nibbles of a word into bfloat16 numbers, and take off a number.

    128 + n is the bfloat16 with the bits 0x4300 | n; taking off 128 or 136 is exact. To take it off
    the sums instead costs two more products a chunk, and the tensor cores have no time for them.
    """
    moved = builder.lshr(word, ir.Constant(_I32, shift)) if shift else word
    masked = builder.and_(moved, ir.Constant(_I32, 0x000F000F))
    raised = builder.or_(masked, ir.Constant(_I32, 0x43004300))
    template = "fma.rn.bf16x2 $0, $1, $2, $3;"
    operands = [raised, ir.Constant(_I32, 0x3F803F80), ir.Constant(_I32, less << 16 | less)]
    return _assembly(builder, template, _I32, "=r,r,r,r", operands)


def _byte_pair(builder: Any, word: Any, low: int) -> Any:
    """Turn bytes ``low`` and ``low + 1`` of a word, each plus 128, into bfloat16 numbers.

    2**23 + b is the float32 with the bits 0x4B000000 | b.
    """
    big = ir.Constant(_I32, 0x4B000000)
    numbers = []
    for byte in (low, low + 1):
        selector = ir.Constant(_I32, 0x7440 | byte)
        bits = _assembly(
            builder, "prmt.b32 $0, $1, $2, $3;", _I32, "=r,r,r,r", [word, big, selector]
        )
        number = builder.bitcast(bits, _F32)
        numbers.append(builder.fsub(number, ir.Constant(_F32, 8388608.0 + 128.0)))
    template = "cvt.rn.bf16x2.f32 $0, $1, $2;"
    return _assembly(builder, template, _I32, "=r,f,f", [numbers[1], numbers[0]])


def _halves(builder: Any, words: list[Any]) -> list[Any]:
    """Return the float16 numbers of words as float32."""
    out = []
    for word in words:
        for half in (word, builder.lshr(word, ir.Constant(_I32, 16))):
            bits = builder.trunc(half, _I16)
            out.append(_assembly(builder, "cvt.f32.f16 $0, $1;", _F32, "=f,h", [bits]))
    return out


def _add_scaled(
    builder: Any, total: list[Any], tile: list[Any], factors: tuple[Any, Any]
) -> list[Any]:
    """Return ``total + factor * tile`` with a factor for the rows ``g`` and ``g + 8``."""
    template = "fma.rn.f32 $0, $1, $2, $3;"
    return [
        _assembly(builder, template, _F32, "=f,f,f,f", [value, factors[i // 2], total[i]])
        for i, value in enumerate(tile)
    ]


def _words_of(kind: str) -> int:
    """Return the words that a lane has of a group of a row."""
    return {"plain": 16, "nibbles": 4, "bytes": 8}[kind]


@intrinsic(prefer_literal=True)
def load_weights(typingctx, weights, at, scales, leasts, scale_at, kind):
    """Begin to load a lane's part of 256 columns of weights, and their scales.

    Parameters
    ----------
    weights : uint16 (plain) or uint32 array
    at, scale_at : tuples of int64
        Flat elements: this lane's piece, and the first scale, in rows ``g`` and ``g + 8``.
    scales, leasts : uint16 arrays
        ``leasts`` is None where weights have none.
    kind : str
        A literal: ``plain``, ``nibbles`` or ``bytes``.
    """
    step = _words_of(kind.literal_value)
    is_plain = kind.literal_value == "plain"
    factors = 0 if is_plain else 1 if leasts == types.none else 2

    def emit(context, builder, signature, args):
        weights, at, scales, leasts, scale_at, _ = args
        reader = _Reader(context, builder, signature.args[0], weights)
        words: list[Any] = []
        for row in _elements(builder, at, 2):
            for offset in range(0, 4 * step * GROUPS, 4 * step):
                for i in range(0, step, 4):
                    words += reader.stream(row, 2 * offset + 8 * i if is_plain else offset + i)
        for place, array in ((2, scales), (3, leasts))[:factors]:
            factor_reader = _Reader(context, builder, signature.args[place], array)
            for row in _elements(builder, scale_at, 2):
                words += factor_reader.words(row, 0, 2 * GROUPS)
        return _tuple(builder, words)

    count = 2 * GROUPS * (step + 2 * factors)
    return types.UniTuple(types.uint32, count)(weights, at, scales, leasts, scale_at, kind), emit


@intrinsic(prefer_literal=True)
def add_weights(typingctx, total, held, x, x_at, kind, has_least):
    """Add the products of 256 columns of weights that :func:`load_weights` loaded.

    Packed weights are ``scale * (code - 8)`` or ``scale * code + least`` (nibbles), or
    ``scale * (code - 128)`` (bytes).

    Parameters
    ----------
    total : tuple of float32
        Four for each tile of 8 tokens.
    held : tuple of uint32
    x : uint16 array
    x_at : tuple of int64
        Flat elements: this lane's piece of token ``g`` of each tile of tokens.
    kind, has_least
        Literals.
    """
    step, with_least = _words_of(kind.literal_value), bool(has_least.literal_value)
    is_plain = kind.literal_value == "plain"
    less = _MINUS_128 if with_least else _MINUS_136

    def words(builder: Any, loads: list[Any], chunk: int) -> list[Any]:
        if is_plain:
            return loads[4 * chunk : 4 * chunk + 4]
        if step == 4:
            return [_bent(builder, loads[chunk], shift, less) for shift in (0, 4, 8, 12)]
        pair = loads[2 * chunk : 2 * chunk + 2]
        return [_byte_pair(builder, word, low) for word in pair for low in (0, 2)]

    def emit(context, builder, signature, args):
        total_, held_, x, x_at, _, _ = args
        tiles = total.count // 4
        places = _elements(builder, x_at, tiles)
        inputs = _Reader(context, builder, signature.args[2], x)
        totals = _elements(builder, total_, total.count)
        loads = _elements(builder, held_, held.count)
        size = GROUPS * step
        rows = [loads[:size], loads[size : 2 * size]]
        rest = loads[2 * size :]
        # Two words hold the scales of a group: those of both rows, then the leasts of both.
        factors = [_halves(builder, rest[i : i + 2 * GROUPS]) for i in range(0, len(rest), 4)]
        zero, ones = [ir.Constant(_F32, 0.0)] * 4, [ir.Constant(_I32, 0x3F803F80)] * 4
        for group in range(GROUPS):
            for chunk in range(4):
                own, below = (
                    words(builder, row[step * group : step * (group + 1)], chunk) for row in rows
                )
                for tile in range(tiles):
                    b = inputs.words(places[tile], GROUP * group + 32 * chunk)
                    place = slice(4 * tile, 4 * tile + 4)
                    part, sums = totals[place] if is_plain else zero, zero
                    for i in (0, 2):
                        if with_least:
                            sums = _mma(builder, sums, ones, b[i : i + 2])
                        a = [own[i], below[i], own[i + 1], below[i + 1]]
                        part = _mma(builder, part, a, b[i : i + 2])
                    if is_plain:
                        totals[place] = part
                        continue
                    at = 4 * group + chunk
                    pair = (factors[0][at], factors[1][at])
                    totals[place] = _add_scaled(builder, totals[place], part, pair)
                    if with_least:
                        pair = (factors[2][at], factors[3][at])
                        totals[place] = _add_scaled(builder, totals[place], sums, pair)
        return _tuple(builder, totals)

    return total(total, held, x, x_at, kind, has_least), emit


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
        rows, totals = _elements(builder, at_, 2), _elements(builder, total_, 4)
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
                        totals[place] = _assembly(builder, template, _F32, "=f,f,f,f", operands)
        return _tuple(builder, totals)

    return total(total, weights, at, x, types.int64, steps), emit


def _two_floats(builder: Any, word: Any) -> list[Any]:
    """Return the two bfloat16 numbers of a word as float32."""
    low = builder.shl(word, ir.Constant(_I32, 16))
    high = builder.and_(word, ir.Constant(_I32, 0xFFFF0000))
    return [builder.bitcast(low, _F32), builder.bitcast(high, _F32)]


@intrinsic(prefer_literal=True)
def store_sums(typingctx, total, out, at, tiles):
    """Write a warp's sums to a float32 array of shape (16 rows a tile, 8 tokens a tile).

    ``at`` is the flat element of row ``g``, token ``2 * t``; ``tiles`` (a literal) how many tiles
    of tokens there are.
    """
    count = int(tiles.literal_value)

    def emit(context, builder, signature, args):
        numbers = _elements(builder, args[0], total.count)
        for i, value in enumerate(numbers):
            tile, place = divmod(i, 4)
            offset = 8 * (place // 2) * 8 * count + 8 * tile + place % 2
            element = builder.add(args[2], ir.Constant(_I64, offset))
            pointer = _element_pointer(context, builder, signature.args[1], args[1], element)
            builder.store(value, pointer)
        return context.get_dummy_value()

    return types.none(total, out, types.int64, tiles), emit
