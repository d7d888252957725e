"""Passes over all values of an array, four at a time, which counting kernels share.

What limits such a pass is how many loads are under way: several fours are read before the first
value is looked at, by loads that nothing before them decides about. (A second load that was left
out at the array's end waited for the first: histograms ran at six tenths of the memory's speed.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device
from numbatch.kernels.scoring.cuda.words import load_floats, loads_begun

__all__ = ["AT_ONCE", "REGISTERS", "pass_over"]

REGISTERS, AT_ONCE = 64, 2
"""Of a thread, and the blocks of COUNT_THREADS that run on a multiprocessor then. Three blocks, of
40 registers, took as long or up to 5 % longer."""

ONE, TWO, THREE, FOUR = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)
LAST_LANE = 31
EIGHT, TWELVE = np.uint32(8), np.uint32(12)


def pass_over(kind: Any, find: Any, count: Any, look_again: Any) -> Any:
    """Make the function with which all threads of a launch go over an array.

    Parameters
    ----------
    kind : type
        float32 or float64, the values'.
    find : device function
        ``find(x, given)`` returns where a value is counted, and ``np.uint32(1)`` if it is to be
        looked at again, else 0. Four are found before the first is counted.
    count : device function
        ``count(place, given)`` counts a value there.
    look_again : device function
        ``look_again(x, given)`` does what there is to do for the few values looked at again.

    Returns
    -------
    device function
        ``over(values, start, given)``, where ``values[start:]`` begins at a multiple of 16 bytes.
    """
    loads = 4 if kind == np.float32 else 2  # as many as registers hold

    @cuda_device
    def count_four(four, given):
        (p, a), (q, b) = find(four[0], given), find(four[1], given)
        (r, c), (s, d) = find(four[2], given), find(four[3], given)
        count(p, given)
        count(q, given)
        count(r, given)
        count(s, given)
        low = np.uint32(a | np.uint32(b << ONE))
        return np.uint32(low | np.uint32(np.uint32(c << TWO) | np.uint32(d << THREE)))

    @cuda_device
    def read_again(marks, values, first, apart, given):
        """Look at the values that have a mark; read anew, since of a warp's values few have one."""
        while marks:
            k = np.uint32(31 - cuda.clz(marks))
            marks = np.uint32(marks ^ np.uint32(ONE << k))
            at = first + np.int64(k & THREE) + np.int64(k >> TWO) * apart
            look_again(kind(values[np.uintp(at)]), given)

    @cuda_device
    def count_fours(values, at, apart, given):
        a, b = load_floats(values, at), load_floats(values, at + apart)
        if loads == 2:
            loads_begun()
            marks = count_four(a, given)
            return np.uint32(marks | np.uint32(count_four(b, given) << FOUR))
        c, d = load_floats(values, at + 2 * apart), load_floats(values, at + 3 * apart)
        loads_begun()
        marks = count_four(a, given)
        marks = np.uint32(marks | np.uint32(count_four(b, given) << FOUR))
        marks = np.uint32(marks | np.uint32(count_four(c, given) << EIGHT))
        return np.uint32(marks | np.uint32(count_four(d, given) << TWELVE))

    @cuda_device
    def over(values, start, given):
        step, fours = cuda.gridsize(1), (values.size - start) // 4
        i = cuda.grid(1)
        while (i | LAST_LANE) + (loads - 1) * step < fours:  # the same for all of a warp
            marks = count_fours(values, start + 4 * i, 4 * step, given)
            read_again(marks, values, start + 4 * i, 4 * step, given)
            i += loads * step
        while i < fours:
            marks = count_four(load_floats(values, start + 4 * i), given)
            read_again(marks, values, start + 4 * i, 4 * step, given)
            i += step
        if cuda.blockIdx.x == 0:  # what is left at both ends
            i = cuda.threadIdx.x
            while i < values.size - 4 * fours:
                x = kind(values[i if i < start else i + 4 * fours])
                place, again = find(x, given)
                count(place, given)
                if again:
                    look_again(x, given)
                i += cuda.blockDim.x

    return over
