"""New pieces of a text, encoded several at once and cached before one is written out."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.encode_piece import lacks_byte
from numbatch.kernels.tokenization.merge_group import (
    GROUP,
    OWN,
    RECORD,
    add_piece,
    merge_group,
    write_merged,
)
from numbatch.kernels.tokenization.piece_cache import (
    SHORT_BYTES,
    find_entry,
    keep_tokens,
)
from numbatch.kernels.tokenization.piece_state import GROUP_AT, SYMBOLS, has_room
from numbatch.kernels.words import int64_pointer, uint64_pointer

__all__ = ["cache_new_pieces"]

_LOW, _HIGH, _SLOT = OWN, OWN + 1, OWN + 2


@cpu_device
def _keep_group(group, members, tables, cache):
    """Merge the members of a group and put each into the cache."""
    merge_group(group, members, tables.pairs, tables.options[4])
    for member in range(members):
        words = uint64_pointer(group, 8 * RECORD * member)
        low, high = words[_LOW], words[_HIGH]
        count, ids = write_merged(group, member, tables.ids)
        if has_room(cache, tables, 8):
            # Looked for again: an earlier member may be the same, or have taken its place.
            slot = find_entry(low, high, np.intp(words[_SLOT]), cache.table, cache.mask)
            if cache.table[slot + 1] == np.uint64(0):
                keep_tokens(low, high, slot, cache, ids, np.intp(0), count)


@cpu_device
def cache_new_pieces(text, at, ends, count, keys, tables, cache):
    """Put those of ``count`` pieces into the cache that are short and not there.

    What is left out is encoded when its turn comes: nothing depends on this but time.
    """
    group = uint64_pointer(cache.state, 8 * GROUP_AT)
    nothing = int64_pointer(cache.state, 8 * SYMBOLS)[-1]
    table, members = cache.table, np.intp(0)
    for i in range(count):
        low, high, first = keys[3 * i], keys[3 * i + 1], np.intp(keys[3 * i + 2])
        if (table[first] == low) & (table[first + 1] == high):
            continue
        begin = ends[i - 1] if i > 0 else at
        length = ends[i] - begin
        if length > SHORT_BYTES:
            continue
        if table[find_entry(low, high, first, table, cache.mask) + 1] != np.uint64(0):
            continue
        if not tables.options[6] and lacks_byte(text, begin, ends[i], tables):
            continue
        add_piece(text, begin, length, tables.byte_pairs, nothing, group, members)
        words = uint64_pointer(group, 8 * RECORD * members)
        words[_LOW], words[_HIGH], words[_SLOT] = low, high, first
        members += 1
        if members == GROUP:
            _keep_group(group, members, tables, cache)
            members = np.intp(0)
    _keep_group(group, members, tables, cache)
