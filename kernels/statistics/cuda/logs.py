"""Sums of exponentials of each block of 2,048 values, in one pass.

A warp has a block. The differences whose powers a thread adds up are from the largest of its first
eight values; the few blocks in which a thread's largest is far above that are read again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu, cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import blocks_for
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.cuda.eights import read_eight
from numbatch.kernels.statistics.cuda.lanes import SLOTS, across, any_in_warp, sum_of_warp
from numbatch.kernels.statistics.cuda.log_powers import TABLE, fill_table, power_adder, table_of
from numbatch.kernels.statistics.cuda.moments import FIRST, NEXT
from numbatch.kernels.statistics.cuda.sums import WARP, WARPS

__all__ = ["logs_grid", "logs_kernel"]

PAIRS = BLOCK // FIRST // 2
TWICE = np.uintp(2 * FIRST)
REGISTERS, AT_ONCE = 80, 3
"""Of a thread, and the blocks that run on a multiprocessor then: 1 GB of float64 took 273 us on an
H200, with 64 registers and four blocks 357; of float32 298, with 96 and two 303."""
FAR = 16.0
"""How much more than the reference a value may be: the step is rounded, and that many of them."""
COPY = np.uint32(15)
"""A thread's copy of the table: its place among as many."""


def logs_grid(gpu: Gpu, blocks: int) -> int:
    """Return how many blocks of threads reduce as many blocks of values: those that run at once."""
    return max(1, min(blocks_for(blocks, WARPS), AT_ONCE * gpu.multiprocessors))


@functools.cache
def logs_kernel(dtype: Any, whole: bool = True) -> Any:
    """Make the kernel of sums of exponentials for values of a dtype.

    ``whole``: they begin at a multiple of 16 bytes.
    """
    kind = np.float32 if np.dtype(dtype) == np.float32 else np.float64
    add_power, lined = power_adder(kind), int(whole)
    none = kind(-math.inf)

    @cuda_device
    def add_eight(eight, given, even, odd):
        even = add_power(eight[0], given, even)
        odd = add_power(eight[1], given, odd)
        even = add_power(eight[2], given, even)
        odd = add_power(eight[3], given, odd)
        even = add_power(eight[4], given, even)
        odd = add_power(eight[5], given, odd)
        even = add_power(eight[6], given, even)
        odd = add_power(eight[7], given, odd)
        return even, odd

    @cuda_device
    def add_powers(values, place, following, lane, first, second, given):
        """Add up the powers of a thread's values of a block, whose first 16 are given.

        Parameters
        ----------
        place, following : uintp
            Where the block begins, and that whose first 16 are returned.

        Returns
        -------
        tuple
            The sum, the largest number, whether there are NaN, and the 16 values.
        """
        even, odd = (0.0, none, False), (0.0, none, False)
        ahead = place
        for pair in range(PAIRS):
            ahead = following if pair == PAIRS - 1 else np.uintp(ahead + TWICE)
            even, odd = add_eight(first, given, even, odd)
            first = read_eight(values, ahead, lane, lined)
            even, odd = add_eight(second, given, even, odd)
            second = read_eight(values, np.uintp(ahead + NEXT), lane, lined)
        strange = even[2] | odd[2]
        return even[0] + odd[0], max(even[1], odd[1]), strange, first, second

    @cuda_device
    def look_over(values, place, lane):
        """Return how many of a thread's values of a block are NaN, and the greatest other."""
        count, greatest = np.int32(0), none
        for _ in range(2 * PAIRS):
            for x in read_eight(values, place, lane, lined):
                if x != x:
                    count += np.int32(1)
                elif x > greatest:
                    greatest = x
            place = np.uintp(place + NEXT)
        return count, greatest

    @cuda_device
    def greatest_of_warp(x, slots):
        for apart in (16, 8, 4, 2, 1):
            x = max(x, kind(across(x, apart, slots)))
        return x

    @cuda_device
    def greatest_of(eight):
        """Return the greatest of eight that is a number, or minus infinity."""
        top = none
        for x in eight:
            top = x if x > top else top
        return top

    @cuda_device
    def reduce_block(values, place, following, lane, first, second, table, slots):
        """Return count, largest value and sum of a block, and the next one's first values."""
        reference = greatest_of(first)  # a thread's own, so that none is waited for
        copy = np.uint32(lane) & COPY
        given = table_of(table, copy, reference)
        total, greatest, strange, first, second = add_powers(
            values, place, following, lane, first, second, given
        )
        nans = np.int32(0)
        if any_in_warp(strange):
            nans, greatest = look_over(values, place, lane)
            nans = sum_of_warp(nans, slots)
        far = greatest - reference > kind(FAR)
        if any_in_warp(far):
            again, _, _, first, second = add_powers(
                values, place, following, lane, read_eight(values, place, lane, lined),
                read_eight(values, np.uintp(place + NEXT), lane, lined),
                table_of(table, copy, greatest),
            )  # fmt: skip
            if far:
                total, reference = again, greatest
        largest = greatest_of_warp(greatest, slots)
        state = (0.0, none, False)
        shrink, _, _ = add_power(reference, table_of(table, copy, largest), state)
        total = sum_of_warp(total * shrink if greatest > none else 0.0, slots)
        numbers = np.float64(BLOCK - nans)
        if math.isinf(largest):
            total = 1.0 if largest > 0 else numbers
        return numbers, np.float64(largest), total, first, second

    @cuda_kernel(registers=REGISTERS)
    def reduce_logs(values, start, blocks, nodes):
        """Write count, largest value and sum of exponentials of differences from it, of each block.

        No error check; parameters as the moments' kernel has them, ``nodes`` of shape (blocks, 3).
        A warp goes on to further blocks where there are more than warps: the table is made once,
        and the next block's first values are under way while one is added up.
        """
        slots = cuda.shared.array(SLOTS, np.float64)
        table = cuda.shared.array(TABLE, np.uint64)
        thread = np.int32(cuda.threadIdx.x)
        apart = cuda.gridDim.x * WARPS
        own, lane = cuda.blockIdx.x * WARPS + thread // WARP, np.int32(thread % WARP)
        # All threads take part, so that all meet at barriers; those beyond the last do it again.
        following = np.uintp(start + min(own, blocks - 1) * BLOCK)
        first = read_eight(values, following, lane, lined)
        second = read_eight(values, np.uintp(following + NEXT), lane, lined)
        fill_table(table)
        for _ in range((blocks + apart - 1) // apart):
            place, following = following, np.uintp(start + min(own + apart, blocks - 1) * BLOCK)
            numbers, greatest, total, first, second = reduce_block(
                values, place, following, lane, first, second, table, slots
            )
            if own < blocks and lane == 0:
                node = nodes[own]
                node[0], node[1], node[2] = numbers, greatest, total
            own += apart

    return reduce_logs
