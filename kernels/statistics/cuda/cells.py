"""Histograms with any edges on the device, where a table of leading bits holds at most one a cell.

A cell is an interval of numbers whose leading bits are the same. Its entry is made so that adding
the number's bits carries into the count of edges where they reach the edge that the cell holds: a
value is placed by one look-up and one sum. Whole numbers are what these kernels wait for: a
multiprocessor works on 64 of them in a cycle, and memory brings 3 values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    SHARED_COUNTERS,
    add_counters,
    clear,
)
from numbatch.kernels.statistics.cuda.strides import REGISTERS, pass_over

__all__ = ["TABLE", "Cells", "cells_kernel", "cells_of", "clear_and_copy"]

TABLE = 2048
"""uint32 entries in a block's shared memory, 8 KiB."""
ONE = np.uint32(1)
COARSEST, FINEST = 24, 4
"""Bits that the values of a cell may differ in, of a number's leading 32."""


class Cells(NamedTuple):
    """A table of edges."""

    entries: np.ndarray
    """uint32. Added to a key of the cell, the bits above ``bits`` say how many edges it reaches."""
    low: int
    high: int
    """The least and the greatest key that the table has."""
    bits: int


def cells_of(edges: np.ndarray) -> Cells | None:
    """Return the table of increasing edges, float32 or float64, or None if none would do.

    A key is the leading 32 bits of a number as an int32 of the same order.
    """
    # -0.0 becomes 0.0
    whole = (edges + edges.dtype.type(0)).view(np.int64 if edges.itemsize == 8 else np.int32)
    leading = (whole >> 32 if edges.itemsize == 8 else whole).astype(np.int64)
    keys = np.where(leading < 0, leading ^ 0x7FFFFFFF, leading)
    for bits in range(COARSEST, FINEST - 1, -1):
        places = keys >> bits
        first, size = int(places[0]) - 1, int(places[-1] - places[0]) + 3
        low, high = first << bits, (first + size << bits) - 1
        if size > TABLE or edges.size + 1 >= 1 << (31 - bits) or low < -(1 << 31) or high >> 31:
            continue
        if np.all(np.diff(places) > 0):
            cells = np.arange(first, first + size)
            begin = np.full(size, 1 << bits)  # of the edge in a cell, beyond it where it has none
            begin[places - first] = keys & ((1 << bits) - 1)
            entries = (np.searchsorted(places, cells) + 1 << (bits + 1)) - begin - (cells << bits)
            return Cells((entries & 0xFFFFFFFF).astype(np.uint32), low, high, bits)
    return None


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
            return np.int32(x.view(np.int32))
        return np.int32(x.view(np.int64) >> np.int64(32))

    @cuda_device
    def find(x, given):
        edges, table, _, low, high, bits, stride, own, copies, copy = given
        key = leading_bits(x)
        key = np.int32(key ^ (np.int32(key >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        key = min(max(key, low), high)
        cell = np.uint32(np.int32(key >> np.int32(bits)))
        entry = table[np.uintp(np.uint32(np.uint32(cell * stride) + own))]
        total = np.uint32(entry + np.uint32(key))
        place = np.uint32(total >> np.uint32(bits + np.uint32(1)))
        # Further bits say whether an edge is reached that has the same leading ones.
        if not narrow and np.uint32(total << (np.uint32(31) - bits)) == np.uint32(0):
            place = np.uint32(place - np.uint32(x < edges[place - np.uint32(1)]))
        if x != x:
            place = np.uint32(edges.size + 1)
        return np.uint32(np.uint32(place * copies) + copy), np.uint32(0)

    @cuda_device
    def count(place, given):
        cuda.atomic.add(given[2], place, np.int32(1))

    @cuda_device
    def look_again(x, given):
        """Do nothing: all are counted at once."""

    over = pass_over(kind, find, count, look_again)

    @cuda_kernel(registers=REGISTERS)
    def count_in_cells(values, start, edges, entries, low, high, bits, shift, copies, counts):
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
        low, high : int32
        bits : uint32
            Of the same.
        shift, copies : uint32
            Binary logarithms of the copies of the table and of the counters.
        counts : int64 array, shape (bins + 3,)
            Modified in place: below, the bins, above, NaN.
        """
        counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
        table = cuda.shared.array(TABLE, np.uint32)
        clear_and_copy(counters, entries, shift, table)
        thread = np.uint32(cuda.threadIdx.x)
        stride, several = np.uint32(np.uint32(1) << shift), np.uint32(np.uint32(1) << copies)
        first = np.uint32(np.int32(low >> np.int32(bits)))
        own = np.uint32((thread & np.uint32(stride - ONE)) - np.uint32(first * stride))
        copy = thread & np.uint32(several - ONE)
        given = (edges, table, counters, low, high, bits, stride, own, several, copy)
        over(values, start, given)
        add_counters(counters, copies, edges.size + 2, counts)

    return count_in_cells
