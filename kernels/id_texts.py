"""Look-ups of ids that are texts: joined in one piece, or where CPython keeps them."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.id_queue import (
    AHEAD,
    find_all,
    look_up_begins,
    look_up_ends,
    look_up_goes_on,
    look_ups_end,
)
from numbatch.kernels.ids import TAIL
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.page_order import are_strewn, page_order
from numbatch.kernels.words import (
    bytes_between,
    int64_pointer,
    pointer_to,
    prefetch,
    trailing_zeros,
    uint8_at,
    uint32_at,
    uint64_pointer,
)

__all__ = ["COMPACT_ASCII", "find_strings", "find_texts", "mark_ids"]

COMPACT_ASCII = 32 + 64
"""Bits of the state of a string whose characters stand behind its header, a byte each."""

# Words of CPython's lists and strings, the same from 3.11 to 3.13.
_TYPE, _LENGTH, _ITEMS, _STATE = 1, 2, 3, 4


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
def find_texts(data, count, first, table, queue, out):
    """Find texts that a zero byte ends each: their numbers, or -1.

    No error check. Takes addresses, as :func:`~numbatch.kernels.ids.find_id`, since it is called
    for few texts at a time: as many as the processor's nearest cache holds.

    Parameters
    ----------
    data : bytes
        The last ``TAIL`` bytes are zero and belong to no text.
    count : int
        How many texts there should be.
    first : int
        Where in ``out`` the first belongs.
    table : int64 array, shape (3,)
        As for :func:`~numbatch.kernels.ids.find_id`.
    queue : int64 array
        As for :func:`~numbatch.kernels.id_queue.find_ids`.
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
    results = int64_pointer(pointer_to(out), 8 * first)
    find_all(pointer_to(queue), text, marks, 1, ids, slots, groups, results)
    return True


@cpu_kernel(nogil=False)
def find_strings(strings, first, count, layout, table, queue, ordered, order, out):
    """Find the strings of a list, read where CPython keeps them: their numbers, or -1.

    No error check but those below. Holds the GIL, so that nobody changes the list. Strings lie
    strewn over memory, in two cache lines each: that is a stage of its own, ahead of the others.

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
        As for :func:`~numbatch.kernels.ids.find_id`.
    queue : int64 array
        As for :func:`~numbatch.kernels.id_queue.find_ids`.
    ordered : int64 array, shape (count + BUCKETS + 1,), or empty
    order : int32 array, shape (count,), or empty
        Memory for putting strings of a page together, if they lie strewn. Modified.
    out : intp array
        Those from ``first`` on are modified in place.

    Returns
    -------
    int
        How many were looked up: those before the first that is no string of ASCII, or empty. -1 if
        there is one and strings were put together, so that results are missing here and there.
    """
    whole, numbers = int64_pointer(uint8_at(strings), 0), pointer_to(order)
    items = int64_pointer(uint8_at(whole[_ITEMS]), 8 * first)
    end = max(0, min(count, whole[_LENGTH] - first))
    together = end <= order.size and are_strewn(items, end)
    if together:
        counts = int64_pointer(pointer_to(ordered), 8 * end)
        page_order(items, end, counts, pointer_to(ordered), numbers)
        items = pointer_to(ordered)
    results = int64_pointer(pointer_to(out), 8 * first)
    done = _find_at(items, end, together, numbers, layout, table, pointer_to(queue), results)
    return -1 if together and done < end else done


@cpu_device
def _find_at(items, end, together, order, layout, table, queue, out):
    """Find the strings at some addresses, until one is none; return how many were found."""
    memory, ids, slots = uint8_at(0), uint8_at(table[0]), uint64_pointer(uint8_at(table[1]), 0)
    groups, kind, header, state, i = table[2], layout[0], layout[1], layout[2], -AHEAD
    while i < end + 2 * AHEAD:
        if i + AHEAD < end:
            prefetch(memory, items[i + AHEAD])
            prefetch(memory, items[i + AHEAD] + header)
        if 0 <= i < end:
            if _is_ascii(items[i], kind, state):
                head = 2 * int64_pointer(memory, items[i])[_LENGTH]
                look_up_begins(queue, i, memory, items[i] + header, head, slots, groups)
            else:
                end = i
        if AHEAD <= i < end + AHEAD:
            look_up_goes_on(queue, i - AHEAD, ids, slots, groups)
        if i >= 2 * AHEAD:
            at = np.intp(order[i - 2 * AHEAD]) if together else i - 2 * AHEAD
            look_up_ends(queue, i - 2 * AHEAD, memory, ids, slots, groups, out, at)
        i += 1
    look_ups_end(queue, memory, ids, slots, groups, out)
    return end


@cpu_device(inline=True)
def _is_ascii(item, kind, state):
    """Tell whether an object is a string of ASCII that is not empty."""
    words, bits = int64_pointer(uint8_at(item), 0), np.intp(uint32_at(item + 8 * _STATE)[0])
    return words[_TYPE] == kind and bits & state == state and words[_LENGTH] > 0
