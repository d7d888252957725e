"""Text to token ids in one pass: split, look each piece up, merge what is not known yet.

For byte-level vocabularies and compiled families of patterns. No Python object is made for a
piece; the state of a thread is one row of words.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.byte_pairs import SHORT, merge_long, merge_short
from numbatch.kernels.tokenization.piece_cache import (
    CACHED_BYTES,
    CACHED_TOKENS,
    ENTRY,
    SHORT_BYTES,
    find_entry,
    find_long_entry,
    first_entry,
    long_piece_key,
    pack_tokens,
    piece_key,
    store_long_piece,
    write_entry,
    write_long_tokens,
    write_tokens,
)
from numbatch.kernels.tokenization.split import split_some
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.words import int64_pointer, pointer_to, prefetch, uint64_pointer

__all__ = [
    "SLACK",
    "ByteTables",
    "encode_blocks",
    "encode_text",
    "new_state",
    "seed_entries",
]

SLACK = 8
"""How many tokens more than there are bytes an output must have room for."""

# The words of a thread's state.
_STARTED, _FILLED, _STORED, _MASKS, _ENDS = 0, 1, 2, 8, 40
_ROOM = np.intp(512)
_SYMBOLS = _ENDS + _ROOM
_RANKS = _SYMBOLS + 128
_KEYS = _RANKS + 128
_TABLE = _KEYS + 3 * _ROOM + 24  # a multiple of eight: entries lie within cache lines
_IN_STORE = np.uint64(7 << 60)


class ByteTables(NamedTuple):
    """What encoding needs of a tokenizer: read-only arrays."""

    pairs: np.ndarray
    """uint64, see :mod:`~numbatch.kernels.tokenization.byte_pairs`."""
    merged: np.ndarray
    """int32"""
    byte_ids: np.ndarray
    """int32, shape (256,): the id of each byte, or -1."""
    slots: np.ndarray
    """int32: the tokens' bytes by hash, see ``tables.StringTable``."""
    values: np.ndarray
    """uint8: the tokens' bytes."""
    offsets: np.ndarray
    """int64"""
    classes: np.ndarray
    """uint8, from ``unicode_classes.class_table``."""
    seeds: np.ndarray
    """uint64: entries that a cache starts with, one after another."""
    options: np.ndarray
    """int64: rules, whole_pieces, unknown_id, fuse_unknown, shift of ``pairs``, slots - 1."""


class _Pointers(NamedTuple):
    pairs: object
    merged: object
    byte_ids: object
    slots: object
    values: object
    offsets: object
    classes: object
    options: object


@cpu_device
def _pointers(tables):
    return _Pointers(
        pointer_to(tables.pairs),
        pointer_to(tables.merged),
        pointer_to(tables.byte_ids),
        pointer_to(tables.slots),
        pointer_to(tables.values),
        pointer_to(tables.offsets),
        pointer_to(tables.classes),
        pointer_to(tables.options),
    )


class _Cache(NamedTuple):
    state: object
    masks: object
    table: object
    mask: int
    """The number of entries less one."""
    store: object
    """As many words as there are entries."""
    seeds: object
    seeded: int


@cpu_device
def _start_cache(cache):
    """Empty the cache but for the vocabulary."""
    for i in range((cache.mask + 1) * ENTRY):
        cache.table[i] = np.uint64(0)
    seeds, table = cache.seeds, cache.table
    for i in range(0, cache.seeded, ENTRY):
        slot = first_entry(seeds[i], seeds[i + 1], cache.mask)
        slot = find_entry(seeds[i], seeds[i + 1], slot, table, cache.mask)
        write_entry(table, slot, seeds[i], seeds[i + 1], seeds[i + 2], seeds[i + 3])
    cache.state[_FILLED] = cache.seeded // ENTRY
    cache.state[_STORED] = 0


@cpu_device
def _cache_in(state, seeds):
    """Return the cache in a thread's state, started if it is new."""
    slots = (state.size - _TABLE) // (ENTRY + 1)
    memory = pointer_to(state)
    cache = _Cache(
        memory,
        uint64_pointer(memory, 8 * _MASKS),
        uint64_pointer(memory, 8 * _TABLE),
        slots - 1,
        uint64_pointer(memory, 8 * (_TABLE + slots * ENTRY)),
        pointer_to(seeds),
        seeds.size,
    )
    if state[_STARTED] == np.uint64(0):
        state[_STARTED] = np.uint64(1)
        _start_cache(cache)
    return cache


