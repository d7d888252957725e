"""The pass over all values that counts, and keeps those that a quantile may be among.

What limits it is whole numbers: a multiprocessor compares 64 of them in a cycle, and memory brings
four float32. So a key finds its place among the edges in two operations for each halving, and one
product gives the address of its counter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.statistics.cuda.bracket_kernels import CLASSES, PASS_THREADS
from numbatch.kernels.statistics.cuda.counters import add_counters, clear
from numbatch.kernels.statistics.cuda.keys import (
    COPIES,
    PLACES,
    addresses_of,
    count_class,
    find_class,
    key_of,
)
from numbatch.kernels.statistics.cuda.strides import pass_over

__all__ = ["AT_ONCE", "pass_kernel"]

PASS_REGISTERS, AT_ONCE = 40, 6
"""Of a thread, and the blocks that run on a multiprocessor then."""
COUNTERS = CLASSES << COPIES
TABLE = 2 * PLACES
COPY = np.uint32((1 << COPIES) - 1)


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


def pass_kernel(kind: Any, levels: int) -> Any:
    """Make the kernel for bits of a dtype and ``2**levels - 1`` edges."""
    nan = kind(np.iinfo(kind).max)
    floats = np.float32 if kind == np.uint32 else np.float64

    @cuda_device
    def find(x, given):
        table, _, edges_at, counters_at, _, _, _, _ = given
        return find_class(key_of(x), table, edges_at, counters_at, levels)

    @cuda_device
    def count(place, given):
        count_class(place, given[1])

    @cuda_device
    def keep(x, given):
        """Keep a value's key; one that finds no room is only counted."""
        _, _, _, _, kept, first, cursor, room = given
        at = cuda.atomic.add(cursor, 0, np.int32(1))
        if at < room:
            kept[np.uintp(first + at)] = key_of(x)

    over = pass_over(floats, find, count, keep)

    @cuda_kernel(registers=PASS_REGISTERS)
    def count_and_keep(values, start, ends, edges, covered, room, kept, sizes, counts):
        """Count the keys below, at, and above each edge, and keep those that are covered.

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
            Modified in place: 1 for each place whose keys are kept, those above its edge.
        room : int
            How many keys a block can keep.
        kept : uint32 or uint64 array, shape (blocks * room,)
            Modified in place: each block's keys, in any order.
        sizes : int32 array, shape (blocks,)
            Modified in place: how many each block would keep.
        counts : int64 array, shape (CLASSES,)
            Modified in place: at ``2 * place`` of keys above the edge of a place and below the
            next, before it of keys equal to that edge. Those of NaN are equal to the last.
        """
        counters = cuda.shared.array(COUNTERS, np.int32)
        table = cuda.shared.array(TABLE, kind)
        cursor = cuda.shared.array(1, np.int32)
        _merge(ends, table, nan)
        _mark_covered(ends, table)
        if cuda.threadIdx.x == 0:
            cursor[0] = 0
        if cuda.blockIdx.x == 0:
            place = cuda.threadIdx.x
            while place < PLACES:
                edges[place], covered[place] = table[place], table[PLACES + place]
                place += PASS_THREADS
        clear(counters)
        edges_at, counters_at = addresses_of(table, counters, cuda.threadIdx.x & COPY)
        first = np.int64(cuda.blockIdx.x) * room
        over(values, start, (table, counters, edges_at, counters_at, kept, first, cursor, room))
        add_counters(counters, COPIES, CLASSES, counts)
        if cuda.threadIdx.x == 0:
            sizes[cuda.blockIdx.x] = cursor[0]

    return count_and_keep
