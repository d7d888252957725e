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
from numbatch.kernels.scoring.cuda.words import _assembly, _element_pointer, _elements, _tuple

__all__ = ["add_bytes", "add_nibbles", "add_plain", "store_sums"]

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


def _inputs(reader: _Reader, places: list[Any]) -> list[list[list[Any]]]:
    """Load the inputs of a group: for each tile of 8 tokens, four pieces of four words."""
    return [[reader.words(at, 32 * chunk) for chunk in range(4)] for at in places]


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


def _scales(reader: _Reader, at: Any, offset: int) -> list[Any]:
    """Load the float32 scales of a row's four blocks, from float16 bits or float32."""
    builder = reader.builder
    if reader.kind.dtype == types.float32:
        return [builder.bitcast(word, _F32) for word in reader.words(at, offset)]
    out = []
    for word in reader.words(at, offset, 2):
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


@intrinsic
def add_plain(typingctx, total, weights, at, x, x_at):
    """Add the products of 256 columns of bfloat16 weights.

    Parameters
    ----------
    total : tuple of float32
        Four for each tile of 8 tokens.
    weights, x : uint16 arrays
    at, x_at : tuples of int64
        Flat elements: this lane's piece in rows ``g`` and ``g + 8``; its piece of token ``g`` of
        each tile of tokens.
    """

    def emit(context, builder, signature, args):
        total_, weights_, at_, x_, x_at_ = args
        rows, tiles = _elements(builder, at_, 2), total.count // 4
        places = _elements(builder, x_at_, tiles)
        reader = _Reader(context, builder, signature.args[1], weights_)
        inputs = _Reader(context, builder, signature.args[3], x_)
        totals = _elements(builder, total_, total.count)
        chunks = range(GROUPS * GROUP // 32)
        loaded = [[reader.words(row, 32 * chunk) for row in rows] for chunk in chunks]
        for chunk, (own, below) in enumerate(loaded):
            for tile in range(tiles):
                b = inputs.words(places[tile], 32 * chunk)
                part = totals[4 * tile : 4 * tile + 4]
                for i in (0, 2):
                    a = [own[i], below[i], own[i + 1], below[i + 1]]
                    part = _mma(builder, part, a, b[i : i + 2])
                totals[4 * tile : 4 * tile + 4] = part
        return _tuple(builder, totals)

    return total(total, weights, at, x, x_at), emit


def _packed(total: Any, at: Any, words_of_chunk: Any) -> Any:
    """Return the emitter of products with packed weights.

    ``words_of_chunk`` is the emitter of the four bfloat16 words of a row's chunk, and how many
    words a lane has of a group.
    """

    def emit(context, builder, signature, args):
        total_, weights, at_, scales, leasts, scale_at, x, x_at = args
        rows = _elements(builder, at_, at.count)
        tiles = total.count // 4
        scale_rows = _elements(builder, scale_at, at.count)
        places = _elements(builder, x_at, tiles)
        reader = _Reader(context, builder, signature.args[1], weights)
        factor_reader = _Reader(context, builder, signature.args[3], scales)
        has_least = signature.args[4] != types.none
        least_reader = _Reader(context, builder, signature.args[4], leasts)
        inputs = _Reader(context, builder, signature.args[6], x)
        totals = _elements(builder, total_, total.count)
        words, step = words_of_chunk
        loaded = [
            [[w for i in range(0, step, 4) for w in reader.words(row, 4 * step * group + i)]
             for row in rows]
            for group in range(GROUPS)
        ]  # fmt: skip
        factors = [[_scales(factor_reader, r, 4 * i) for r in scale_rows] for i in range(GROUPS)]
        lowest = [
            [_scales(least_reader, r, 4 * i) for r in scale_rows] if has_least else []
            for i in range(GROUPS)
        ]
        zero, ones = [ir.Constant(_F32, 0.0)] * 4, [ir.Constant(_I32, 0x3F803F80)] * 4
        for group in range(GROUPS):
            for chunk in range(4):
                own, below = (words(builder, row, chunk) for row in loaded[group])
                for tile in range(tiles):
                    b = inputs.words(places[tile], GROUP * group + 32 * chunk)
                    sums = zero
                    for i in (0, 2):
                        if has_least:
                            sums = _mma(builder, sums, ones, b[i : i + 2])
                    place = slice(4 * tile, 4 * tile + 4)
                    part = zero
                    for i in (0, 2):
                        a = [own[i], below[i], own[i + 1], below[i + 1]]
                        part = _mma(builder, part, a, b[i : i + 2])
                    pair = (factors[group][0][chunk], factors[group][1][chunk])
                    totals[place] = _add_scaled(builder, totals[place], part, pair)
                    if has_least:
                        pair = (lowest[group][0][chunk], lowest[group][1][chunk])
                        totals[place] = _add_scaled(builder, totals[place], sums, pair)
        return _tuple(builder, totals)

    return emit


def _nibbles(less: int) -> Any:
    def words(builder: Any, loads: list[Any], chunk: int) -> list[Any]:
        return [_bent(builder, loads[chunk], shift, less) for shift in (0, 4, 8, 12)]

    return words, 4


def _bytes(builder: Any, loads: list[Any], chunk: int) -> list[Any]:
    pair = loads[2 * chunk : 2 * chunk + 2]
    return [_byte_pair(builder, word, low) for word in pair for low in (0, 2)]


@intrinsic
def add_nibbles(typingctx, total, weights, at, scales, leasts, scale_at, x, x_at):
    """:func:`add_plain` for 4-bit weights (see ``packing``).

    ``scale_at`` are the first scales of rows ``g`` and ``g + 8``. ``leasts`` is None where weights
    are ``scale * (code - 8)``, else they are ``scale * code + least``.
    """
    emit = _packed(total, at, _nibbles(_MINUS_136 if leasts == types.none else _MINUS_128))
    return total(total, weights, at, scales, leasts, scale_at, x, x_at), emit


@intrinsic
def add_bytes(typingctx, total, weights, at, scales, leasts, scale_at, x, x_at):
    """:func:`add_nibbles` for 8-bit weights: ``scale * (code - 128)``; ``leasts`` is None."""
    emit = _packed(total, at, (_bytes, 8))
    return total(total, weights, at, scales, leasts, scale_at, x, x_at), emit


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