@cpu_device
def _whole_piece(text, at, stop, tables):
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
def _encode_new(text, at, stop, tables, state, out, total):
    """Encode a piece that is not in the cache; return the number of tokens."""
    if tables.options[1]:
        row = _whole_piece(text, at, stop, tables)
        if row >= 0:
            out[total] = row
            return np.intp(1)
    if stop - at > SHORT:
        return _encode_long(text, at, stop, tables, out, total)
    symbols = int64_pointer(state, 8 * _SYMBOLS)
    ranks = int64_pointer(state, 8 * _RANKS)
    count = _byte_symbols(text, at, stop, tables, symbols)
    count = merge_short(symbols, count, ranks, tables.pairs, tables.options[4], tables.merged)
    for i in range(count):
        out[total + i] = symbols[i]
    return count


@cpu_device
def _has_room(cache):
    """Return whether one more piece goes in; if not, empty the cache."""
    fits = np.intp(cache.state[_FILLED]) < (cache.mask + 1) // 4 * 3
    if fits and np.intp(cache.state[_STORED]) + CACHED_BYTES < cache.mask:
        return True
    _start_cache(cache)
    return False


@cpu_device
def _encode_miss(text, at, stop, low, high, slot, tables, cache, out, total):
    """Encode a short piece that the cache lacks, and put it there."""
    count = _encode_new(text, at, stop, tables, cache.state, out, total)
    if count <= CACHED_TOKENS:
        if not _has_room(cache):
            slot = find_entry(
                low, high, first_entry(low, high, cache.mask), cache.table, cache.mask
            )
        first, second = pack_tokens(out, total, count)
        write_entry(cache.table, slot, low, high, first, second)
        cache.state[_FILLED] += np.uint64(1)
    return count


@cpu_device
def _encode_long_miss(text, at, stop, low, high, slot, tables, cache, out, total):
    """Encode a long piece that the cache lacks, and put it there."""
    count = _encode_new(text, at, stop, tables, cache.state, out, total)
    if not _has_room(cache):
        return count  # the entry's place is not known any more; the next one like it is kept
    place = np.intp(cache.state[_STORED])
    length = stop - at
    after = store_long_piece(text, at, length, cache.masks, cache.store, place, out, total, count)
    cache.state[_STORED] = after
    first, second = np.uint64(count) | _IN_STORE, np.uint64(0)
    if count <= CACHED_TOKENS:
        first, second = pack_tokens(out, total, count)
    write_entry(cache.table, slot, low, high | np.uint64(place), first, second)
    cache.state[_FILLED] += np.uint64(1)
    return count


@cpu_device
def _encode_long_piece(text, at, stop, low, high, slot, tables, cache, out, total):
    """Write the tokens of a piece of 16 to 255 bytes; return their number."""
    table = cache.table
    slot = find_long_entry(text, at, low, high, slot, table, cache.mask, cache.masks, cache.store)
    if table[slot + 1] == np.uint64(0):
        return _encode_long_miss(text, at, stop, low, high, slot, tables, cache, out, total)
    if table[slot + 2] >> np.uint64(60) <= np.uint64(CACHED_TOKENS):
        return write_tokens(table[slot + 2], table[slot + 3], out, total)
    count = np.intp(table[slot + 2] & np.uint64(0xFFFFFFFF))
    place = np.intp(table[slot + 1] & np.uint64(0xFFFFFFFF)) + (stop - at + 7) // 8
    write_long_tokens(count, place, cache.store, out, total)
    return count


@cpu_device
def _ask_for_entries(text, limit, at, ends, count, keys, cache):
    """Write the keys of ``count`` pieces, and have their cache lines brought in meanwhile.

    The second word is 0 for a piece that is not kept in the cache.
    """
    for i in range(count):
        length = ends[i] - at
        low, high = np.uint64(0), np.uint64(0)
        if length <= SHORT_BYTES:
            low, high = piece_key(text, limit, at, length, cache.masks)
        elif length <= CACHED_BYTES and ends[i] + 8 <= limit:
            low, high = long_piece_key(text, at, length, cache.masks)
        slot = first_entry(low, high, cache.mask)
        prefetch(cache.table, 8 * slot)
        keys[3 * i] = low
        keys[3 * i + 1] = high
        keys[3 * i + 2] = np.uint64(slot)
        at = ends[i]


@cpu_device
def _encode_pieces(text, limit, at, ends, count, tables, cache, out, total):
    """Write the tokens of ``count`` pieces, the first from ``at`` on; return the new total."""
    keys = uint64_pointer(cache.state, 8 * _KEYS)
    table, mask = cache.table, cache.mask
    _ask_for_entries(text, limit, at, ends, count, keys, cache)
    for i in range(count):
        stop = ends[i]
        low, high, slot = keys[3 * i], keys[3 * i + 1], np.intp(keys[3 * i + 2])
        if stop - at <= SHORT_BYTES:
            slot = find_entry(low, high, slot, table, mask)
            if table[slot + 1] != np.uint64(0):
                total += write_tokens(table[slot + 2], table[slot + 3], out, total)
            else:
                total += _encode_miss(text, at, stop, low, high, slot, tables, cache, out, total)
        elif high != np.uint64(0):
            total += _encode_long_piece(text, at, stop, low, high, slot, tables, cache, out, total)
        else:
            total += _encode_new(text, at, stop, tables, cache.state, out, total)
        at = stop
    return total


