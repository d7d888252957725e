"""Counters in a block's shared memory: whole numbers, so any order of adding is exact.

A block counts in as many copies of the counters as fit, since equal values side by side would
otherwise wait for one another; then it adds its counts to the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu, array_pointer, cuda, cuda_device, is_simulated
from numbatch.kernels.device_arrays import blocks_for, threads_of

__all__ = [
    "COUNT_THREADS",
    "MOST_COPIES",
    "REGISTERS",
    "SHARED_COUNTERS",
    "add_counters",
    "clear",
    "copies_of",
    "grid_for",
    "start_of",
]

COUNT_THREADS = threads_of(512, 8)
REGISTERS = 40
"""Of a thread, so that three blocks run on a multiprocessor."""
SHARED_COUNTERS = 8192
"""int32 counters of a block, 32 KiB."""
MOST_COPIES = 32
"""One for each bank of the shared memory."""


@cuda_device
def clear(counters):
    """Set counters in shared memory to 0; all threads call."""
    i = cuda.threadIdx.x
    while i < counters.size:
        counters[i] = 0
        i += cuda.blockDim.x
    cuda.syncthreads()


@cuda_device
def add_counters(counters, shift, places, counts):
    """Add the copies of each counter, ``1 << shift`` side by side, to ``counts``; all call."""
    cuda.syncthreads()
    place = cuda.threadIdx.x
    while place < places:
        total = np.int64(0)
        for k in range(1 << shift):
            total += counters[(place << shift) + k]
        if total > 0:
            cuda.atomic.add(counts, place, total)
        place += cuda.blockDim.x


def copies_of(places: int, room: int = SHARED_COUNTERS) -> int:
    """Return how many copies of ``places`` counters fit, a power of two; 0 if not one does."""
    copies = MOST_COPIES
    while copies * places > room:
        copies //= 2
    return copies


def grid_for(gpu: Gpu, size: int, at_once: int = 3) -> int:
    """Return how many blocks go over an array: as many as run at once, fewer for few values.

    ``at_once`` run on a multiprocessor, by their registers and shared memory; one more would run
    alone, when the others are done.
    """
    return max(1, min(blocks_for(size, 4 * COUNT_THREADS), at_once * gpu.multiprocessors))


def start_of(values: Any) -> int:
    """Return the first place of an array that lies at a multiple of 16 bytes, or its size."""
    if is_simulated():
        return 0
    size = int(values.dtype.itemsize)
    return min(-array_pointer(values) % 16 // size, int(values.size))
