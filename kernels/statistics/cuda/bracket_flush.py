"""What a warp does when the columns of values that its threads keep are nearly full.

It counts these values in cells, takes as much room from the whole as they need, and writes them
side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import LANES, cuda, cuda_device, is_simulated
from numbatch.kernels.cuda.assembly import assembly, element_pointer
from numbatch.kernels.statistics.cuda.bracket_fours import (
    PASS_THREADS,
    apart_in_column,
    count_fours,
)
from numbatch.kernels.statistics.cuda.bracket_slots import TOTAL_KEPT
from numbatch.kernels.statistics.cuda.lanes import first_of_warp, sum_in_warp, who_in_warp

__all__ = ["ROWS", "flush_maker"]

ROWS = {4: 28, 8: 12}
"""Values of so many bytes that a thread's column holds, as many as fit, a multiple of four."""
WARP_ROOM = 32 * max(ROWS.values())
ROW = np.uint32(PASS_THREADS)
ONE, TWO, THREE, FOUR = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)


if is_simulated():

    def store_to_stay(array: Any, at: Any, x: Any) -> None:
        """Write a number."""
        array[at] = x

else:

    @intrinsic
    def store_to_stay(typingctx, array, at, x):
        """Write a number that the second cache is to keep as long as it can."""
        letter, kind = ("f", "f32") if x.bitwidth == 32 else ("d", "f64")
        template = (
            "{ .reg .u64 t; .reg .b64 p; cvta.to.global.u64 t, $0; "
            "createpolicy.fractional.L2::evict_last.b64 p, 1.0; "
            f"st.global.L2::cache_hint.{kind} [t], $1, p; }}"
        )

        def emit(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature.args[0], args[0], args[1])
            operands = [builder.ptrtoint(pointer, ir.IntType(64)), args[2]]
            constraints = f"l,{letter},~{{memory}}"
            assembly(builder, template, ir.VoidType(), constraints, operands, effects=True)
            return context.get_dummy_value()

        return types.none(array, types.uintp, x), emit


def flush_maker(floats: Any, levels: int) -> Any:
    """Make the function that empties the columns of a warp, four rows at a time."""
    apart = apart_in_column(np.dtype(floats).itemsize)

    @cuda_device
    def rows(stage, j):
        """Return a thread's values in four rows."""
        at = np.uint32(np.uint32(cuda.threadIdx.x) + np.uint32(j * ROW))
        a, b = stage[np.uintp(at)], stage[np.uintp(np.uint32(at + ROW))]
        c = stage[np.uintp(np.uint32(at + np.uint32(TWO * ROW)))]
        d = stage[np.uintp(np.uint32(at + np.uint32(THREE * ROW)))]
        return a, b, c, d

    @cuda_device
    def numbers_in(stage, depth):
        """Return how many of a thread's values are numbers."""
        own, j = np.uint32(0), np.uint32(0)
        while j < depth:
            a, b, c, d = rows(stage, j)
            own += np.uint32(a == a)
            own += np.uint32(b == b and np.uint32(j + ONE) < depth)
            own += np.uint32(c == c and np.uint32(j + TWO) < depth)
            own += np.uint32(d == d and np.uint32(j + THREE) < depth)
            j = np.uint32(j + FOUR)
        return np.uint32(own)

    @cuda_device
    def write(x, is_there, done, before, mine, room):
        """Write a value of each thread that has one, side by side; return how many there are."""
        is_number = is_there and x == x
        who = who_in_warp(is_number)
        at = np.uint32(done + np.uint32(cuda.popc(np.uint32(who & before))))
        if is_number and at < room:
            store_to_stay(mine, np.uintp(at), x)
        return np.uint32(done + np.uint32(cuda.popc(who)))

    @cuda_device
    def flush(column, first, search, given):
        """Count what a warp's columns hold and write it out; all of it call.

        Returns the beginning of the thread's column.
        """
        stage, cells, totals, kept = given[0], given[2], given[3], given[4]
        depth = np.uint32(np.uint32(column - first) // np.uint32(apart))
        lane = np.uint32(np.uint32(cuda.threadIdx.x) & np.uint32(LANES - 1))
        total, place = sum_in_warp(numbers_in(stage, depth)), np.int64(0)
        if lane == np.uint32(0) and total > np.uint32(0):
            place = np.int64(cuda.atomic.add(totals, TOTAL_KEPT, np.int64(total)))
        j = np.uint32(0)
        while j < depth:  # while the place is on its way
            count_fours(rows(stage, j), np.int32(np.uint32(depth - j)), search, cells, levels)
            j = np.uint32(j + FOUR)
        place = first_of_warp(place)
        mine = kept[place:]
        room = np.uint32(min(mine.size, WARP_ROOM))
        before = np.uint32(np.uint32(ONE << lane) - ONE)
        done, j = np.uint32(0), np.uint32(0)
        while who_in_warp(j < depth):
            a, b, c, d = rows(stage, j)
            done = write(a, j < depth, done, before, mine, room)
            done = write(b, np.uint32(j + ONE) < depth, done, before, mine, room)
            done = write(c, np.uint32(j + TWO) < depth, done, before, mine, room)
            done = write(d, np.uint32(j + THREE) < depth, done, before, mine, room)
            j = np.uint32(j + FOUR)
        return first

    return flush
