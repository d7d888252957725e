"""Histograms with bins of one width on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.cuda.words import load_floats
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    REGISTERS,
    SHARED_COUNTERS,
    add_counters,
    clear,
)

__all__ = ["even_bins_kernel", "settled"]


@cpu_device
def settled_place(x, bin, edges):
    """Return the counter of a value near a bin: below, the bins, above; exact by the edges."""
    bins = edges.size - 1
    while bin > 0 and x < edges[bin]:
        bin -= 1
    while bin < bins and x >= edges[bin + 1]:
        bin += 1
    return bin + 1 if x >= edges[bin] else np.int32(0)


settled = shared_body(settled_place)


def even_bins_kernel(kind: Any) -> Any:
    """Make the kernel for values of a dtype and bins of one width, whose counters fit a block."""
    # Added to a number, it leaves the nearest whole number in the low bits.
    shifter = kind(1.5 * 2.0 ** (23 if kind == np.float32 else 52))
    whole = np.int32 if kind == np.float32 else np.int64
    zero_bits = shifter.view(whole)

    @cuda_device
    def place_one(x, edges, first, scale, margin, highest):
        """Return the counter of a value, and whether it is so near an edge that that is a guess."""
        place = min(max((x - first) * scale, kind(-0.5)), highest)
        moved = place + shifter
        rest = place - (moved - shifter)
        bin = np.int32(moved.view(whole) - zero_bits) - np.int32(rest < kind(0))
        counter = np.int32(bin + np.int32(1))
        if x != x:
            counter = np.int32(edges.size + 1)
        return counter, (abs(rest) <= margin) & (x == x)

    @cuda_device
    def settle(x, counter, near, edges):
        if near:
            bin = min(max(counter - np.int32(1), np.int32(0)), np.int32(edges.size - 2))
            counter = np.int32(settled(x, np.int32(bin), edges))
        return np.uint32(counter)

    @cuda_device
    def count_one(x, edges, first, scale, margin, highest, shift, own, counters):
        counter, near = place_one(x, edges, first, scale, margin, highest)
        counter = settle(x, counter, near, edges)
        cuda.atomic.add(counters, (counter << shift) | own, np.int32(1))

    @cuda_device
    def count_four(four, edges, first, scale, margin, highest, shift, own, counters):
        x, y, z, w = four
        a, near_a = place_one(x, edges, first, scale, margin, highest)
        b, near_b = place_one(y, edges, first, scale, margin, highest)
        c, near_c = place_one(z, edges, first, scale, margin, highest)
        d, near_d = place_one(w, edges, first, scale, margin, highest)
        if near_a | near_b | near_c | near_d:  # seldom, so four are worked on side by side
            a, b = settle(x, a, near_a, edges), settle(y, b, near_b, edges)
            c, d = settle(z, c, near_c, edges), settle(w, d, near_d, edges)
        cuda.atomic.add(counters, (np.uint32(a) << shift) | own, np.int32(1))
        cuda.atomic.add(counters, (np.uint32(b) << shift) | own, np.int32(1))
        cuda.atomic.add(counters, (np.uint32(c) << shift) | own, np.int32(1))
        cuda.atomic.add(counters, (np.uint32(d) << shift) | own, np.int32(1))

    @cuda_kernel(registers=REGISTERS)
    def count_in_even_bins(values, start, edges, scale, margin, shift, counts):
        """Add the values between edges to their counters; no error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[start:]`` begins at a multiple of 16 bytes.
        start : int
        edges : array of the same dtype, shape (bins + 1,)
            The last one is moved up by the least step.
        scale, margin : floats of the same dtype
            Bins for a unit; how far from an edge, in bins, a place found by it may be wrong.
        shift : uint32
            Of the sets of counters in shared memory the binary logarithm.
        counts : int64 array, shape (bins + 3,)
            Modified in place: below, the bins, above, NaN.
        """
        counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
        clear(counters)
        own = np.uint32(cuda.threadIdx.x) & ((np.uint32(1) << shift) - np.uint32(1))
        first, highest = edges[0], kind(edges.size - 1) + kind(0.5)
        step, fours = cuda.gridsize(1), (values.size - start) // 4
        i = cuda.grid(1)
        while i < fours:
            a = load_floats(values, start + 4 * i)
            b = a
            if i + step < fours:
                b = load_floats(values, start + 4 * (i + step))
            count_four(a, edges, first, scale, margin, highest, shift, own, counters)
            if i + step < fours:
                count_four(b, edges, first, scale, margin, highest, shift, own, counters)
            i += 2 * step
        if cuda.blockIdx.x == 0:  # what is left at both ends
            i = cuda.threadIdx.x
            while i < values.size - 4 * fours:
                x = values[i if i < start else i + 4 * fours]
                count_one(x, edges, first, scale, margin, highest, shift, own, counters)
                i += COUNT_THREADS
        add_counters(counters, shift, edges.size + 2, counts)

    return count_in_even_bins
