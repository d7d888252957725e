"""What sampling asks of a whole row of logits, by many blocks.

With one block a row, 128,256 logits took 22 us on an H200; so with what comes after them 15.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.sampling_steps import exponentials, four_logits, highest
from numbatch.kernels.scoring.cuda.words import block_max, block_sum

__all__ = ["PART", "PART_THREADS", "join_parts", "part_count", "reduce_logits"]

PART = 2048
"""Logits of a part; the same for every batch, so that the order of sums is."""

PART_THREADS = 128


def part_count(vocabulary: int) -> int:
    """Return how many parts a row has."""
    return -(-vocabulary // PART)


@cuda_device
def _reduced(logits, row, low, high, thread, threads):
    """Return a thread's largest logit, its place, 1 if any is not a number, and the sum."""
    top, place, broken = np.float32(-np.inf), np.intp(high), np.float32(0)
    total, lowest = np.float64(0), np.float32(-np.inf)
    if logits.shape[1] % 4 == 0 and high % 4 == 0:
        for begin in range(low + 4 * thread, high, 16 * threads):
            # Four loads of 16 bytes are under way at a time.
            i1, i2, i3 = begin + 4 * threads, begin + 8 * threads, begin + 12 * threads
            a, b = four_logits(logits, row, begin, high), four_logits(logits, row, i1, high)
            c, d = four_logits(logits, row, i2, high), four_logits(logits, row, i3, high)
            before = top
            top, place, broken = highest(a, begin, top, place, broken)
            top, place, broken = highest(b, i1, top, place, broken)
            top, place, broken = highest(c, i2, top, place, broken)
            top, place, broken = highest(d, i3, top, place, broken)
            if top > lowest:
                part = exponentials(a, top) + exponentials(b, top)
                part += exponentials(c, top) + exponentials(d, top)
                total = total * np.float64(np.float32(math.exp(before - top)))
                total += np.float64(part)
        return top, place, broken, total
    for i in range(low + thread, high, threads):
        x = logits[row, i]
        before = top
        if math.isnan(x):
            broken = np.float32(1)
        if x > top:
            top, place = x, np.intp(i)
        if top > lowest:
            total = total * np.float64(np.float32(math.exp(before - top)))
            total += np.float64(np.float32(math.exp(x - top)))
    return top, place, broken, total


@cuda_device
def _joined(top, place, broken, total, beyond, slots, totals, thread, threads):
    """Join what the threads of a block have; every thread gets the same."""
    peak = block_max(top, slots, thread, threads, LANES)
    cuda.syncthreads()
    broken = block_max(broken, slots, thread, threads, LANES)
    cuda.syncthreads()
    # Places are below 2**24, exact in float32; the least of those that hold the peak is the first.
    own = np.float32(-place) if top == peak else np.float32(-beyond)
    best = -np.intp(block_max(own, slots, thread, threads, LANES))
    if top > np.float32(-np.inf):
        total *= np.float64(np.float32(math.exp(top - peak)))
    return peak, best, broken, block_sum(total, totals, thread, threads, LANES)


@cuda_kernel(early=True)
def reduce_logits(logits, vocabulary, positions, extremes, sums):
    """Reduce part block x of row block y. No error check.

    Parameters
    ----------
    logits : float32 array, shape (at least rows, at least vocabulary)
    vocabulary : int
    positions : int32 array, shape (rows,)
        Nothing is done for a row whose position is negative.
    extremes : float32 array, shape (rows, parts, 2)
        Modified in place: the largest logit, and its first place; -1 if any is not a number.
    sums : float64 array, shape (rows, parts)
        Modified in place: the sum of exponentials of differences from the largest.
    """
    slots = cuda.shared.array(32, np.float32)
    totals = cuda.shared.array(32, np.float64)
    begin_next()
    part, row = np.intp(cuda.blockIdx.x), np.intp(cuda.blockIdx.y)
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    position = np.intp(positions[row])
    await_previous()
    if position < 0:
        return
    low = part * PART
    high = np.intp(min(np.intp(vocabulary), low + PART))
    top, place, broken, total = _reduced(logits, row, low, high, thread, threads)
    peak, best, broken, total = _joined(
        top, place, broken, total, high, slots, totals, thread, threads
    )
    if thread == 0:
        extremes[row, part, 0] = peak
        extremes[row, part, 1] = np.float32(-1) if broken > 0 else np.float32(best)
        sums[row, part] = total


@cuda_device
def join_parts(extremes, sums, row, beyond, slots, totals, thread, threads):
    """Join the parts of a row, in a block.

    Returns
    -------
    float32, int, float32, float64
        The largest logit, its first place, 1 if any is not a number, and the sum of exponentials of
        differences from the largest.
    """
    none = np.float32(-np.inf)
    top, place, broken, total = none, np.intp(beyond), np.float32(0), np.float64(0)
    for part in range(thread, extremes.shape[1], threads):
        peak, best, before = extremes[row, part, 0], extremes[row, part, 1], top
        if best < np.float32(0):
            broken = np.float32(1)
        if peak > top:
            top, place = peak, np.intp(best)
        if top > none:
            total = total * np.float64(np.float32(math.exp(before - top)))
            total += sums[row, part] * np.float64(np.float32(math.exp(peak - top)))
    return _joined(top, place, broken, total, beyond, slots, totals, thread, threads)
