"""Reductions of each row of a Ragged on the device: a warp a row, adding in the CPU's order."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel, warp_barrier
from numbatch.kernels.device_offsets import count_wrong
from numbatch.kernels.statistics.cuda.lanes import SLOTS, across, in_warp, sum_of_warp
from numbatch.kernels.statistics.cuda.moments import load_eight
from numbatch.kernels.statistics.cuda.sums import WARP, WARPS, fold_lanes
from numbatch.kernels.statistics.segments import LEAST, MEAN, PERPLEXITY, SUM

__all__ = ["row_extremes", "row_sums"]


@cuda_device
def _bounds(offsets, row, size, first, counters):
    """Return where a row begins and ends; of one that does not lie in the values, 0 and 0.

    The first thread of a row raises ``counters[0]`` where offsets do not describe rows.
    """
    rows = offsets.size - 1
    low, high = np.int64(0), np.int64(0)
    if row <= rows and first:
        count_wrong(offsets, row, size, counters, 0)
    if row < rows:
        low, high = offsets[row], offsets[row + 1]
        if low < 0 or high > size or low > high:
            low, high = np.int64(0), np.int64(0)
    return low, high


@cuda_device
def _add_eight(total, eight):
    """Add eight values one after the other."""
    total = (((total + float(eight[0])) + float(eight[1])) + float(eight[2])) + float(eight[3])
    return (((total + float(eight[4])) + float(eight[5])) + float(eight[6])) + float(eight[7])


@cuda_device
def _lane_sum(values, low, high, lane):
    """Return what a lane of the CPU's four vectors adds up of a row of 8 values or more."""
    total = 0.0
    i = low
    while i + 16 * WARP <= high:  # sixteen are read before the first is added
        at = np.uintp(i + lane)
        first, second = load_eight(values, at), load_eight(values, at + np.uintp(8 * WARP))
        total = _add_eight(total, first)
        total = _add_eight(total, second)
        i += 16 * WARP
    while i + 8 * WARP <= high:
        at = i + lane
        total = _add_eight(total, load_eight(values, np.uintp(at)))
        i += 8 * WARP
    while i + WARP <= high:
        total += float(values[i + lane])
        i += WARP
    while i + 8 <= high:
        if lane < 8:
            total += float(values[i + lane])
        i += 8
    if i < high and 8 <= lane < 16 and high - 16 + lane >= i:
        total += float(values[high - 16 + lane])
    return total


@cuda_device
def _add_rest(values, low, high, total):
    """Add the values one by one."""
    for i in range(low, high):
        total += float(values[i])
    return total


@cuda_device
def _add_numbers(values, low, high, total, count):
    """Add those that are no NaN one by one, and count them."""
    for i in range(low, high):
        x = float(values[i])
        if x == x:
            total += x
            count += 1.0
    return total, count


@cuda_device
def _lane_numbers(values, low, high, lane):
    """Return sum and count of every eighth value that is no NaN, of whole eights."""
    total, count = 0.0, 0.0
    i = low
    while i + 8 <= high:
        x = float(values[i + lane])
        if x == x:
            total += x
            count += 1.0
        i += 8
    return total, count


@cuda_device
def _finish(out, row, size, count, total, kind, omit):
    """Write what the CPU writes for a row, and return whether it holds a NaN."""
    result = total
    if kind == MEAN:
        result = total / count if count > 0 else math.nan
    elif kind == PERPLEXITY:
        result = math.exp(-(total / count)) if count > 0 else math.nan
    if count != size and not omit:
        result = math.nan
    if size == 0 and kind != SUM:
        result = math.nan
    out[row] = result
    return count != size


