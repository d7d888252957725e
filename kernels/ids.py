"""An index over ids: open addressing over records of the ids' bytes, which lie one after another.

A record is a word, then the id's bytes: the lower half of the word is the id's number, the upper
half its head, ``2 * length + kind``. The kind tells the text "1" from the number 1. So whoever has
found an id's record has its number too, and waits for memory once.

A slot is a word, 0 where it is empty: the lowest 24 bits of the id's hash above, and below them
where its record begins, plus one. Slots stand in groups of 8, one cache line, which are compared
at once. The upper half of the hash, scaled to the number of groups (Lemire's multiply-shift,
https://arxiv.org/abs/1805.10941), says in which to begin; a full group sends on to the next. So a
table may have any length, and memory grows in small steps.

``starts`` has the place of every eighth record, to find an id by its number. ``TAIL`` bytes of
``data`` beyond the last record must be readable.

Ids that are looked up or added come as bytes with marks: ``marks[i]`` is ``2 * offset + kind``,
``marks[n]`` ends the last, and ``gap`` bytes may follow each that belong to none. They need the
same tail, and 8 readable bytes before an id that is shorter: every object of Python has a header.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.words import (
    equal_words,
    load_word,
    pointer_to,
    prefetch,
    store_word,
    trailing_zeros,
    uint8_at,
    uint64_pointer,
)

__all__ = [
    "EVERY",
    "GROUP",
    "HEADER",
    "TAIL",
    "append_ids",
    "empty_slots",
    "find_id",
    "hash_of",
    "home_of",
    "insert_ids",
    "is_at",
    "number_at",
    "place_in",
    "seek",
    "start_of",
    "tagged_slots",
]

TAIL = 64
"""How many bytes after the last id must be readable."""

HEADER = 8
"""Bytes of a record before the id's own."""

EVERY = 8
"""Of so many records, the place of one is kept."""

GROUP = 8
"""Slots that are compared at once."""

_AT_ONCE = 128
"""Insertions whose accesses to the table overlap."""

_PLACE = np.uint64((1 << 40) - 1)
_NUMBER = np.uint64(0xFFFFFFFF)


@cpu_device(inline=True)
def _few_bytes(data, at, count):
    """Return ``count`` bytes (1 to 8) as a number; never reads beyond them, rather before."""
    return load_word(data, at + count - 8) >> np.uint64(64 - 8 * count)


@cpu_device(inline=True)
def _mixed(h, word):
    h = (h ^ word) * np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(32))


@cpu_device(inline=True)
def hash_of(data, begin, head):
    """Hash bytes and their head: a multiplication and a shift for each word, as splitmix64 ends.

    The last word of several overlaps the one before: that takes no shift and no loop for 9 to 16
    bytes, which most ids have.
    """
    size, h = head >> 1, np.uint64(head + 1) * np.uint64(0x9E3779B97F4A7C15)
    if size <= 8:
        h = _mixed(h, _few_bytes(data, begin, size))
    else:
        for done in range(0, size - 8, 8):
            h = _mixed(h, load_word(data, begin + done))
        h = _mixed(h, load_word(data, begin + size - 8))
    h *= np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@cpu_device(inline=True)
def home_of(h, groups):
    """Return the group in which the search for a hash begins."""
    return np.intp(((h >> np.uint64(32)) * np.uint64(groups)) >> np.uint64(32))


@cpu_device(inline=True)
def tagged_slots(slots, group, h):
    """Return the mask of a group's slots that hold the tag of a hash.

    An empty slot has the tag 0, as one id in 16 million. It lies above those that are taken.
    """
    return equal_words(slots, 64 * group, ~_PLACE, h << np.uint64(40))


@cpu_device(inline=True)
def empty_slots(slots, group):
    """Return the mask of a group's slots that are empty."""
    return equal_words(slots, 64 * group, ~np.uint64(0), np.uint64(0))


@cpu_device(inline=True)
def place_in(slots, group, mask):
    """Return where the record of the first slot of a mask begins, -1 if that slot is empty."""
    return np.intp(slots[GROUP * group + trailing_zeros(mask)] & _PLACE) - 1


@cpu_device(inline=True)
def is_at(data, place, query, begin, head):
    """Tell whether the record at a place is that of the query's bytes."""
    if load_word(data, place) >> np.uint64(32) != np.uint64(head):
        return False
    size, own = head >> 1, place + HEADER
    if size <= 8:
        return _few_bytes(data, own, size) == _few_bytes(query, begin, size)
    for done in range(0, size - 8, 8):
        if load_word(data, own + done) != load_word(query, begin + done):
            return False
    return load_word(data, own + size - 8) == load_word(query, begin + size - 8)


