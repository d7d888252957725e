"""Count, sum and mean at the speed at which memory is read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import on_device
from numbatch.kernels.simd64 import (
    LANES64,
    fill,
    last_lanes,
    load_numbers,
    sum_lanes64,
    where_number,
)
from numbatch.kernels.simd64_lines import (
    add_eight,
    add_four_eights,
    add_stretch,
    join_vectors,
    start_sums,
    stretch_of,
)
from numbatch.kernels.simd_path import reads_by_four_streams
from numbatch.kernels.statistics.block_statistic import BlockStatistic
from numbatch.kernels.statistics.block_tree import BLOCK, pairs_to_fold
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_no_nan,
)

__all__ = ["RunningSum", "block_sum", "mean", "total"]

SIDE_BY_SIDE = reads_by_four_streams()

STACK = 64
"""Entries for more blocks than any memory holds."""


@cpu_device(inline=True)
def _plain_sum(values, low, high):
    """Return the sum of ``values[low:high]`` in four vectors; of fewer than 8, one by one."""
    sums, stretch = start_sums(values), stretch_of(values)
    i = low
    while i + stretch <= high:
        sums = add_stretch(sums, values, i)
        i += stretch
    while i + 4 * LANES64 <= high:
        sums = add_four_eights(sums, values, i)
        i += 4 * LANES64
    while i + LANES64 <= high:
        sums = add_eight(sums, values, i)
        i += LANES64
    rest = fill(0.0)
    if i < high and high - low >= LANES64:  # again some of the values, which count as 0 here
        rest = last_lanes(load_numbers(values, high - LANES64), high - i)
        i = high
    total = sum_lanes64(join_vectors(sums, rest))
    while i < high:
        total += float(values[i])
        i += 1
    return total


@cpu_device(inline=True)
def _whole_block_sum(values, low):
    """Return the sum of ``BLOCK`` values, to the bits of ``_plain_sum``; asks for no end."""
    sums = start_sums(values)
    for stretch in range(BLOCK // stretch_of(values)):
        sums = add_stretch(sums, values, low + stretch * stretch_of(values))
    return sum_lanes64(join_vectors(sums, fill(0.0)))


@cpu_device(inline=True)
def _four_block_sums(values, low):
    """Return the sums of four blocks, each to the bits of ``_whole_block_sum``.

    Where that is faster they are read side by side.
    """
    if not SIDE_BY_SIDE:
        return (
            _whole_block_sum(values, low),
            _whole_block_sum(values, low + BLOCK),
            _whole_block_sum(values, low + 2 * BLOCK),
            _whole_block_sum(values, low + 3 * BLOCK),
        )
    a = b = c = d = start_sums(values)
    for stretch in range(BLOCK // stretch_of(values)):
        i = low + stretch * stretch_of(values)
        a, b = add_stretch(a, values, i), add_stretch(b, values, i + BLOCK)
        c, d = add_stretch(c, values, i + 2 * BLOCK), add_stretch(d, values, i + 3 * BLOCK)
    rest = fill(0.0)
    return (
        sum_lanes64(join_vectors(a, rest)),
        sum_lanes64(join_vectors(b, rest)),
        sum_lanes64(join_vectors(c, rest)),
        sum_lanes64(join_vectors(d, rest)),
    )


@cpu_device
def _sum_of_numbers(values, low, high):
    """Return how many of ``values[low:high]`` are not NaN, and their sum."""
    total, count = fill(0.0), fill(0.0)
    i = low
    while i + LANES64 <= high:
        x = load_numbers(values, i)
        total, count = total + where_number(x, x), count + where_number(x, fill(1.0))
        i += LANES64
    summed, numbers = sum_lanes64(total), sum_lanes64(count)
    while i < high:
        x = float(values[i])
        if not math.isnan(x):
            summed, numbers = summed + x, numbers + 1.0
        i += 1
    return numbers, summed


@cpu_device(inline=True)
def _counted(values, low, high, total):
    """Return how many of ``values[low:high]`` are not NaN, and their sum, given the sum of all."""
    if math.isnan(total):  # a NaN, or infinities of both signs
        return _sum_of_numbers(values, low, high)
    return float(high - low), total


@cpu_device(inline=True)
def block_sum(values, low, high):
    """Return how many of ``values[low:high]`` are not NaN, and their sum, as float64."""
    whole = high - low == BLOCK
    total = _whole_block_sum(values, low) if whole else _plain_sum(values, low, high)
    return _counted(values, low, high, total)


@cpu_kernel
def _reduce_sums(start, stop, values, nodes):
    """Write count and sum of blocks ``start`` to ``stop - 1``; no error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    nodes : float64 array, shape (blocks, 2)
        Modified in place.
    """
    together = (min(stop, values.size // BLOCK) - start) // 4 * 4
    for first in range(start, start + together, 4):
        totals = _four_block_sums(values, first * BLOCK)
        for block in range(first, first + 4):
            low = block * BLOCK
            nodes[block, 0], nodes[block, 1] = _counted(
                values, low, low + BLOCK, totals[block - first]
            )
    for block in range(start + max(together, 0), stop):
        low = block * BLOCK
        numbers, total = block_sum(values, low, min(low + BLOCK, values.size))
        nodes[block, 0], nodes[block, 1] = numbers, total


@cpu_device(inline=True)
def join_sums(a, b, out):
    """Write the node of what ``a`` and then ``b`` saw; ``out`` may be ``a``."""
    out[0], out[1] = a[0] + b[0], a[1] + b[1]


@cpu_kernel
def _combine_sums(left, right, out):
    """Combine counts and sums row by row; ``out`` may be ``left``. No error check."""
    for i in range(left.shape[0]):
        join_sums(left[i], right[i], out[i])


@cpu_kernel
def _fold_sums(nodes, whole):
    """Combine the nodes of a stream's first blocks into the first row; no error check."""
    for left, right in pairs_to_fold(nodes.shape[0], whole):
        join_sums(nodes[left], nodes[right], nodes[left])


