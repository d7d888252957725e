"""A cache of pieces and their tokens.

Open addressing over entries of four words: two of key, two of tokens. The key of a piece of up to
15 bytes is these bytes and their number in the highest byte. That of a longer one is a hash, the
length, and where in ``store`` the bytes lie. Up to four tokens lie in the entry, their number in
the highest bits of the second; more lie in the store. One thread uses one cache.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.words import load_word, store_word

__all__ = [
    "CACHED_BYTES",
    "CACHED_TOKENS",
    "ENTRY",
    "SHORT_BYTES",
    "find_entry",
    "find_long_entry",
    "first_entry",
    "keep_tokens",
    "long_piece_key",
    "pack_tokens",
    "piece_key",
    "write_entry",
    "write_tokens",
]

FILLED, STORED = 1, 2
"""Words of a thread's state: entries in use, and where its store goes on."""
SHORT_BYTES = 15
"""Pieces whose bytes are their key."""
CACHED_BYTES = (1 << 24) - 1
CACHED_TOKENS = 4
ENTRY = 4
"""Words in an entry: two of key, two of tokens."""
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_C = np.uint64(0xBF58476D1CE4E5B9)
_0 = np.uint64(0)
_32, _56, _60 = (np.uint64(n) for n in (32, 56, 60))
_PLACE, _LONG = np.uint64((1 << 32) - 1), np.uint64(0xFF << 56)
IN_STORE = np.uint64(15 << 60)
"""Marks the first word of tokens that lie in the store: their number is in it, their place next."""
_TWO_TOKENS = np.uint64((1 << 60) - 1)


@cpu_device
def piece_key(text, at, length, masks):
    """Return the two words of key of a piece of up to 15 bytes. Reads 16 bytes.

    ``masks`` holds, for each length, the bytes of the first word that count, then those of the
    second.
    """
    low = load_word(text, at) & masks[2 * length]
    high = load_word(text, at + 8) & masks[2 * length + 1]
    return low, high | np.uint64(length) << _56


@cpu_device
def first_entry(low, high, mask):
    """Return the index of the entry where the search for a key begins.

    ``mask`` is the number of entries less one.
    """
    mixed = (low * _A) ^ (high * _B)
    mixed = (mixed ^ (mixed >> _32)) * _C
    return np.intp((mixed >> _32) & np.uint64(mask)) * ENTRY


@cpu_device
def find_entry(low, high, slot, table, mask):
    """Return the index of the entry with this key, or of the empty one where it would go."""
    while table[slot + 1] != _0:
        if table[slot] == low and table[slot + 1] == high:
            break
        slot = (slot + ENTRY) & (mask * ENTRY + ENTRY - 1)
    return slot


@cpu_device
def pack_tokens(tokens, at, count):
    """Return ``tokens[at:at + count]``, at most four, in two words, and ``count``."""
    first, second = np.uint64(count) << _60, _0
    for i in range(count):
        token = np.uint64(tokens[at + i]) << (_32 if i & 1 else _0)
        if i < 2:
            first |= token
        else:
            second |= token
    return first, second


@cpu_device
def write_entry(table, slot, low, high, first, second):
    """Fill an entry."""
    table[slot] = low
    table[slot + 1] = high
    table[slot + 2] = first
    table[slot + 3] = second


@cpu_device
def write_tokens(first, second, out, total):
    """Write packed tokens to ``out[total:]`` and return their number; writes four places."""
    store_word(out, 4 * total, first & _TWO_TOKENS)
    store_word(out, 4 * total + 8, second)
    return np.intp(first >> _60)


@cpu_device
def long_piece_key(text, at, length, masks):
    """Return the two words of key of a longer piece, the place in the store left 0.

    No entry is like it: places in the store begin at 1.


    Reads up to eight bytes behind the piece.
    """
    mixed = np.uint64(length)
    i = np.intp(0)
    while i < length:
        mixed = (mixed ^ (load_word(text, at + i) & masks[2 * min(length - i, 8)])) * _A
        mixed ^= mixed >> _32
        i += 8
    return mixed, _LONG | np.uint64(length) << _32


@cpu_device
def _same_bytes(text, at, length, masks, store, place):
    i = np.intp(0)
    while i < length:
        if load_word(text, at + i) & masks[2 * min(length - i, 8)] != store[place + i // 8]:
            return False
        i += 8
    return True


@cpu_device
def find_long_entry(text, at, low, high, slot, table, mask, masks, store):
    """Return the index of a long piece's entry, or of the empty one where it would go."""
    length = np.intp((high ^ _LONG) >> _32)
    while table[slot + 1] != _0:
        if (
            table[slot] == low
            and table[slot + 1] >> _32 == high >> _32
            and _same_bytes(text, at, length, masks, store, np.intp(table[slot + 1] & _PLACE))
        ):
            break
        slot = (slot + ENTRY) & (mask * ENTRY + ENTRY - 1)
    return slot


@cpu_device
def store_bytes(text, at, length, masks, store, place):
    """Write a long piece's bytes to the store; return what follows."""
    for i in range(0, length, 8):
        store[place] = load_word(text, at + i) & masks[2 * min(length - i, 8)]
        place += 1
    return place


@cpu_device
def store_tokens(store, place, tokens, at, count):
    """Write ``tokens[at:at + count]`` to the store; return what follows."""
    for i in range(0, count, 2):
        second = np.uint64(tokens[at + i + 1]) if i + 1 < count else _0
        store[place] = np.uint64(tokens[at + i]) | second << _32
        place += 1
    return place


@cpu_device
def write_stored_tokens(first, second, store, out, total):
    """Write the tokens of an entry from the store, and up to one more; return their number."""
    count = np.intp(first ^ IN_STORE)
    place = np.intp(second)
    for i in range(0, count, 2):
        store_word(out, 4 * (total + i), store[place])
        place += 1
    return count


@cpu_device
def keep_tokens(low, high, slot, cache, tokens, at, count):
    """Fill an empty entry with ``tokens[at:at + count]``; four of them can be read."""
    if count <= CACHED_TOKENS:
        first, second = pack_tokens(tokens, at, count)
    else:
        place = np.intp(cache.state[STORED])
        first, second = IN_STORE | np.uint64(count), np.uint64(place)
        cache.state[STORED] = store_tokens(cache.store, place, tokens, at, count)
    write_entry(cache.table, slot, low, high, first, second)
    cache.state[FILLED] += np.uint64(1)
