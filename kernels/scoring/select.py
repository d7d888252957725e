"""The value at which a count or a sum over the largest numbers is reached, without sorting.

A quickselect: a pass counts or adds up what is at or above a pivot, and the side that holds the
answer is packed for the next pass. The pivot halves the range of the numbers, or the range of their
bits in order, so the passes are few, each over fewer numbers.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.simd import LANES, maximum, splat, sum_lanes
from numbatch.kernels.simd_masks import (
    at_least,
    count_bits,
    largest_lane,
    load_part,
    store_where,
    where,
)

__all__ = ["kth_largest", "smallest_of_sum"]

FEW = 24
"""So many numbers are sorted."""

HALVINGS = 16
"""Passes whose pivot halves the range of the numbers; then that of their bits, which ends."""

BLOCK = 32 * LANES
"""Numbers that are added up in float32, lane by lane, before float64 takes their sum."""


@cpu_device
def _order_of(x):
    """Map a float32 to an integer whose order is that of the numbers."""
    bits = np.int64(np.float32(x).view(np.int32))
    return bits if bits >= 0 else np.int64(-0x80000000) - bits


@cpu_device
def _number_at(order):
    """Return the float32 that :func:`_order_of` maps to ``order``."""
    bits = order if order >= 0 else np.int64(-0x80000000) - order
    return np.int32(bits).view(np.float32)


@cpu_device
def _count_from(values, count, least):
    """Return how many numbers are at least ``least``, as float64 and as an integer."""
    total, bound = 0, splat(least)
    for i in range(0, count, LANES):
        x = load_part(values, i, min(count - i, LANES), np.float32(np.nan))
        total += count_bits(at_least(x, bound))
    return np.float64(total), total


@cpu_device
def _sum_from(values, count, least):
    """Return the sum of the numbers that are at least ``least``, and how many they are."""
    total, passed, bound, zero = 0.0, 0, splat(least), splat(np.float32(0))
    for block in range(0, count, BLOCK):
        lanes = zero
        for i in range(block, min(block + BLOCK, count), LANES):
            x = load_part(values, i, min(count - i, LANES), np.float32(np.nan))
            mask = at_least(x, bound)
            lanes = lanes + where(mask, x, zero)
            passed += count_bits(mask)
        total += np.float64(sum_lanes(lanes))
    return total, passed


@cpu_device
def _keep_side(values, count, pivot, larger):
    """Pack the numbers from ``pivot`` up, or those below it, to the front; return how many."""
    kept, bound = 0, splat(pivot)
    for i in range(0, count, LANES):
        here = min(count - i, LANES)
        x = load_part(values, i, here, np.float32(0))
        mask = at_least(x, bound)
        mask = (mask if larger else ~mask) & ((1 << here) - 1)
        store_where(values, kept, x, mask)
        kept += count_bits(mask)
    return kept


@cpu_device
def _smallest(values, count):
    """Return the smallest of ``count`` numbers."""
    zero = splat(np.float32(0))
    lanes = splat(np.float32(-np.inf))  # of the numbers with their signs changed
    for i in range(0, count, LANES):
        lanes = maximum(
            zero - load_part(values, i, min(count - i, LANES), np.float32(np.inf)), lanes
        )
    return -largest_lane(lanes)


@cpu_device
def _sort_down(values, count):
    for i in range(1, count):
        value, place = values[i], i
        while place > 0 and values[place - 1] < value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value


@cpu_device
def _select(values, count, largest, target, adds):
    """Return the largest number t for which the count or sum of numbers >= t reaches ``target``.

    Where it never does, the smallest number. ``values`` has room for 15 more, and is overwritten.
    """
    reached, passes = 0.0, 0
    low, high = _order_of(_smallest(values, count)), _order_of(largest) + 1
    while count > FEW and high - low > 1:
        middle = (low + high) >> 1
        if passes < HALVINGS and not adds:
            between = _order_of(np.float32(0.5) * (_number_at(low) + _number_at(high)))
            if low < between < high:  # not where they are infinite
                middle = between
        passes += 1
        pivot = _number_at(middle)
        if adds:
            amount, passed = _sum_from(values, count, pivot)
        else:
            amount, passed = _count_from(values, count, pivot)
        # Where all pass and rounding keeps the sum below the target, the answer is among them.
        if reached + amount >= target or passed == count:
            low = middle
        else:
            high = middle
            reached += amount
        count = _keep_side(values, count, pivot, low == middle)
    if count > FEW:  # all of them are one number
        return values[0]
    _sort_down(values, count)
    for i in range(count):
        reached += np.float64(values[i]) if adds else 1.0
        if reached >= target:
            return values[i]
    return values[count - 1]


@cpu_device
def kth_largest(values, count, largest, k):
    """Return the ``k``-th largest of ``count`` numbers. No error check.

    Parameters
    ----------
    values : float32 array, shape (at least count + 15,)
        None NaN. Overwritten.
    count, k : int
        At least 1; ``k`` at most ``count``.
    largest : float32
        The largest of them, or more.
    """
    return _select(values, count, largest, np.float64(k), False)


@cpu_device
def smallest_of_sum(values, count, largest, target):
    """Return the largest t for which the numbers >= t add up to ``target`` or more.

    Parameters
    ----------
    values : float32 array, shape (at least count + 15,)
        None negative, none NaN. Overwritten.
    count : int
        At least 1.
    largest : float32
        The largest of them, or more.
    target : float64
        Where all together are less, the smallest number is returned.
    """
    return _select(values, count, largest, target, True)
