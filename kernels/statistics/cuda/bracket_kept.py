"""Ranks among the keys that a pass over values on the device kept.

The keys above an edge are counted in cells of equal width; those of a few cells are gathered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.statistics.cuda.bracket_pass import PLACES, searching
from numbatch.kernels.statistics.cuda.counters import COUNT_THREADS

__all__ = ["CELLS", "CELLS_OF_GAP", "TALLY_THREADS", "gather_kernel", "tally_kernel"]

CELLS_OF_GAP = 128
"""Cells that the keys between two edges are counted in."""
CELLS = PLACES * CELLS_OF_GAP
TALLY_THREADS = threads_of(1024, 8)
STAGED = 1024
"""Keys that a block writes at once."""


def _number_of(kind: Any) -> Any:
    """Make the function that turns a key back to a float."""
    floats = np.float32 if kind == np.uint32 else np.float64
    sign = kind(1 << (31 if kind == np.uint32 else 63))

    @cuda_device
    def number_of(key):
        return kind(key ^ sign).view(floats) if key >= sign else kind(~key).view(floats)

    return number_of


def _cell_of(kind: Any) -> Any:
    _, place_of = searching(kind, 4)
    number_of = _number_of(kind)

    @cuda_device
    def cell_of(key, edges, lows, scales):
        """Return the cell of a key: of the edge below it, and of the distance from that."""
        place = np.uintp(place_of(key, edges))
        distance = (np.float64(number_of(key)) - lows[place]) * scales[place]
        cell = np.int32(min(max(distance, 0.0), CELLS_OF_GAP - 1.0))
        return np.int32(np.int32(place) * np.int32(CELLS_OF_GAP) + cell)

    return cell_of


def tally_kernel(kind: Any) -> Any:
    """Make the kernel that counts kept keys in cells."""
    cell_of = _cell_of(kind)

    @cuda_kernel
    def tally_kept(kept, room, sizes, edges, lows, scales, counts):
        """Add the keys that a block kept to the counters of their cells; no error check.

        Parameters
        ----------
        kept, room, sizes, edges
            As :func:`pass_kernel` has them.
        lows, scales : float64 arrays, shape (PLACES,)
            The edge of a place, and cells above it for a unit.
        counts : int32 array, shape (CELLS,)
            Modified in place.
        """
        counters = cuda.shared.array(CELLS, np.int32)
        i = cuda.threadIdx.x
        while i < CELLS:
            counters[i] = 0
            i += TALLY_THREADS
        cuda.syncthreads()
        block = cuda.blockIdx.x
        while block < sizes.size:
            first, size = np.int64(block) * room, sizes[block]
            i = cuda.threadIdx.x
            while i < size:  # four are read before the first is counted
                j, k, m = i + TALLY_THREADS, i + 2 * TALLY_THREADS, i + 3 * TALLY_THREADS
                a, b = kept[first + i], kept[first + min(j, size - 1)]
                c, d = kept[first + min(k, size - 1)], kept[first + min(m, size - 1)]
                cuda.atomic.add(counters, cell_of(a, edges, lows, scales), np.int32(1))
                cuda.atomic.add(counters, cell_of(b, edges, lows, scales), np.int32(j < size))
                cuda.atomic.add(counters, cell_of(c, edges, lows, scales), np.int32(k < size))
                cuda.atomic.add(counters, cell_of(d, edges, lows, scales), np.int32(m < size))
                i += 4 * TALLY_THREADS
            block += cuda.gridDim.x
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < CELLS:
            if counters[i] > 0:
                cuda.atomic.add(counts, i, counters[i])
            i += TALLY_THREADS

    return tally_kept


def gather_kernel(kind: Any) -> Any:
    """Make the kernel that gathers kept keys of wanted cells."""
    cell_of = _cell_of(kind)

    @cuda_kernel
    def gather_kept(kept, room, sizes, edges, lows, scales, wanted, few, cursor):
        """Write the kept keys of wanted cells to ``few``, in any order; no error check.

        Parameters
        ----------
        kept, room, sizes, edges, lows, scales
            As :func:`tally_kernel` has them.
        wanted : uint8 array, shape (CELLS,)
        few : uint32 or uint64 array
            Modified in place; has room for all of them.
        cursor : int32 array, shape (1,)
            Modified in place: raised by their number.
        """
        staged = cuda.shared.array(STAGED, kind)
        state = cuda.shared.array(2, np.int32)
        first = np.int64(cuda.blockIdx.x) * room
        if cuda.threadIdx.x == 0:
            state[0] = 0
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < sizes[cuda.blockIdx.x]:
            key = kept[first + i]
            if wanted[cell_of(key, edges, lows, scales)]:
                at = cuda.atomic.add(state, 0, np.int32(1))
                if at < STAGED:
                    staged[at] = key
                else:
                    few[cuda.atomic.add(cursor, 0, np.int32(1))] = key
            i += COUNT_THREADS
        cuda.syncthreads()
        size = min(state[0], np.int32(STAGED))
        if cuda.threadIdx.x == 0:
            state[1] = cuda.atomic.add(cursor, 0, size)
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < size:
            few[state[1] + i] = staged[i]
            i += COUNT_THREADS

    return gather_kept
