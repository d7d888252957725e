"""Sums of products of tiles: what is added to them, in which order, and where they go."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of
from numbatch.kernels.scoring.cuda.matvec_stages import shared_words
from numbatch.kernels.scoring.cuda.tiles import int_constant, mma

__all__ = ["add_chunk", "in_order", "store_part"]

_I64, _F32 = ir.IntType(64), ir.FloatType()


@intrinsic(prefer_literal=True)
def add_chunk(typingctx, total, address, token_address, tiles):
    """Add the products of 32 columns of bfloat16 weights with tokens, both in shared memory.

    Parameters
    ----------
    total : tuple of float32
        Four for each tile of 16 rows and each tile of 8 tokens within it.
    address, token_address : uint32
        This lane's piece of row ``g`` and of token ``g``; rows are 64 bytes apart.
    tiles : int
        A literal: how many tiles of tokens there are.
    """
    columns = int(tiles.literal_value)
    rows = total.count // (4 * columns)

    def emit(context, builder, signature, args):
        total_, address_, token_at, _ = args
        totals = elements(builder, total_, total.count)
        weights = []
        for row in range(rows):
            first = builder.add(address_, int_constant(1024 * row)) if row else address_
            own = shared_words(builder, first)
            weights.append((own, shared_words(builder, builder.add(first, int_constant(512)))))
        tokens = []
        for column in range(columns):
            place = builder.add(token_at, int_constant(512 * column)) if column else token_at
            tokens.append(shared_words(builder, place))
        # A product waits for the one before it with the same sums: these come far apart.
        for half in (0, 2):
            for column, b in enumerate(tokens):
                for row, (own, below) in enumerate(weights):
                    at = slice(4 * (row * columns + column), 4 * (row * columns + column) + 4)
                    a = [own[half], below[half], own[half + 1], below[half + 1]]
                    totals[at] = mma(builder, totals[at], a, b[half : half + 2])
        return tuple_of(builder, totals)

    return total(total, types.uint32, types.uint32, tiles), emit


@intrinsic
def in_order(typingctx, total, more):
    """Add two numbers, or two tuples of numbers; no option lets the compiler reorder it."""

    def emit(context, builder, signature, args):
        def add(a: Any, b: Any) -> Any:
            return assembly(builder, "add.rn.f32 $0, $1, $2;", _F32, "=f,f,f", [a, b])

        if not isinstance(total, types.UniTuple):
            return add(*args)
        pairs = zip(*(elements(builder, each, total.count) for each in args), strict=True)
        return tuple_of(builder, [add(a, b) for a, b in pairs])

    return total(total, total), emit


@intrinsic(prefer_literal=True)
def store_part(typingctx, total, out, at, tiles, first, count, apart):
    """Write some of a warp's sums to a float32 array, a token a row.

    Parameters
    ----------
    total : tuple of float32
        As for :func:`add_chunk`.
    out : float32 array
    at : int64
        The flat element of row ``g`` of token ``2 * t`` of the first tile that is written.
    tiles, first, count, apart : int
        Literals: how many tiles of tokens ``total`` has, the first that is written and how many
        are, and the elements between two tokens.
    """
    columns, begin, wanted, wide = (
        int(each.literal_value) for each in (tiles, first, count, apart)
    )
    rows = total.count // (4 * columns)

    def emit(context, builder, signature, args):
        numbers = elements(builder, args[0], total.count)
        kind, array = signature.args[1], args[1]
        for row in range(rows):
            for tile in range(wanted):
                for place in range(4):
                    offset = (8 * tile + place % 2) * wide + 16 * row + 8 * (place // 2)
                    element = builder.add(args[2], ir.Constant(_I64, offset))
                    number = numbers[4 * (row * columns + begin + tile) + place]
                    builder.store(number, element_pointer(context, builder, kind, array, element))
        return context.get_dummy_value()

    return types.none(total, out, types.int64, tiles, first, count, apart), emit
