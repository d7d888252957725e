"""The tokens of one piece that no cache knows."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.byte_pairs import (
    NEVER,
    SHORT,
    merge_long,
    merge_short,
    rank_pairs,
)
from numbatch.kernels.tokenization.piece_state import RANKS, SYMBOLS
from numbatch.kernels.words import int64_pointer, pointer_to

__all__ = ["encode_piece", "whole_piece"]


@cpu_device
def whole_piece(text, at, stop, tables):
    """Return the id of the token that a piece is, or -1."""
    state = np.uint64(0xCBF29CE484222325)
    for i in range(at, stop):
        state = (state ^ np.uint64(text[i])) * np.uint64(0x100000001B3)
    state *= np.uint64(0x9E3779B97F4A7C15)
    slot = np.intp(state ^ (state >> np.uint64(32))) & tables.options[5]
    row = tables.slots[slot]
    while row >= 0:
        begin = tables.offsets[row]
        if tables.offsets[row + 1] - begin == stop - at:
            same = np.intp(0)
            while same < stop - at and text[at + same] == tables.values[begin + same]:
                same += 1
            if same == stop - at:
                return np.intp(row)
        slot = (slot + 1) & tables.options[5]
        row = tables.slots[slot]
    return np.intp(-1)


@cpu_device
def _byte_symbols(text, at, stop, tables, symbols):
    """Write the ids of single bytes; return their number. A byte without an id is left out."""
    count = np.intp(0)
    after_unknown = False
    for i in range(at, stop):
        symbol = tables.byte_ids[text[i]]
        unknown = symbol < 0
        if unknown and tables.options[2] >= 0 and not (after_unknown and tables.options[3]):
            symbols[count] = tables.options[2]
            count += 1
        elif not unknown:
            symbols[count] = symbol
            count += 1
        after_unknown = unknown
    return count


@cpu_device
def _merge_in(text, at, stop, tables, arrays):
    """Merge a long piece within ``arrays``; return the number of tokens."""
    symbols, following, preceding = arrays[0], arrays[1], arrays[2]
    size = stop - at
    count = _byte_symbols(text, at, stop, tables, pointer_to(symbols))
    return merge_long(
        pointer_to(symbols), count, pointer_to(following), pointer_to(preceding),
        pointer_to(arrays[3]), int64_pointer(pointer_to(arrays), 32 * size),
        tables.pairs, tables.options[4], tables.merged,
    )  # fmt: skip


@cpu_device
def _encode_long(text, at, stop, tables, out, total):
    arrays = np.empty((7, stop - at), np.int64)
    count = _merge_in(text, at, stop, tables, arrays)
    for i in range(count):
        out[total + i] = arrays[0, i]
    return count


@cpu_device
def _encode_part(text, at, stop, tables, state, out, total):
    """Write the tokens of a part across whose ends nothing merges; return their number."""
    if stop - at > SHORT:
        return _encode_long(text, at, stop, tables, out, total)
    symbols, ranks = int64_pointer(state, 8 * SYMBOLS), int64_pointer(state, 8 * RANKS)
    if tables.options[6]:
        count = stop - at
        for i in range(count):
            symbols[i] = tables.byte_ids[text[at + i]]
            if i > 0:
                pair = np.intp(text[at + i - 1]) << 8 | np.intp(text[at + i])
                ranks[i - 1] = tables.byte_ranks[pair]
    else:
        count = _byte_symbols(text, at, stop, tables, symbols)
        rank_pairs(symbols, count, ranks, tables.pairs, tables.options[4])
    count = merge_short(symbols, count, ranks, tables.pairs, tables.options[4], tables.merged)
    for i in range(count):
        out[total + i] = symbols[i]
    return count


@cpu_device
def encode_piece(text, at, stop, tables, state, out, total):
    """Write the tokens of a piece to ``out[total:]``; return their number. No error check.

    The piece is divided wherever no merge reaches from one byte to the next.
    """
    first = total
    begin = at
    while at < stop:
        at += 1
        if at < stop and tables.options[6]:
            pair = np.intp(text[at - 1]) << 8 | np.intp(text[at])
            if tables.byte_ranks[pair] != NEVER:
                continue
        elif at < stop:
            continue
        total += _encode_part(text, begin, at, tables, state, out, total)
        begin = at
    return total - first
