"""Histograms, sketches and extremes on the device: whole numbers, so any order of adding is exact.

A block counts in its shared memory, in as many copies of the counters as fit, since equal values
side by side would otherwise wait for one another; then it adds its counts to the whole.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel, rounded_product
from numbatch.kernels.device_arrays import shared_body, threads_of
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.cuda.words import load_floats
from numbatch.kernels.statistics.likelihood import entropy_term
from numbatch.kernels.statistics.sketch import (
    MINUS_INFINITY,
    NAN,
    PLUS_INFINITY,
    SPECIAL_COUNTS,
    ZERO,
    A,
    B,
    C,
    exponent_and_rest,
)

__all__ = [
    "COUNT_THREADS",
    "SHARED_COUNTERS",
    "bins_kernel",
    "count_in_buckets",
    "even_bins_kernel",
    "extremes_kernel",
    "write_entropy_terms",
]

COUNT_THREADS = threads_of(256, 8)
SHARED_COUNTERS = 8192
"""int32 counters of a block, 32 KiB."""
HALF = SHARED_COUNTERS // 2
SKETCH_COUNTERS = SHARED_COUNTERS + SPECIAL_COUNTS


@cpu_device
def _settled(x, bin, edges):
    """Return the counter of a value near a bin: below, the bins, above; exact by the edges."""
    bins = edges.size - 1
    while bin > 0 and x < edges[bin]:
        bin -= 1
    while bin < bins and x >= edges[bin + 1]:
        bin += 1
    return bin + 1 if x >= edges[bin] else np.int32(0)


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
    return np.int32(_settled(x, bin, edges))


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


settled = shared_body(_settled)
linear_place = shared_body(_linear_place)
free_place = shared_body(_free_place)
parts_of = shared_body(exponent_and_rest)
entropy_of = shared_body(entropy_term)


@cuda_device
def _bucket(x, scale):
    """Return the bucket of a magnitude as the CPU finds it: no product and sum are fused; or -1."""
    magnitude = abs(x)
    if not 2.2250738585072014e-308 <= magnitude < math.inf:
        return np.int64(-1)
    exponent, s = parts_of(x)
    cubic = rounded_product(rounded_product(rounded_product(A, s) + B, s) + C, s)
    return np.int64(rounded_product((exponent - 1.0) + cubic, scale))


@cuda_device
def _clear(counters):
    i = cuda.threadIdx.x
    while i < counters.size:
        counters[i] = 0
        i += COUNT_THREADS
    cuda.syncthreads()


def even_bins_kernel(kind: Any) -> Any:
    """Make the kernel for values of a dtype and bins of one width, whose counters fit a block."""
    # Added to a number, it leaves the nearest whole number in the low bits.
    shifter = kind(1.5 * 2.0 ** (23 if kind == np.float32 else 52))
    whole = np.int32 if kind == np.float32 else np.int64
    zero_bits = shifter.view(whole)

    @cuda_device
    def count_one(x, edges, first, scale, margin, highest, shift, own, counters):
        place = min(max((x - first) * scale, kind(-0.5)), highest)
        moved = place + shifter
        rest = place - (moved - shifter)
        bin = np.int32(moved.view(whole) - zero_bits) - np.int32(rest < kind(0))
        counter = bin + np.int32(1)
        if x != x:
            counter = np.int32(edges.size + 1)
        elif abs(rest) <= margin:
            near = min(max(bin, np.int32(0)), np.int32(edges.size - 2))
            counter = np.int32(settled(x, near, edges))
        cuda.atomic.add(counters, (np.uint32(counter) << shift) | own, np.int32(1))

    @cuda_device
    def count_four(four, edges, first, scale, margin, highest, shift, own, counters):
        count_one(four[0], edges, first, scale, margin, highest, shift, own, counters)
        count_one(four[1], edges, first, scale, margin, highest, shift, own, counters)
        count_one(four[2], edges, first, scale, margin, highest, shift, own, counters)
        count_one(four[3], edges, first, scale, margin, highest, shift, own, counters)

    @cuda_kernel
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
        _clear(counters)
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
        cuda.syncthreads()
        place = cuda.threadIdx.x
        while place < edges.size + 2:
            total = np.int64(0)
            for k in range(1 << shift):
                total += counters[(place << shift) + k]
            if total > 0:
                cuda.atomic.add(counts, place, total)
            place += COUNT_THREADS

    return count_in_even_bins


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

    @cuda_kernel
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
            _clear(counters)
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


@cuda_device
def _count_magnitude(x, scale, low, counters, counts):
    key = _bucket(x, scale)
    if key >= 0:
        sign = np.int64(x < 0.0)
        if low <= key < low + HALF:
            cuda.atomic.add(counters, sign * HALF + key - low, 1)
        else:
            cuda.atomic.add(counts, sign * (counts.size // 2) + key, 1)
    else:
        kind = NAN if x != x else PLUS_INFINITY if x > 1.0 else MINUS_INFINITY
        cuda.atomic.add(counters, SHARED_COUNTERS + (ZERO if abs(x) < 1.0 else kind), 1)


@cuda_kernel
def count_in_buckets(values, scale, high, counts, special):
    """Add the values to the buckets of their magnitudes; no error check.

    Parameters
    ----------
    values : float32 or float64 array
    scale : float64
        As the CPU's sketch has it.
    high : int
        Buckets below this one, 4,096 of them, are counted in shared memory first.
    counts : int64 array, shape (2 * buckets,)
        Modified in place: of positive values, of negative values.
    special : int64 array, shape (4,)
        Modified in place: zero (and subnormal), inf, -inf, NaN.
    """
    counters = cuda.shared.array(SKETCH_COUNTERS, np.int32)
    _clear(counters)
    low = high - HALF
    i = cuda.grid(1)
    step = cuda.gridsize(1)
    while i + 3 * step < values.size:  # four are read before the first is counted
        a, b = float(values[i]), float(values[i + step])
        c, d = float(values[i + 2 * step]), float(values[i + 3 * step])
        _count_magnitude(a, scale, low, counters, counts)
        _count_magnitude(b, scale, low, counters, counts)
        _count_magnitude(c, scale, low, counters, counts)
        _count_magnitude(d, scale, low, counters, counts)
        i += 4 * step
    while i < values.size:
        _count_magnitude(float(values[i]), scale, low, counters, counts)
        i += step
    cuda.syncthreads()
    i = cuda.threadIdx.x
    while i < SHARED_COUNTERS:
        if counters[i] > 0:
            key = low + i % HALF
            cuda.atomic.add(counts, i // HALF * (counts.size // 2) + key, np.int64(counters[i]))
        i += COUNT_THREADS
    if cuda.threadIdx.x < SPECIAL_COUNTS:
        count = np.int64(counters[SHARED_COUNTERS + cuda.threadIdx.x])
        cuda.atomic.add(special, cuda.threadIdx.x, count)


@cuda_kernel
def write_entropy_terms(values, out):
    """Write ``-p log p`` of each value, float64; no error check."""
    i = cuda.grid(1)
    while i < values.size:
        out[i] = entropy_of(float(values[i]))
        i += cuda.gridsize(1)


@cuda_device
def _take_one(x, nans, least, greatest):
    """Take in a value; a comparison with NaN is false, and the number stays."""
    least = x if x < least else least
    greatest = x if x > greatest else greatest
    return nans + np.int32(x != x), least, greatest


@cuda_device
def _take_four(four, nans, least, greatest):
    nans, least, greatest = _take_one(four[0], nans, least, greatest)
    nans, least, greatest = _take_one(four[1], nans, least, greatest)
    nans, least, greatest = _take_one(four[2], nans, least, greatest)
    return _take_one(four[3], nans, least, greatest)


def extremes_kernel(kind: Any) -> Any:
    """Make the kernel for values of a dtype, which it compares as they are."""

    @cuda_kernel
    def find_extremes(values, start, partial):
        """Write how many values of each block are NaN, the least and the greatest number.

        No error check. ``values[start:]`` begins at a multiple of 16 bytes. ``partial`` is float64,
        shape (blocks, 3); inf and -inf where there is none.
        """
        part = cuda.shared.array((3, COUNT_THREADS), np.float64)
        thread = cuda.threadIdx.x
        nans, least, greatest = np.int32(0), kind(math.inf), kind(-math.inf)
        step, fours = cuda.gridsize(1), (values.size - start) // 4
        i = cuda.grid(1)
        while i + 3 * step < fours:  # four are read before the first is compared
            a, b = load_floats(values, start + 4 * i), load_floats(values, start + 4 * (i + step))
            c, d = (
                load_floats(values, start + 4 * (i + 2 * step)),
                load_floats(values, start + 4 * (i + 3 * step)),
            )
            nans, least, greatest = _take_four(a, nans, least, greatest)
            nans, least, greatest = _take_four(b, nans, least, greatest)
            nans, least, greatest = _take_four(c, nans, least, greatest)
            nans, least, greatest = _take_four(d, nans, least, greatest)
            i += 4 * step
        while i < fours:
            a = load_floats(values, start + 4 * i)
            nans, least, greatest = _take_four(a, nans, least, greatest)
            i += step
        if cuda.blockIdx.x == 0:  # what is left at both ends
            i = thread
            while i < values.size - 4 * fours:
                x = values[i if i < start else i + 4 * fours]
                nans, least, greatest = _take_one(x, nans, least, greatest)
                i += COUNT_THREADS
        part[0, thread], part[1, thread], part[2, thread] = nans, least, greatest
        cuda.syncthreads()
        half = COUNT_THREADS // 2
        while half > 0:
            if thread < half:
                part[0, thread] += part[0, thread + half]
                part[1, thread] = min(part[1, thread], part[1, thread + half])
                part[2, thread] = max(part[2, thread], part[2, thread + half])
            cuda.syncthreads()
            half //= 2
        if thread < 3:
            partial[cuda.blockIdx.x, thread] = part[thread, 0]

    return find_extremes
