"""New pieces of a text, encoded several at once and cached before one is written out."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.encode_piece import lacks_byte
from numbatch.kernels.tokenization.merge_group import (
    GROUP,
    GROUP_WORDS,
    NARROW,
    OWN,
    RECORD,
    WIDE,
    add_piece,
    merge_narrow,
    merge_wide,
    merged_tokens,
    write_merged,
)
from numbatch.kernels.tokenization.piece_cache import (
    CACHED_TOKENS,
    FILLED,
    SHORT_BYTES,
    STORED,
    find_entry,
    find_long_entry,
    keep_tokens,
    store_bytes,
    write_entry,
)
from numbatch.kernels.tokenization.piece_state import GROUP_AT, HAS_ALL, SYMBOLS, has_room
from numbatch.kernels.words import int64_pointer, uint64_pointer

__all__ = ["cache_new_pieces"]

_LOW, _HIGH, _SLOT, _AT, _LENGTH = OWN, OWN + 1, OWN + 2, OWN + 3, OWN + 4
_0 = np.uint64(0)
_WORDS = (int(WIDE) + 8) // 8 + int(WIDE) // 2 + 2
"""Words of the store that a piece takes at most, its bytes and its tokens."""


@cpu_device
def _enter(low, high, slot, count, first, second, group, member, tables, cache):
    """Fill an empty entry with the tokens of a merged piece."""
    if count <= CACHED_TOKENS:
        write_entry(cache.table, slot, low, high, first, second)
        cache.state[FILLED] += np.uint64(1)
    else:
        ids = write_merged(group, member, tables.ids)
        keep_tokens(low, high, slot, cache, ids, np.intp(0), count)


@cpu_device
def _keep_narrow(group, members, tables, cache):
    """Merge the members of a group of short pieces and put each into the cache."""
    merge_narrow(group, members, tables.pairs, tables.options[4])
    for member in range(members):
        words = uint64_pointer(group, 8 * RECORD * member)
        low, high = words[_LOW], words[_HIGH]
        count, first, second = merged_tokens(group, member, tables.ids)
        if has_room(cache, tables, _WORDS):
            # Looked for again: an earlier member may be the same, or have taken its place.
            slot = find_entry(low, high, np.intp(words[_SLOT]), cache.table, cache.mask)
            if cache.table[slot + 1] == _0:
                _enter(low, high, slot, count, first, second, group, member, tables, cache)


@cpu_device
def _find_long(text, words, cache):
    """Return the entry of a long piece, or the empty one where it would go."""
    return find_long_entry(
        text, np.intp(words[_AT]), words[_LOW], words[_HIGH], np.intp(words[_SLOT]),
        cache.table, cache.mask, cache.masks, cache.store,
    )  # fmt: skip


@cpu_device
def _keep_wide(text, group, members, tables, cache):
    """Merge the members of a group of longer pieces and put each into the cache."""
    merge_wide(group, members, tables.pairs, tables.options[4])
    for member in range(members):
        words = uint64_pointer(group, 8 * RECORD * member)
        low, high = words[_LOW], words[_HIGH]
        count, first, second = merged_tokens(group, member, tables.ids)
        if has_room(cache, tables, _WORDS):
            slot = _find_long(text, words, cache)
            if cache.table[slot + 1] == _0:
                at, length, place = words[_AT], words[_LENGTH], cache.state[STORED]
                cache.state[STORED] = store_bytes(
                    text, np.intp(at), np.intp(length), cache.masks, cache.store, np.intp(place)
                )
                _enter(low, high | place, slot, count, first, second, group, member, tables, cache)


@cpu_device
def _is_known(text, words, cache):
    """Return whether the piece that a record speaks of is in the cache."""
    if np.intp(words[_LENGTH]) > SHORT_BYTES:
        slot = _find_long(text, words, cache)
    else:
        slot = find_entry(words[_LOW], words[_HIGH], np.intp(words[_SLOT]), cache.table, cache.mask)
    return cache.table[slot + 1] != _0


@cpu_device
def cache_new_pieces(text, at, ends, count, keys, tables, cache):
    """Put those of ``count`` pieces into the cache that are not there and have up to 32 bytes.

    What is left out is encoded when its turn comes: nothing depends on this but time.
    """
    narrow = uint64_pointer(cache.state, 8 * GROUP_AT)
    wide = uint64_pointer(cache.state, 8 * (GROUP_AT + GROUP_WORDS))
    nothing = int64_pointer(cache.state, 8 * SYMBOLS)[-1]
    most = WIDE if cache.state[HAS_ALL] else SHORT_BYTES
    table, short, long = cache.table, np.intp(0), np.intp(0)
    for i in range(count):
        low, high, first = keys[3 * i], keys[3 * i + 1], np.intp(keys[3 * i + 2])
        if (table[first] == low) & (table[first + 1] == high):
            continue
        begin = ends[i - 1] if i > 0 else at
        length = ends[i] - begin
        if length > most:
            continue
        is_short = length <= SHORT_BYTES
        words = uint64_pointer(
            narrow if is_short else wide, 8 * RECORD * (short if is_short else long)
        )
        words[_LOW], words[_HIGH], words[_SLOT] = low, high, first
        words[_AT], words[_LENGTH] = begin, length
        if _is_known(text, words, cache):
            continue
        if not tables.options[6] and lacks_byte(text, begin, ends[i], tables):
            continue
        if is_short:
            add_piece(text, begin, length, NARROW, tables.byte_pairs, nothing, narrow, short)
            short += 1
        else:
            add_piece(text, begin, length, WIDE, tables.byte_pairs, nothing, wide, long)
            long += 1
        if short == GROUP:
            _keep_narrow(narrow, short, tables, cache)
            short = np.intp(0)
        if long == GROUP:
            _keep_wide(text, wide, long, tables, cache)
            long = np.intp(0)
    _keep_narrow(narrow, short, tables, cache)
    _keep_wide(text, wide, long, tables, cache)
