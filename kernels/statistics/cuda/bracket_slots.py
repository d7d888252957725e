"""Slots: stretches of numbers, told apart by comparisons.

A slot begins at a number and ends before the next slot's. In its first part, up to its hurdle, a
quantile may be: a value there is kept, all others are counted by slot alone. So a value needs no
key, and is not compared with both ends of each bracket. What a slot keeps is counted in cells of
one width among numbers: among keys, a bracket about 0 would have all in the last.

Where the ends of a bracket are the same number, as they are where many values are, that has a slot
of its own, from it to the next number, of which nothing is kept. Zeros of both signs are the same
number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device

__all__ = [
    "ALL_CELLS",
    "BEGIN",
    "CELLS",
    "EDGES",
    "ENTRIES",
    "ENTRY",
    "HURDLE",
    "LEVELS",
    "OTHERS",
    "PLACES",
    "SCALE",
    "SLOTS",
    "TOTALS",
    "TOTAL_ARRIVED",
    "TOTAL_CLAIMED",
    "TOTAL_KEPT",
    "TOTAL_SLOTS",
    "TOTAL_USED",
    "slots_maker",
]

PLACES = 16
"""A least key, the ends of brackets, the key of NaN."""
EDGES = PLACES - 2
LEVELS = 4
SLOTS = 1 << LEVELS
"""At most, the one below all brackets among them."""
CELLS = 128
"""Of a slot."""

ENTRY = 4
"""Numbers that describe a slot."""
BEGIN, SCALE, HURDLE, OTHERS = 0, 1, 2, 3
"""Their places. A unit has so many cells as ``SCALE`` says. All values of a slot that are not kept
are the number ``OTHERS``; NaN: they differ."""
ENTRIES = ENTRY * SLOTS

ALL_CELLS = SLOTS * CELLS
TOTAL_SLOTS = ALL_CELLS
TOTAL_KEPT = TOTAL_SLOTS + SLOTS
TOTAL_ARRIVED, TOTAL_USED = TOTAL_KEPT + 1, TOTAL_KEPT + 2
TOTAL_CLAIMED = TOTAL_USED + 1
TOTALS = TOTAL_CLAIMED + 1
"""Places of what is counted of a whole array: first values in the cells of slots, then values in
slots, those kept among them, what is kept, the samples that are done, slots in use, and the samples
that blocks claimed."""


def slots_maker(kind: Any) -> Any:
    """Make the function that lays out slots for keys of a dtype, uint32 or uint64."""
    floats = np.float32 if kind == np.uint32 else np.float64
    sign = kind(1 << (8 * np.dtype(kind).itemsize - 1))
    ones, one = kind(np.iinfo(kind).max), kind(1)
    least, most, none = floats(-np.inf), floats(np.inf), floats(0)
    unknown = floats(np.nan)

    @cuda_device
    def number_of(key):
        """Return the number of a key; an infinity for keys beyond it, NaN for the key of NaN."""
        bits = kind(key ^ sign) if key >= sign else kind(key ^ ones)
        number = floats(kind(bits).view(floats))
        beyond = least if key < sign else most
        return beyond if number != number and key != ones else number

    @cuda_device
    def scale_of(low, high):
        """Return how many cells a unit has between the numbers of two keys; 0: there is one."""
        scale = floats(floats(CELLS) / floats(number_of(high) - number_of(low)))
        return scale if none < scale < floats(math.inf) else none

    @cuda_device
    def fill(table, ends):
        """Write as many keys of zeros as there are ends and one more, then keys of NaN."""
        i = cuda.threadIdx.x
        while i < PLACES:
            table[i] = ones if i > ends.size else kind(0)
            table[PLACES + i] = kind(0)
            i += cuda.blockDim.x
        cuda.syncthreads()

    @cuda_device
    def merge(ends, table):
        """Write a 0, the ends of all brackets, increasing, and the key of NaN; all call.

        Each pair of ends has a thread: loops over them took longer than the sort before.
        """
        fill(table, ends)
        pair = cuda.threadIdx.x
        while pair < PLACES * ends.size:
            i, k = pair // PLACES, pair % PLACES
            if k < ends.size and (ends[k] < ends[i] or (ends[k] == ends[i] and k < i)):
                cuda.atomic.add(table, PLACES + i, one)
            pair += cuda.blockDim.x
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < ends.size:
            table[1 + table[PLACES + i]] = ends[i]
            table[PLACES + i] = kind(0)
            i += cuda.blockDim.x
        cuda.syncthreads()

    @cuda_device
    def mark_covered(ends, table):
        """Write a 1 behind the edges for each that a bracket goes on above, else 0; all call."""
        pair = cuda.threadIdx.x
        while pair < PLACES * (ends.size // 2):
            q, place = pair // PLACES, pair % PLACES
            if (
                0 < place < ends.size
                and ends[2 * q] <= table[place]
                and table[place + 1] <= ends[2 * q + 1]
            ):
                table[PLACES + place] = one
            pair += cuda.blockDim.x
        cuda.syncthreads()

    @cuda_device
    def write(slots, slot, begin, scale, hurdle, others):
        at = ENTRY * slot
        slots[at + BEGIN], slots[at + SCALE] = begin, scale
        slots[at + HURDLE], slots[at + OTHERS] = hurdle, others

    @cuda_device
    def write_run(slots, slot, low, high):
        """Write the slots of brackets that overlap, from one key to another; return the next."""
        begin, hurdle = number_of(low), most
        if high < kind(ones - one):
            hurdle = number_of(kind(high + one))
        if low == high:
            write(slots, slot, begin, none, least, begin)
            write(slots, slot + 1, hurdle, none, least, most if hurdle == most else unknown)
            return slot + 2
        others = most if hurdle == most else unknown
        write(slots, slot, begin, scale_of(low, high), hurdle, others)
        return slot + 1

    @cuda_device
    def lay_out(ends, table, slots):
        """Write slots, and return to the first thread how many there are; all threads call.

        Parameters
        ----------
        ends : array of keys, shape (2 * quantiles,)
            Between which two keys each quantile probably lies.
        table : shared array of keys, shape (2 * PLACES,)
            Used.
        slots : array of floats, shape (ENTRIES,)
            Modified in place. Nothing is compared with the beginning of slot 0; slots that are not
            used begin at NaN.
        """
        merge(ends, table)
        mark_covered(ends, table)
        edges = ends.size
        i = cuda.threadIdx.x
        while i < SLOTS:
            write(slots, i, unknown, none, least, unknown)
            i += cuda.blockDim.x
        cuda.syncthreads()
        last = cuda.threadIdx.x + 1
        while last <= edges:  # each thread the slots of a run of edges that ends with its own
            slot, first = 1, 1
            for k in range(1, last):
                if table[PLACES + k] == 0:
                    slot += 2 if table[first] == table[k] else 1
                    first = k + 1
            if table[PLACES + last] == 0:
                slot = write_run(slots, slot, table[first], table[last])
            if last == edges:
                table[0] = kind(slot)
            last += cuda.blockDim.x
        cuda.syncthreads()
        return table[0]

    return lay_out
