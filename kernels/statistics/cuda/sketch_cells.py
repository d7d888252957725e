"""Sketches of float32 on the device: buckets are looked up by leading bits.

A cell is an interval of magnitudes so short that it holds the beginning of at most one bucket; its
entry says which bucket it begins in and where the next one begins. That is exact, since buckets do
not decrease with a float32's magnitude. float64 has numbers too close to each other for that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import load_floats
from numbatch.kernels.statistics.cuda.cells import TABLE, clear_and_copy
from numbatch.kernels.statistics.cuda.counters import COUNT_THREADS, REGISTERS, SHARED_COUNTERS
from numbatch.kernels.statistics.cuda.sketch import bucket_of, special_of
from numbatch.kernels.statistics.sketch import SPECIAL_COUNTS, C

__all__ = ["SketchWindow", "count_narrow", "window_below", "write_entries"]

SPECIAL_COPIES = 5
"""Binary logarithm of the copies of the counters of what has no bucket."""
ROOM = SHARED_COUNTERS - (SPECIAL_COUNTS << SPECIAL_COPIES)
FEWEST_OCTAVES, MOST_OCTAVES = 16, 24
LEAST_NORMAL, INFINITE = 0x00800000, 0x7F800000


class SketchWindow(NamedTuple):
    """The magnitudes that are looked up."""

    first: int
    """The leading bits of the least."""
    bits: int
    """In which the values of a cell may differ."""
    cells: int
    buckets: int
    """More than they have."""


def window_below(greatest: float, scale: float) -> SketchWindow | None:
    """Return the window of magnitudes up to some times ``greatest``, or None if it is too small.

    Parameters
    ----------
    greatest : float
        Of the greatest magnitudes, positive and finite.
    scale : float
        Buckets for each doubling of the magnitude.
    """
    fine = math.ceil(math.log2(max(scale * C, 32)))  # the cubic is steepest at the beginning
    octaves = min(TABLE >> fine, int((ROOM // 2 - 2) / scale), MOST_OCTAVES)
    if octaves < FEWEST_OCTAVES:
        return None
    bits = 23 - fine
    top = min((int(np.float32(greatest).view(np.int32)) >> 23) + 4, 254)
    bottom = max(top - octaves, 1)
    cells = (top - bottom) << fine
    return SketchWindow(bottom << fine, bits, cells, int((top - bottom) * scale) + 2)


@cuda_device
def _magnitude(bits):
    return np.float64(np.uint32(bits).view(np.float32))


@cuda_kernel
def write_entries(first, bits, scale, entries):
    """Write the entry of each cell; no error check.

    Parameters
    ----------
    first : int
        Leading bits of the first cell.
    bits : int
    scale : float64
    entries : uint32 array, shape (cells,)
        Modified in place. Added to a magnitude's bits, the bits above ``bits`` say its bucket, less
        the first one: where the next one begins, the sum carries.
    """
    i = cuda.grid(1)
    while i < entries.size:
        begin = (first + i) << bits
        base = bucket_of(_magnitude(first << bits), scale)
        own = bucket_of(_magnitude(begin), scale)
        low, high = 0, 1 << bits  # bits of the bucket, bits that are beyond it
        while high - low > 1:
            middle = (low + high) >> 1
            if bucket_of(_magnitude(begin + middle), scale) > own:
                high = middle
            else:
                low = middle
        entry = ((own - base + 1) << (bits + 1)) - high - begin
        entries[i] = np.uint32(entry & 0xFFFFFFFF)
        i += cuda.gridsize(1)


@cuda_device
def _count_rare(x, scale, counters, counts):
    """Count a value that is not in the window."""
    wide = np.float64(x)
    key = bucket_of(wide, scale)
    if key >= 0:
        cuda.atomic.add(counts, np.int64(wide < 0.0) * (counts.size // 2) + key, np.int64(1))
    else:
        place = (special_of(wide) << SPECIAL_COPIES) | (cuda.threadIdx.x & 31)
        cuda.atomic.add(counters, ROOM + place, np.int32(1))


@cuda_device
def _count_one(x, table, layout, counters):
    """Count a value, and return 1 if it is not in the window; then it raises a counter for none."""
    low, high, first, bits, buckets, copies, copy = layout
    whole = np.float32(x).view(np.uint32)
    magnitude = whole & np.uint32(0x7FFFFFFF)
    key = min(max(magnitude, low), high)
    entry = table[np.uintp(np.uint32(np.uint32(key >> bits) - first))]
    bucket = np.uint32(np.uint32(entry + key) >> np.uint32(bits + np.uint32(1)))
    negative = np.uint32(whole >> np.uint32(31))
    bucket = np.uint32(bucket + np.uint32(negative * buckets))
    bucket = bucket if key == magnitude else np.uint32(buckets + buckets)
    cuda.atomic.add(counters, np.uint32(np.uint32(bucket * copies) + copy), np.int32(1))
    return np.uint32(key != magnitude)


@cuda_device
def _count_four(four, table, layout, counters):
    """Count four values, and return a bit for each that is not in the window."""
    a = _count_one(four[0], table, layout, counters)
    b = _count_one(four[1], table, layout, counters)
    c = _count_one(four[2], table, layout, counters)
    d = _count_one(four[3], table, layout, counters)
    low = np.uint32(a | np.uint32(b << np.uint32(1)))
    return np.uint32(low | np.uint32(c << np.uint32(2)) | np.uint32(d << np.uint32(3)))


@cuda_kernel(registers=REGISTERS)
def count_narrow(values, start, scale, entries, first, bits, buckets, copies, counts, special):
    """Add the values to the buckets of their magnitudes; no error check.

    Parameters
    ----------
    values : float32 array
        ``values[start:]`` begins at a multiple of 16 bytes.
    start : int
    scale : float64
        As the CPU's sketch has it.
    entries : uint32 array
        Of the window's cells.
    first, bits, buckets : uint32
        As :class:`SketchWindow` has them.
    copies : uint32
        Of the counters the binary logarithm.
    counts : int64 array, shape (2 * all buckets,)
        Modified in place: of positive values, of negative values.
    special : int64 array, shape (4,)
        Modified in place: zero, inf, -inf, NaN.
    """
    counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
    table = cuda.shared.array(TABLE, np.uint32)
    clear_and_copy(counters, entries, 0, table)
    several = np.uint32(np.uint32(1) << copies)
    copy = np.uint32(cuda.threadIdx.x) & np.uint32(several - np.uint32(1))
    low, cells = np.uint32(first << bits), np.uint32(entries.size)
    high = np.uint32(np.uint32(np.uint32(first + cells) << bits) - np.uint32(1))
    layout = (low, high, first, bits, buckets, several, copy)
    step, fours = cuda.gridsize(1), (values.size - start) // 4
    i = cuda.grid(1)
    while i < fours:
        a = load_floats(values, start + 4 * i)
        b = a
        if i + step < fours:
            b = load_floats(values, start + 4 * (i + step))
        rare = _count_four(a, table, layout, counters)
        if i + step < fours:
            more = _count_four(b, table, layout, counters)
            rare = np.uint32(rare | np.uint32(more << np.uint32(4)))
        while rare:
            bit = np.uint32(31 - cuda.clz(rare))
            rare = np.uint32(rare ^ np.uint32(np.uint32(1) << bit))
            at = start + 4 * (i if bit < np.uint32(4) else i + step) + np.int64(bit & np.uint32(3))
            _count_rare(values[at], scale, counters, counts)
        i += 2 * step
    if cuda.blockIdx.x == 0:  # what is left at both ends
        i = cuda.threadIdx.x
        while i < values.size - 4 * fours:
            x = values[i if i < start else i + 4 * fours]
            if _count_one(x, table, layout, counters):
                _count_rare(x, scale, counters, counts)
            i += COUNT_THREADS
    cuda.syncthreads()
    base = bucket_of(_magnitude(np.uint32(first << bits)), scale)
    i = cuda.threadIdx.x
    while i < 2 * buckets:
        total = np.int64(0)
        for k in range(1 << copies):
            total += counters[(i << copies) + k]
        if total > 0:
            half = counts.size // 2 if i >= buckets else 0
            cuda.atomic.add(counts, half + base + i % buckets, total)
        i += COUNT_THREADS
    if cuda.threadIdx.x < SPECIAL_COUNTS:
        total = np.int64(0)
        for k in range(1 << SPECIAL_COPIES):
            total += counters[ROOM + (cuda.threadIdx.x << SPECIAL_COPIES) + k]
        cuda.atomic.add(special, cuda.threadIdx.x, total)
