"""An index over ids: open addressing over the ids' bytes, which lie one after another.

A slot is a uint64, 0 where it is empty: the low half of the id's hash in the upper 32 bits, the
id's number plus one in the lower. The upper half of the hash, scaled to the number of slots
(Lemire's multiply-shift, https://arxiv.org/abs/1805.10941), says where to begin; a taken slot sends
on to the next. So a table may have any length, and memory grows in small steps.

``marks[i]`` is ``2 * offset + kind``: where id ``i`` begins in ``data`` and of which kind it is, so
that the text "1" and the number 1 differ. ``marks[n]`` ends the last. Eight bytes of ``data``
beyond the last id must be readable.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd import prefetch

__all__ = ["TAIL", "character_offsets", "find_id", "find_ids", "insert_ids"]

TAIL = 8
"""How many bytes after the last id must be readable."""

GROUP = 64
"""Look-ups whose memory accesses overlap."""


@cpu_device
def _word(data, at):
    """Return 8 bytes as a little-endian number; LLVM makes one load of it."""
    at = np.uintp(at)
    word = np.uint64(data[at])
    for i in range(1, 8):
        word |= np.uint64(data[at + np.uintp(i)]) << np.uint64(8 * i)
    return word


@cpu_device
def _last_word(data, at, count):
    """Return the last ``count`` bytes (1 to 8) as a number."""
    return _word(data, at) & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * count))


@cpu_device
def _hash(data, begin, end, kind):
    """Hash bytes: a multiplication and a shift for each 8 of them, mixed as splitmix64 ends."""
    h = np.uint64(0x9E3779B97F4A7C15) * np.uint64(end - begin + 1) + np.uint64(kind)
    at = begin
    while at < end:
        count = min(end - at, 8)
        h = (h ^ _last_word(data, at, count)) * np.uint64(0xBF58476D1CE4E5B9)
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
def _home(h, slots):
    return np.intp(((h >> np.uint64(32)) * np.uint64(slots.size)) >> np.uint64(32))


@cpu_device
def _probe(h, slot, query, begin, size, kind, data, marks, slots):
    """Return the number of the id that equals the query's bytes, or ``-1 - free slot``."""
    tag = h & np.uint64(0xFFFFFFFF)
    while True:
        entry = slots[slot]
        if entry == 0:
            return -1 - slot
        if entry >> np.uint64(32) == tag:
            number = np.intp(entry & np.uint64(0xFFFFFFFF)) - 1
            mark = marks[number]
            at = mark >> 1
            if (
                mark & 1 == kind
                and (marks[number + 1] >> 1) - at == size
                and _same(query, begin, data, at, size)
            ):
                return number
        slot += 1
        if slot == slots.size:
            slot = 0


@cpu_device
def _candidate(h, slot, slots):
    """Return the number of the first id whose hash fits, 0 where none does."""
    tag = h & np.uint64(0xFFFFFFFF)
    while slots[slot] != 0:
        if slots[slot] >> np.uint64(32) == tag:
            return np.intp(slots[slot] & np.uint64(0xFFFFFFFF)) - 1
        slot += 1
        if slot == slots.size:
            slot = 0
    return 0


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
    for i in range(first, last):
        begin, end = marks[i] >> 1, marks[i + 1] >> 1
        kind = marks[i] & 1
        h = _hash(data, begin, end, kind)
        found = _probe(h, _home(h, slots), data, begin, end - begin, kind, data, marks, slots)
        if found >= 0:
            return i, found
        slots[-1 - found] = (h << np.uint64(32)) | np.uint64(i + 1)
    return -1, -1


@cpu_kernel
def find_id(query, size, kind, data, marks, slots):
    """Return the number of one id, or -1.

    No error check.

    Parameters
    ----------
    query : bytes
        The id's bytes, and at least ``TAIL`` more.
    size : int
        How many bytes the id has.
    kind : int
        0 for a text, 1 for a whole number.
    data, marks, slots
        As in :func:`insert_ids`.
    """
    h = _hash(query, 0, size, kind)
    return max(np.intp(-1), _probe(h, _home(h, slots), query, 0, size, kind, data, marks, slots))


@cpu_kernel
def find_ids(queries, query_marks, data, marks, slots, out):
    """Find many ids: their numbers, or -1.

    No error check. Works in groups: what a whole group will read is fetched ahead, so that the
    processor waits for many memory accesses at once.

    Parameters
    ----------
    queries, query_marks
        Bytes and marks of the ids to find, laid out as ``data`` and ``marks``.
    data, marks, slots
        As in :func:`insert_ids`.
    out : intp array, shape (queries,)
        Modified in place.
    """
    hashes = np.empty(GROUP, np.uint64)
    homes = np.empty(GROUP, np.intp)
    numbers = np.empty(GROUP, np.intp)
    for start in range(0, out.size, GROUP):
        count = min(GROUP, out.size - start)
        for j in range(count):
            mark = query_marks[start + j]
            hashes[j] = _hash(queries, mark >> 1, query_marks[start + j + 1] >> 1, mark & 1)
            homes[j] = _home(hashes[j], slots)
            prefetch(slots, homes[j])
        for j in range(count):
            numbers[j] = _candidate(hashes[j], homes[j], slots)
            prefetch(marks, numbers[j])
        for j in range(count):
            prefetch(data, marks[numbers[j]] >> 1)
        for j in range(count):
            mark = query_marks[start + j]
            begin, size = mark >> 1, (query_marks[start + j + 1] >> 1) - (mark >> 1)
            found = _probe(hashes[j], homes[j], queries, begin, size, mark & 1, data, marks, slots)
            out[start + j] = max(found, -1)


@cpu_kernel
def character_offsets(text, lengths, marks):
    """Turn the lengths of texts in characters into where each begins in their joint UTF-8.

    No error check.

    Parameters
    ----------
    text : uint8 array
    lengths : int64 array, shape (n,)
        In code points; they add up to those of ``text``.
    marks : int64 array, shape (n + 1,)
        Modified in place: twice the offsets, which is the mark of a text.
    """
    at = 0
    for i in range(lengths.size):
        marks[i] = 2 * at
        for _ in range(lengths[i]):
            at += 1
            while at < text.size and text[at] & 0xC0 == 0x80:
                at += 1
    marks[lengths.size] = 2 * at
