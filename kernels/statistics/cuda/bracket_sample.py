"""The kernel that guesses from a sample between which two numbers the value of a rank lies.

Keys are those of :mod:`~numbatch.kernels.statistics.digits`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.random import draw_bits
from numbatch.kernels.statistics.cuda.bracket_slots import (
    EDGES,
    PLACES,
    TOTAL_ARRIVED,
    TOTAL_USED,
    slots_maker,
)
from numbatch.kernels.statistics.cuda.select import order, order_wide
from numbatch.kernels.statistics.cuda.sorted_fours import EACH, sorter

__all__ = ["PARTS", "SAMPLE", "SAMPLE_THREADS", "sample_kernel"]

PARTS = threads_of(256, 8)
"""Samples, each of which says where a quantile lies."""
SAMPLE = threads_of(1024, 16)
"""Values of a sample: pairs from random places, since memory brings both for the price of one."""
SAMPLE_THREADS = SAMPLE // EACH
# The quantile of all lies below the median of that of a sample as often as above it. So it lies
# between two of PARTS that are as far apart as seven and a half standard deviations of a count of
# heads.
LEAST = threads_of(98, 1)
MOST = PARTS - 1 - LEAST
TABLE = 2 * PLACES

hash_bits = cuda_device(draw_bits)


def sample_kernel(kind: Any) -> Any:
    """Make the kernel for bits of a dtype, uint32 or uint64."""
    key_of = order if kind == np.uint32 else order_wide
    nan, minus_zero = kind(np.iinfo(kind).max), kind(1 << (8 * np.dtype(kind).itemsize - 1))
    lay_out, sort_fours = slots_maker(kind), sorter(kind)

    @cuda_device
    def key_at(bits, at):
        """Return the key of a value, of either zero that of the positive one."""
        own = bits[at]
        return kind(key_of(kind(0) if own == minus_zero else own))

    @cuda_device
    def draw_pair(bits, part, i):
        """Return the keys of two values at a random place, the same each time."""
        share = float(hash_bits(np.uint64(part), np.uint64(i)) >> np.uint64(11)) * 2.0**-53
        at = np.uintp(2 * np.int64(share * (bits.size >> 1)))
        return key_at(bits, at), key_at(bits, at + np.uintp(1))

    @cuda_device
    def write_fours(four, held):
        at = EACH * cuda.threadIdx.x
        held[at], held[at + 1], held[at + 2], held[at + 3] = four
        cuda.syncthreads()

    @cuda_device
    def numbers_in(keys):
        """Return how many increasing keys are not those of NaN."""
        low, high = SAMPLE if keys[SAMPLE - 1] < nan else 0, SAMPLE
        while low < high:
            middle = (low + high) >> 1
            if keys[middle] < nan:
                low = middle + 1
            else:
                high = middle
        return low

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

    @cuda_device
    def choose(estimates, quantiles, held, ends):
        """Write two keys between which each quantile probably lies; all threads call."""
        base = 0
        while base < quantiles * PARTS:
            own = base + EACH * cuda.threadIdx.x
            four = (nan, nan, nan, nan)
            if own < quantiles * PARTS:
                q, part = own // PARTS, own % PARTS
                four = (
                    estimates[q, part], estimates[q, part + 1],
                    estimates[q, part + 2], estimates[q, part + 3],
                )  # fmt: skip
            write_fours(sort_fours(four, PARTS, held), held)
            first, q = cuda.threadIdx.x * PARTS, base // PARTS + cuda.threadIdx.x
            if first < SAMPLE and q < quantiles:
                ends[2 * q], ends[2 * q + 1] = held[first + LEAST], held[first + MOST]
            cuda.syncthreads()
            base += SAMPLE

    @cuda_kernel
    def sample_quantiles(bits, shares, estimates, slots, totals):
        """Take a random sample in each block, and lay out slots for all; no error check.

        Parameters
        ----------
        bits : uint32 or uint64 array
        shares : float64 array, shape (quantiles,)
        estimates : array of the same dtype, shape (quantiles, PARTS)
            Used: keys of quantiles of each sample; those of NaN where it has no numbers.
        slots : float32 or float64 array, shape (ENTRIES,)
            Modified in place.
        totals : int64 array, shape (TOTALS,)
            Modified in place: how many blocks are done, and how many slots there are.
        """
        held = cuda.shared.array(SAMPLE, kind)
        table = cuda.shared.array(TABLE, kind)
        every_end = cuda.shared.array(EDGES, kind)
        state = cuda.shared.array(1, np.int32)
        part = cuda.blockIdx.x
        i = 2 * cuda.threadIdx.x
        (a, b), (c, d) = draw_pair(bits, part, i), draw_pair(bits, part, i + 1)
        write_fours(sort_fours((a, b, c, d), SAMPLE, held), held)
        q = cuda.threadIdx.x
        while q < shares.size:
            estimates[q, part] = estimate(held, numbers_in(held), shares[q], part)
            q += SAMPLE_THREADS
        cuda.threadfence()
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            state[0] = np.int32(cuda.atomic.add(totals, TOTAL_ARRIVED, np.int64(1)))
        cuda.syncthreads()
        if state[0] < PARTS - 1:
            return
        cuda.threadfence()
        choose(estimates, shares.size, held, every_end)
        used = lay_out(every_end[: 2 * shares.size], table, slots)
        if cuda.threadIdx.x == 0:
            totals[TOTAL_USED] = np.int64(used)

    return sample_quantiles
