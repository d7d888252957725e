"""What encoding works with: the tokenizer's tables, and the memory of a thread.

A thread's state is one row of words: counts, masks, room for the pieces at hand, and its cache of
pieces. The cache starts with the whole vocabulary and takes in what is encoded; when it is three
quarters full, it starts again.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.merge_group import GROUP_WORDS
from numbatch.kernels.tokenization.merge_lanes import MOST_SYMBOLS
from numbatch.kernels.tokenization.piece_cache import (
    ENTRY,
    FILLED,
    SHORT_BYTES,
    STORED,
    find_entry,
    first_entry,
    long_piece_key,
    store_bytes,
    write_entry,
)
from numbatch.kernels.words import pointer_to, uint64_pointer

__all__ = [
    "ENDS",
    "FILLED",
    "FILLED_BEFORE",
    "GROUP_AT",
    "HAS_ALL",
    "KEYS",
    "PLACES",
    "RANKS",
    "ROOM",
    "STORE",
    "STORED",
    "SYMBOLS",
    "ByteTables",
    "Cache",
    "Pointers",
    "cache_in",
    "has_room",
    "new_state",
    "pointers_to",
]

# The words of a thread's state.
# FILLED and STORED, 1 and 2, are in piece_cache.py.
STARTED, HAS_ALL, FILLED_BEFORE, MASKS, PLACES = 0, 3, 4, 8, 40
ENDS = PLACES + 8
ROOM = np.intp(512)
"""Pieces that are split, looked up and written out together."""
SYMBOLS = ENDS + int(ROOM) + 1
"""One place before the symbols and one behind them stand for no symbol."""
RANKS = -(-(SYMBOLS + MOST_SYMBOLS + 1) // 8) * 8
GROUP_AT = RANKS + MOST_SYMBOLS // 2
KEYS = GROUP_AT + 2 * GROUP_WORDS
TABLE = -(-(KEYS + 3 * int(ROOM)) // 8) * 8  # so that no entry lies in two cache lines
STORE = 4
"""Words for long pieces and long rows of tokens, for each entry; memory only where it is used."""


class ByteTables(NamedTuple):
    """What encoding needs of a tokenizer: read-only arrays."""

    pairs: np.ndarray
    """uint64, with ``halves``, ``ids``, ``byte_pairs`` and
    ``rivals``: see ``byte_pairs.PackedMerges``."""
    halves: np.ndarray
    """uint64"""
    ids: np.ndarray
    """int32"""
    byte_pairs: np.ndarray
    """uint32"""
    rivals: np.ndarray
    """uint32"""
    slots: np.ndarray
    """int32: the tokens' bytes by hash, see ``tables.StringTable``."""
    values: np.ndarray
    """uint8: the tokens' bytes, and ``MARGIN`` more."""
    offsets: np.ndarray
    """int64"""
    classes: np.ndarray
    """uint8, from ``unicode_classes.class_table``."""
    seeds: np.ndarray
    """uint64: entries that a cache starts with, one after another."""
    options: np.ndarray
    """int64: rules, whole_pieces, the unknown's number or -1, fuse_unknown, shift of ``pairs``,
    slots - 1, whether each byte has an id, how many tokens there are, and ``in_order`` of
    ``PackedMerges``."""


class Pointers(NamedTuple):
    """The addresses of a tokenizer's tables."""

    pairs: object
    halves: object
    ids: object
    byte_pairs: object
    rivals: object
    slots: object
    values: object
    offsets: object
    classes: object
    options: object


@cpu_device
def pointers_to(tables):
    """Return the addresses of the tables, which must outlive them."""
    return Pointers(
        pointer_to(tables.pairs),
        pointer_to(tables.halves),
        pointer_to(tables.ids),
        pointer_to(tables.byte_pairs),
        pointer_to(tables.rivals),
        pointer_to(tables.slots),
        pointer_to(tables.values),
        pointer_to(tables.offsets),
        pointer_to(tables.classes),
        pointer_to(tables.options),
    )


class Cache(NamedTuple):
    """The cache of a thread, in its state."""

    state: object
    masks: object
    table: object
    mask: int
    """The number of entries less one."""
    store: object
    """``STORE`` words an entry."""
    seeds: object
    seeded: int


