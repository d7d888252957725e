"""An index over ids: open addressing over records of the ids' bytes, which lie one after another.

A record is a word, then the id's bytes: the lower half of the word is the id's number, the upper
half ``2 * length + kind``. The kind tells the text "1" from the number 1. So whoever has found an
id's record has its number too, and waits for memory once.

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
    bytes_between,
    equal_words,
    int64_pointer,
    load_word,
    pointer_to,
    prefetch,
    store_word,
    trailing_zeros,
    uint8_at,
    uint32_at,
    uint64_pointer,
)

__all__ = [
    "COMPACT_ASCII",
    "EVERY",
    "GROUP",
    "HEADER",
    "TAIL",
    "append_ids",
    "find_id",
    "find_ids",
    "find_strings",
    "find_texts",
    "insert_ids",
    "mark_ids",
    "start_of",
]

TAIL = 64
"""How many bytes after the last id must be readable."""

HEADER = 8
"""Bytes of a record before the id's own."""

EVERY = 8
"""Of so many records, the place of one is kept."""

GROUP = 8
"""Slots that are compared at once."""

AHEAD = 128
"""Look-ups whose memory accesses overlap."""

COMPACT_ASCII = 32 + 64
"""Bits of the state of a string whose characters stand behind its header, a byte each."""

# Words of CPython's lists and strings, the same from 3.11 to 3.13.
_TYPE, _LENGTH, _ITEMS, _STATE = 1, 2, 3, 4

_PLACE = np.uint64((1 << 40) - 1)
_NUMBER = np.uint64(0xFFFFFFFF)


@cpu_device
def _some_bytes(data, at, count):
    """Return ``count`` bytes (1 to 8) as a number; never reads beyond them, rather before."""
    return load_word(data, at + count - 8) >> np.uint64(64 - 8 * count)


@cpu_device
def _hash(data, begin, size, kind):
    """Hash bytes: a multiplication and a shift for each 8 of them, mixed as splitmix64 ends."""
    h = np.uint64(0x9E3779B97F4A7C15) * np.uint64(size + 1) + np.uint64(kind)
    for done in range(0, size, 8):
        word = _some_bytes(data, begin + done, min(size - done, 8))
        h = (h ^ word) * np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(32)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@cpu_device
def _home(h, groups):
    """Return the group in which the search for a hash begins."""
    return np.intp(((h >> np.uint64(32)) * np.uint64(groups)) >> np.uint64(32))


@cpu_device
def _tagged(slots, group, h):
    """Return the mask of a group's slots that hold the tag of a hash."""
    return equal_words(slots, 64 * group, ~_PLACE, h << np.uint64(40))


@cpu_device
def _empty(slots, group):
    """Return the mask of a group's slots that are empty."""
    return equal_words(slots, 64 * group, ~np.uint64(0), np.uint64(0))


@cpu_device
def _place(slot):
    return np.intp(slot & _PLACE) - 1


@cpu_device
def _is_at(data, place, query, begin, size, kind):
    """Tell whether the record at a place is that of the query's bytes."""
    if load_word(data, place) >> np.uint64(32) != np.uint64(2 * size + kind):
        return False
    for done in range(0, size, 8):
        count = min(size - done, 8)
        own = _some_bytes(data, place + HEADER + done, count)
        if own != _some_bytes(query, begin + done, count):
            return False
    return True


@cpu_device
def _seek(h, query, begin, size, kind, data, slots, groups):
    """Return the place of the query's record, or ``-1 - free slot``."""
    group = _home(h, groups)
    while True:
        mask = _tagged(slots, group, h)
        while mask:
            place = _place(slots[GROUP * group + trailing_zeros(mask)])
            # An empty slot has the tag 0, as one id in 16 million.
            if place >= 0 and _is_at(data, place, query, begin, size, kind):
                return place
            mask &= mask - np.uint64(1)
        mask = _empty(slots, group)
        if mask:
            return -1 - (GROUP * group + trailing_zeros(mask))
        group = group + 1 if group + 1 < groups else 0


