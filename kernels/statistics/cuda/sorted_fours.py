"""Sorting of a block's keys, four of which each thread holds in registers.

A bitonic network. Keys are exchanged with another thread of the warp without memory, so that of the
55 steps for 1,024 keys six need the shared memory and barriers. In the simulator, where a warp has
one lane, all between threads do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device

__all__ = ["EACH", "sorter"]

EACH = 4
"""Keys of a thread."""

ONE, TWO = np.uint32(1), np.uint32(2)
FOUR = np.uint32(EACH)
WARP_KEYS = np.uint32(EACH * LANES)
ALL = 0xFFFFFFFF


@cuda_device
def _ordered(a, b, rises):
    """Return two keys, the lesser first if ``rises``."""
    return (b, a) if (b < a) == rises else (a, b)


@cuda_device
def _one_of(a, b, takes_less):
    """Return the lesser or the greater: one comparison, not both of them and a choice."""
    return b if (b < a) == takes_less else a


@cuda_device
def _with_thread(four, apart, takes_less, held):
    """Exchange with the thread ``apart`` keys away, through shared memory; all threads call."""
    thread, threads = np.uint32(cuda.threadIdx.x), np.uint32(cuda.blockDim.x)
    other = np.uint32(thread ^ np.uint32(apart >> TWO))
    a, b, c, d = four
    held[thread], held[thread + threads] = a, b
    held[thread + TWO * threads], held[thread + np.uint32(3) * threads] = c, d
    cuda.syncthreads()
    a, b = _one_of(a, held[other], takes_less), _one_of(b, held[other + threads], takes_less)
    c = _one_of(c, held[other + TWO * threads], takes_less)
    d = _one_of(d, held[other + np.uint32(3) * threads], takes_less)
    cuda.syncthreads()
    return a, b, c, d


def sorter(kind: Any) -> Any:
    """Make the function that sorts keys of a dtype, uint32 or uint64."""
    signed = np.int32 if kind == np.uint32 else np.int64

    @cuda_device
    def beside(key, lanes):
        return kind(cuda.shfl_xor_sync(ALL, signed(key), lanes))

    @cuda_device
    def with_lane(four, apart, takes_less):
        """Exchange with the lane ``apart`` keys away; all lanes call."""
        lanes = np.int32(apart >> TWO)
        a, b, c, d = four
        a, b = _one_of(a, beside(a, lanes), takes_less), _one_of(b, beside(b, lanes), takes_less)
        c, d = _one_of(c, beside(c, lanes), takes_less), _one_of(d, beside(d, lanes), takes_less)
        return a, b, c, d

    @cuda_device
    def sort_fours(four, size, held):
        """Sort stretches of ``size`` keys, a power of two and at least 4; all threads call.

        Parameters
        ----------
        four : tuple
            A thread's keys: those from place ``4 * thread`` on before and after.
        size : int
        held : shared array of the keys' dtype
            Room for the keys of all threads; used.
        """
        a, b, c, d = four
        first = np.uint32(np.uint32(FOUR * np.uint32(cuda.threadIdx.x)) & np.uint32(size - 1))
        a, b = _ordered(a, b, True)
        c, d = _ordered(c, d, False)
        width = FOUR
        while width <= np.uint32(size):
            rises = (first & width) == np.uint32(0)
            apart = np.uint32(width >> ONE)
            while apart >= WARP_KEYS:
                takes_less = ((first & apart) == np.uint32(0)) == rises
                a, b, c, d = _with_thread((a, b, c, d), apart, takes_less, held)
                apart = np.uint32(apart >> ONE)
            while apart >= FOUR:
                takes_less = ((first & apart) == np.uint32(0)) == rises
                a, b, c, d = with_lane((a, b, c, d), apart, takes_less)
                apart = np.uint32(apart >> ONE)
            a, c = _ordered(a, c, rises)
            b, d = _ordered(b, d, rises)
            a, b = _ordered(a, b, rises)
            c, d = _ordered(c, d, rises)
            width = np.uint32(width << ONE)
        return a, b, c, d

    return sort_fours
