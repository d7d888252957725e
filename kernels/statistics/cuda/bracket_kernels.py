"""Kernels that select a few ranks in one pass over the values.

A sample (:mod:`~numbatch.kernels.statistics.cuda.bracket_sample`) says between which two keys the
value of a rank probably lies. One pass counts what is below, at, and between those keys, and keeps
the few that are between; the counts say for sure whether the value is among them. Keys are those of
:mod:`~numbatch.kernels.statistics.digits`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.scoring.cuda.words import load_floats
from numbatch.kernels.statistics.cuda.counters import add_counters, clear

__all__ = [
    "CELLS",
    "CELLS_OF_GAP",
    "EDGES",
    "PASS_THREADS",
    "TALLY_THREADS",
    "gather_kernel",
    "pass_kernel",
    "tally_kernel",
]

PASS_THREADS = threads_of(256, 8)

EDGES = 15
"""Keys that divide the others, at most."""
PLACES = EDGES + 1
CLASSES = 32
"""At least twice as many as places."""
COPIES = 5
"""Binary logarithm of the copies of their counters."""
COUNTERS = CLASSES << COPIES
CELLS_OF_GAP = 128
"""Cells that the keys between two edges are counted in."""
CELLS = PLACES * CELLS_OF_GAP
TALLY_THREADS = threads_of(1024, 8)
STAGED = 1024
"""Keys that a block writes at once."""

ONE, TWO, THREE, FOUR = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)


@cuda_device
def _merge(ends, edges, nan):
    """Write the ends of all quantiles to ``edges``, increasing, after a 0; then NaN; all call."""
    i = cuda.threadIdx.x
    while i < PLACES:
        edges[i] = nan if i > ends.size else edges.dtype.type(0)
        i += PASS_THREADS
    cuda.syncthreads()
    i = cuda.threadIdx.x
    while i < ends.size:
        rank = 0
        for k in range(ends.size):
            rank += ends[k] < ends[i] or (ends[k] == ends[i] and k < i)
        edges[1 + rank] = ends[i]
        i += PASS_THREADS
    cuda.syncthreads()


@cuda_device
def _covered(ends, edges):
    """Return a bit for each class of keys that a quantile probably has: above some edges."""
    mask = np.uint32(0)
    for place in range(1, ends.size):
        for q in range(ends.size // 2):
            if ends[2 * q] <= edges[place] and edges[place + 1] <= ends[2 * q + 1]:
                mask |= np.uint32(ONE << np.uint32(2 * place))
    return mask


def _searching(kind: Any, levels: int) -> tuple[Any, Any]:
    """Make the functions that find a key's place, and a float's key."""
    floats = np.float32 if kind == np.uint32 else np.float64
    signed = np.int32 if kind == np.uint32 else np.int64
    bits = 31 if kind == np.uint32 else 63
    sign, nan = kind(1 << bits), kind(np.iinfo(kind).max)
    steps = tuple(np.uint32(1 << k if k < levels else 0) for k in range(4))

    @cuda_device
    def key_of(x):
        x = floats(x)
        key = kind(x.view(kind) ^ kind(kind(x.view(signed) >> signed(bits)) | sign))
        return key if x == x else nan

    @cuda_device
    def step_to(key, edges, place, step):
        further = np.uint32(place + step)
        return further if edges[np.uintp(further)] <= key else place

    @cuda_device
    def place_of(key, edges):
        """Return the place of the last edge that is not above a key."""
        place = np.uint32(0)
        if levels > 3:
            place = step_to(key, edges, place, steps[3])
        if levels > 2:
            place = step_to(key, edges, place, steps[2])
        place = step_to(key, edges, place, steps[1])
        return step_to(key, edges, place, steps[0])

    return key_of, place_of


def pass_kernel(kind: Any, levels: int) -> Any:
    """Make the kernel for bits of a dtype and ``2**levels - 1`` edges."""
    key_of, place_of = _searching(kind, levels)
    nan = kind(np.iinfo(kind).max)

    @cuda_device
    def count_one(x, edges, wanted, copy, counters):
        key = key_of(x)
        place = place_of(key, edges)
        at = np.uint32(edges[np.uintp(place)] == key)
        number = np.uint32(np.uint32(place + place) - at)
        cuda.atomic.add(counters, np.uint32(np.uint32(number << np.uint32(COPIES)) | copy), 1)
        return np.uint32(np.uint32(wanted >> number) & np.uint32(1))

    @cuda_device
    def count_four(four, edges, wanted, copy, counters):
        a = count_one(four[0], edges, wanted, copy, counters)
        b = count_one(four[1], edges, wanted, copy, counters)
        c = count_one(four[2], edges, wanted, copy, counters)
        d = count_one(four[3], edges, wanted, copy, counters)
        return a | np.uint32(b << ONE) | np.uint32(c << TWO) | np.uint32(d << THREE)

    @cuda_device
    def keep(x, kept, cursor, room):
        at = cuda.atomic.add(cursor, 0, np.int32(1))
        if at < room:
            kept[np.int64(cuda.blockIdx.x) * room + at] = key_of(x)

    @cuda_device
    def keep_marked(marks, values, first, apart, kept, cursor, room):
        """Keep what has a mark; it is read again, since of a warp's values few have one."""
        while marks:
            k = np.uint32(31 - cuda.clz(marks))
            marks = np.uint32(marks ^ np.uint32(ONE << k))
            at = first + np.int64(k & THREE)
            keep(values[at if k < FOUR else at + apart], kept, cursor, room)

    @cuda_kernel
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
        covered : uint32 array, shape (1,)
            Modified in place: a bit for each class whose keys are kept.
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
        own_edges = cuda.shared.array(PLACES, kind)
        own_wanted = cuda.shared.array(1, np.uint32)
        cursor = cuda.shared.array(1, np.int32)
        _merge(ends, own_edges, nan)
        if cuda.threadIdx.x == 0:
            cursor[0] = 0
            own_wanted[0] = _covered(ends, own_edges)
            if cuda.blockIdx.x == 0:
                covered[0] = own_wanted[0]
                for place in range(PLACES):
                    edges[place] = own_edges[place]
        clear(counters)
        wanted = own_wanted[0]
        copy = np.uint32(cuda.threadIdx.x) & np.uint32((1 << COPIES) - 1)
        step, fours = cuda.gridsize(1), (values.size - start) // 4
        i = cuda.grid(1)
        while i < fours:
            a = load_floats(values, start + 4 * i)
            b = a
            if i + step < fours:
                b = load_floats(values, start + 4 * (i + step))
            marks = count_four(a, own_edges, wanted, copy, counters)
            more = np.uint32(0)
            if i + step < fours:
                more = count_four(b, own_edges, wanted, copy, counters)
            marks = np.uint32(marks | np.uint32(more << FOUR))
            keep_marked(marks, values, start + 4 * i, 4 * step, kept, cursor, room)
            i += 2 * step
        if cuda.blockIdx.x == 0:  # what is left at both ends
            i = cuda.threadIdx.x
            while i < values.size - 4 * fours:
                x = values[i if i < start else i + 4 * fours]
                if count_one(x, own_edges, wanted, copy, counters):
                    keep(x, kept, cursor, room)
                i += PASS_THREADS
        add_counters(counters, COPIES, CLASSES, counts)
        if cuda.threadIdx.x == 0:
            sizes[cuda.blockIdx.x] = cursor[0]

    return count_and_keep


