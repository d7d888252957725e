"""The tokens of one piece that no cache knows.

A piece is divided wherever no merge reaches from one byte to the next. A part of up to 64 bytes is
merged in the lanes of a vector. A longer one is taken window by window: the tokens of two stretches
that lie side by side are those of the whole where the last of the one and the first of the other
hold against each other (see ``pair_holds``); where they do not, the last one is taken back, and the
window begins there. So the time is linear in the length; a text for which windows would have to go
far back is left to a heap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.byte_pairs import (
    BYTES,
    NEVER,
    pair_holds,
)
from numbatch.kernels.tokenization.merge_heap import merge_heap
from numbatch.kernels.tokenization.merge_lanes import MOST_SYMBOLS, NO_RANK, merge_lanes
from numbatch.kernels.tokenization.merge_slots import NOTHING, find_merge
from numbatch.kernels.tokenization.piece_state import RANKS, SYMBOLS
from numbatch.kernels.words import (
    int64_pointer,
    pointer_to,
    trailing_zeros,
    uint32_pointer,
)

__all__ = ["encode_piece", "lacks_byte", "whole_piece"]

_1, _ALL = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)
_PAIRS = np.intp(1 << 16)
_NOTHING = np.uint64(NOTHING)
_WINDOW = np.intp(48)
"""Shorter than what the lanes hold, so that there is room to begin some bytes earlier."""
_FAR = np.intp(4096)


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
def _symbols_of(text, at, stop, tables, symbols):
    """Write the numbers that merging starts from; return how many there are.

    A byte without an id is left out, or unknown where the vocabulary has an id for that.
    """
    count = np.intp(0)
    after_unknown = False
    for i in range(at, stop):
        number = np.int64(text[i])
        unknown = tables.ids[number] < 0
        if unknown and tables.options[2] >= 0 and not (after_unknown and tables.options[3]):
            symbols[count] = tables.options[2]
            count += 1
        elif not unknown:
            symbols[count] = number
            count += 1
        after_unknown = unknown
    return count


@cpu_device
def lacks_byte(text, at, stop, tables):
    """Return whether the vocabulary lacks a byte of the piece."""
    for i in range(at, stop):
        if tables.ids[text[i]] < 0:
            return True
    return False


@cpu_device(allocates=True)
def _merge_by_heap(text, at, stop, tables, out, total):
    """Write the numbers of a part of any length; return how many there are."""
    size = stop - at
    arrays = np.empty((7, size), np.int64)
    memory = pointer_to(arrays)
    count = _symbols_of(text, at, stop, tables, memory)
    count = merge_heap(
        memory, count, int64_pointer(memory, 8 * size), int64_pointer(memory, 16 * size),
        int64_pointer(memory, 24 * size), int64_pointer(memory, 32 * size),
        tables.pairs, tables.options[4],
    )  # fmt: skip
    for i in range(count):
        out[total + i] = arrays[0, i]
    return count


@cpu_device
def _first_merges(text, at, count, tables):
    """Return the mask of the bytes that merge with the next one before anything else can happen.

    A pair of bytes does if its number is lower than any that the first could become together with
    what may stand before it, and the second with what may stand behind it. Most merges of bytes are
    found so at once, with no step that waits for another.
    """
    sure = np.uint64(0)
    first, second = np.intp(text[at]), np.intp(text[at + 1])
    before = np.uint32(NEVER)
    for i in range(count - 1):
        third = np.intp(text[at + i + 2])
        behind = tables.rivals[_PAIRS + (second << 8 | third)] if i + 2 < count else NEVER
        merged = tables.byte_pairs[first << 8 | second]
        sure |= np.uint64((merged < before) & (merged < behind) & (merged < NOTHING)) << np.uint64(
            i
        )
        before = tables.rivals[first << 8 | second]
        first, second = second, third
    return sure


@cpu_device
def _merge_few(symbols, size, ranks, tables):
    """Merge up to three symbols; return the mask of those that are left.

    Most pieces come to so few at once, and then a vector is not worth loading.
    """
    if size == 1:
        return _1
    first, second = np.int64(ranks[0] >> np.uint32(6)), np.int64(NOTHING)
    if size == 3:
        second = np.int64(ranks[1] >> np.uint32(6))
    if first == NOTHING and second == NOTHING:
        return _ALL >> np.uint64(64 - size)
    if first <= second:
        symbols[0] = first
        if size == 2:
            return _1
        merged = find_merge(first, symbols[2], tables.pairs, tables.options[4])
        if merged == _NOTHING:
            return np.uint64(5)
    else:
        symbols[1] = second
        merged = find_merge(symbols[0], second, tables.pairs, tables.options[4])
        if merged == _NOTHING:
            return np.uint64(3)
    symbols[0] = np.int64(merged)
    return _1


@cpu_device
def _merge_bytes(text, at, count, tables, state):
    """Merge 2 to 64 bytes; return the mask of the symbols that are left."""
    symbols, ranks = int64_pointer(state, 8 * SYMBOLS), uint32_pointer(state, 8 * RANKS)
    for i in range(MOST_SYMBOLS):
        ranks[i] = NO_RANK
    sure = _first_merges(text, at, count, tables) if tables.options[8] else np.uint64(0)
    begins = ~(sure << _1) & (_ALL >> np.uint64(64 - count))
    size = np.intp(0)
    while begins:
        i = trailing_zeros(begins)
        begins &= begins - _1
        first, second = np.intp(text[at + i]), np.intp(text[at + i + 1])
        merged = np.intp(tables.byte_pairs[first << 8 | second])
        # No branch: it would be guessed wrong too often.
        symbols[size] = first ^ ((first ^ merged) & -np.intp(sure >> np.uint64(i) & _1))
        size += 1
    for i in range(size - 1):
        found: Any = np.uint64(NOTHING)
        if symbols[i] >= BYTES or symbols[i + 1] >= BYTES:
            found = find_merge(symbols[i], symbols[i + 1], tables.pairs, tables.options[4])
        else:  # in less memory
            found = np.uint64(tables.byte_pairs[symbols[i] << 8 | symbols[i + 1]])
        ranks[i] = np.uint32(found) << np.uint32(6) | np.uint32(i)
    if size <= 3:
        return _merge_few(symbols, size, ranks, tables)
    return merge_lanes(symbols, size, ranks, tables.pairs, tables.options[4])


@cpu_device
def _write_numbers(alive, state, out, total):
    """Write the numbers of the symbols that are left; return the new total."""
    symbols = int64_pointer(state, 8 * SYMBOLS)
    while alive:
        out[total] = symbols[trailing_zeros(alive)]
        total += 1
        alive &= alive - _1
    return total


@cpu_device
def _write_ids(alive, state, ids, out, total):
    """Write the ids of the symbols that are left; return the new total."""
    symbols = int64_pointer(state, 8 * SYMBOLS)
    while alive:
        out[total] = ids[symbols[trailing_zeros(alive)]]
        total += 1
        alive &= alive - _1
    return total


@cpu_device
def _to_ids(ids, out, first, total):
    """Turn the numbers ``out[first:total]`` into ids; return how many there are."""
    for i in range(first, total):
        out[i] = ids[out[i]]
    return total - first


@cpu_device
def _length_of(number, tables):
    """Return how many bytes a token has."""
    row = tables.ids[number]
    return np.intp(tables.offsets[row + 1] - tables.offsets[row])


@cpu_device
def _encode_window(text, at, stop, tables, state, out, total):
    """Write the numbers of a window; return the new total."""
    if stop - at == 1:
        out[total] = text[at]
        return total + 1
    if stop - at > MOST_SYMBOLS:
        return total + _merge_by_heap(text, at, stop, tables, out, total)
    alive = _merge_bytes(text, at, stop - at, tables, state)
    return _write_numbers(alive, state, out, total)


@cpu_device
def _encode_long(text, at, stop, tables, state, out, first):
    """Write the ids of a part of more than 64 bytes; return their number."""
    total, done = first, at
    while done < stop:
        begin, end = done, min(done + _WINDOW, stop)
        after = _encode_window(text, begin, end, tables, state, out, total)
        while total > first and not pair_holds(
            out[total - 1], out[total], tables.pairs, tables.options[4], tables.halves
        ):
            total -= 1
            begin -= _length_of(out[total], tables)
            if end - begin > _FAR:
                total = first + _merge_by_heap(text, at, stop, tables, out, first)
                return _to_ids(tables.ids, out, first, total)
            after = _encode_window(text, begin, end, tables, state, out, total)
        total, done = after, end
    return _to_ids(tables.ids, out, first, total)


@cpu_device
def _encode_part(text, at, stop, tables, state, out, total):
    """Write the ids of a part across whose ends nothing merges; return how many there are."""
    count = stop - at
    if count == 1:
        out[total] = tables.ids[text[at]]
        return count
    if count <= MOST_SYMBOLS:
        alive = _merge_bytes(text, at, count, tables, state)
        return _write_ids(alive, state, tables.ids, out, total) - total
    if not tables.options[8]:
        end = total + _merge_by_heap(text, at, stop, tables, out, total)
        return _to_ids(tables.ids, out, total, end)
    return _encode_long(text, at, stop, tables, state, out, total)


@cpu_device
def encode_piece(text, at, stop, tables, state, out, total):
    """Write the tokens of a piece to ``out[total:]``; return their number. No error check."""
    if not tables.options[6] and lacks_byte(text, at, stop, tables):
        end = total + _merge_by_heap(text, at, stop, tables, out, total)
        return _to_ids(tables.ids, out, total, end)
    first, begin = total, at
    while at < stop:
        at += 1
        if at < stop:
            pair = np.intp(text[at - 1]) << 8 | np.intp(text[at])
            if tables.byte_pairs[pair] != NEVER:
                continue
        total += _encode_part(text, begin, at, tables, state, out, total)
        begin = at
    return total - first