@cpu_device
def _number(data, place):
    """Return the number of the id whose record is at a place, -1 where there is none."""
    return np.intp(load_word(data, place) & _NUMBER) if place >= 0 else np.intp(-1)


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
    hashes, places = np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.intp)
    at = begin
    while at < end:
        count = 0
        while count < AHEAD and at < end:
            head = np.intp(load_word(ids, at) >> np.uint64(32))
            hashes[count], places[count] = _hash(ids, at + HEADER, head >> 1, head & 1), at
            prefetch(table, 64 * _home(hashes[count], groups))
            at += HEADER + (head >> 1)
            count += 1
        for j in range(count):
            place = places[j]
            head = np.intp(load_word(ids, place) >> np.uint64(32))
            size, kind = head >> 1, head & 1
            found = _seek(hashes[j], ids, place + HEADER, size, kind, ids, table, groups)
            if found >= 0:
                return _number(ids, place), _number(ids, found)
            table[-1 - found] = (hashes[j] << np.uint64(40)) | np.uint64(place + 1)
    return np.intp(-1), np.intp(-1)


@cpu_kernel
def find_id(query, size, kind, table):
    """Return the number of one id, or -1.

    No error check. Takes addresses, because Numba needs 20 ns to unpack each array, and this is
    called once for each id.

    Parameters
    ----------
    query : bytes
        The id's bytes, and at least 8 more.
    size : int
        How many bytes the id has.
    kind : int
        0 for a text, 1 for a whole number.
    table : int64 array, shape (3,)
        Addresses of ``data`` and ``slots`` as in :func:`insert_ids`, and the number of groups.
    """
    key, ids, groups = pointer_to(query), uint8_at(table[0]), table[2]
    slots = uint64_pointer(uint8_at(table[1]), 0)
    h = _hash(key, 0, size, kind)
    return _number(ids, _seek(h, key, 0, size, kind, ids, slots, groups))


@cpu_device
def _guess(ids, slots, groups, h, size):
    """Return where the record of a hash may be, -1 if nowhere in its first group; fetch it."""
    group = _home(h, groups)
    mask = _tagged(slots, group, h)
    place = _place(slots[GROUP * group + (trailing_zeros(mask) & (GROUP - 1))])
    prefetch(ids, place)
    prefetch(ids, place + HEADER + size - 1)
    return place


@cpu_device
def _settle(place, h, key, begin, size, kind, ids, slots, groups):
    """Return the number of the id that was guessed to be at a place, or is elsewhere; or -1."""
    if place < 0 or not _is_at(ids, place, key, begin, size, kind):
        place = _seek(h, key, begin, size, kind, ids, slots, groups)
    return _number(ids, place)


@cpu_device(allocates=True)
def _find_all(keys, marks, gap, ids, slots, groups, out):
    """Look up the ids of ``marks``, many at a time: their reads of memory are begun together."""
    hashes, places = np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.intp)
    for start in range(0, out.size, AHEAD):
        some = min(AHEAD, out.size - start)
        for j in range(some):
            mark, end = marks[start + j], (marks[start + j + 1] >> 1) - gap
            hashes[j] = _hash(keys, mark >> 1, end - (mark >> 1), mark & 1)
            prefetch(slots, 64 * _home(hashes[j], groups))
        for j in range(some):
            size = (marks[start + j + 1] >> 1) - gap - (marks[start + j] >> 1)
            places[j] = _guess(ids, slots, groups, hashes[j], size)
        for j in range(some):
            mark, end = marks[start + j], (marks[start + j + 1] >> 1) - gap
            out[start + j] = _settle(
                places[j], hashes[j], keys, mark >> 1, end - (mark >> 1), mark & 1,
                ids, slots, groups,
            )  # fmt: skip


@cpu_kernel
def find_ids(queries, marks, gap, data, slots, out):
    """Find many ids: their numbers, or -1.

    No error check.

    Parameters
    ----------
    queries, marks, gap
        Bytes and marks of the ids to find.
    data, slots
        As in :func:`insert_ids`.
    out : intp array, shape (queries,)
        Modified in place.
    """
    keys, ids, table = pointer_to(queries), pointer_to(data), pointer_to(slots)
    _find_all(keys, marks, gap, ids, table, slots.shape[0], out)


@cpu_device
def _mark_all(text, end, marks):
    """Write the marks of texts that a zero byte ends each; False if they are not so many."""
    found, count = 0, marks.size - 1
    marks[0] = 0
    for block in range(0, end, 64):
        zeros = bytes_between(text, block, 0, 0, 1)
        while zeros:
            at = block + trailing_zeros(zeros)
            zeros &= zeros - np.uint64(1)
            if at >= end:
                break
            found += 1
            if found > count or 2 * at == marks[found - 1]:
                return False
            marks[found] = 2 * (at + 1)
    return found == count


