"""Histograms with any edges on the device, however many; slower than those that fit a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    REGISTERS,
    SHARED_COUNTERS,
    clear,
)
from numbatch.kernels.statistics.cuda.even_bins import settled_place

__all__ = ["bins_kernel"]


@cpu_device
def _linear_place(x, first, scale, margin, edges):
    """Return the counter of a value between edges of equal steps.

    The edges are asked only within ``margin`` of one: they are in memory, which takes longer.
    """
    place = (x - first) * scale
    bins = np.int32(edges.size - 1)
    if place < -margin:
        return np.int32(0)
    if place > bins + margin:
        return bins + np.int32(1)
    bin = np.int32(0)
    if place >= bins:
        bin = bins - np.int32(1)
    elif place > 0:
        bin = np.int32(place)
    if margin < place - bin < 1 - margin:
        return bin + np.int32(1)
    return np.int32(settled_place(x, bin, edges))


@cpu_device
def _free_place(x, leading, edges, table):
    """Return the counter of a value between increasing edges: how many of them it reaches."""
    low, high = table[leading], table[leading + 1]
    while low < high:
        middle = (low + high) >> 1
        if edges[middle] <= x:
            low = middle + 1
        else:
            high = middle
    return low


linear_place = shared_body(_linear_place)
free_place = shared_body(_free_place)


def bins_kernel(kind: Any, key_of: Any, shift: int) -> Any:
    """Make the kernel for values of a dtype; ``key_of(bits) >> shift`` are their leading bits."""
    unsigned = np.uint32 if kind == np.float32 else np.uint64

    @cuda_device
    def count_one(bits, x, edges, table, linear, scale, margin, copies, counters, counts):
        if x != x:
            place = np.int32(edges.size + 1)
        elif linear:
            place = np.int32(linear_place(x, edges[0], scale, margin, edges))
        else:
            key = key_of(bits if x != 0 else unsigned(0))  # -0.0 is 0.0
            place = np.int32(free_place(x, np.int32(key >> unsigned(shift)), edges, table))
        if copies > 0:
            copy = np.int32(cuda.threadIdx.x) & np.int32(copies - 1)
            cuda.atomic.add(counters, place * np.int32(copies) + copy, np.int32(1))
        else:
            cuda.atomic.add(counts, place, 1)

    @cuda_kernel(registers=REGISTERS)
    def count_in_bins(values, bits, edges, table, linear, scale, margin, copies, counts):
        """Add the values between edges to their counters; no error check.

        Parameters
        ----------
        values : float32 or float64 array
        bits : uint32 or uint64 array
            The same.
        edges : array of the same dtype, shape (bins + 1,)
            The last one is moved up by the least step.
        table : int32 array, shape (2**16 + 1,) or (1,)
            How many edges have lesser leading bits, where the steps are not equal.
        linear : bool
            Whether the steps are equal.
        scale : float of the same dtype
            Bins for a unit, where they are.
        margin : float of the same dtype
            How far from an edge, in bins, a place found by ``scale`` may be wrong.
        copies : int
            Sets of counters in shared memory, a power of two; 0 where not one fits.
        counts : int64 array, shape (bins + 3,)
            Modified in place: below, the bins, above, NaN.
        """
        counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
        if copies > 0:
            clear(counters)
        i = cuda.grid(1)
        step = cuda.gridsize(1)
        while i + 3 * step < values.size:  # four are read before the first is counted
            a, b, c, d = values[i], values[i + step], values[i + 2 * step], values[i + 3 * step]
            count_one(bits[i], a, edges, table, linear, scale, margin, copies, counters, counts)
            count_one(
                bits[i + step], b, edges, table, linear, scale, margin, copies, counters, counts
            )
            count_one(
                bits[i + 2 * step], c, edges, table, linear, scale, margin, copies, counters, counts
            )
            count_one(
                bits[i + 3 * step], d, edges, table, linear, scale, margin, copies, counters, counts
            )
            i += 4 * step
        while i < values.size:
            count_one(
                bits[i], values[i], edges, table, linear, scale, margin, copies, counters, counts
            )
            i += step
        if copies > 0:
            cuda.syncthreads()
            place = cuda.threadIdx.x
            while place < edges.size + 2:
                total = np.int64(0)
                for k in range(copies):
                    total += counters[place * copies + k]
                if total > 0:
                    cuda.atomic.add(counts, place, total)
                place += COUNT_THREADS

    return count_in_bins
