"""Sums of exponentials of each block of 2,048 values, in one pass.

A warp has a block. The differences whose powers are added up are from the largest of the first 256
values; the few blocks whose largest is far above that are read again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu, cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import blocks_for
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.cuda.lanes import SLOTS, across, in_warp, sum_of_warp
from numbatch.kernels.statistics.cuda.moments import FIRST, NEXT, W1
from numbatch.kernels.statistics.cuda.staged import EIGHTS, await_all, begin_eight, read_eight
from numbatch.kernels.statistics.cuda.sums import THREADS, WARP, WARPS

__all__ = ["logs_grid", "logs_kernel"]

ENTRIES = 128
COPIES = 16
"""Of the table, one for each pair of the shared memory's banks, so that no thread waits."""
TABLE = ENTRIES * COPIES
GROUPS = BLOCK // FIRST
TWICE = np.uintp(2 * FIRST)
STEP = math.log(2.0) / ENTRIES
REGISTERS, AT_ONCE = 80, 3
"""Of a thread, and the blocks that run on a multiprocessor then: 1 GB of float64 took 289 us on an
H200, with 64 registers and four blocks 314."""
FAR = 16.0
"""How much more than the reference a value may be: the step is rounded, and that many of them."""
SHIFT = 13
"""From the bits above an entry's number to a float64's exponent, in its upper half."""
LOW_HALF = np.uint64(0xFFFFFFFF)
NOTHING = -650.0
"""A difference whose power is nothing beside a sum of at least 1; lesser ones count as it."""

HALF = STEP / 2
C4, C3 = 1 / 24, 1 / 6 + 5 / 4 * HALF**2 / 120
C1 = 1 - 5 / 16 * HALF**4 / 120
"""Of exp up to HALF; the fifth power is left out, but for what the lower ones can say of it."""


def logs_grid(gpu: Gpu, blocks: int) -> int:
    """Return how many blocks of threads reduce as many blocks of values: those that run at once."""
    return max(1, min(blocks_for(blocks, WARPS), AT_ONCE * gpu.multiprocessors))


def _steps_kernel(kind: Any) -> Any:
    """Make the function that finds the nearest whole number of steps to a difference."""
    # Added to a number, it leaves the nearest whole number in the low bits.
    shifter = kind(1.5 * 2.0 ** (23 if kind == np.float32 else 52))
    each = kind(1 / STEP)
    if kind == np.float64:

        @cuda_device
        def wide_steps(d):
            """Return the low bits of the whole number as a uint32, and the number as float64."""
            moved = np.float64(d * each + shifter)
            return np.uint32(moved.view(np.uint64) & LOW_HALF), moved - shifter

        return wide_steps
    base = float(np.int64((0x433 << 52) + int(shifter.view(np.int32))).view(np.float64))

    @cuda_device
    def narrow_steps(d):
        """As ``wide_steps``; a float64 with the same low bits is made without a conversion."""
        n = np.float32(d * each + shifter).view(np.uint32)
        return n, np.uint64(np.uint64(n) | np.uint64(0x433 << 52)).view(np.float64) - base

    return narrow_steps


@cuda_device
def _entry(i):
    """Return 2 to the power of ``i`` ENTRIES-ths, less what ``i`` adds in :func:`_power`."""
    bits = np.float64(math.exp(i * STEP)).view(np.int64)
    return np.uint64(np.int64(bits) - (np.int64(i) << (32 + SHIFT)))


@cuda_device
def _power(n, table, copy):
    """Return 2 to the power of ``n`` ENTRIES-ths."""
    place = np.uint32(np.uint32(n * np.uint32(COPIES)) & np.uint32(TABLE - COPIES)) | copy
    bits = table[np.uintp(place)]
    # Whole powers of two go to the exponent, in a float64's upper half; the rest is in the entry.
    high = np.uint32(np.uint32(bits >> np.uint64(32)) + np.uint32(n * np.uint32(1 << SHIFT)))
    return np.uint64((np.uint64(high) << np.uint64(32)) | (bits & LOW_HALF)).view(np.float64)


