"""One pass over values on the device for a few ranks, which probably lie between given keys.

It counts what is below, at and between the keys, and keeps the few that are between two of a
quantile; the counts say for sure whether a rank's key is among them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import load_floats
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    REGISTERS,
    add_counters,
    clear,
)

__all__ = ["CLASSES", "EDGES", "PLACES", "pass_kernel", "searching"]

EDGES = 15
"""Keys that divide the others, at most."""
PLACES = EDGES + 1
CLASSES = 32
"""At least twice as many as places."""
COPIES = 5
"""Binary logarithm of the copies of their counters."""
COUNTERS = CLASSES << COPIES

ONE, TWO, THREE, FOUR = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)


@cuda_device
def _merge(ends, edges, nan):
    """Write the ends of all quantiles to ``edges``, increasing, after a 0; then NaN; all call."""
    i = cuda.threadIdx.x
    while i < PLACES:
        edges[i] = nan if i > ends.size else edges.dtype.type(0)
        i += COUNT_THREADS
    cuda.syncthreads()
    i = cuda.threadIdx.x
    while i < ends.size:
        rank = 0
        for k in range(ends.size):
            rank += ends[k] < ends[i] or (ends[k] == ends[i] and k < i)
        edges[1 + rank] = ends[i]
        i += COUNT_THREADS
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


def searching(kind: Any, levels: int) -> tuple[Any, Any]:
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
    key_of, place_of = searching(kind, levels)
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

    @cuda_kernel(registers=REGISTERS)
    def count_and_keep(values, start, ends, edges, covered, room, kept, sizes, counts):
        """Count the keys below, at, and above each edge, and keep those that are covered.

        No error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[start:]`` begins at a multiple of 16 bytes.
        start : int
        ends : uint32 or uint64 array
            As :func:`choose_kernel` has them.
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
                i += COUNT_THREADS
        add_counters(counters, COPIES, CLASSES, counts)
        if cuda.threadIdx.x == 0:
            sizes[cuda.blockIdx.x] = cursor[0]

    return count_and_keep
