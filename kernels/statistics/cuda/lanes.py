"""What the 32 threads of a warp say to each other.

The simulator has no warps; there the threads of a block meet at barriers, so all of them must call,
but of :func:`first_of_warp`, :func:`sum_in_warp` and :func:`who_in_warp`, for which a thread is a
warp of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated
from numbatch.kernels.device_arrays import threads_of

__all__ = [
    "SLOTS",
    "across",
    "any_in_warp",
    "first_of_warp",
    "in_warp",
    "sum_in_warp",
    "sum_of_warp",
    "who_in_warp",
]

SLOTS = threads_of(1, 1024)
"""Shared float64 numbers that :func:`across` needs."""

if is_simulated():

    def across(x: Any, apart: int, slots: Any) -> Any:
        """Return the number of the thread whose place in the warp differs by the bit ``apart``."""
        slots[cuda.threadIdx.x] = x
        cuda.syncthreads()
        other = slots[cuda.threadIdx.x ^ apart]
        cuda.syncthreads()
        return other

    def any_in_warp(flag: Any) -> bool:
        """Whether a flag is set in any thread of a warp; in the simulator in any warp."""
        return bool(cuda.syncthreads_or(np.int32(flag)))

    def in_warp(flag: Any) -> bool:
        """Whether a flag, the same in a whole warp, is set; in the simulator in any warp."""
        return any_in_warp(flag)

    def first_of_warp(x: Any) -> Any:
        """Return the number of a warp's first thread."""
        return x

    def sum_in_warp(x: Any) -> Any:
        """Return the sum of a uint32 of a warp's threads."""
        return x

    def who_in_warp(flag: Any) -> Any:
        """Return bits of the threads of a warp in which a flag is set."""
        return np.uint32(bool(flag))

else:

    @cuda_device
    def across(x, apart, slots):
        """Return the number of the thread whose place in the warp differs by the bit ``apart``."""
        return cuda.shfl_xor_sync(0xFFFFFFFF, x, apart)

    @cuda_device
    def any_in_warp(flag):
        """Whether a flag is set in any thread of a warp; in the simulator in any warp."""
        return cuda.any_sync(0xFFFFFFFF, flag)

    @cuda_device
    def in_warp(flag):
        """Whether a flag, the same in a whole warp, is set; in the simulator in any warp."""
        return flag

    @cuda_device
    def first_of_warp(x):
        """Return the number of a warp's first thread."""
        return cuda.shfl_sync(0xFFFFFFFF, x, 0)

    @cuda_device
    def sum_in_warp(x):
        """Return the sum of a uint32 of a warp's threads."""
        total = np.int32(x)
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 16)
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 8)
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 4)
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 2)
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 1)
        return np.uint32(total)

    @cuda_device
    def who_in_warp(flag):
        """Return bits of the threads of a warp in which a flag is set."""
        return np.uint32(cuda.ballot_sync(0xFFFFFFFF, flag))


@cuda_device
def sum_of_warp(x, slots):
    """Return the sum over a warp, the same bits in each thread; in one order."""
    for apart in (16, 8, 4, 2, 1):
        x += across(x, apart, slots)
    return x
