"""Look-ups of many ids, in a queue: while one waits for memory the others go on.

A look-up waits for memory up to three times: for the slots, for the record, and for the query if
that is strewn over memory. A processor waits for some 16 cache lines at a time, but does not look
far enough ahead to begin that many by itself. So each look-up goes through stages, ``AHEAD``
look-ups apart, and each stage asks for the memory that the next one reads.

A full group has sent one id in 16 on to the next group. Looked up in their turn, these would each
wait twice with nothing else going on, which took 20 ns of the 66 for an id: they are laid aside
until there are ``LATE``.

An entry is 4 words: hash, where the query's bytes begin, its head (kernels/ids.py), and where its
record may be, or for one laid aside where its result belongs. ``queue`` has ``QUEUE`` words:
entries in a ring, those laid aside, and how many these are.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.ids import (
    HEADER,
    empty_slots,
    hash_of,
    home_of,
    is_at,
    number_at,
    place_in,
    seek,
    tagged_slots,
)
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.words import pointer_to, prefetch

__all__ = [
    "AHEAD",
    "QUEUE",
    "find_all",
    "find_ids",
    "look_up_begins",
    "look_up_ends",
    "look_up_goes_on",
    "look_ups_end",
]

AHEAD = 12
"""Look-ups between a stage and the next: 8 to 16 take the same time, 32 take a fifth more."""

LATE = 32
"""Look-ups that are laid aside at most."""

_RING = 32
_ASIDE = 4 * _RING
_COUNT = _ASIDE + 4 * LATE

QUEUE = _COUNT + 1
"""Words of a queue; ``queue[QUEUE - 1]``, the number of those laid aside, is 0 at first."""

_ABSENT, _ELSEWHERE = -1, -2


@cpu_device(inline=True)
def look_up_begins(queue, i, query, begin, head, slots, groups):
    """Hash the bytes of look-up ``i``, and ask for its slots."""
    h, entry = hash_of(query, begin, head), 4 * (i & (_RING - 1))
    queue[entry], queue[entry + 1], queue[entry + 2] = h, begin, head
    prefetch(slots, 64 * home_of(h, groups))


@cpu_device(inline=True)
def _ask_for_record(ids, place, head):
    prefetch(ids, place)
    prefetch(ids, place + HEADER + (head >> 1) - 1)


@cpu_device(inline=True)
def look_up_goes_on(queue, i, ids, slots, groups):
    """Find the slot of look-up ``i``, and ask for its record."""
    entry = 4 * (i & (_RING - 1))
    h, head = np.uint64(queue[entry]), queue[entry + 2]
    group = home_of(h, groups)
    mask, place = tagged_slots(slots, group, h), np.intp(_ABSENT)
    if mask:
        place = place_in(slots, group, mask)
        _ask_for_record(ids, place, head)
    elif not empty_slots(slots, group):
        place = np.intp(_ELSEWHERE)
        prefetch(slots, 64 * (group + 1 if group + 1 < groups else 0))
    queue[entry + 3] = place


@cpu_device(inline=True)
def look_up_ends(queue, i, query, ids, slots, groups, out, at):
    """Write the result of look-up ``i`` to ``out[at]``, or lay it aside."""
    entry = 4 * (i & (_RING - 1))
    h, begin, head, place = (
        np.uint64(queue[entry]), queue[entry + 1], queue[entry + 2], queue[entry + 3],
    )  # fmt: skip
    if place == _ABSENT:
        out[at] = -1
    elif place >= 0 and is_at(ids, place, query, begin, head):
        out[at] = number_at(ids, place)
    else:
        _lay_aside(queue, at, h, begin, head, ids, slots, groups)
        if queue[_COUNT] == LATE:
            look_ups_end(queue, query, ids, slots, groups, out)


@cpu_device
def _lay_aside(queue, at, h, begin, head, ids, slots, groups):
    entry, group = _ASIDE + 4 * queue[_COUNT], home_of(h, groups) + 1
    queue[entry], queue[entry + 1], queue[entry + 2], queue[entry + 3] = h, begin, head, at
    queue[_COUNT] += 1
    mask = tagged_slots(slots, group if group < groups else 0, h)
    if mask:
        _ask_for_record(ids, place_in(slots, group if group < groups else 0, mask), head)


@cpu_device
def look_ups_end(queue, query, ids, slots, groups, out):
    """Write the results of all that were laid aside."""
    for entry in range(_ASIDE, _ASIDE + 4 * queue[_COUNT], 4):
        h, begin, head = np.uint64(queue[entry]), queue[entry + 1], queue[entry + 2]
        place = seek(h, query, begin, head, ids, slots, groups)
        out[queue[entry + 3]] = number_at(ids, place)
    queue[_COUNT] = 0


@cpu_device
def find_all(queue, keys, marks, gap, ids, slots, groups, out):
    """Look up the ids of ``marks``: ``out`` points to the first of their numbers."""
    count = marks.size - 1
    for i in range(count + 2 * AHEAD):
        if i < count:
            begin, kind = marks[i] >> 1, marks[i] & 1
            head = 2 * ((marks[i + 1] >> 1) - gap - begin) + kind
            look_up_begins(queue, i, keys, begin, head, slots, groups)
        if AHEAD <= i < count + AHEAD:
            look_up_goes_on(queue, i - AHEAD, ids, slots, groups)
        if i >= 2 * AHEAD:
            at = i - 2 * AHEAD
            look_up_ends(queue, at, keys, ids, slots, groups, out, at)
    look_ups_end(queue, keys, ids, slots, groups, out)


@cpu_kernel
def find_ids(queries, marks, gap, data, slots, queue, out):
    """Find many ids: their numbers, or -1.

    No error check.

    Parameters
    ----------
    queries, marks, gap
        Bytes and marks of the ids to find.
    data, slots
        As in :func:`~numbatch.kernels.ids.insert_ids`.
    queue : int64 array, shape (QUEUE,)
        The last is 0. Modified.
    out : intp array, shape (queries,)
        Modified in place.
    """
    keys, ids, table = pointer_to(queries), pointer_to(data), pointer_to(slots)
    find_all(pointer_to(queue), keys, marks, gap, ids, table, slots.shape[0], pointer_to(out))
