"""Histograms, sketches and extremes on the device: whole numbers, so any order of adding is exact.

A block counts in its shared memory, in as many copies of the counters as fit, since equal values
side by side would otherwise wait for one another; then it adds its counts to the whole.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel, rounded_product
from numbatch.kernels.device_arrays import shared_body, threads_of
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.statistics.histogram import _leading_bits
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
    "add_partial_extremes",
    "count_in_bins",
    "count_in_buckets",
    "write_entropy_terms",
]

COUNT_THREADS = threads_of(256, 8)
SHARED_COUNTERS = 8192
"""int32 counters of a block, 32 KiB."""
HALF = SHARED_COUNTERS // 2
SKETCH_COUNTERS = SHARED_COUNTERS + SPECIAL_COUNTS


@cpu_device
def _linear_place(x, first, scale, bins, edges):
    """Return the counter of a value between edges of equal steps: below, the bins, above."""
    place = (x - first) * scale
    place = place if place > 0.0 else 0.0
    place = place if place < bins - 1.0 else bins - 1.0
    bin = np.int64(place)
    if x >= edges[bin + 1]:
        return bin + 2
    return bin + 1 if not x < edges[bin] else bin


@cpu_device
def _free_place(x, edges, table):
    """Return the counter of a value between increasing edges: how many of them it reaches."""
    leading = np.int64(leading_bits(x))
    low, high = table[leading], table[leading + 1]
    while low < high:
        middle = (low + high) >> 1
        if edges[middle] <= x:
            low = middle + 1
        else:
            high = middle
    return np.int64(low)


leading_bits = _leading_bits
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


@cuda_device
def _count_one(x, edges, table, linear, scale, copies, counters, counts):
    bins = edges.size - 1
    if x != x:
        place = np.int64(bins + 2)
    elif linear:
        place = linear_place(x, edges[0], scale, float(bins), edges)
    else:
        place = free_place(x, edges, table)
    if copies > 0:
        copy = cuda.threadIdx.x & (copies - 1)
        cuda.atomic.add(counters, place * copies + copy, 1)
    else:
        cuda.atomic.add(counts, place, 1)


@cuda_kernel
def count_in_bins(values, edges, table, linear, scale, copies, counts):
    """Add the values between edges to their counters; no error check.

    Parameters
    ----------
    values : float32 or float64 array
    edges : float64 array, shape (bins + 1,)
        The last one is moved up by the least step.
    table : int32 array, shape (2**16 + 1,) or (1,)
        How many edges have lesser leading bits, where the steps are not equal.
    linear : bool
        Whether the steps are equal.
    scale : float64
        Bins for a unit, where they are.
    copies : int
        Sets of counters in shared memory, a power of two; 0 where not one fits.
    counts : int64 array, shape (bins + 3,)
        Modified in place: below, the bins, above, NaN.
    """
    counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
    if copies > 0:
        _clear(counters)
    bins = edges.size - 1
    i = cuda.grid(1)
    step = cuda.gridsize(1)
    while i + 3 * step < values.size:  # four are read before the first is counted
        a, b = float(values[i]), float(values[i + step])
        c, d = float(values[i + 2 * step]), float(values[i + 3 * step])
        _count_one(a, edges, table, linear, scale, copies, counters, counts)
        _count_one(b, edges, table, linear, scale, copies, counters, counts)
        _count_one(c, edges, table, linear, scale, copies, counters, counts)
        _count_one(d, edges, table, linear, scale, copies, counters, counts)
        i += 4 * step
    while i < values.size:
        x = float(values[i])
        _count_one(x, edges, table, linear, scale, copies, counters, counts)
        i += step
    if copies > 0:
        cuda.syncthreads()
        place = cuda.threadIdx.x
        while place < bins + 3:
            total = np.int64(0)
            for k in range(copies):
                total += counters[place * copies + k]
            if total > 0:
                cuda.atomic.add(counts, place, total)
            place += COUNT_THREADS


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
def min_number(x, y):
    """Return the lesser of two; NaN counts as more than infinity."""
    return (x if x < y else y) if x == x else (y if y == y else math.inf)


@cuda_device
def max_number(x, y):
    """Return the greater of two; NaN counts as less than minus infinity."""
    return (x if x > y else y) if x == x else (y if y == y else -math.inf)


@cuda_kernel
def add_partial_extremes(values, partial):
    """Write how many values of each block are NaN, the least and the greatest; no error check.

    ``partial`` is float64, shape (blocks, 3); inf and -inf where there is none.
    """
    part = cuda.shared.array((3, COUNT_THREADS), np.float64)
    thread = cuda.threadIdx.x
    nans, least, greatest = 0, math.inf, -math.inf
    i = cuda.grid(1)
    step = cuda.gridsize(1)
    while i + 3 * step < values.size:
        a, b = float(values[i]), float(values[i + step])
        c, d = float(values[i + 2 * step]), float(values[i + 3 * step])
        nans += (a != a) + (b != b) + (c != c) + (d != d)
        least = min_number(min_number(a, b), min_number(min_number(c, d), least))
        greatest = max_number(max_number(a, b), max_number(max_number(c, d), greatest))
        i += 4 * step
    while i < values.size:
        x = float(values[i])
        nans += x != x
        least, greatest = min_number(x, least), max_number(x, greatest)
        i += step
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
