"""Kernels that select a few ranks among the keys that one pass over the values kept.

A sample (:mod:`~numbatch.kernels.statistics.cuda.bracket_sample`) says between which two keys the
value of a rank probably lies. One pass (:mod:`~numbatch.kernels.statistics.cuda.bracket_pass`)
counts what is below, at, and between those keys, and keeps the few that are between; the counts say
for sure whether the value is among them. Keys are those of
:mod:`~numbatch.kernels.statistics.digits`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.statistics.cuda.counters import clear
from numbatch.kernels.statistics.cuda.keys import PLACES

__all__ = [
    "CELLS",
    "CELLS_OF_GAP",
    "CLASSES",
    "EDGES",
    "PASS_THREADS",
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
STAGED = 1024
"""Keys that a block writes at once."""

ONE, TWO, FOUR, EIGHT = np.uint32(1), np.uint32(2), np.uint32(4), np.uint32(8)


def _cell_of(kind: Any) -> Any:
    """Make the function that finds the cell of a key.

    Cells are of one width among numbers: among keys, a gap about 0 would have all in the last.
    """
    floats = np.float32 if kind == np.uint32 else np.float64
    sign = kind(1 << (8 * np.dtype(kind).itemsize - 1))
    ones = kind(np.iinfo(kind).max)

    @cuda_device
    def number_of(key):
        bits = kind(key ^ sign) if key >= sign else kind(key ^ ones)
        return np.float64(kind(bits).view(floats))

    @cuda_device
    def step_to(key, edges, place, step):
        further = np.uint32(place + step)
        return further if edges[np.uintp(further)] <= key else place

    @cuda_device
    def cell_of(key, edges, scales):
        """Return the cell of a key: of the edge below it, and of the distance from that."""
        place = step_to(key, edges, np.uint32(0), EIGHT)
        place = step_to(key, edges, place, FOUR)
        place = step_to(key, edges, place, TWO)
        place = step_to(key, edges, place, ONE)
        distance = number_of(key) - number_of(edges[np.uintp(place)])
        cell = min(max(0.0, distance * scales[np.uintp(place)]), CELLS_OF_GAP - 1.0)
        return np.int32(place) * np.int32(CELLS_OF_GAP) + np.int32(cell)

    return cell_of


@cuda_device
def four_kept(kept, first, i, size):
    """Return the keys of a block at ``i`` and three places after it, and these places."""
    j, k, m = i + PASS_THREADS, i + 2 * PASS_THREADS, i + 3 * PASS_THREADS
    a, b = kept[first + i], kept[first + min(j, size - 1)]
    c, d = kept[first + min(k, size - 1)], kept[first + min(m, size - 1)]
    return (a, b, c, d), (j, k, m)


def tally_kernel(kind: Any) -> Any:
    """Make the kernel that counts kept keys in cells."""
    cell_of = _cell_of(kind)

    @cuda_kernel
    def tally_kept(kept, room, sizes, edges, scales, counts):
        """Add the keys that a block kept to the counters of their cells; no error check.

        Parameters
        ----------
        kept, room, sizes, edges
            As :func:`pass_kernel` has them.
        scales : float64 array, shape (PLACES,)
            Cells for a unit above the edge of each place.
        counts : int32 array, shape (CELLS,)
            Modified in place.
        """
        counters = cuda.shared.array(CELLS, np.int32)
        clear(counters)
        first, size = np.int64(cuda.blockIdx.x) * room, sizes[cuda.blockIdx.x]
        i = cuda.threadIdx.x
        while i < size:  # four are read before the first is counted
            (a, b, c, d), (j, k, m) = four_kept(kept, first, i, size)
            cuda.atomic.add(counters, cell_of(a, edges, scales), np.int32(1))
            cuda.atomic.add(counters, cell_of(b, edges, scales), np.int32(j < size))
            cuda.atomic.add(counters, cell_of(c, edges, scales), np.int32(k < size))
            cuda.atomic.add(counters, cell_of(d, edges, scales), np.int32(m < size))
            i += 4 * PASS_THREADS
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < CELLS:
            if counters[i] > 0:
                cuda.atomic.add(counts, i, counters[i])
            i += PASS_THREADS

    return tally_kept


def gather_kernel(kind: Any) -> Any:
    """Make the kernel that gathers kept keys of wanted cells."""
    cell_of = _cell_of(kind)

    @cuda_device
    def take(key, is_wanted, staged, state, few, cursor):
        if is_wanted:
            at = cuda.atomic.add(state, 0, np.int32(1))
            if at < STAGED:
                staged[at] = key
            else:
                few[cuda.atomic.add(cursor, 0, np.int32(1))] = key

    @cuda_kernel
    def gather_kept(kept, room, sizes, edges, scales, wanted, few, cursor):
        """Write the kept keys of wanted cells to ``few``, in any order; no error check.

        Parameters
        ----------
        kept, room, sizes, edges, scales
            As :func:`tally_kernel` has them.
        wanted : uint8 array, shape (CELLS,)
        few : uint32 or uint64 array
            Modified in place; has room for all of them.
        cursor : int32 array, shape (1,)
            Modified in place: raised by their number.
        """
        staged = cuda.shared.array(STAGED, kind)
        state = cuda.shared.array(2, np.int32)
        if cuda.threadIdx.x == 0:
            state[0] = 0
        cuda.syncthreads()
        first, size = np.int64(cuda.blockIdx.x) * room, sizes[cuda.blockIdx.x]
        i = cuda.threadIdx.x
        while i < size:  # as above
            (a, b, c, d), (j, k, m) = four_kept(kept, first, i, size)
            at_a, at_b = cell_of(a, edges, scales), cell_of(b, edges, scales)
            at_c, at_d = cell_of(c, edges, scales), cell_of(d, edges, scales)
            take(a, wanted[at_a] != 0, staged, state, few, cursor)
            take(b, wanted[at_b] != 0 and j < size, staged, state, few, cursor)
            take(c, wanted[at_c] != 0 and k < size, staged, state, few, cursor)
            take(d, wanted[at_d] != 0 and m < size, staged, state, few, cursor)
            i += 4 * PASS_THREADS
        cuda.syncthreads()
        size = min(state[0], np.int32(STAGED))
        if cuda.threadIdx.x == 0:
            state[1] = cuda.atomic.add(cursor, 0, size)
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < size:
            few[state[1] + i] = staged[i]
            i += PASS_THREADS

    return gather_kept
