"""Sketches on the device: values are counted in buckets of their magnitude."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel, rounded_product
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    REGISTERS,
    SHARED_COUNTERS,
    clear,
)
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

__all__ = ["HALF", "bucket_of", "count_in_buckets", "special_of"]

HALF = SHARED_COUNTERS // 2
SKETCH_COUNTERS = SHARED_COUNTERS + SPECIAL_COUNTS

parts_of = shared_body(exponent_and_rest)


@cuda_device
def bucket_of(x, scale):
    """Return the bucket of a magnitude as the CPU finds it: no product and sum are fused; or -1."""
    magnitude = abs(x)
    if not 2.2250738585072014e-308 <= magnitude < math.inf:
        return np.int64(-1)
    exponent, s = parts_of(x)
    cubic = rounded_product(rounded_product(rounded_product(A, s) + B, s) + C, s)
    return np.int64(rounded_product((exponent - 1.0) + cubic, scale))


@cuda_device
def special_of(x):
    """Return the counter of a number without a bucket."""
    if abs(x) < 1.0:
        return ZERO
    return NAN if x != x else PLUS_INFINITY if x > 1.0 else MINUS_INFINITY


@cuda_device
def _count_magnitude(x, scale, low, counters, counts):
    key = bucket_of(x, scale)
    if key >= 0:
        sign = np.int64(x < 0.0)
        if low <= key < low + HALF:
            cuda.atomic.add(counters, sign * HALF + key - low, 1)
        else:
            cuda.atomic.add(counts, sign * (counts.size // 2) + key, 1)
    else:
        cuda.atomic.add(counters, SHARED_COUNTERS + special_of(x), 1)


@cuda_kernel(registers=REGISTERS)
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
    clear(counters)
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
