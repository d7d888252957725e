"""What guesses from samples between which two numbers the value of a rank lies.

Keys are those of :mod:`~numbatch.kernels.statistics.digits`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated
from numbatch.kernels.cuda.assembly import assembly, element_pointer
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.random import draw_bits
from numbatch.kernels.statistics.cuda.bracket_slots import (
    TOTAL_ARRIVED,
    TOTAL_CLAIMED,
    TOTAL_USED,
    slots_maker,
)
from numbatch.kernels.statistics.cuda.select import order, order_wide
from numbatch.kernels.statistics.cuda.sorted_fours import EACH, sorter

__all__ = ["PARTS", "SAMPLE", "sampler_of_parts", "wait_for_slots"]

PARTS = threads_of(512, 8)
"""Samples, each of which says where a quantile lies."""
SAMPLE = threads_of(1024, 32)
"""Values of a sample: pairs from random places, since memory brings both for the price of one."""
SAMPLE_THREADS = SAMPLE // EACH
# The quantile of all lies below the median of that of a sample as often as above it. So it lies
# between two of PARTS that are as far apart as some seven standard deviations of a count of
# heads.
LEAST = threads_of(214, 0)
MOST = PARTS - 1 - LEAST

ONE, TWO, THREE = np.uintp(1), np.uintp(2), np.uintp(3)

hash_bits = cuda_device(draw_bits)

if is_simulated():

    def wait_for_slots(totals: Any, at: Any) -> None:
        """Do nothing: blocks run one after another, so they were laid out before."""

else:

    @intrinsic
    def _loaded(typingctx, totals, at):
        """Load a number that other blocks write; what they wrote before can be read then."""

        def emit(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature.args[0], *args)
            template = "ld.acquire.gpu.s64 $0, [$1];"
            address = builder.ptrtoint(pointer, ir.IntType(64))
            return assembly(
                builder, template, ir.IntType(64), "=l,l,~{memory}", [address], effects=True
            )

        return types.int64(totals, types.intp), emit

    @cuda_device
    def wait_for_slots(totals, at):
        """Wait until ``totals[at]`` is not 0; all threads call."""
        if cuda.threadIdx.x == 0:
            while _loaded(totals, at) == 0:
                cuda.nanosleep(np.uint32(100))
        cuda.syncthreads()


def sampler_of_parts(kind: Any) -> Any:
    """Make the function that guesses for bits of a dtype, uint32 or uint64."""
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
    def draw_fours(bits, part):
        i = 2 * cuda.threadIdx.x
        (a, b), (c, d) = draw_pair(bits, part, i), draw_pair(bits, part, i + 1)
        return a, b, c, d

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
    def fours_of(estimates, base):
        """Return a thread's four of all estimates from ``base`` on."""
        own = np.uint32(np.uint32(base) + np.uint32(EACH) * np.uint32(cuda.threadIdx.x))
        if own >= np.uint32(estimates.size):
            return nan, nan, nan, nan
        at = np.uintp(own)
        return estimates[at], estimates[at + ONE], estimates[at + TWO], estimates[at + THREE]

    @cuda_device
    def is_last(totals, state):
        """Count a sample that is done; return whether all are. All threads call."""
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            cuda.threadfence()  # of what the others wrote before the barrier too
            state[0] = np.int32(cuda.atomic.add(totals, TOTAL_ARRIVED, np.int64(1)))
            cuda.threadfence()
        cuda.syncthreads()
        return state[0] == PARTS - 1

    @cuda_device
    def claim(totals, state):
        """Return a sample that nobody else takes; all threads call.

        So only blocks that run have samples, and those that wait for them wait for no block that
        has yet to begin, however many run at once.
        """
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            state[0] = np.int32(cuda.atomic.add(totals, TOTAL_CLAIMED, np.int64(1)))
        cuda.syncthreads()
        return state[0]

    @cuda_device
    def take_samples(bits, shares, estimates, slots, totals, held, table, ends, state):
        """Take random samples, every block some; the last one lays out slots for all.

        The code that sorts is there once, for samples and for what was estimated from them: it runs
        a few times, and to bring it from memory takes as long.

        Parameters
        ----------
        bits : uint32 or uint64 array
        shares : float64 array, shape (quantiles,)
        estimates : array of the bits' dtype, shape (quantiles * PARTS,)
            Used: keys of quantiles of each sample; those of NaN where it has no numbers.
        slots : float32 or float64 array, shape (ENTRIES,)
            Modified in place.
        totals : int64 array, shape (TOTALS,)
            Modified in place: how many samples are claimed and done, and how many slots there are.
        held, table, ends : shared arrays of the bits' dtype, SAMPLE, 2 * PLACES and EDGES long
            Used.
        state : shared int32 array, shape (1,)
            Used.
        """
        part, base, size = claim(totals, state), -1, SAMPLE
        if part >= PARTS:
            return
        four = draw_fours(bits, part)
        following = four
        while base < estimates.size:
            if base >= 0:  # on its way while this one is sorted
                following = fours_of(estimates, base + SAMPLE)
            write_fours(sort_fours(four, size, held), held)
            if base >= 0:
                first, q = cuda.threadIdx.x * PARTS, base // PARTS + cuda.threadIdx.x
                if first < SAMPLE and q < shares.size:
                    ends[2 * q], ends[2 * q + 1] = held[first + LEAST], held[first + MOST]
                cuda.syncthreads()
                base, four = base + SAMPLE, following
                continue
            q = cuda.threadIdx.x
            while q < shares.size:
                estimates[q * PARTS + part] = estimate(held, numbers_in(held), shares[q], part)
                q += SAMPLE_THREADS
            if is_last(totals, state):
                base, size = 0, PARTS
                four = fours_of(estimates, base)
            else:
                part = claim(totals, state)
                if part >= PARTS:
                    return
                four = draw_fours(bits, part)
        used = lay_out(ends[: 2 * shares.size], table, slots)
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            cuda.threadfence()
            cuda.atomic.add(totals, TOTAL_USED, np.int64(used))

    return take_samples