@cuda_kernel
def row_sums(values, offsets, kind, omit, out, counters):
    """Write sum, mean or perplexity of each row; no error check.

    Parameters
    ----------
    values : float32 or float64 array
    offsets : int64 array, shape (rows + 1,)
    kind : int
        SUM, MEAN or PERPLEXITY.
    omit : bool
        Whether NaN are left out.
    out : float64 array, shape (rows,)
        Modified in place.
    counters : int64 array
        ``counters[0]`` is raised for each offset that is wrong, ``counters[1]`` for each row that
        holds a NaN. The launch has a row more than there are.
    """
    lanes = cuda.shared.array((WARPS, WARP), np.float64)
    held, lane = cuda.threadIdx.x // WARP, cuda.threadIdx.x % WARP
    row = cuda.blockIdx.x * WARPS + held
    inside = row < offsets.size - 1
    low, high = _bounds(offsets, row, values.size, lane == 0, counters)
    size = high - low
    lanes[held, lane] = _lane_sum(values, low, high, lane) if size >= 8 else 0.0
    warp_barrier()
    if lane < 8:
        near = lanes[held, lane] + lanes[held, lane + 8]
        far = lanes[held, lane + 16] + lanes[held, lane + 24]
        lanes[held, lane] = near + far
    warp_barrier()
    fold_lanes(lanes, held, lane, 0, True)
    if size < 8 and lane == 0:
        lanes[held, 0] = _add_rest(values, low, high, lanes[held, 0])
    warp_barrier()
    total, count = lanes[held, 0], float(size)
    strange = math.isnan(total)  # a NaN, or infinities of both signs
    if in_warp(strange):
        if strange and lane < 8:
            summed, numbers = _lane_numbers(values, low, high, lane)
            lanes[held, lane], lanes[held, lane + 8] = summed, numbers
        warp_barrier()
        fold_lanes(lanes, held, lane, 0, strange)
        fold_lanes(lanes, held, lane, 8, strange)
        if strange and lane == 0:
            total, count = _add_numbers(
                values, low + size // 8 * 8, high, lanes[held, 0], lanes[held, 8]
            )
    if inside and lane == 0 and _finish(out, row, size, count, total, kind, omit):
        cuda.atomic.add(counters, 1, 1)


@cuda_device
def _take(x, sign, end, strange):
    """Take in a value; NaN does not change the end."""
    return min(end, x * sign), strange | (x != x)


@cuda_device
def _take_eight(eight, sign, end, strange):
    end, strange = _take(eight[0], sign, end, strange)
    end, strange = _take(eight[1], sign, end, strange)
    end, strange = _take(eight[2], sign, end, strange)
    end, strange = _take(eight[3], sign, end, strange)
    end, strange = _take(eight[4], sign, end, strange)
    end, strange = _take(eight[5], sign, end, strange)
    end, strange = _take(eight[6], sign, end, strange)
    return _take(eight[7], sign, end, strange)


@cuda_device
def _count_nans(values, i, high):
    count = np.int32(0)
    while i < high:
        count += np.int32(values[i] != values[i])
        i += WARP
    return count


@cuda_kernel
def row_extremes(values, offsets, kind, omit, out, counters):
    """Write the least or greatest value of each row; parameters as in :func:`row_sums`."""
    slots = cuda.shared.array(SLOTS, np.float64)
    thread, lane = cuda.threadIdx.x, cuda.threadIdx.x % WARP
    row = cuda.blockIdx.x * WARPS + thread // WARP
    inside = row < offsets.size - 1
    low, high = _bounds(offsets, row, values.size, lane == 0, counters)
    # The greatest is the least of the negative numbers.
    sign = values.dtype.type(1 if kind == LEAST else -1)
    end, strange = values.dtype.type(math.inf), False
    i = low + lane
    while i + 15 * WARP < high:  # sixteen are read before the first is compared
        first = load_eight(values, np.uintp(i))
        second = load_eight(values, np.uintp(i + 8 * WARP))
        end, strange = _take_eight(first, sign, end, strange)
        end, strange = _take_eight(second, sign, end, strange)
        i += 16 * WARP
    while i + 7 * WARP < high:
        end, strange = _take_eight(load_eight(values, np.uintp(i)), sign, end, strange)
        i += 8 * WARP
    while i < high:
        end, strange = _take(values[i], sign, end, strange)
        i += WARP
    for apart in (16, 8, 4, 2, 1):
        end = min(end, values.dtype.type(across(end, apart, slots)))
    nans = sum_of_warp(np.int32(strange), slots)
    if in_warp(nans > 0):
        nans = sum_of_warp(_count_nans(values, low + lane, high), slots)
    if inside and lane == 0:
        result = float(end * sign)
        if nans == high - low or (nans > 0 and not omit):
            result = math.nan
        out[row] = result
        if nans > 0:
            cuda.atomic.add(counters, 1, 1)
