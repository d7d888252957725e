"""What a warp does when the columns of values that its threads keep are nearly full.

It counts these values in cells, takes as much room from the whole as they need, and writes them
side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device
from numbatch.kernels.statistics.cuda.bracket_fours import (
    PASS_THREADS,
    apart_in_column,
    count_fours,
)
from numbatch.kernels.statistics.cuda.bracket_slots import TOTAL_KEPT
from numbatch.kernels.statistics.cuda.lanes import first_of_warp, sum_in_warp, who_in_warp

__all__ = ["ROWS", "flush_maker"]

ROWS = {4: 36, 8: 16}
"""Values of so many bytes that a thread's column holds, as many as fit, a multiple of four."""
WARP_ROOM = 32 * max(ROWS.values())
ROW = np.uint32(PASS_THREADS)
ONE, TWO, THREE, FOUR = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)


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
            mine[np.uintp(at)] = x
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