@cpu_device
def _enter_token(row, tables, cache, place):
    """Enter a token of more than 15 bytes; return where the store goes on."""
    at, length = tables.offsets[row], tables.offsets[row + 1] - tables.offsets[row]
    low, high = long_piece_key(tables.values, at, length, cache.masks)
    slot = first_entry(low, high, cache.mask)
    while cache.table[slot + 1] != np.uint64(0):
        slot = (slot + ENTRY) & (cache.mask * ENTRY + ENTRY - 1)
    write_entry(
        cache.table, slot, low, high | np.uint64(place), np.uint64(1 << 60 | row), np.uint64(0)
    )
    return store_bytes(tables.values, at, length, cache.masks, cache.store, place)


@cpu_device
def _enter_vocabulary(cache, tables):
    """Fill an empty cache with the vocabulary."""
    seeds, table = cache.seeds, cache.table
    for i in range(0, cache.seeded, ENTRY):
        slot = first_entry(seeds[i], seeds[i + 1], cache.mask)
        slot = find_entry(seeds[i], seeds[i + 1], slot, table, cache.mask)
        write_entry(table, slot, seeds[i], seeds[i + 1], seeds[i + 2], seeds[i + 3])
    filled = cache.seeded // ENTRY
    place = np.intp(1)  # 0 is that of no piece
    all_in = np.uint64(1)
    if tables.options[1]:
        for row in range(tables.options[7]):
            length = tables.offsets[row + 1] - tables.offsets[row]
            # A cache as small as it may be has room for the short ones only.
            fits = filled < cache.mask // 2 and place + length // 8 + 1 < STORE * cache.mask // 2
            if length > SHORT_BYTES and not fits:
                all_in = np.uint64(0)
            elif length > SHORT_BYTES:
                place = _enter_token(row, tables, cache, place)
                filled += 1
    cache.state[HAS_ALL] = all_in
    cache.state[FILLED] = filled
    cache.state[FILLED_BEFORE] = filled
    cache.state[STORED] = place


@cpu_device
def cache_in(state, seeds, tables, nothing):
    """Return the cache in a thread's state, started if it is new.

    ``tables`` are the addresses of the tables; ``nothing`` is a number that merges with nothing.
    """
    slots = (state.size - TABLE) // (ENTRY + STORE)
    memory = pointer_to(state)
    cache = Cache(
        memory,
        uint64_pointer(memory, 8 * MASKS),
        uint64_pointer(memory, 8 * TABLE),
        slots - 1,
        uint64_pointer(memory, 8 * (TABLE + slots * ENTRY)),
        pointer_to(seeds),
        seeds.size,
    )
    if state[STARTED] == np.uint64(0):
        state[STARTED] = np.uint64(1)
        state[SYMBOLS - 1] = nothing
        state[SYMBOLS + MOST_SYMBOLS] = nothing
        _enter_vocabulary(cache, tables)
    return cache


@cpu_device
def has_room(cache, tables, words):
    """Return 1 if one more piece goes in, with so many words in the store.

    If not, the cache starts again, and the result is 0: no place in it is known any more.
    """
    fits = np.intp(cache.state[FILLED]) < (cache.mask + 1) // 4 * 3
    if fits and np.intp(cache.state[STORED]) + words < STORE * cache.mask:
        return 1
    for i in range((cache.mask + 1) * ENTRY):
        cache.table[i] = np.uint64(0)
    _enter_vocabulary(cache, tables)
    return 0


def new_state(slots: int) -> np.ndarray:
    """Return the state of a thread: uint64, 64-byte aligned; ``slots`` is a power of two.

    Entries are looked up all over it, so that with pages of 4 KiB most look-ups would wait for the
    page tables: huge pages are asked for, before the memory is touched.
    """
    words = TABLE + slots * (ENTRY + STORE)
    memory = mmap.mmap(-1, 8 * words, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE") and 8 * words >= 1 << 21:
        memory.madvise(mmap.MADV_HUGEPAGE)
    state = np.frombuffer(memory, np.uint64)
    for length in range(16):
        state[MASKS + 2 * length] = (1 << 8 * min(length, 8)) - 1
        state[MASKS + 2 * length + 1] = (1 << 8 * max(length - 8, 0)) - 1
    return state
