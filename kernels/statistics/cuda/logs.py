"""Sums of exponentials of each block of 2,048 values, in one pass.

A warp has a block. The differences whose powers a thread adds up are from the largest of its first
eight values; the few blocks in which a thread's largest is far above that are read again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import Gpu, cuda, cuda_device, cuda_kernel, is_simulated
from numbatch.kernels.cuda.assembly import assembly, element_pointer
from numbatch.kernels.device_arrays import blocks_for
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.cuda.eights import read_eight
from numbatch.kernels.statistics.cuda.lanes import (
    SLOTS,
    across,
    any_in_warp,
    first_of_warp,
    in_warp,
    sum_of_warp,
)
from numbatch.kernels.statistics.cuda.log_powers import TABLE, fill_table, power_adder, table_of
from numbatch.kernels.statistics.cuda.moments import FIRST, NEXT
from numbatch.kernels.statistics.cuda.sums import WARP, WARPS
from numbatch.kernels.statistics.cuda.tree import CLAIMS, CLAIMS_APART, FIRST_CLAIM

__all__ = ["logs_grid", "logs_kernel"]

PAIRS = BLOCK // FIRST // 2
TWICE = np.uintp(2 * FIRST)
REGISTERS, AT_ONCE = 80, 3
"""Of a thread, and the blocks that run on a multiprocessor then: 1 GB of float64 took 261 us on an
H200, of float32 285; with 96 registers and two blocks 262 and 296."""
FAR = 16.0
"""How much more than the reference a value may be: the step is rounded, and that many of them."""
COPY = np.uint32(15)
"""A thread's copy of the table: its place among as many."""

if is_simulated():

    def share_blocks(own: Any) -> Any:
        """Return the block that a warp begins with, and what :func:`next_block` needs."""
        return cuda.blockIdx.x * WARPS + own, 0, 0, cuda.gridDim.x * WARPS

    def begin_claim(marks: Any, at: Any) -> Any:
        """Do nothing: the threads of a block meet at barriers, so its warps go on alike."""

    def next_block(claim: Any, block: Any, beyond: Any, every: Any) -> Any:
        """Return the block that a warp goes on to."""
        return block + every

else:

    @cuda_device
    def share_blocks(own):
        """Return the block that a warp begins with, its counter, and what its claims begin with.

        Blocks of threads take turns in the counters, and blocks of values too, so every so many of
        them belong to a counter.
        """
        number, grid = np.int32(cuda.blockIdx.x), np.int32(cuda.gridDim.x)
        every = np.int32(CLAIMS) if grid >= np.int32(CLAIMS) else np.int32(1)
        counter = np.int32(number & np.int32(every - np.int32(1)))
        sharing = (grid - counter + every - 1) // every
        first = np.int64(number // every * WARPS + own) * every + counter
        at = np.int32(FIRST_CLAIM) + counter * np.int32(CLAIMS_APART)
        return first, at, np.int32(sharing * WARPS * every + counter), every

    @intrinsic
    def _add_one(typingctx, marks, at):
        """Add 1 to a counter and return what it was, to a warp's first thread.

        Of an addend that the compiler knows it makes one for all threads that are there, and hands
        the result around as soon as it comes: the warp waited for it.
        """
        template = (
            "{ .reg .u64 t; .reg .u32 l; .reg .pred p; cvta.to.global.u64 t, $1; mov.u32 $0, 0; "
            "mov.u32 l, %laneid; setp.eq.u32 p, l, 0; add.u32 l, l, 1; "
            "@p atom.global.add.u32 $0, [t], l; }"
        )

        def emit(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature.args[0], *args)
            address = builder.ptrtoint(pointer, ir.IntType(64))
            return assembly(builder, template, ir.IntType(32), "=&r,l", [address], effects=True)

        return types.int32(marks, types.intp), emit

    @cuda_device
    def begin_claim(marks, at):
        """Begin to ask which block comes next."""
        return _add_one(marks, at)

    @cuda_device
    def next_block(claim, block, beyond, every):
        """Return the block that a warp goes on to."""
        return np.int64(first_of_warp(claim)) * every + beyond


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
    def reduce_logs(values, start, blocks, nodes, marks):
        """Write count, largest value and sum of exponentials of differences from it, of each block.

        No error check; parameters as the moments' kernel has them, ``nodes`` of shape (blocks, 3).
        A warp goes on to further blocks where there are more than warps: the table is made once,
        and the next block's first values are under way while one is added up. Which block comes
        next is claimed in ``marks``, zeros at first: warps that all had as many were done at such
        different times that a fifth of them were missing in the mean.
        """
        slots = cuda.shared.array(SLOTS, np.float64)
        table = cuda.shared.array(TABLE, np.uint64)
        thread = np.int32(cuda.threadIdx.x)
        own, at, beyond, every = share_blocks(thread // WARP)
        lane = np.int32(thread % WARP)
        # All threads take part, so that all meet at barriers; those beyond the last do it again.
        following = np.uintp(start + min(own, blocks - 1) * BLOCK)
        first = read_eight(values, following, lane, lined)
        second = read_eight(values, np.uintp(following + NEXT), lane, lined)
        claim = begin_claim(marks, at)
        fill_table(table)
        while in_warp(own < blocks):
            other = next_block(claim, own, beyond, every)
            claim = begin_claim(marks, at)  # on its way while this block is added up
            place, following = following, np.uintp(start + min(other, blocks - 1) * BLOCK)
            numbers, greatest, total, first, second = reduce_block(
                values, place, following, lane, first, second, table, slots
            )
            if own < blocks and lane == 0:
                node = nodes[own]
                node[0], node[1], node[2] = numbers, greatest, total
            own = other

    return reduce_logs
