"""Text to token ids in one pass: split, look each piece up, merge what is not known yet.

For byte-level vocabularies and compiled families of patterns. No Python object is made for a
piece.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.encode_group import cache_new_pieces
from numbatch.kernels.tokenization.encode_piece import encode_piece, whole_piece
from numbatch.kernels.tokenization.piece_cache import (
    CACHED_BYTES,
    IN_STORE,
    SHORT_BYTES,
    find_entry,
    find_long_entry,
    first_entry,
    keep_tokens,
    long_piece_key,
    piece_key,
    store_bytes,
    write_stored_tokens,
    write_tokens,
)
from numbatch.kernels.tokenization.piece_state import (
    ENDS,
    FILLED,
    FILLED_BEFORE,
    HAS_ALL,
    KEYS,
    PLACES,
    ROOM,
    STORE,
    STORED,
    ByteTables,
    cache_in,
    has_room,
    new_state,
    pointers_to,
)
from numbatch.kernels.tokenization.split import MARGIN, split_some
from numbatch.kernels.tokenization.unicode_strings import copy_utf8, has_compact_characters
from numbatch.kernels.words import (
    copy_bytes,
    int64_pointer,
    pointer_to,
    prefetch,
    uint8_pointer,
    uint64_pointer,
)

__all__ = [
    "SLACK",
    "ByteTables",
    "encode_new",
    "encode_stretches",
    "encode_string",
    "encode_strings",
    "new_state",
]

SLACK = 8
"""How many tokens more than there are bytes an output must have room for."""


@cpu_device
def encode_new(text, at, stop, tables, state, out, total):
    """Encode a piece that may be a token; return the number of tokens."""
    if tables.options[1] and state[HAS_ALL] == np.uint64(0):
        row = whole_piece(text, at, stop, tables)
        if row >= 0:
            out[total] = row
            return np.intp(1)
    return encode_piece(text, at, stop, tables, state, out, total)


@cpu_device
def _encode_miss(text, at, stop, low, high, slot, tables, cache, out, total):
    """Encode a short piece that the cache lacks, and put it there.

    It is no token by itself: those are all in the cache.
    """
    count = encode_piece(text, at, stop, tables, cache.state, out, total)
    if has_room(cache, tables, 8):
        keep_tokens(low, high, slot, cache, out, total, count)
    return count


@cpu_device
def _encode_long_miss(text, at, stop, low, high, slot, tables, cache, out, total):
    """Encode a long piece that the cache lacks, and put it there if it is not too long.

    If the cache has all tokens, it is none by itself.
    """
    count = encode_new(text, at, stop, tables, cache.state, out, total)
    words = (stop - at) // 8 + count // 2 + 2
    if 4 * words < STORE * cache.mask and has_room(cache, tables, words):
        place = np.intp(cache.state[STORED])
        cache.state[STORED] = store_bytes(text, at, stop - at, cache.masks, cache.store, place)
        keep_tokens(low, high | np.uint64(place), slot, cache, out, total, count)
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
    if stop - at > CACHED_BYTES:
        return encode_new(text, at, stop, tables, cache.state, out, total)
    table = cache.table
    slot = find_long_entry(text, at, low, high, slot, table, cache.mask, cache.masks, cache.store)
    if table[slot + 1] == np.uint64(0):
        return _encode_long_miss(text, at, stop, low, high, slot, tables, cache, out, total)
    return _write_found(table, slot, cache.store, out, total)


@cpu_device
def _encode_other(text, at, stop, low, high, slot, tables, cache, out, total):
    """Write the tokens of a piece that is not in the entry where its search begins."""
    if stop - at > SHORT_BYTES:
        return _encode_long_piece(text, at, stop, low, high, slot, tables, cache, out, total)
    slot = find_entry(low, high, slot, cache.table, cache.mask)
    if cache.table[slot + 1] == np.uint64(0):
        return _encode_miss(text, at, stop, low, high, slot, tables, cache, out, total)
    return _write_found(cache.table, slot, cache.store, out, total)


@cpu_device
def _ask_for_entries(text, at, ends, count, keys, cache):
    """Write the keys of ``count`` pieces, and have their cache lines brought in meanwhile."""
    masks, table, mask = cache.masks, cache.table, cache.mask
    for i in range(count):
        length = ends[i] - at
        if length <= SHORT_BYTES:
            low, high = piece_key(text, at, length, masks)
        else:
            low, high = long_piece_key(text, at, min(length, CACHED_BYTES), masks)
        slot = first_entry(low, high, mask)
        prefetch(table, 8 * slot)
        keys[3 * i] = low
        keys[3 * i + 1] = high
        keys[3 * i + 2] = np.uint64(slot)
        at = ends[i]


@cpu_device
def _encode_pieces(text, at, ends, count, tables, cache, out, total):
    """Write the tokens of ``count`` pieces, the first from ``at`` on; return the new total."""
    keys = uint64_pointer(cache.state, 8 * KEYS)
    table = cache.table
    _ask_for_entries(text, at, ends, count, keys, cache)
    # Where pieces were new last time, some will be so now; where none was, this look is not paid.
    if cache.state[FILLED] != cache.state[FILLED_BEFORE]:
        cache.state[FILLED_BEFORE] = cache.state[FILLED]
        cache_new_pieces(text, at, ends, count, keys, tables, cache)
    for i in range(count):
        low, high, slot = keys[3 * i], keys[3 * i + 1], np.intp(keys[3 * i + 2])
        found = table[slot + 2]
        # One branch for what nearly all pieces are: at the first entry, with few tokens.
        if (table[slot] == low) & (table[slot + 1] == high) & (found < IN_STORE):
            total += write_tokens(found, table[slot + 3], out, total)
        else:
            begin = ends[i - 1] if i > 0 else at
            total += _encode_other(text, begin, ends[i], low, high, slot, tables, cache, out, total)
    return total


@cpu_device
def _encode_stretch(text, at, stop, end, tables, cache, out, total):
    """Write the tokens of ``text[at:stop]``, which ends at a piece; return the new total."""
    ends, places = int64_pointer(cache.state, 8 * ENDS), uint8_pointer(cache.state, 8 * PLACES)
    rules = tables.options[0]
    while at < stop:
        count, after = split_some(text, at, stop, end, rules, tables.classes, places, ends, ROOM)
        total = _encode_pieces(text, at, ends, count, tables, cache, out, total)
        at = after
    return total


@cpu_kernel
def encode_stretches(
    start, stop, state, text, buffer, begins, stops, texts_end, fixed, tables, out, ends, total
):
    """Encode stretches ``start`` to ``stop - 1``; return the first for which there is no room.

    No error check. Returns ``stop`` where there was room for all.

    Parameters
    ----------
    state : uint64 array, from :func:`new_state`
    text : uint8 array
        Valid UTF-8.
    buffer : uint8 array
        Receives the stretches that end less than ``MARGIN`` bytes before the end of ``text``, and
        what follows them in their texts; has room for the longest of them and ``MARGIN`` more.
    begins, stops, texts_end : int64 arrays, shape (stretches,)
        Stretch ``j`` is ``text[begins[j]:stops[j]]`` of a text that ends at ``texts_end[j]``.
    fixed : int32 array, shape (stretches,)
        An id to write before the stretch's own, or -1.
    tables : ByteTables
    out : uint32 array
        Receives the tokens, one stretch behind the other. There is room for one where as many
        places are left as it has bytes, and ``SLACK`` more.
    ends : int64 array, shape (stretches,)
        Receives where in ``out`` the tokens of each stretch end.
    total : int
        Where in ``out`` the first stretch's tokens begin.
    """
    pointers = pointers_to(tables)
    cache = cache_in(state, tables.seeds, pointers, np.uint64(tables.ids.size - 1))
    data, copied, tokens = pointer_to(text), pointer_to(buffer), pointer_to(out)
    for j in range(start, stop):
        begin = begins[j]
        if total + stops[j] - begin + SLACK > out.size:
            return j
        if fixed[j] >= 0:
            out[total] = fixed[j]
            total += 1
        if stops[j] + MARGIN <= text.size:
            total = _encode_stretch(
                data, begin, stops[j], texts_end[j], pointers, cache, tokens, total
            )
        else:
            copy_bytes(copied, 0, data, begin, texts_end[j] - begin)
            total = _encode_stretch(
                copied, np.intp(0), stops[j] - begin, texts_end[j] - begin, pointers, cache,
                tokens, total,
            )  # fmt: skip
        ends[j] = total
    return stop


@cpu_kernel
def encode_strings(start, stop, state, addresses, headers, buffer, fixed, tables, out, ends, total):
    """Encode strings ``start`` to ``stop - 1``; return the first for which there is no room.

    No error check. Returns ``stop`` where there was room for all, and ``-1 - i`` where string
    ``i`` holds a surrogate.

    Parameters
    ----------
    state : uint64 array, from :func:`new_state`
    addresses : int64 array, shape (strings,)
        Those of str objects that live on.
    headers : tuple of int
        Sizes of the headers of ASCII and of other strings.
    buffer : uint8 array
        Has room for the UTF-8 of any of the strings and ``MARGIN`` more.
    fixed : int
        An id that each text begins with, or -1.
    tables, out, total
        As in :func:`encode_stretches`.
    ends : int64 array, shape (strings,)
        Receives where in ``out`` the tokens of each string end.
    """
    pointers = pointers_to(tables)
    cache = cache_in(state, tables.seeds, pointers, np.uint64(tables.ids.size - 1))
    data, tokens = pointer_to(buffer), pointer_to(out)
    for i in range(start, stop):
        size = copy_utf8(addresses[i], headers[0], headers[1], data)
        if size < 0:
            return -1 - i
        if total + size + SLACK > out.size:
            return i
        if fixed >= 0:
            out[total] = fixed
            total += 1
        total = _encode_stretch(data, np.intp(0), size, size, pointers, cache, tokens, total)
        ends[i] = total
    return stop


@cpu_kernel
def encode_string(state, address, headers, buffer, tables, out):
    """Encode one string; return the number of its tokens, -1 if it holds a surrogate.

    No error check. As :func:`encode_strings`, with less to hand over.
    """
    cache = cache_in(state, tables.seeds, pointers_to(tables), np.uint64(tables.ids.size - 1))
    data, start = pointer_to(buffer), np.intp(0)
    if not has_compact_characters(address):
        return np.intp(-1)
    size = copy_utf8(address, headers[0], headers[1], data)
    if size < 0:
        return size
    return _encode_stretch(
        data, start, size, size, pointers_to(tables), cache, pointer_to(out), start
    )
