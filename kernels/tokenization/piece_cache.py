"""A cache of pieces of up to 15 bytes and their tokens.

Open addressing over entries of four words: the piece's bytes, its length in the highest byte, and
up to six tokens of 20 bits with their number. It starts with the whole vocabulary and takes in
what is encoded; when it is three quarters full it starts again. One thread uses one cache.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.words import load_word, store_word

__all__ = [
    "CACHED_BYTES",
    "CACHED_TOKENS",
    "ENTRY",
    "find_entry",
    "pack_tokens",
    "piece_key",
    "write_entry",
    "write_tokens",
]

CACHED_BYTES = 15
CACHED_TOKENS = 6
ENTRY = 4
"""Words in an entry: two of key, two of tokens."""
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_C = np.uint64(0xBF58476D1CE4E5B9)
_0, _1, _8 = np.uint64(0), np.uint64(1), np.uint64(8)
_12, _20, _32, _40, _56, _60 = (np.uint64(n) for n in (12, 20, 32, 40, 56, 60))
_TOKEN = np.uint64((1 << 20) - 1)
_SECOND = np.uint64(((1 << 20) - 1) << 32)


@cpu_device
def piece_key(text, limit, at, length, masks):
    """Return the two words of key of a piece of up to 15 bytes.

    ``masks`` holds, for each length, the bytes of the first word that count, then those of the
    second. Memory up to ``limit`` can be read.
    """
    if at + 16 <= limit:
        low = load_word(text, at) & masks[length]
        high = load_word(text, at + 8) & masks[16 + length]
    else:
        low, high = _0, _0
        for i in range(length):
            if i < 8:
                low |= np.uint64(text[at + i]) << np.uint64(8 * i)
            else:
                high |= np.uint64(text[at + i]) << np.uint64(8 * i - 64)
    return low, high | np.uint64(length) << _56


@cpu_device
def find_entry(low, high, table, mask):
    """Return the index of the entry with this key, or of the empty one where it would go.

    ``mask`` is the number of entries less one.
    """
    mixed = (low * _A) ^ (high * _B)
    mixed = (mixed ^ (mixed >> _32)) * _C
    slot = np.intp((mixed >> _20) & np.uint64(mask)) * ENTRY
    while table[slot + 1] != _0:
        if table[slot] == low and table[slot + 1] == high:
            break
        slot = (slot + ENTRY) & (mask * ENTRY + ENTRY - 1)
    return slot


@cpu_device
def pack_tokens(tokens, count):
    """Return up to six tokens in two words: three in each, their number in the highest bits."""
    first, second = np.uint64(count) << _60, _0
    for i in range(count):
        if i < 3:
            first |= np.uint64(tokens[i]) << np.uint64(20 * i)
        else:
            second |= np.uint64(tokens[i]) << np.uint64(20 * i - 60)
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
    """Write packed tokens to ``out[total:]`` and return their number; writes up to two more."""
    count = np.intp(first >> _60)
    store_word(out, 4 * total, (first & _TOKEN) | ((first << _12) & _SECOND))
    if count > 2:
        word = ((first >> _40) & _TOKEN) | ((second << _32) & _SECOND)
        store_word(out, 4 * total + 8, word)
        if count > 4:
            word = ((second >> _20) & _TOKEN) | ((second >> _8) & _SECOND)
            store_word(out, 4 * total + 16, word)
    return count
