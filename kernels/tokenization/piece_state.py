"""What encoding works with: the tokenizer's tables, and the memory of a thread.

A thread's state is one row of words: counts, masks, room for the pieces at hand, and its cache of
pieces. The cache starts with the whole vocabulary and takes in what is encoded; when it is three
quarters full, it starts again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.byte_pairs import SHORT
from numbatch.kernels.tokenization.piece_cache import (
    ENTRY,
    find_entry,
    first_entry,
    write_entry,
)
from numbatch.kernels.words import pointer_to, uint64_pointer

__all__ = [
    "ENDS",
    "FILLED",
    "KEYS",
    "RANKS",
    "ROOM",
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
STARTED, FILLED, STORED, MASKS, ENDS = 0, 1, 2, 8, 40
ROOM = np.intp(512)
"""Pieces that are split, looked up and written out together."""
SYMBOLS = ENDS + int(ROOM)
RANKS = SYMBOLS + SHORT
KEYS = RANKS + SHORT
TABLE = -(-(KEYS + 3 * int(ROOM)) // 8) * 8  # so that no entry lies in two cache lines


class ByteTables(NamedTuple):
    """What encoding needs of a tokenizer: read-only arrays."""

    pairs: np.ndarray
    """uint64, see :mod:`~numbatch.kernels.tokenization.byte_pairs`."""
    merged: np.ndarray
    """int32"""
    byte_ids: np.ndarray
    """int32, shape (256,): the id of each byte, or -1."""
    byte_ranks: np.ndarray
    """uint32, shape (65536,): see ``byte_pairs.rank_byte_pairs``."""
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
    """int64: rules, whole_pieces, unknown_id, fuse_unknown, shift of ``pairs``, slots - 1,
    whether ``byte_ranks`` is there."""


class Pointers(NamedTuple):
    """The addresses of a tokenizer's tables."""

    pairs: object
    merged: object
    byte_ids: object
    byte_ranks: object
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
        pointer_to(tables.merged),
        pointer_to(tables.byte_ids),
        pointer_to(tables.byte_ranks),
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
    """As many words as there are entries."""
    seeds: object
    seeded: int


@cpu_device
def start_cache(cache):
    """Empty the cache but for the vocabulary."""
    for i in range((cache.mask + 1) * ENTRY):
        cache.table[i] = np.uint64(0)
    seeds, table = cache.seeds, cache.table
    for i in range(0, cache.seeded, ENTRY):
        slot = first_entry(seeds[i], seeds[i + 1], cache.mask)
        slot = find_entry(seeds[i], seeds[i + 1], slot, table, cache.mask)
        write_entry(table, slot, seeds[i], seeds[i + 1], seeds[i + 2], seeds[i + 3])
    cache.state[FILLED] = cache.seeded // ENTRY
    cache.state[STORED] = 0


@cpu_device
def cache_in(state, seeds):
    """Return the cache in a thread's state, started if it is new."""
    slots = (state.size - TABLE) // (ENTRY + 1)
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
        start_cache(cache)
    return cache


@cpu_device
def has_room(cache, words):
    """Return 1 if one more piece goes in, with so many words in the store.

    If not, the cache starts again, and the result is 0: no place in it is known any more.
    """
    fits = np.intp(cache.state[FILLED]) < (cache.mask + 1) // 4 * 3
    if fits and np.intp(cache.state[STORED]) + words < cache.mask:
        return 1
    start_cache(cache)
    return 0


def new_state(slots: int) -> np.ndarray:
    """Return the state of a thread: uint64, 64-byte aligned; ``slots`` is a power of two."""
    words = TABLE + slots * (ENTRY + 1)
    room = np.empty(words + 8, np.uint64)
    skip = -room.ctypes.data % 64 // 8
    state = room[skip : skip + words]
    state[STARTED] = 0
    for length in range(16):
        state[MASKS + length] = (1 << 8 * min(length, 8)) - 1
        state[MASKS + 16 + length] = (1 << 8 * max(length - 8, 0)) - 1
    return state