def _cell_of(kind: Any) -> Any:
    _, place_of = _searching(kind, 4)

    @cuda_device
    def cell_of(key, edges, shifts):
        """Return the cell of a key: of the edge below it, and of the distance from that."""
        place = place_of(key, edges)
        distance = kind(key - edges[np.uintp(place)]) >> kind(shifts[np.uintp(place)])
        return np.int32(place) * np.int32(CELLS_OF_GAP) + np.int32(distance)

    return cell_of


def tally_kernel(kind: Any) -> Any:
    """Make the kernel that counts kept keys in cells."""
    cell_of = _cell_of(kind)

    @cuda_kernel
    def tally_kept(kept, room, sizes, edges, shifts, counts):
        """Add the keys that a block kept to the counters of their cells; no error check.

        Parameters
        ----------
        kept, room, sizes, edges
            As :func:`pass_kernel` has them.
        shifts : uint8 array, shape (PLACES,)
            A cell above the edge of a place has ``1 << shift`` keys.
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
                cuda.atomic.add(counters, cell_of(a, edges, shifts), np.int32(1))
                cuda.atomic.add(counters, cell_of(b, edges, shifts), np.int32(j < size))
                cuda.atomic.add(counters, cell_of(c, edges, shifts), np.int32(k < size))
                cuda.atomic.add(counters, cell_of(d, edges, shifts), np.int32(m < size))
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
    def gather_kept(kept, room, sizes, edges, shifts, wanted, few, cursor):
        """Write the kept keys of wanted cells to ``few``, in any order; no error check.

        Parameters
        ----------
        kept, room, sizes, edges, shifts
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
            if wanted[cell_of(key, edges, shifts)]:
                at = cuda.atomic.add(state, 0, np.int32(1))
                if at < STAGED:
                    staged[at] = key
                else:
                    few[cuda.atomic.add(cursor, 0, np.int32(1))] = key
            i += PASS_THREADS
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
