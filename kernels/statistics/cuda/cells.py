"""Histograms with any edges on the device, where a table of leading bits holds at most one a cell.

A cell is an interval of numbers whose leading bits are the same. Its entry says how many edges lie
below it, and the other bits of the one that it holds; so a value is placed by one look-up and one
comparison of whole numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import load_floats
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    SHARED_COUNTERS,
    add_counters,
    clear,
)

__all__ = ["TABLE", "Cells", "cells_kernel", "cells_of", "clear_and_copy", "ordered"]

TABLE = 2048
"""uint32 entries in a block's shared memory, 8 KiB."""
COARSEST, FINEST = 24, 4
"""Bits that the values of a cell may differ in, of a number's leading 32."""


class Cells(NamedTuple):
    """A table of edges."""

    entries: np.ndarray
    """uint32: the edges below, shifted by one more than ``bits``; then the last bits of the edge in
    the cell, or ``1 << bits`` where there is none."""
    first: int
    bits: int


def cells_of(edges: np.ndarray) -> Cells | None:
    """Return the table of increasing edges, float32 or float64, or None if none would do."""
    # -0.0 becomes 0.0
    whole = (edges + edges.dtype.type(0)).view(np.uint64 if edges.itemsize == 8 else np.uint32)
    leading = (whole >> np.uint64(32) if edges.itemsize == 8 else whole).astype(np.int64)
    keys = np.where(leading >> 31, ~leading & 0xFFFFFFFF, leading | 1 << 31)
    for bits in range(COARSEST, FINEST - 1, -1):
        places = keys >> bits
        first, size = int(places[0]) - 1, int(places[-1] - places[0]) + 3
        if size > TABLE or edges.size >= 1 << (31 - bits):
            continue
        if np.all(np.diff(places) > 0):
            entries = np.searchsorted(places, np.arange(first, first + size)) << (bits + 1)
            entries |= 1 << bits
            entries[places - first] += (keys & ((1 << bits) - 1)) - (1 << bits)
            return Cells(entries.astype(np.uint32), first, bits)
    return None


@cuda_device
def ordered(bits):
    """Map the leading 32 bits of a float to a number of the same order, as a uint32; NaN aside."""
    return bits ^ (np.uint32(np.int32(bits) >> np.int32(31)) | np.uint32(0x80000000))


@cuda_device
def clear_and_copy(counters, entries, shift, table):
    """Clear the counters, and copy each entry ``1 << shift`` times to ``table``; all call."""
    i = cuda.threadIdx.x
    while i < entries.size << shift:
        table[i] = entries[i >> shift]
        i += COUNT_THREADS
    clear(counters)


def cells_kernel(kind: Any) -> Any:
    """Make the kernel for values of a dtype."""
    narrow = kind == np.float32

    @cuda_device
    def leading_bits(x):
        x = kind(x + kind(0))  # -0.0 becomes 0.0
        if narrow:
            return np.uint32(x.view(np.uint32))
        return np.uint32(x.view(np.uint64) >> np.uint64(32))

    @cuda_device
    def count_one(x, edges, table, layout, counters):
        first, last, bits, shift, own, copies, copy = layout
        key = ordered(leading_bits(x))
        cell = np.int32(np.int32(key >> bits) - first)
        cell = min(max(cell, np.int32(0)), last)
        entry = table[np.uintp(np.uint32(np.uint32(np.uint32(cell) << shift) | own))]
        mask = np.uint32((np.uint32(1) << bits) - np.uint32(1))
        rest, edge = key & mask, entry & np.uint32(mask + mask + np.uint32(1))
        place = np.uint32(entry >> np.uint32(bits + np.uint32(1)))
        if narrow:
            place = np.uint32(place + np.uint32(rest >= edge))
        else:
            here = place
            place = np.uint32(place + np.uint32(rest > edge))
            if rest == edge and x >= edges[here]:
                place = np.uint32(place + np.uint32(1))
        if x != x:
            place = np.uint32(edges.size + 1)
        cuda.atomic.add(counters, np.uint32(np.uint32(place << copies) | copy), np.int32(1))

    @cuda_device
    def count_four(four, edges, table, layout, counters):
        count_one(four[0], edges, table, layout, counters)
        count_one(four[1], edges, table, layout, counters)
        count_one(four[2], edges, table, layout, counters)
        count_one(four[3], edges, table, layout, counters)

    @cuda_kernel
    def count_in_cells(values, start, edges, entries, first, bits, shift, copies, counts):
        """Add the values between edges to their counters; no error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[start:]`` begins at a multiple of 16 bytes.
        start : int
        edges : array of the same dtype, shape (bins + 1,)
            The last one is moved up by the least step.
        entries : uint32 array
            Of :class:`Cells`, ``1 << shift`` copies of which fit the shared memory.
        first : int
            Leading bits of the first cell.
        bits : uint32
            In which the values of a cell may differ.
        shift, copies : uint32
            Binary logarithms of the copies of the table and of the counters.
        counts : int64 array, shape (bins + 3,)
            Modified in place: below, the bins, above, NaN.
        """
        counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
        table = cuda.shared.array(TABLE, np.uint32)
        clear_and_copy(counters, entries, shift, table)
        thread = np.uint32(cuda.threadIdx.x)
        own = thread & np.uint32((np.uint32(1) << shift) - np.uint32(1))
        copy = thread & np.uint32((np.uint32(1) << copies) - np.uint32(1))
        last = np.int32(entries.size - 1)
        layout = (np.int32(first), last, bits, shift, own, copies, copy)
        step, fours = cuda.gridsize(1), (values.size - start) // 4
        i = cuda.grid(1)
        while i < fours:
            a = load_floats(values, start + 4 * i)
            b = a
            if i + step < fours:
                b = load_floats(values, start + 4 * (i + step))
            count_four(a, edges, table, layout, counters)
            if i + step < fours:
                count_four(b, edges, table, layout, counters)
            i += 2 * step
        if cuda.blockIdx.x == 0:  # what is left at both ends
            i = cuda.threadIdx.x
            while i < values.size - 4 * fours:
                x = values[i if i < start else i + 4 * fours]
                count_one(x, edges, table, layout, counters)
                i += COUNT_THREADS
        add_counters(counters, copies, edges.size + 2, counts)

    return count_in_cells
