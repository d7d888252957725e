"""The pass over all values that counts, and keeps those that a quantile may be among.

What limits it are comparisons: a multiprocessor makes 64 in a cycle, and memory brings four
float32. So values are told apart by slots (:mod:`~numbatch.kernels.statistics.cuda.bracket_slots`),
and keys are made of those that are kept alone, afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.statistics.cuda.bracket_kernels import PASS_THREADS
from numbatch.kernels.statistics.cuda.bracket_slots import (
    SLOTS,
    find_slot,
    first_slots,
    slots_maker,
)
from numbatch.kernels.statistics.cuda.counters import clear
from numbatch.kernels.statistics.cuda.keys import COPIES, PLACES, count_class
from numbatch.kernels.statistics.cuda.strides import pass_over

__all__ = ["AT_ONCE", "pass_kernel"]

PASS_REGISTERS, AT_ONCE = 40, 6
"""Of a thread, and the blocks that run on a multiprocessor then."""
COUNTERS = SLOTS << COPIES
TABLE, BEGINS, SLOT_CLASSES = 2 * PLACES, 2 * SLOTS, SLOTS + 1
COPY = np.uint32((1 << COPIES) - 1)
CURSOR, NANS = 0, 1
"""Where a block counts what it keeps, and NaN."""


@cuda_device
def _merge(ends, table, nan):
    """Write the ends of all quantiles to ``table``, increasing, after a 0; then NaN; all call."""
    i = cuda.threadIdx.x
    while i < PLACES:
        table[i] = nan if i > ends.size else table.dtype.type(0)
        i += PASS_THREADS
    cuda.syncthreads()
    i = cuda.threadIdx.x
    while i < ends.size:
        rank = 0
        for k in range(ends.size):
            rank += ends[k] < ends[i] or (ends[k] == ends[i] and k < i)
        table[1 + rank] = ends[i]
        i += PASS_THREADS
    cuda.syncthreads()


@cuda_device
def _mark_covered(ends, table):
    """Write a 1 behind the edges for each place whose keys a quantile probably has, else 0."""
    place = cuda.threadIdx.x
    while place < PLACES:
        mark = table.dtype.type(0)
        if 0 < place < ends.size:
            for q in range(ends.size // 2):
                if ends[2 * q] <= table[place] and table[place + 1] <= ends[2 * q + 1]:
                    mark = table.dtype.type(1)
        table[PLACES + place] = mark
        place += PASS_THREADS
    cuda.syncthreads()


def _over(kind: Any, levels: int) -> Any:
    """Make the function that goes over values of ``2**levels`` slots."""

    @cuda_device
    def find(x, given):
        return find_slot(x, given[0], levels)

    @cuda_device
    def count(place, given):
        count_class(place, given[1], 1)

    @cuda_device
    def keep(x, given):
        """Keep a value instead of counting it in its slot; one that finds no room is left out."""
        slots, counters, kept, first, state, room = given
        place, _ = find_slot(x, slots, levels)
        count_class(place, counters, -1)
        if x != x:
            cuda.atomic.add(state, NANS, np.int32(1))
        else:
            at = cuda.atomic.add(state, CURSOR, np.int32(1))
            if at < room:
                kept[np.uintp(first + at)] = x

    over = pass_over(np.float32 if kind == np.uint32 else np.float64, find, count, keep)

    @cuda_device
    def over_all(values, start, begins, counters, copy, rest):
        slots = first_slots(begins, copy, counters, levels)
        over(values, start, (slots, counters, *rest))

    return over_all


def pass_kernel(kind: Any, quantiles: int) -> Any:
    """Make the kernel for bits of a dtype and so many quantiles."""
    nan = kind(np.iinfo(kind).max)
    floats = np.float32 if kind == np.uint32 else np.float64
    lay_out = slots_maker(kind)
    # A slot for each bracket and one below all, or two for each where all brackets are one number.
    few, many = (max(2, n.bit_length()) for n in (quantiles, 2 * quantiles))
    over_few, over_many = _over(kind, few), _over(kind, many)

    @cuda_kernel(registers=PASS_REGISTERS)
    def count_and_keep(values, start, ends, edges, covered, room, kept, sizes, counts):
        """Count the values in slots, and keep those that a quantile may be.

        No error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[start:]`` begins at a multiple of 16 bytes.
        start : int
        ends : uint32 or uint64 array
            As :func:`~numbatch.kernels.statistics.cuda.bracket_sample.choose_kernel` has them.
        edges : array of the same dtype, shape (PLACES,)
            Modified in place: a 0, the ends in their order, then the key of NaN.
        covered : uint8 array, shape (PLACES,)
            Modified in place: 1 for each place whose values are kept, those above its edge.
        room : int
            How many values a block can keep.
        kept : array of the values' dtype, shape (blocks * room,)
            Modified in place: each block's values, in any order.
        sizes : int32 array, shape (blocks,)
            Modified in place: how many each block would keep.
        counts : int64 array, shape (CLASSES,)
            Modified in place: at ``2 * place`` of keys above the edge of a place and below the
            next, before it of keys equal to that edge, those that are kept left out. NaN are equal
            to the last. Where an edge is 0 and no edge is -0, the one may be counted as the other.
        """
        counters = cuda.shared.array(COUNTERS, np.int32)
        table = cuda.shared.array(TABLE, kind)
        begins = cuda.shared.array(BEGINS, floats)
        classes = cuda.shared.array(SLOT_CLASSES, np.int32)
        state = cuda.shared.array(2, np.int32)
        _merge(ends, table, nan)
        _mark_covered(ends, table)
        lay_out(table, ends.size, begins, classes)
        if cuda.threadIdx.x == 0:
            state[CURSOR], state[NANS] = 0, 0
        if cuda.blockIdx.x == 0:
            place = cuda.threadIdx.x
            while place < PLACES:
                edges[place], covered[place] = table[place], table[PLACES + place]
                place += PASS_THREADS
        clear(counters)
        copy = np.uint32(cuda.threadIdx.x) & COPY
        rest = (kept, np.int64(cuda.blockIdx.x) * room, state, room)
        if classes[SLOTS] <= np.int32(1 << few):
            over_few(values, start, begins, counters, copy, rest)
        else:
            over_many(values, start, begins, counters, copy, rest)
        cuda.syncthreads()
        slot = cuda.threadIdx.x
        while slot < SLOTS:
            total = np.int64(0)
            for k in range(1 << COPIES):
                total += counters[(slot << COPIES) + k]
            if total > 0:
                cuda.atomic.add(counts, classes[slot], total)
            slot += PASS_THREADS
        if cuda.threadIdx.x == 0:
            sizes[cuda.blockIdx.x] = state[CURSOR]
            if state[NANS] > 0:
                cuda.atomic.add(counts, 2 * (PLACES - 1) - 1, np.int64(state[NANS]))

    return count_and_keep
