"""Products of one query a head with cached keys and values, straight from memory to tensor cores.

The heads that share a key are the rows of a 16 x 16 fragment, eight at most; the other rows are
zero. The order of the numbers within a sum is free as long as both sides have it, so each lane
loads 16 bytes at a time as they lie in memory, and no number passes through shared memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of
from numbatch.kernels.scoring.cuda.tiles import mma

__all__ = [
    "add_values",
    "head_rows",
    "key_scores",
    "load_keys",
    "load_values",
    "put_row",
    "store_partial",
    "store_pieces",
]

_I32, _F32, _I64 = ir.IntType(32), ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_I32, 4)
_LOW, _HIGH = 0x5410, 0x7632
"""Selectors of PTX's prmt: the low or the high halves of two words."""


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any, offset: int) -> list[Any]:
    """Load 16 bytes from flat element ``at + offset`` as four words."""
    element = builder.add(at, ir.Constant(_I64, offset)) if offset else at
    pointer = element_pointer(context, builder, kind, array, element)
    loaded = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=16)
    return [builder.extract_element(loaded, ir.Constant(_I32, i)) for i in range(4)]


@intrinsic(prefer_literal=True)
def head_rows(typingctx, q, at, is_there, width):
    """Load this lane's part of a query from flat element ``at``; zeros if it is not there.

    Lane ``4 * g + t`` gives the element ``8 * t`` of head ``g``.
    """
    columns = int(width.literal_value)

    def emit(context, builder, signature, args):
        q, at, is_there, _ = args
        words: list[Any] = []
        for offset in range(0, columns, 32):
            words += _load(context, builder, signature.args[0], q, at, offset)
        zero = ir.Constant(_I32, 0)
        return tuple_of(builder, [builder.select(is_there, word, zero) for word in words])

    whole = types.UniTuple(types.uint32, columns // 8)
    return whole(q, types.int64, types.boolean, width), emit


@intrinsic(prefer_literal=True)
def load_keys(typingctx, cache, at, width):
    """Begin to load a lane's part of keys ``g`` and ``g + 8`` of a block.

    ``at`` is the flat element ``8 * t`` of key ``g``.
    """
    columns = int(width.literal_value)

    def emit(context, builder, signature, args):
        words: list[Any] = []
        for row in (0, 8):
            for offset in range(0, columns, 32):
                place = row * columns + offset
                words += _load(context, builder, signature.args[0], *args[:2], place)
        return tuple_of(builder, words)

    return types.UniTuple(types.uint32, columns // 4)(cache, types.int64, width), emit


@intrinsic(prefer_literal=True)
def load_values(typingctx, cache, at, width):
    """Begin to load a lane's part of values ``2t``, ``2t + 1``, ``2t + 8`` and ``2t + 9``.

    ``at`` is the flat element ``8 * g`` of value ``2 * t``.
    """
    columns = int(width.literal_value)

    def emit(context, builder, signature, args):
        words: list[Any] = []
        for row in (0, 1, 8, 9):
            for offset in range(0, columns, 64):
                place = row * columns + offset
                words += _load(context, builder, signature.args[0], *args[:2], place)
        return tuple_of(builder, words)

    return types.UniTuple(types.uint32, columns // 4)(cache, types.int64, width), emit


@intrinsic(prefer_literal=True)
def put_row(typingctx, words, row, at, is_there):
    """Put a row's words in the place of those from ``at``, a literal, on, if it belongs there."""
    first = int(at.literal_value)

    def emit(context, builder, signature, args):
        out = elements(builder, args[0], words.count)
        for i, word in enumerate(elements(builder, args[1], row.count), first):
            out[i] = builder.select(args[3], word, out[i])
        return tuple_of(builder, out)

    return words(words, row, at, types.boolean), emit


@intrinsic(prefer_literal=True)
def store_pieces(typingctx, array, at, words, apart):
    """Write words, 16 bytes at a time, from flat element ``at`` on; pieces are ``apart`` apart."""
    step = int(apart.literal_value)

    def emit(context, builder, signature, args):
        array, at = args[:2]
        given = elements(builder, args[2], words.count)
        for piece in range(words.count // 4):
            value = ir.Constant(_VECTOR, ir.Undefined)
            for lane in range(4):
                number = ir.Constant(_I32, lane)
                value = builder.insert_element(value, given[4 * piece + lane], number)
            element = builder.add(at, ir.Constant(_I64, step * piece))
            pointer = element_pointer(context, builder, signature.args[0], array, element)
            builder.store(value, builder.bitcast(pointer, _VECTOR.as_pointer()), align=16)
        return context.get_dummy_value()

    return types.none(array, types.int64, words, apart), emit


@intrinsic
def key_scores(typingctx, queries, keys):
    """Scores of 16 keys of a block: (2t, 2t + 1) of the first eight, then of the others."""

    def emit(context, builder, signature, args):
        queries_ = elements(builder, args[0], queries.count)
        words = elements(builder, args[1], keys.count)
        zero, none = ir.Constant(_F32, 0.0), ir.Constant(_I32, 0)
        scores: list[Any] = []
        for half in range(2):
            tile = [zero] * 4
            for step in range(queries.count // 4):
                query = queries_[4 * step : 4 * step + 4]
                at = half * queries.count + 4 * step
                for i in (0, 2):
                    a = [query[i], none, query[i + 1], none]
                    tile = mma(builder, tile, a, words[at + i : at + i + 2])
            scores += tile[:2]
        return tuple_of(builder, scores)

    return types.UniTuple(types.float32, 4)(queries, keys), emit


@intrinsic
def add_values(typingctx, total, first, second, values, left):
    """Add the product of weights of 16 keys with their values, of which ``left`` are there.

    What lies where no value is may be no number, so it is not enough that its weight is 0.
    ``left`` counts from this lane's first value, ``2 * t``; ``first`` and ``second`` are the packed
    weights of keys (2t, 2t + 1) and (2t + 8, 2t + 9). Numbers ``2 * i`` and ``2 * i + 1`` of the
    total belong to elements ``64 * (i // 8) + i % 8`` of pieces ``2t`` and ``2t + 1``.
    """
    parts = total.count // 16

    def emit(context, builder, signature, args):
        total_, first, second, values_, left = args
        numbers = elements(builder, total_, total.count)
        words = elements(builder, values_, values.count)
        zero, none = ir.Constant(_F32, 0.0), ir.Constant(_I32, 0)
        rows = []
        for i, row in enumerate((0, 1, 8, 9)):
            there = builder.icmp_signed(">", left, ir.Constant(_I32, row))
            own = words[4 * parts * i : 4 * parts * (i + 1)]
            rows.append([builder.select(there, word, none) for word in own])
        a = [first, none, second, none]
        for part in range(parts):
            for element in range(8):
                selector = ir.Constant(_I32, _HIGH if element % 2 else _LOW)
                at = 4 * part + element // 2
                b = [
                    assembly(
                        builder, "prmt.b32 $0, $1, $2, $3;", _I32, "=r,r,r,r",
                        [rows[i][at], rows[i + 1][at], selector],
                    )
                    for i in (0, 2)
                ]  # fmt: skip
                number = 2 * (8 * part + element)
                tile = [*numbers[number : number + 2], zero, zero]
                numbers[number : number + 2] = mma(builder, tile, a, b)[:2]
        return tuple_of(builder, numbers)

    whole = types.uint32
    return total(total, whole, whole, values, types.int32), emit


@intrinsic
def store_partial(typingctx, total, out, at):
    """Write a head's numbers to a float32 array; ``at`` is the flat element ``16 * t`` of it."""

    def emit(context, builder, signature, args):
        numbers = elements(builder, args[0], total.count)
        vector = ir.VectorType(_F32, 4)
        for part in range(total.count // 16):
            own = numbers[16 * part : 16 * part + 16]
            ordered = own[0::2] + own[1::2]
            for i in range(0, 16, 4):
                value = ir.Constant(vector, ir.Undefined)
                for lane in range(4):
                    value = builder.insert_element(
                        value, ordered[i + lane], ir.Constant(_I32, lane)
                    )
                element = builder.add(args[2], ir.Constant(_I64, 64 * part + i))
                pointer = element_pointer(context, builder, signature.args[1], args[1], element)
                builder.store(value, builder.bitcast(pointer, vector.as_pointer()), align=16)
        return context.get_dummy_value()

    return types.none(total, out, types.int64), emit
