"""The least and the greatest value of an array on the device, and how many are NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import load_floats
from numbatch.kernels.statistics.cuda.counters import COUNT_THREADS, REGISTERS

__all__ = ["extremes_kernel"]


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

    @cuda_kernel(registers=REGISTERS)
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
