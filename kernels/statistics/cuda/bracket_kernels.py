"""Kernels that select a few ranks among the keys that one pass over the values kept.

A sample (:mod:`~numbatch.kernels.statistics.cuda.bracket_sample`) says between which two keys the
value of a rank probably lies. One pass (:mod:`~numbatch.kernels.statistics.cuda.bracket_pass`)
counts what is beyond those keys, and keeps the few that are at or between them; the counts say for
sure whether the value is among them. Keys are those of
:mod:`~numbatch.kernels.statistics.digits`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.statistics.cuda.counters import clear
from numbatch.kernels.statistics.cuda.keys import PLACES, key_of

__all__ = [
    "CELLS",
    "CELLS_OF_GAP",
    "CLASSES",
    "EDGES",
    "PASS_THREADS",
    "TALLIES",
    "gather_kernel",
    "tally_kernel",
]

PASS_THREADS = threads_of(256, 8)

EDGES = PLACES - 1
"""Keys that divide the others, at most."""
CLASSES = 32
"""At least twice as many as places."""
CELLS_OF_GAP = 128
"""Cells that the keys between two edges are counted in."""
CELLS = PLACES * CELLS_OF_GAP
TALLIES = CELLS + PLACES
STAGED = 1024
"""Keys that a block writes at once."""


def _cells(kind: Any) -> Any:
    """Make the functions that find the cell of a value, and make what that needs.

    Cells are of one width among numbers: among keys, a gap about 0 would have all in the last.
    """
    floats = np.float32 if kind == np.uint32 else np.float64
    sign = kind(1 << (8 * np.dtype(kind).itemsize - 1))
    ones = kind(np.iinfo(kind).max)
    none, last = floats(0), floats(CELLS_OF_GAP - 1)

    @cuda_device
    def number_of(key):
        bits = kind(key ^ sign) if key >= sign else kind(key ^ ones)
        return floats(kind(bits).view(floats))

    @cuda_device
    def copy_edges(edges, own, numbers, scales):
        """Copy the edges, write their numbers and how many cells a unit has above each; all call.

        There are none where they are one.
        """
        place = np.int32(cuda.threadIdx.x)
        while place < PLACES:
            key = edges[place]
            own[place], numbers[place] = key, number_of(key)
            above = number_of(edges[min(place + 1, PLACES - 1)])
            scale = floats(floats(CELLS_OF_GAP) / floats(above - number_of(key)))
            scales[place] = scale if none < scale < floats(math.inf) else none
            place += np.int32(cuda.blockDim.x)
        cuda.syncthreads()

    @cuda_device
    def step_to(key, edges, place, step):
        further = np.int32(place + np.int32(step))
        return further if edges[further] <= key else place

    @cuda_device
    def cell_of(x, edges, numbers, scales):
        """Return the place of a value and its cell above that edge, or -1 where it is the edge.

        The difference of infinities is in the first cell.
        """
        key = key_of(x)
        place = step_to(key, edges, np.int32(0), 8)
        place = step_to(key, edges, place, 4)
        place = step_to(key, edges, place, 2)
        place = step_to(key, edges, place, 1)
        cell = floats(floats(x - numbers[place]) * scales[place])
        cell = min(cell, last) if cell >= none else none
        return place, np.int32(-1) if edges[place] == key else np.int32(cell)

    return cell_of, copy_edges


@cuda_device
def four_kept(kept, first, i, size):
    """Return the values of a block at ``i`` and three places after it, and these places."""
    apart = np.int32(cuda.blockDim.x)
    j, k, m = i + apart, i + 2 * apart, i + 3 * apart
    a, b = kept[first + i], kept[first + min(j, size - 1)]
    c, d = kept[first + min(k, size - 1)], kept[first + min(m, size - 1)]
    return (a, b, c, d), (j, k, m)


def tally_kernel(kind: Any) -> Any:
    """Make the kernel that counts kept values in cells."""
    cell_of, copy_edges = _cells(kind)
    floats = np.float32 if kind == np.uint32 else np.float64

    @cuda_device
    def count(x, is_there, edges, numbers, scales, counters):
        place, cell = cell_of(x, edges, numbers, scales)
        at = np.int32(CELLS) + place
        at = at if cell < 0 else np.int32(place * np.int32(CELLS_OF_GAP) + cell)
        if is_there:
            cuda.atomic.add(counters, at, np.int32(1))

    @cuda_kernel
    def tally_kept(kept, room, sizes, edges, counts):
        """Count the values that a pass kept; no error check.

        Parameters
        ----------
        kept, room, sizes, edges
            As :func:`pass_kernel` has them.
        counts : int32 array, shape (TALLIES,)
            Modified in place: of keys in each cell above an edge, then of keys equal to each edge.
        """
        counters = cuda.shared.array(TALLIES, np.int32)
        own = cuda.shared.array(PLACES, kind)
        numbers = cuda.shared.array(PLACES, floats)
        scales = cuda.shared.array(PLACES, floats)
        clear(counters)
        copy_edges(edges, own, numbers, scales)
        block = cuda.blockIdx.x
        while block < sizes.size:
            first, size = np.int64(block) * room, min(sizes[block], room)
            i = np.int32(cuda.threadIdx.x)
            while i < size:  # four are read before the first is counted
                (a, b, c, d), (j, k, m) = four_kept(kept, first, i, size)
                count(a, True, own, numbers, scales, counters)
                count(b, j < size, own, numbers, scales, counters)
                count(c, k < size, own, numbers, scales, counters)
                count(d, m < size, own, numbers, scales, counters)
                i += 4 * cuda.blockDim.x
            block += cuda.gridDim.x
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < TALLIES:
            if counters[i] > 0:
                cuda.atomic.add(counts, i, counters[i])
            i += cuda.blockDim.x

    return tally_kept


def gather_kernel(kind: Any) -> Any:
    """Make the kernel that gathers kept values of wanted cells."""
    cell_of, copy_edges = _cells(kind)
    floats = np.float32 if kind == np.uint32 else np.float64

    @cuda_device
    def take(x, is_there, edges, numbers, scales, marks, staged, state, few, cursor):
        place, cell = cell_of(x, edges, numbers, scales)
        at = np.int32(place * np.int32(CELLS_OF_GAP) + max(cell, np.int32(0)))
        if is_there and cell >= 0 and marks[at] != 0:
            key = key_of(x)
            at = cuda.atomic.add(state, 0, np.int32(1))
            if at < STAGED:
                staged[at] = key
            else:
                few[cuda.atomic.add(cursor, 0, np.int32(1))] = key

    @cuda_kernel
    def gather_kept(kept, room, sizes, edges, wanted, few, cursor):
        """Write the kept keys of wanted cells to ``few``, in any order; no error check.

        Parameters
        ----------
        kept, room, sizes, edges
            As :func:`tally_kernel` has them.
        wanted : uint8 array, shape (CELLS,)
        few : uint32 or uint64 array
            Modified in place; has room for all of them.
        cursor : int32 array, shape (1,)
            Modified in place: raised by their number.
        """
        staged = cuda.shared.array(STAGED, kind)
        state = cuda.shared.array(2, np.int32)
        marks = cuda.shared.array(CELLS, np.uint8)
        own = cuda.shared.array(PLACES, kind)
        numbers = cuda.shared.array(PLACES, floats)
        scales = cuda.shared.array(PLACES, floats)
        i = cuda.threadIdx.x
        while i < CELLS:
            marks[i] = wanted[i]
            i += cuda.blockDim.x
        if cuda.threadIdx.x == 0:
            state[0] = 0
        cuda.syncthreads()
        copy_edges(edges, own, numbers, scales)
        block = cuda.blockIdx.x
        while block < sizes.size:
            first, size = np.int64(block) * room, min(sizes[block], room)
            i = np.int32(cuda.threadIdx.x)
            while i < size:  # as above
                (a, b, c, d), (j, k, m) = four_kept(kept, first, i, size)
                take(a, True, own, numbers, scales, marks, staged, state, few, cursor)
                take(b, j < size, own, numbers, scales, marks, staged, state, few, cursor)
                take(c, k < size, own, numbers, scales, marks, staged, state, few, cursor)
                take(d, m < size, own, numbers, scales, marks, staged, state, few, cursor)
                i += 4 * cuda.blockDim.x
            block += cuda.gridDim.x
        cuda.syncthreads()
        size = min(state[0], np.int32(STAGED))
        if cuda.threadIdx.x == 0:
            state[1] = cuda.atomic.add(cursor, 0, size)
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < size:
            few[state[1] + i] = staged[i]
            i += cuda.blockDim.x

    return gather_kept
