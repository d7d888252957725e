"""An index over ids: open addressing over the ids' bytes, which lie one after another.

A slot is a uint64, 0 where it is empty: the low half of the id's hash in the upper 32 bits, the
id's number plus one in the lower. The upper half of the hash, scaled to the number of slots
(Lemire's multiply-shift, https://arxiv.org/abs/1805.10941), says where to begin; a taken slot sends
on to the next. So a table may have any length, and memory grows in small steps.

``marks[i]`` is ``2 * offset + kind``: where id ``i`` begins in ``data`` and of which kind it is, so
that the text "1" and the number 1 differ. ``marks[n]`` ends the last. ``TAIL`` bytes of ``data``
beyond the last id must be readable. Ids that are looked up or added are laid out in the same way,
but ``gap`` bytes may follow each of them that belong to none.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.words import (
    bytes_between,
    int64_pointer,
    load_word,
    pointer_to,
    prefetch,
    store_word,
    trailing_zeros,
    uint8_at,
    uint64_pointer,
)

__all__ = ["TAIL", "append_ids", "find_id", "find_ids", "insert_ids", "mark_ids"]

TAIL = 64
"""How many bytes after the last id must be readable."""

GROUP = 64
"""Look-ups whose memory accesses overlap."""


@cpu_device
def _last_word(data, at, count):
    """Return ``count`` bytes (1 to 8) as a number."""
    mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * count)
    return load_word(data, at) & mask


@cpu_device
def _hash(data, begin, end, kind):
    """Hash bytes: a multiplication and a shift for each 8 of them, mixed as splitmix64 ends."""
    h = np.uint64(0x9E3779B97F4A7C15) * np.uint64(end - begin + 1) + np.uint64(kind)
    at = begin
    while at < end:
        h = (h ^ _last_word(data, at, min(end - at, 8))) * np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(32)
        at += 8
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@cpu_device
def _same(data, begin, other, at, size):
    """Tell whether ``size`` bytes of two arrays agree."""
    done = 0
    while done < size:
        count = min(size - done, 8)
        if _last_word(data, begin + done, count) != _last_word(other, at + done, count):
            return False
        done += 8
    return True


@cpu_device
def _home(h, size):
    return np.intp(((h >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))


@cpu_device
def _seek(h, slot, slots, size):
    """Return the first slot from ``slot`` on that is empty or holds the same half hash."""
    tag = h & np.uint64(0xFFFFFFFF)
    while slots[slot] != 0 and slots[slot] >> np.uint64(32) != tag:
        slot = slot + 1 if slot + 1 < size else 0
    return slot


@cpu_device
def _number(entry):
    return np.intp(entry & np.uint64(0xFFFFFFFF)) - 1


@cpu_device
def _probe(h, slot, query, begin, length, kind, data, marks, slots, size):
    """Return the number of the id that equals the query's bytes, or ``-1 - free slot``."""
    while True:
        slot = _seek(h, slot, slots, size)
        number = _number(slots[slot])
        if number < 0:
            return -1 - slot
        at = marks[number] >> 1
        if (
            marks[number] & 1 == kind
            and (marks[number + 1] >> 1) - at == length
            and _same(query, begin, data, at, length)
        ):
            return number
        slot = slot + 1 if slot + 1 < size else 0


@cpu_kernel
def insert_ids(first, last, data, marks, slots):
    """Insert ids ``first`` to ``last - 1``; stop at one that is there already.

    No error check: there must be a free slot for each id, and one more.

    Parameters
    ----------
    data : uint8 array
    marks : int64 array, shape (at least last + 1,)
    slots : uint64 array
        Modified in place.

    Returns
    -------
    repeated, earlier : int
        The first id that repeats an earlier one, and that one; -1 and -1 where none does.
    """
    ids, places, table = pointer_to(data), pointer_to(marks), pointer_to(slots)
    for i in range(first, last):
        begin, end = marks[i] >> 1, marks[i + 1] >> 1
        kind = marks[i] & 1
        h = _hash(ids, begin, end, kind)
        slot = _home(h, slots.size)
        length = end - begin
        found = _probe(h, slot, ids, begin, length, kind, ids, places, table, slots.size)
        if found >= 0:
            return i, found
        slots[-1 - found] = (h << np.uint64(32)) | np.uint64(i + 1)
    return -1, -1