@cpu_device
def _encode_stretch(text, limit, at, stop, end, tables, cache, out, total):
    """Write the tokens of ``text[at:stop]``, which ends at a piece; return the new total."""
    ends = int64_pointer(cache.state, 8 * _ENDS)
    rules = tables.options[0]
    while at < stop:
        count, after = split_some(text, limit, at, stop, end, rules, tables.classes, ends, _ROOM)
        total = _encode_pieces(text, limit, at, ends, count, tables, cache, out, total)
        at = after
    return total


@cpu_kernel
def encode_blocks(
    start, stop, state, text, blocks, begins, stops, texts_end, fixed, tables, out, ends
):
    """Encode the stretches of blocks ``start`` to ``stop - 1``. No error check.

    Parameters
    ----------
    state : uint64 array, from :func:`new_state`
    text : uint8 array
        Valid UTF-8.
    blocks : int64 array, shape (blocks + 1,)
        Block ``i`` has the stretches from ``blocks[i]`` to ``blocks[i + 1] - 1``.
    begins, stops, texts_end : int64 arrays, shape (stretches,)
        Stretch ``j`` is ``text[begins[j]:stops[j]]`` of a text that ends at ``texts_end[j]``.
    fixed : int32 array, shape (stretches,)
        An id to write before the stretch's own, or -1.
    tables : ByteTables
    out : uint32 array
        The tokens of a block lie from ``begins[j] + j`` on, where ``j`` is its first stretch.
    ends : int64 array, shape (stretches,)
        Receives where in ``out`` the tokens of each stretch end.
    """
    pointers = _pointers(tables)
    cache = _cache_in(state, tables.seeds)
    data, tokens = pointer_to(text), pointer_to(out)
    for block in range(start, stop):
        total = begins[blocks[block]] + blocks[block]
        for j in range(blocks[block], blocks[block + 1]):
            if fixed[j] >= 0:
                out[total] = fixed[j]
                total += 1
            total = _encode_stretch(
                data, text.size, begins[j], stops[j], texts_end[j], pointers, cache, tokens, total
            )  # fmt: skip
            ends[j] = total


@cpu_kernel
def encode_text(state, text, size, tables, out):
    """Encode ``text[:size]``; return the number of tokens. No error check.

    As :func:`encode_blocks` for one text, with less to hand over.
    """
    cache = _cache_in(state, tables.seeds)
    return _encode_stretch(
        pointer_to(text),
        text.size,
        np.intp(0),
        size,
        size,
        _pointers(tables),
        cache,
        pointer_to(out),
        np.intp(0),
    )


@cpu_kernel
def _seed(state, text, starts, stops, tables, seeds):
    """Encode pieces of up to 15 bytes and write their entries; return how many there are."""
    pointers = _pointers(tables)
    memory, data = pointer_to(state), pointer_to(text)
    out = np.empty(64, np.uint32)
    tokens = pointer_to(out)
    masks = uint64_pointer(memory, 8 * _MASKS)
    size, zero = np.intp(0), np.intp(0)
    for i in range(starts.size):
        count = _encode_new(data, starts[i], stops[i], pointers, memory, tokens, zero)
        if count <= CACHED_TOKENS:
            low, high = piece_key(data, text.size, starts[i], stops[i] - starts[i], masks)
            first, second = pack_tokens(tokens, zero, count)
            write_entry(pointer_to(seeds), size, low, high, first, second)
            size += ENTRY
    out[0] = 0  # the array lives as long as the pointer to it
    return size


def new_state(slots: int) -> np.ndarray:
    """Return the state of a thread: uint64, 64-byte aligned; ``slots`` is a power of two."""
    words = _TABLE + slots * (ENTRY + 1)
    room = np.empty(words + 8, np.uint64)
    skip = -room.ctypes.data % 64 // 8
    state = room[skip : skip + words]
    state[_STARTED] = 0
    for length in range(16):
        state[_MASKS + length] = (1 << 8 * min(length, 8)) - 1
        state[_MASKS + 16 + length] = (1 << 8 * max(length - 8, 0)) - 1
    return state


def seed_entries(tables: ByteTables) -> np.ndarray:
    """Return the entries of all tokens of up to 15 bytes, each encoded as a piece: uint64."""
    lengths = np.diff(tables.offsets)
    rows = np.flatnonzero((lengths > 0) & (lengths <= SHORT_BYTES))
    starts, stops = tables.offsets[:-1][rows], tables.offsets[1:][rows]
    seeds = np.empty(rows.size * ENTRY, np.uint64)
    size = _seed(new_state(8), tables.values, starts, stops, tables, seeds)
    return read_only(seeds[:size].copy())
