"""Kernels that guess from a sample between which two keys the value of a rank lies.

Keys are those of :mod:`~numbatch.kernels.statistics.digits`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.random import draw_bits
from numbatch.kernels.statistics.cuda.select import order, order_wide

__all__ = [
    "CHOOSERS",
    "PARTS",
    "SAMPLE",
    "choose_kernel",
    "sample_kernel",
    "sample_size",
]

PARTS = threads_of(512, 8)
"""Samples, each of which says where a quantile lies."""
SAMPLE = threads_of(1024, 16)
CHOOSERS = PARTS // 2
"""Threads that sort what the samples say."""
# The quantile of all lies below the median of that of a sample as often as above it. So it lies
# between two of PARTS that are as far apart as six standard deviations of a count of heads.
LEAST = threads_of(218, 1)
MOST = PARTS - 1 - LEAST

ONE = np.uint32(1)

hash_bits = cuda_device(draw_bits)


def sample_size(itemsize: int) -> int:
    """Return how many values of so many bytes a sample has, a power of two.

    A block of threads sorts them, two a thread. Sorting twice as many took 12 us more of float32
    on an H200 and 20 of float64, the pass over 1 GB that then keeps fewer 8 and 6 less.
    """
    return SAMPLE if itemsize == 4 else SAMPLE // 2


@cuda_device
def _sort(keys, size):
    """Sort keys in shared memory by a bitonic network; all threads call, half as many.

    ``size`` is a power of two.
    """
    thread = np.uint32(cuda.threadIdx.x)
    width = np.uint32(2)
    while width <= np.uint32(size):
        apart = np.uint32(width >> ONE)
        while apart > np.uint32(0):
            cuda.syncthreads()
            i = np.uint32(np.uint32(thread << ONE) - (thread & np.uint32(apart - ONE)))
            j = np.uint32(i + apart)
            a, b = keys[np.uintp(i)], keys[np.uintp(j)]
            if (a > b) == ((i & width) == np.uint32(0)):
                keys[np.uintp(i)], keys[np.uintp(j)] = b, a
            apart = np.uint32(apart >> ONE)
        width = np.uint32(width << ONE)
    cuda.syncthreads()


def sample_kernel(kind: Any) -> Any:
    """Make the kernel for bits of a dtype, uint32 or uint64."""
    key_of = order if kind == np.uint32 else order_wide
    nan = kind(np.iinfo(kind).max)
    size = sample_size(np.dtype(kind).itemsize)
    sorters = size // 2

    @cuda_device
    def estimate(keys, numbers, share, part):
        """Return a key that the quantile of all values lies below as often as above.

        Of that of a sample's key this is not so: a hundredth of 1,024 numbers is 10.24 of them, and
        44 % of samples have 11 below the quantile of all. The place for which it is half is that of
        the median of a beta distribution; between two places, some parts take each. What is beyond
        all numbers of a sample is taken by half of the parts.
        """
        place = share * (numbers + 1 / 3) - 2 / 3
        if numbers == 0:
            return nan
        if place < 0:
            return keys[0] if part & 1 else kind(0)
        if place > numbers - 1:
            return keys[numbers - 1] if part & 1 else kind(nan - kind(1))
        return keys[min(int(place + (part + 0.5) / PARTS), numbers - 1)]

    @cuda_kernel
    def sample_quantiles(bits, shares, estimates):
        """Write the keys of quantiles of a random sample for each block; no error check.

        Parameters
        ----------
        bits : uint32 or uint64 array
        shares : float64 array, shape (quantiles,)
        estimates : array of the same dtype, shape (quantiles, PARTS)
            Modified in place; those of NaN where the sample has no numbers.
        """
        keys = cuda.shared.array(size, kind)
        part = cuda.blockIdx.x
        i = cuda.threadIdx.x
        while i < size:
            share = float(hash_bits(np.uint64(part), np.uint64(i)) >> np.uint64(11)) * 2.0**-53
            keys[i] = key_of(bits[np.int64(share * bits.size)])
            i += sorters
        _sort(keys, size)
        low, high = 0, size
        while low < high:
            middle = (low + high) >> 1
            if keys[middle] < nan:
                low = middle + 1
            else:
                high = middle
        q = cuda.threadIdx.x
        while q < shares.size:
            estimates[q, part] = estimate(keys, low, shares[q], part)
            q += sorters

    return sample_quantiles


def choose_kernel(kind: Any) -> Any:
    """Make the kernel for keys of a dtype."""

    @cuda_kernel
    def choose_ends(estimates, ends):
        """Write two keys between which a quantile probably lies, for each block; no error check.

        Parameters
        ----------
        estimates : uint32 or uint64 array, shape (quantiles, PARTS)
        ends : array of the same dtype, shape (2 * quantiles,)
            Modified in place.
        """
        held = cuda.shared.array(PARTS, kind)
        q, part = cuda.blockIdx.x, cuda.threadIdx.x
        held[part], held[part + CHOOSERS] = estimates[q, part], estimates[q, part + CHOOSERS]
        _sort(held, PARTS)
        if part == 0:
            ends[2 * q], ends[2 * q + 1] = held[LEAST], held[MOST]

    return choose_ends