@cpu_kernel
def find_id(query, length, kind, table):
    """Return the number of one id, or -1.

    No error check. Takes addresses, because Numba needs 20 ns to unpack each array, and this is
    called once for each id.

    Parameters
    ----------
    query : bytes
        The id's bytes, and at least 8 more.
    length : int
        How many bytes the id has.
    kind : int
        0 for a text, 1 for a whole number.
    table : int64 array, shape (4,)
        Addresses of ``data``, ``marks`` and ``slots`` as in :func:`insert_ids`, and the number of
        slots.
    """
    key, ids, size = pointer_to(query), uint8_at(table[0]), table[3]
    places = int64_pointer(uint8_at(table[1]), 0)
    slots = uint64_pointer(uint8_at(table[2]), 0)
    h = _hash(key, 0, length, kind)
    found = _probe(h, _home(h, size), key, 0, length, kind, ids, places, slots, size)
    return max(np.intp(-1), found)


@cpu_kernel
def find_ids(queries, query_marks, gap, data, marks, slots, out):
    """Find many ids: their numbers, or -1.

    No error check. Works in groups: what a whole group will read is fetched ahead, so that the
    processor waits for many memory accesses at once.

    Parameters
    ----------
    queries, query_marks, gap
        Bytes and marks of the ids to find.
    data, marks, slots
        As in :func:`insert_ids`.
    out : intp array, shape (queries,)
        Modified in place.
    """
    keys, ids = pointer_to(queries), pointer_to(data)
    places, table, size = pointer_to(marks), pointer_to(slots), slots.size
    hash_array, slot_array = np.empty(GROUP, np.uint64), np.empty(GROUP, np.intp)
    hashes, found = pointer_to(hash_array), pointer_to(slot_array)
    for start in range(0, out.size, GROUP):
        count = min(GROUP, out.size - start)
        for j in range(count):
            mark, end = query_marks[start + j], (query_marks[start + j + 1] >> 1) - gap
            hashes[j] = _hash(keys, mark >> 1, end, mark & 1)
            found[j] = _home(hashes[j], size)
            prefetch(table, 8 * found[j])
        for j in range(count):
            found[j] = _seek(hashes[j], found[j], table, size)
            prefetch(places, 8 * max(_number(table[found[j]]), 0))
        for j in range(count):
            prefetch(ids, places[max(_number(table[found[j]]), 0)] >> 1)
        for j in range(count):
            mark, end = query_marks[start + j], (query_marks[start + j + 1] >> 1) - gap
            begin, kind = mark >> 1, mark & 1
            h, slot = hashes[j], found[j]
            number = _probe(h, slot, keys, begin, end - begin, kind, ids, places, table, size)
            out[start + j] = max(number, -1)


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
    text, end, count = pointer_to(data), data.size - TAIL, 0
    marks[0] = 0
    for block in range(0, end, 64):
        zeros = bytes_between(text, block, 0, 0, 1)
        while zeros:
            at = block + trailing_zeros(zeros)
            zeros &= zeros - np.uint64(1)
            if at >= end:
                break
            count += 1
            if count == marks.size or 2 * at == marks[count - 1]:
                return False
            marks[count] = 2 * (at + 1)
    return count == marks.size - 1


@cpu_kernel
def append_ids(queries, query_marks, gap, first, data, marks):
    """Lay ids out behind those that are there, without their gaps.

    No error check: there must be room for them, and for ``TAIL`` bytes more.

    Parameters
    ----------
    queries, query_marks, gap
        Bytes and marks of the ids to add.
    first : int
        How many ids are there.
    data, marks
        As in :func:`insert_ids`; modified in place.
    """
    source, target = pointer_to(queries), pointer_to(data)
    at = marks[first] >> 1
    for i in range(query_marks.size - 1):
        begin, end = query_marks[i] >> 1, (query_marks[i + 1] >> 1) - gap
        marks[first + i] = 2 * at + (query_marks[i] & 1)
        for byte in range(0, end - begin, 8):
            store_word(target, at + byte, load_word(source, begin + byte))
        at += end - begin
    marks[first + query_marks.size - 1] = 2 * at
