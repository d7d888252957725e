"""A bitonic network that sorts keys in shared memory, two a thread.

A thread holds two keys that lie side by side. Keys that are less than 64 apart are a warp's, which
exchanges them without memory or barriers: 1,024 keys took half as long so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated

__all__ = ["key_sorter"]

OF_WARP = 0 if is_simulated() else 32
"""Keys that far apart or nearer are of one warp; the simulator has none."""


@cuda_device
def _pick(a, b, less):
    return min(a, b) if less else max(a, b)


def key_sorter(kind: Any) -> Any:
    """Make the function that sorts keys of a dtype, uint32 or uint64."""
    signed = np.int32 if kind == np.uint32 else np.int64

    @cuda_device
    def across(key, apart):
        """Return the key of the thread whose place in the warp differs by the bit ``apart``."""
        return kind(cuda.shfl_xor_sync(0xFFFFFFFF, signed(key), apart))

    @cuda_device
    def sort_keys(keys, size):
        """Sort keys in shared memory; all threads of a block call, half as many.

        ``size`` is a power of two, and at least 64 on a GPU.
        """
        thread = np.int32(cuda.threadIdx.x)
        cuda.syncthreads()
        a, b = keys[2 * thread], keys[2 * thread + 1]
        width = np.int32(2)
        while width <= size:
            rising = (2 * thread & width) == 0
            apart = np.int32(width >> 1)
            while apart > 1:
                bit = np.int32(apart >> 1)
                if apart > OF_WARP:
                    cuda.syncthreads()
                    keys[2 * thread], keys[2 * thread + 1] = a, b
                    cuda.syncthreads()
                    other = thread ^ bit
                    c, d = keys[2 * other], keys[2 * other + 1]
                else:
                    c, d = across(a, bit), across(b, bit)
                less = ((thread & bit) == 0) == rising
                a, b = _pick(a, c, less), _pick(b, d, less)
                apart = bit
            a, b = _pick(a, b, rising), _pick(a, b, not rising)
            width = np.int32(width << 1)
        cuda.syncthreads()
        keys[2 * thread], keys[2 * thread + 1] = a, b
        cuda.syncthreads()

    return sort_keys
