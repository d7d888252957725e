"""Text to token ids in one pass: split, look each piece up, merge what is not known yet.

For byte-level vocabularies and compiled families of patterns. No Python object is made for a
piece.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.encode_piece import encode_piece, whole_piece
from numbatch.kernels.tokenization.piece_cache import (
    CACHED_BYTES,
    CACHED_TOKENS,
    ENTRY,
    IN_STORE,
    SHORT_BYTES,
    find_entry,
    find_long_entry,
    first_entry,
    long_piece_key,
    pack_tokens,
    piece_key,
    store_bytes,
    store_tokens,
    write_entry,
    write_stored_tokens,
    write_tokens,
)
from numbatch.kernels.tokenization.piece_state import (
    ENDS,
    FILLED,
    KEYS,
    ROOM,
    STORED,
    ByteTables,
    cache_in,
    has_room,
    new_state,
    pointers_to,
)
from numbatch.kernels.tokenization.split import split_some
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.words import int64_pointer, pointer_to, prefetch, uint64_pointer

__all__ = ["SLACK", "ByteTables", "encode_blocks", "encode_text", "new_state", "seed_entries"]

SLACK = 8
"""How many tokens more than there are bytes an output must have room for."""


@cpu_device
def _encode_new(text, at, stop, tables, state, out, total):
    """Encode a piece that may be a token; return the number of tokens."""
    if tables.options[1]:
        row = whole_piece(text, at, stop, tables)
        if row >= 0:
            out[total] = row
            return np.intp(1)
    return encode_piece(text, at, stop, tables, state, out, total)


@cpu_device
def _keep(low, high, slot, cache, out, total, count):
    """Fill an entry with the tokens ``out[total:total + count]``."""
    if count <= CACHED_TOKENS:
        first, second = pack_tokens(out, total, count)
    else:
        place = np.intp(cache.state[STORED])
        first, second = IN_STORE | np.uint64(count), np.uint64(place)
        cache.state[STORED] = store_tokens(cache.store, place, out, total, count)
    write_entry(cache.table, slot, low, high, first, second)
    cache.state[FILLED] += np.uint64(1)


@cpu_device
def _encode_miss(text, at, stop, low, high, slot, tables, cache, out, total):
    """Encode a short piece that the cache lacks, and put it there.

    It is no token by itself: those are all in the cache.
    """
    count = encode_piece(text, at, stop, tables, cache.state, out, total)
    if has_room(cache, 8):
        _keep(low, high, slot, cache, out, total, count)
    return count


@cpu_device
def _encode_long_miss(text, at, stop, low, high, slot, tables, cache, out, total):
    """Encode a long piece that the cache lacks, and put it there."""
    count = _encode_new(text, at, stop, tables, cache.state, out, total)
    length = stop - at
    if 8 * length < cache.mask and has_room(cache, length):
        place = np.intp(cache.state[STORED])
        cache.state[STORED] = store_bytes(text, at, length, cache.masks, cache.store, place)
        _keep(low, high | np.uint64(place), slot, cache, out, total, count)
    return count


@cpu_device
def _write_found(table, slot, store, out, total):
    """Write the tokens of an entry; return their number."""
    if table[slot + 2] < IN_STORE:
        return write_tokens(table[slot + 2], table[slot + 3], out, total)
    return write_stored_tokens(table[slot + 2], table[slot + 3], store, out, total)


@cpu_device
def _encode_long_piece(text, at, stop, low, high, slot, tables, cache, out, total):
    """Write the tokens of a piece of more than 15 bytes; return their number."""
    table = cache.table
    slot = find_long_entry(text, at, low, high, slot, table, cache.mask, cache.masks, cache.store)
    if table[slot + 1] == np.uint64(0):
        return _encode_long_miss(text, at, stop, low, high, slot, tables, cache, out, total)
    return _write_found(table, slot, cache.store, out, total)


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
    keys = uint64_pointer(cache.state, 8 * KEYS)
    table, mask = cache.table, cache.mask
    _ask_for_entries(text, limit, at, ends, count, keys, cache)
    for i in range(count):
        stop = ends[i]
        low, high, slot = keys[3 * i], keys[3 * i + 1], np.intp(keys[3 * i + 2])
        if stop - at <= SHORT_BYTES:
            slot = find_entry(low, high, slot, table, mask)
            if table[slot + 1] != np.uint64(0):
                total += _write_found(table, slot, cache.store, out, total)
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
    ends = int64_pointer(cache.state, 8 * ENDS)
    rules = tables.options[0]
    while at < stop:
        count, after = split_some(text, limit, at, stop, end, rules, tables.classes, ends, ROOM)
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
    pointers = pointers_to(tables)
    cache = cache_in(state, tables.seeds)
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
    cache = cache_in(state, tables.seeds)
    return _encode_stretch(
        pointer_to(text),
        text.size,
        np.intp(0),
        size,
        size,
        pointers_to(tables),
        cache,
        pointer_to(out),
        np.intp(0),
    )


@cpu_kernel
def _seed(state, text, starts, stops, tables, seeds):
    """Encode pieces of up to 15 bytes and write their entries; return how many there are."""
    pointers = pointers_to(tables)
    memory, data = pointer_to(state), pointer_to(text)
    out = np.empty(64, np.uint32)
    tokens = pointer_to(out)
    masks = cache_in(state, tables.seeds).masks
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


def seed_entries(tables: ByteTables) -> np.ndarray:
    """Return the entries of all tokens of up to 15 bytes, each encoded as a piece: uint64."""
    lengths = np.diff(tables.offsets)
    rows = np.flatnonzero((lengths > 0) & (lengths <= SHORT_BYTES))
    starts, stops = tables.offsets[:-1][rows], tables.offsets[1:][rows]
    seeds = np.empty(rows.size * ENTRY, np.uint64)
    size = _seed(new_state(8), tables.values, starts, stops, tables, seeds)
    return read_only(seeds[:size].copy())