def logs_kernel(dtype: Any) -> Any:
    """Make the kernel of sums of exponentials for values of a dtype."""
    kind = np.float32 if np.dtype(dtype) == np.float32 else np.float64
    steps_of, wide = _steps_kernel(kind), kind == np.float64

    @cuda_device
    def add_power(x, reference, table, copy, state):
        """Add ``exp(x - reference)``, within a few units of the last place."""
        total, greatest, strange = state
        near = max(kind(reference + kind(NOTHING)), x)  # that of NaN is the former
        d = kind(near - reference)
        n, steps = steps_of(d)
        # A float32 difference is rounded; it is near enough to count steps.
        difference = d if wide else np.float64(near) - np.float64(reference)
        rest = difference - steps * STEP
        tail = 1.0 + rest * (C1 + rest * (0.5 + rest * (C3 + rest * C4)))
        total += _power(n, table, copy) * tail
        return total, max(greatest, x), strange | (x != x)

    @cuda_device
    def add_eight(eight, reference, table, copy, even, odd):
        even = add_power(eight[0], reference, table, copy, even)
        odd = add_power(eight[1], reference, table, copy, odd)
        even = add_power(eight[2], reference, table, copy, even)
        odd = add_power(eight[3], reference, table, copy, odd)
        even = add_power(eight[4], reference, table, copy, even)
        odd = add_power(eight[5], reference, table, copy, odd)
        even = add_power(eight[6], reference, table, copy, even)
        odd = add_power(eight[7], reference, table, copy, odd)
        return even, odd

    @cuda_device
    def add_powers(values, place, following, room, thread, reference, table):
        """Add up the powers of a thread's values of a block, whose first 16 are under way.

        Parameters
        ----------
        place, following : uintp
            Of the thread's first values in the block, and in that whose first 16 are then under
            way.

        Returns
        -------
        tuple
            The sum, the largest number, and whether there are NaN.
        """
        even = (0.0, kind(-math.inf), False)
        odd = (0.0, kind(-math.inf), False)
        copy = np.uint32(thread) & np.uint32(COPIES - 1)
        ahead = place + TWICE
        for group in range(GROUPS):
            if group == GROUPS - 2:
                ahead = following
            turn = np.int32(group & 1)
            eight = read_eight(room, turn, thread)
            begin_eight(room, turn, thread, values, ahead)
            even, odd = add_eight(eight, reference, table, copy, even, odd)
            ahead += NEXT
        return even[0] + odd[0], max(even[1], odd[1]), even[2] | odd[2]

    @cuda_device
    def count_nans(values, place):
        count = np.int32(0)
        for _ in range(BLOCK // WARP):
            count += np.int32(values[place] != values[place])
            place += W1
        return count

    @cuda_device
    def greatest_of_warp(x, slots):
        for apart in (16, 8, 4, 2, 1):
            x = max(x, kind(across(x, apart, slots)))
        return x

    @cuda_device
    def begin_block(values, place, room, thread):
        """Begin to copy a thread's first 16 values of a block."""
        begin_eight(room, np.int32(0), thread, values, place)
        begin_eight(room, np.int32(1), thread, values, place + NEXT)

    @cuda_device
    def reduce_block(values, place, following, room, thread, table, slots):
        """Return count, largest value and sum of a block whose first values are under way."""
        a, b, c, d, e, f, g, h = read_eight(room, np.int32(0), thread)
        top = max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)))
        reference = greatest_of_warp(max(kind(-math.inf), top), slots)
        total, greatest, strange = add_powers(
            values, place, following, room, thread, reference, table
        )
        greatest = greatest_of_warp(greatest, slots)
        far = greatest - reference > kind(FAR)
        if in_warp(far):
            await_all()
            begin_block(values, place, room, thread)
            again, _, _ = add_powers(values, place, following, room, thread, greatest, table)
            if far:
                total, reference = again, greatest
        total = sum_of_warp(total, slots)
        nans = sum_of_warp(np.int32(strange), slots)
        if in_warp(nans > 0):
            nans = sum_of_warp(count_nans(values, place), slots)
        numbers = np.float64(BLOCK - nans)
        if math.isinf(greatest):
            total = 1.0 if greatest > 0 else numbers
        elif reference < greatest:
            total *= math.exp(np.float64(reference) - np.float64(greatest))
        return numbers, np.float64(greatest), total

    @cuda_kernel(registers=REGISTERS)
    def reduce_logs(values, start, blocks, nodes):
        """Write count, largest value and sum of exponentials of differences from it, of each block.

        No error check; parameters as the moments' kernel has them, ``nodes`` of shape (blocks, 3).
        A warp goes on to further blocks where there are more than warps: the table is made once,
        and the next block's first values are under way while one is added up.
        """
        slots = cuda.shared.array(SLOTS, np.float64)
        copies = cuda.shared.array(TABLE, np.uint64)
        room = cuda.shared.array(EIGHTS, kind)
        thread = np.int32(cuda.threadIdx.x)
        i = thread
        while i < TABLE:
            copies[i] = _entry(i // COPIES)
            i += THREADS
        cuda.syncthreads()
        apart = cuda.gridDim.x * WARPS
        own, base = cuda.blockIdx.x * WARPS + thread // WARP, start + thread % WARP
        # All threads take part, so that all meet at barriers; those beyond the last do it again.
        following = np.uintp(base + min(own, blocks - 1) * BLOCK)
        begin_block(values, following, room, thread)
        for _ in range((blocks + apart - 1) // apart):
            place, following = following, np.uintp(base + min(own + apart, blocks - 1) * BLOCK)
            numbers, greatest, total = reduce_block(
                values, place, following, room, thread, copies, slots
            )
            if own < blocks and thread % WARP == 0:
                node = nodes[own]
                node[0], node[1], node[2] = numbers, greatest, total
            own += apart

    return reduce_logs