@cpu_device
def seek(h, query, begin, head, data, slots, groups):
    """Return the place of the query's record, or ``-1 - free slot``."""
    group = home_of(h, groups)
    while True:
        mask = tagged_slots(slots, group, h)
        while mask:
            place = place_in(slots, group, mask)
            if place >= 0 and is_at(data, place, query, begin, head):
                return place
            mask &= mask - np.uint64(1)
        mask = empty_slots(slots, group)
        if mask:
            return -1 - (GROUP * group + trailing_zeros(mask))
        group = group + 1 if group + 1 < groups else 0


@cpu_device(inline=True)
def number_at(data, place):
    """Return the number of the id whose record is at a place, -1 where there is none."""
    return np.intp(load_word(data, place) & _NUMBER) if place >= 0 else np.intp(-1)


@cpu_device
def _head_at(data, place):
    return np.intp(load_word(data, place) >> np.uint64(32))


@cpu_kernel(allocates=True)
def insert_ids(begin, end, data, slots):
    """Insert the ids whose records lie from ``begin`` to ``end``; stop at one that is there.

    No error check: there must be a free slot for each id, and one more.

    Parameters
    ----------
    data : uint8 array
    slots : uint64 array, shape (groups, GROUP)
        Modified in place.

    Returns
    -------
    repeated, earlier : int
        The first id that repeats an earlier one, and that one; -1 and -1 where none does.
    """
    ids, table, groups = pointer_to(data), pointer_to(slots), slots.shape[0]
    hashes, places = np.empty(_AT_ONCE, np.uint64), np.empty(_AT_ONCE, np.intp)
    at = begin
    while at < end:
        count = 0
        while count < _AT_ONCE and at < end:
            head = _head_at(ids, at)
            hashes[count], places[count] = hash_of(ids, at + HEADER, head), at
            prefetch(table, 64 * home_of(hashes[count], groups))
            at += HEADER + (head >> 1)
            count += 1
        for j in range(count):
            place = places[j]
            head = _head_at(ids, place)
            found = seek(hashes[j], ids, place + HEADER, head, ids, table, groups)
            if found >= 0:
                return number_at(ids, place), number_at(ids, found)
            table[-1 - found] = (hashes[j] << np.uint64(40)) | np.uint64(place + 1)
    return np.intp(-1), np.intp(-1)


@cpu_kernel
def find_id(query, head, table):
    """Return the number of one id, or -1.

    No error check. Takes addresses, because Numba needs 20 ns to unpack each array, and this is
    called once for each id.

    Parameters
    ----------
    query : bytes
        The id's bytes, and at least 8 more.
    head : int
        Twice the number of the id's bytes, one more for a whole number.
    table : int64 array, shape (3,)
        Addresses of ``data`` and ``slots`` as in :func:`insert_ids`, and the number of groups.
    """
    key, ids, groups = pointer_to(query), uint8_at(table[0]), table[2]
    slots = uint64_pointer(uint8_at(table[1]), 0)
    return number_at(ids, seek(hash_of(key, 0, head), key, 0, head, ids, slots, groups))


@cpu_kernel
def append_ids(queries, marks, gap, number, at, data, starts):
    """Write records behind those that are there.

    No error check: there must be room for them, and for ``TAIL`` bytes more.

    Parameters
    ----------
    queries, marks, gap
        Bytes and marks of the ids to add.
    number, at : int
        The first new id's number, and where its record begins.
    data : uint8 array
    starts : int64 array
        Both modified in place.

    Returns
    -------
    int
        Where the last record ends.
    """
    source, target = pointer_to(queries), pointer_to(data)
    for i in range(marks.size - 1):
        begin, kind = marks[i] >> 1, marks[i] & 1
        size = (marks[i + 1] >> 1) - gap - begin
        if number % EVERY == 0:
            starts[number // EVERY] = at
        store_word(target, at, np.uint64(((2 * size + kind) << 32) | number))
        for byte in range(0, size, 8):
            store_word(target, at + HEADER + byte, load_word(source, begin + byte))
        at += HEADER + size
        number += 1
    return at


@cpu_kernel
def start_of(number, data, starts):
    """Return where the record of an id begins. No error check."""
    ids, at = pointer_to(data), starts[number // EVERY]
    for _ in range(number % EVERY):
        at += HEADER + np.intp(load_word(ids, at) >> np.uint64(33))
    return at