@cpu_kernel
def mark_ids(data, marks):
    """Find the ids in texts that a zero byte ends each: their marks, with a gap of 1.

    No error check.

    Parameters
    ----------
    data : uint8 array
        The last ``TAIL`` bytes are zero and belong to no text.
    marks : int64 array, shape (n + 1,)
        Modified in place.

    Returns
    -------
    bool
        Whether there are n texts, none of them empty; if not, a text has a zero byte in it.
    """
    return _mark_all(pointer_to(data), data.size - TAIL, marks)


@cpu_kernel(allocates=True)
def find_texts(data, count, first, table, out):
    """Find texts that a zero byte ends each: their numbers, or -1.

    No error check. Takes addresses, as :func:`find_id`, since it is called for few texts at a time:
    as many as the processor's nearest cache holds.

    Parameters
    ----------
    data : bytes
        The last ``TAIL`` bytes are zero and belong to no text.
    count : int
        How many texts there should be.
    first : int
        Where in ``out`` the first belongs.
    table : int64 array, shape (3,)
    out : intp array
        Modified in place.

    Returns
    -------
    bool
        As :func:`mark_ids`; if it is False, nothing was looked up.
    """
    text, ids, groups = pointer_to(data), uint8_at(table[0]), table[2]
    slots = uint64_pointer(uint8_at(table[1]), 0)
    marks = np.empty(count + 1, np.int64)  # no pointer: Numba would free what is not named again
    if not _mark_all(text, len(data) - TAIL, marks):
        return False
    _find_all(text, marks, 1, ids, slots, groups, out[first : first + count])
    return True


@cpu_kernel(nogil=False, allocates=True)
def find_strings(strings, first, count, layout, table, out):
    """Find the strings of a list, read where CPython keeps them: their numbers, or -1.

    No error check but those below. Holds the GIL, so that nobody changes the list. Strings lie
    strewn over memory, in two cache lines each: these are fetched ahead as those of the map are.

    Parameters
    ----------
    strings : int
        The address of a list.
    first, count : int
        Which of its items: those from ``first`` on.
    layout : int64 array, shape (3,)
        The address of the type ``str``, the size of an ASCII string's header, and the bits of a
        string's state that say it is one.
    table : int64 array, shape (3,)
        As for :func:`find_id`.
    out : intp array
        Those from ``first`` on are modified in place.

    Returns
    -------
    bool
        Whether there are so many items, and all are strings of ASCII, none of them empty; if it is
        False, ``out`` has wrong numbers.
    """
    ids, groups = uint8_at(table[0]), table[2]
    slots = uint64_pointer(uint8_at(table[1]), 0)
    kind, header, state = layout[0], layout[1], np.uint32(layout[2])
    whole = int64_pointer(uint8_at(strings), 0)
    if whole[_LENGTH] < first + count:
        return False
    items = int64_pointer(uint8_at(whole[_ITEMS]), 8 * first)
    hashes, places = np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.intp)
    for start in range(-AHEAD, count, AHEAD):
        for j in range(start + AHEAD, min(start + 2 * AHEAD, count)):
            prefetch(uint8_at(items[j]), 0)
            prefetch(uint8_at(items[j]), header)
        some = min(AHEAD, count - start) if start >= 0 else 0
        for j in range(some):
            string = int64_pointer(uint8_at(items[start + j]), 0)
            bits = uint32_at(items[start + j] + 8 * _STATE)[0]
            if string[_TYPE] != kind or bits & state != state or string[_LENGTH] == 0:
                return False
            hashes[j] = _hash(uint8_at(items[start + j] + header), 0, string[_LENGTH], 0)
            prefetch(slots, 64 * _home(hashes[j], groups))
        for j in range(some):
            size = int64_pointer(uint8_at(items[start + j]), 0)[_LENGTH]
            places[j] = _guess(ids, slots, groups, hashes[j], size)
        for j in range(some):
            size = int64_pointer(uint8_at(items[start + j]), 0)[_LENGTH]
            key = uint8_at(items[start + j] + header)
            out[first + start + j] = _settle(
                places[j], hashes[j], key, 0, size, 0, ids, slots, groups
            )
    return True


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
