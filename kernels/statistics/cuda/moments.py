"""Central moments, extremes and sums of exponentials of each block of 2,048 values.

A warp has a block, and each of its threads every 32nd value. What the threads find is joined by a
fixed tree.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel, warp_barrier
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.cuda.sums import WARP, join_lanes
from numbatch.kernels.statistics.moments import (
    COUNT,
    GREATEST,
    LEAST,
    M2,
    M3,
    M4,
    MEAN,
    REST,
    SUM,
    central_sums,
)

__all__ = ["logs_kernel", "moments_kernel"]

STEPS_OF_LOG = 64 / math.log(2.0)
STEP_HIGH = float(
    np.int64(np.float64(math.log(2.0) / 64).view(np.int64) >> 24 << 24).view(np.float64)
)
STEP_LOW = math.log(2.0) / 64 - STEP_HIGH
"""A 64th of log 2 in two parts; the first has few enough bits that whole multiples are exact."""

SHIFTER = 1.5 * 2.0**52
SHIFTER_BITS = int(np.float64(SHIFTER).view(np.int64))
"""Added to a number, it leaves the nearest whole number in the low bits."""

central = shared_body(central_sums)


@cuda_device
def _keep_and_sum(values, first, kept, place):
    """Copy 64 values, 32 apart, to ``kept``; return their sum."""
    total = 0.0
    i, j = first, place
    for _ in range(8):
        a, b = values[i], values[i + WARP]
        c, d = values[i + 2 * WARP], values[i + 3 * WARP]
        e, f = values[i + 4 * WARP], values[i + 5 * WARP]
        g, h = values[i + 6 * WARP], values[i + 7 * WARP]
        kept[j], kept[j + WARP] = a, b
        kept[j + 2 * WARP], kept[j + 3 * WARP] = c, d
        kept[j + 4 * WARP], kept[j + 5 * WARP] = e, f
        kept[j + 6 * WARP], kept[j + 7 * WARP] = g, h
        total = (((total + float(a)) + float(b)) + float(c)) + float(d)
        total = (((total + float(e)) + float(f)) + float(g)) + float(h)
        i += 8 * WARP
        j += 8 * WARP
    return total


@cuda_device
def _plain_powers(kept, place, mean, part, thread):
    """As :func:`_powers` of values without NaN, two at a time."""
    s1, s2, s3, s4 = 0.0, 0.0, 0.0, 0.0
    t1, t2, t3, t4 = 0.0, 0.0, 0.0, 0.0
    least, greatest = kept[place], kept[place]
    i = place
    for _ in range(BLOCK // WARP // 2):
        x, y = kept[i], kept[i + WARP]
        least, greatest = min(least, min(x, y)), max(greatest, max(x, y))
        d, e = float(x) - mean, float(y) - mean
        p, q = d * d, e * e
        s1, t1 = s1 + d, t1 + e
        s2, t2 = s2 + p, t2 + q
        s3, t3 = s3 + p * d, t3 + q * e
        s4, t4 = s4 + p * p, t4 + q * q
        i += 2 * WARP
    part[0, thread], part[1, thread] = s1 + t1, s2 + t2
    part[2, thread], part[3, thread] = s3 + t3, s4 + t4
    part[4, thread], part[5, thread] = least, greatest


@cuda_device
def _powers(kept, place, mean, part, thread):
    """Leave the sums of powers of differences and the extremes of 64 values in ``part``."""
    s1, s2, s3, s4 = 0.0, 0.0, 0.0, 0.0
    least, greatest = math.inf, -math.inf
    i = place
    for _ in range(BLOCK // WARP):
        x = float(kept[i])
        if x == x:
            d = x - mean
            square = d * d
            s1 += d
            s2 += square
            s3 += square * d
            s4 += square * square
            least = x if x < least else least
            greatest = x if x > greatest else greatest
        i += WARP
    part[0, thread], part[1, thread], part[2, thread], part[3, thread] = s1, s2, s3, s4
    part[4, thread], part[5, thread] = least, greatest


@cuda_device
def _fold_moments(part, thread):
    """Fold the 32 numbers of each warp to its first; all threads call."""
    warp_barrier()
    step = WARP // 2
    while step > 0:
        if thread % WARP < step:
            for q in range(4):
                part[q, thread] += part[q, thread + step]
            part[4, thread] = min(part[4, thread], part[4, thread + step])
            part[5, thread] = max(part[5, thread], part[5, thread + step])
        warp_barrier()
        step //= 2


def moments_kernel(dtype: Any) -> tuple[Any, int]:
    """Make the kernel for values of a dtype; return it and how many blocks a launch's block has.

    The values are kept in shared memory, 32 KiB, so that they are read from memory once.
    """
    warps = (1 << 15) // (BLOCK * np.dtype(dtype).itemsize)
    size, threads = warps * BLOCK, warps * WARP
    kind = np.float32 if np.dtype(dtype) == np.float32 else np.float64

    @cuda_kernel
    def reduce_moments(values, start, blocks, nodes):
        """Write the moments of each block, as the CPU's kernel does; no error check.

        Parameters
        ----------
        values : float32 or float64 array
            Block ``i`` begins at ``start + i * BLOCK``.
        nodes : float64 array, shape (blocks, 9)
            Modified in place.
        """
        kept = cuda.shared.array(size, kind)
        lanes = cuda.shared.array((warps, WARP), np.float64)
        totals = cuda.shared.array((warps, 2), np.float64)
        part = cuda.shared.array((6, threads), np.float64)
        thread = cuda.threadIdx.x
        warp, lane = thread // WARP, thread % WARP
        first = cuda.blockIdx.x * warps
        block = first + warp
        inside = block < blocks
        data = values[start:]
        if inside:
            lanes[warp, lane] = _keep_and_sum(data, block * BLOCK + lane, kept, warp * BLOCK + lane)
        join_lanes(data, first, blocks, warps, lanes, totals)
        n, total = 0.0, 0.0
        if inside:
            n, total = totals[warp, 0], totals[warp, 1]
            mean = total / n if n > 0 else 0.0
            if n == BLOCK:
                _plain_powers(kept, warp * BLOCK + lane, mean, part, thread)
            else:
                _powers(kept, warp * BLOCK + lane, mean, part, thread)
        _fold_moments(part, thread)
        if inside and lane == 0:
            node = nodes[block]
            node[COUNT], node[SUM] = n, total
            node[LEAST], node[GREATEST] = part[4, thread], part[5, thread]
            node[M2], node[M3], node[M4], node[MEAN], node[REST] = 0.0, 0.0, 0.0, 0.0, 0.0
            if n > 0:
                m2, m3, m4, rest = central(
                    n, part[0, thread], part[1, thread], part[2, thread], part[3, thread]
                )
                node[M2], node[M3], node[M4] = m2, m3, m4
                node[MEAN], node[REST] = total / n, rest

    return reduce_moments, warps


@cuda_device
def _keep_and_find(values, first, kept, place):
    """Copy 64 values, 32 apart, to ``kept``; return the largest number."""
    peak = values.dtype.type(-math.inf)
    i, j = first, place
    for _ in range(8):
        a, b = values[i], values[i + WARP]
        c, d = values[i + 2 * WARP], values[i + 3 * WARP]
        e, f = values[i + 4 * WARP], values[i + 5 * WARP]
        g, h = values[i + 6 * WARP], values[i + 7 * WARP]
        kept[j], kept[j + WARP] = a, b
        kept[j + 2 * WARP], kept[j + 3 * WARP] = c, d
        kept[j + 4 * WARP], kept[j + 5 * WARP] = e, f
        kept[j + 6 * WARP], kept[j + 7 * WARP] = g, h
        peak = _greater(_greater(_greater(_greater(peak, a), b), c), d)
        peak = _greater(_greater(_greater(_greater(peak, e), f), g), h)
        i += 8 * WARP
        j += 8 * WARP
    return peak


@cuda_device
def _greater(peak, x):
    return x if x > peak else peak  # not where x is NaN


@cuda_device
def _power(x, table):
    """Return ``exp(x)`` of a number that is not positive, within a few units of the last place.

    ``x`` is ``n / 64 * log 2 + r``: 2 ** (n % 64 / 64) stands in ``table``, and a polynomial has
    the rest, in eleven operations of float64; the library's function takes three times as long.
    """
    x = x if x > -700.0 else -700.0  # nothing, beside a sum of at least 1; so is NaN
    moved = np.float64(x * STEPS_OF_LOG + SHIFTER)
    steps = moved - SHIFTER
    rest = x - steps * STEP_HIGH
    rest -= steps * STEP_LOW
    tail = 1 / 24 + rest * (1 / 120)
    tail = 1 / 6 + rest * tail
    tail = 0.5 + rest * tail
    tail = rest + rest * rest * tail
    n = moved.view(np.int64) - SHIFTER_BITS
    value = table[n & 63]
    value = np.float64(value + value * tail)
    return np.int64(value.view(np.int64) + ((n >> 6) << 52)).view(np.float64)


def logs_kernel(dtype: Any) -> tuple[Any, int]:
    """Make the kernel of sums of exponentials, as :func:`moments_kernel` does its own."""
    warps = (1 << 15) // (BLOCK * np.dtype(dtype).itemsize)
    size, threads = warps * BLOCK, warps * WARP
    kind = np.float32 if np.dtype(dtype) == np.float32 else np.float64

    @cuda_kernel
    def reduce_logs(values, start, blocks, nodes):
        """Write count, largest value and sum of exponentials of differences from it, of each block.

        No error check; parameters as the moments' kernel has them, ``nodes`` of shape (blocks, 3).
        """
        kept = cuda.shared.array(size, kind)
        table = cuda.shared.array(64, np.float64)
        part = cuda.shared.array((2, threads), np.float64)
        thread = cuda.threadIdx.x
        warp, lane = thread // WARP, thread % WARP
        block = cuda.blockIdx.x * warps + warp
        inside = block < blocks
        i = thread
        while i < 64:
            table[i] = math.exp(i * (math.log(2.0) / 64))
            i += threads
        place = warp * BLOCK + lane
        peak = -math.inf
        if inside:
            peak = float(_keep_and_find(values, start + block * BLOCK + lane, kept, place))
        part[0, thread] = peak
        cuda.syncthreads()
        step = WARP // 2
        while step > 0:
            if lane < step:
                part[0, thread] = max(part[0, thread], part[0, thread + step])
            warp_barrier()
            step //= 2
        peak = part[0, thread - lane]
        warp_barrier()
        numbers, total = np.int32(0), 0.0
        if inside and math.isinf(peak):
            for k in range(0, BLOCK, WARP):
                x = float(kept[place + k])
                numbers += np.int32(x == x)
                total += 1.0 if x == peak else 0.0
        elif inside:
            for k in range(0, BLOCK, 4 * WARP):  # four chains of arithmetic at a time
                x, y = kept[place + k], kept[place + k + WARP]
                z, w = kept[place + k + 2 * WARP], kept[place + k + 3 * WARP]
                numbers += np.int32(x == x) + np.int32(y == y)
                numbers += np.int32(z == z) + np.int32(w == w)
                a, b = _power(float(x) - peak, table), _power(float(y) - peak, table)
                c, d = _power(float(z) - peak, table), _power(float(w) - peak, table)
                total += (a + b) + (c + d)
        part[0, thread], part[1, thread] = numbers, total
        warp_barrier()
        step = WARP // 2
        while step > 0:
            if lane < step:
                part[0, thread] += part[0, thread + step]
                part[1, thread] += part[1, thread + step]
            warp_barrier()
            step //= 2
        if inside and lane == 0:
            nodes[block, 0], nodes[block, 1] = part[0, thread], peak
            nodes[block, 2] = 1.0 if peak == math.inf else part[1, thread]

    return reduce_logs, warps
