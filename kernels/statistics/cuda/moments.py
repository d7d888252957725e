"""Count, sum, central moments and extremes of each block of 2,048 values, in one pass.

A warp has a block, and each of its threads every 32nd value. The powers are of differences from
the mean of the first 256 values, which the whole block's is near: of a block of any content, the
difference of the two is at most the square root of 7 standard deviations, since those 256 are part
of it, so that taking the powers to the block's own mean costs 9 bits of the fourth at the worst.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.cuda.lanes import SLOTS, across, in_warp, sum_of_warp
from numbatch.kernels.statistics.cuda.sums import WARP, WARPS
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

__all__ = ["FIRST", "NEXT", "W1", "load_eight", "moments_kernel"]

FIRST = 8 * WARP
"""Values that a warp reads at once."""
NEXT = np.uintp(FIRST)

central = shared_body(central_sums)


# Of unsigned numbers no negative index is made out.
W1, W2, W3, W4, W5, W6, W7 = (np.uintp(k * WARP) for k in range(1, 8))


@cuda_device
def load_eight(values, i):
    """Return eight values, 32 apart, from the place ``i`` (uintp) on."""
    return (
        values[i], values[i + W1], values[i + W2], values[i + W3],
        values[i + W4], values[i + W5], values[i + W6], values[i + W7],
    )  # fmt: skip


@cuda_device
def _take_one(x, shift, sums, ends):
    """Add the powers of a difference, and take in a value; NaN changes no extreme."""
    total, s1, s2, s3, s4 = sums
    wide = np.float64(x)
    d = wide - shift
    square = d * d
    sums = (total + wide, s1 + d, s2 + square, s3 + square * d, s4 + square * square)
    return sums, (min(ends[0], x), max(ends[1], x))


@cuda_device
def _take_eight(eight, shift, sums, ends):
    sums, ends = _take_one(eight[0], shift, sums, ends)
    sums, ends = _take_one(eight[1], shift, sums, ends)
    sums, ends = _take_one(eight[2], shift, sums, ends)
    sums, ends = _take_one(eight[3], shift, sums, ends)
    sums, ends = _take_one(eight[4], shift, sums, ends)
    sums, ends = _take_one(eight[5], shift, sums, ends)
    sums, ends = _take_one(eight[6], shift, sums, ends)
    return _take_one(eight[7], shift, sums, ends)


@cuda_device
def _sum_numbers(values, first, lane, slots):
    """Return count and sum of a block's values that are not NaN, in the CPU's order."""
    count, total = 0.0, 0.0
    i = first + lane % 8
    for _ in range(BLOCK // 8):
        x = np.float64(values[i])
        if x == x:
            total += x
            count += 1.0
        i += 8
    for apart in (4, 2, 1):
        count += across(count, apart, slots)
        total += across(total, apart, slots)
    return count, total


@cuda_device
def _powers_of_numbers(values, first, lane, shift):
    """Return the sums of powers of differences of a thread's values that are not NaN."""
    s1, s2, s3, s4 = 0.0, 0.0, 0.0, 0.0
    i = first + lane
    for _ in range(BLOCK // WARP):
        x = np.float64(values[i])
        if x == x:
            d = x - shift
            s1, s2, s3, s4 = s1 + d, s2 + d * d, s3 + d * d * d, s4 + d * d * (d * d)
        i += WARP
    return s1, s2, s3, s4


@cuda_device
def _write_node(node, n, total, shift, s1, s2, s3, s4):
    """Write what the sums of powers say; ``shift`` is what the differences are from."""
    node[COUNT], node[SUM] = n, total
    node[M2], node[M3], node[M4], node[MEAN], node[REST] = 0.0, 0.0, 0.0, 0.0, 0.0
    if n > 0:
        mean = total / n
        m2, m3, m4, rest = central(n, s1, s2, s3, s4)
        node[M2], node[M3], node[M4] = m2, m3, m4
        node[MEAN], node[REST] = mean, (shift - mean) + rest


def moments_kernel(dtype: Any) -> Any:
    """Make the kernel for values of a dtype."""
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
        slots = cuda.shared.array(SLOTS, np.float64)
        lane = cuda.threadIdx.x % WARP
        own = cuda.blockIdx.x * WARPS + cuda.threadIdx.x // WARP
        block = min(own, blocks - 1)  # all threads work, so that all meet at barriers
        first = start + block * BLOCK
        i = np.uintp(first + lane)
        eight = load_eight(values, i)
        a, b, c, d, e, f, g, h = eight
        near = kind(sum_of_warp(((a + b) + (c + d)) + ((e + f) + (g + h)), slots))
        shift = np.float64(near) * (1.0 / FIRST)
        sums, ends = (0.0, 0.0, 0.0, 0.0, 0.0), (kind(math.inf), kind(-math.inf))
        for _ in range(BLOCK // FIRST - 1):
            i += NEXT
            following = load_eight(values, i)  # under way while these are added
            sums, ends = _take_eight(eight, shift, sums, ends)
            eight = following
        sums, ends = _take_eight(eight, shift, sums, ends)
        total, s1, s2, s3, s4 = sums
        least, greatest = ends
        n = float(BLOCK)
        for apart in (8, 16, 4, 2, 1):  # the CPU's order
            total += across(total, apart, slots)
        strange = not math.isfinite(total)  # a NaN, or an infinity
        if in_warp(strange):
            count, summed = _sum_numbers(values, first, lane, slots)
            if strange:
                n, total = count, summed
                shift = np.float64(total / n if n > 0 else 0.0)
                s1, s2, s3, s4 = _powers_of_numbers(values, first, lane, shift)
        s1, s2 = sum_of_warp(s1, slots), sum_of_warp(s2, slots)
        s3, s4 = sum_of_warp(s3, slots), sum_of_warp(s4, slots)
        for apart in (16, 8, 4, 2, 1):
            least = min(least, kind(across(least, apart, slots)))
            greatest = max(greatest, kind(across(greatest, apart, slots)))
        if own < blocks and lane == 0:
            node = nodes[block]
            node[LEAST], node[GREATEST] = least, greatest
            _write_node(node, n, total, shift, s1, s2, s3, s4)

    return reduce_moments