@cpu_device
def _four_blocks(values, low):
    """Return count and sum of four blocks that have a node of their own in the tree."""
    a, b, c, d = _four_block_sums(values, low)
    second, third, fourth, end = low + BLOCK, low + 2 * BLOCK, low + 3 * BLOCK, low + 4 * BLOCK
    in_a, a = _counted(values, low, second, a)
    in_b, b = _counted(values, second, third, b)
    in_c, c = _counted(values, third, fourth, c)
    in_d, d = _counted(values, fourth, end, d)
    return (in_a + in_b) + (in_c + in_d), (a + b) + (c + d)


@cpu_device(inline=True)
def _push(counts, totals, top, number, count, total):
    """Put a node on the stack, joined with those of its size; return the new top.

    Parameters
    ----------
    number : int
        How many nodes of this size there are, with it; for each factor of 2 one is on the stack.
    """
    while number & 1 == 0:
        top -= 1
        count, total, number = counts[top] + count, totals[top] + total, number >> 1
    counts[top], totals[top] = count, total
    return top + 1


@cpu_kernel
def _sum_all(values, stack):
    """Return count and sum of all values, to the bits of :class:`RunningSum`; no error check.

    The tree of blocks grows on a stack: one entry for each binary digit of the number of blocks.
    What reads memory at its full speed is held up by arrays and calls beside it: by 5 % for 10
    million values, and for few most of the time.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    stack : float64 array, shape (2, STACK)
        Overwritten.
    """
    counts, totals, top = stack[0], stack[1], 0
    whole = values.size // BLOCK
    for four in range(whole // 4):
        count, total = _four_blocks(values, 4 * four * BLOCK)
        top = _push(counts, totals, top, four + 1, count, total)
    for block in range(whole // 4 * 4, whole):
        count, total = block_sum(values, block * BLOCK, (block + 1) * BLOCK)
        top = _push(counts, totals, top, block + 1, count, total)
    if whole * BLOCK < values.size:
        counts[top], totals[top] = block_sum(values, whole * BLOCK, values.size)
        top += 1
    count = total = 0.0
    for entry in range(top):
        count, total = count + counts[entry], total + totals[entry]
    return count, total


class RunningSum(BlockStatistic):
    """Count, sum and mean of a stream; the same bits as :class:`Moments`, in half the time.

    Fed in pieces and mergeable; see :class:`BlockStatistic`.
    """

    _reduce_blocks = _reduce_sums
    _combine = _combine_sums
    _fold = _fold_sums
    _empty = (0.0, 0.0)
    _device_kernel = "sums"

    @property
    def sum(self) -> float:
        """Sum of the values; 0 of none."""
        return self._get(1)

    @property
    def mean(self) -> float:
        """Arithmetic mean; NaN of no values."""
        return self._get(1) / self.count if self.count else math.nan


def mean(values: Any, nan_policy: NanPolicy = "propagate", threads: int = 1) -> float:
    """Return the arithmetic mean of an array of any shape; NaN of no values.

    Sums are pairwise and in float64, for float32 values too, so integers do not overflow.
    """
    count, total = _count_and_sum(values, nan_policy, threads)
    return total / count if count else math.nan


def total(values: Any, nan_policy: NanPolicy = "propagate", threads: int = 1) -> float:
    """Return the sum of an array of any shape as float64; 0 of no values."""
    return _count_and_sum(values, nan_policy, threads)[1]


def _count_and_sum(values: Any, nan_policy: NanPolicy, threads: int) -> tuple[float, float]:
    """Return how many values there are that are not NaN, and their sum."""
    if threads != 1 or on_device(values):
        state = RunningSum._of(values, nan_policy, threads)
        return state.count, state.sum
    check_nan_policy(nan_policy)
    flat = as_values(values)
    count, total = _sum_all(flat, np.empty((2, STACK)))
    if count != len(flat) and check_no_nan(len(flat) - int(count), nan_policy):
        return count, math.nan
    return count, total
