"""The tree of :mod:`~numbatch.kernels.statistics.block_tree` on the device.

Nodes lie where their first block does. A launch combines the subtrees of 512 neighbours; after a
few launches what is left are the largest complete subtrees of the interval, at most two a level.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_kernel
from numbatch.kernels.device_arrays import shared_body, threads_of
from numbatch.kernels.jit import cpu_device

__all__ = [
    "GROUP",
    "GROUP_LEVELS",
    "LEVELS",
    "TREE_THREADS",
    "collect_kernel",
    "subtree_at",
    "tree_kernel",
]

GROUP_LEVELS = 9
GROUP = 1 << GROUP_LEVELS
TREE_THREADS = threads_of(256, 8)
LEVELS = 40
"""More than any array has."""


@cpu_device
def subtree_at(first, count, level, right):
    """Return which node of a level is left over at an end of an interval of blocks, or -1."""
    low, high = first, first + count
    for _ in range(level):
        low, high = (low + 1) >> 1, high >> 1
    if low >= high:
        return np.intp(-1)
    if right:
        return high - 1 if high & 1 else np.intp(-1)
    return low if low & 1 else np.intp(-1)


leftover = shared_body(subtree_at)


def tree_kernel(combine: Any, width: int) -> Any:
    """Make the kernel that combines nodes of ``width`` numbers by the CPU's own function."""
    join = shared_body(combine)

    @cuda_kernel
    def combine_groups(nodes, level, first, count):
        """Combine the nodes of a level by up to 512, in place; no error check.

        ``nodes[i]`` is that of block ``first + i`` and those after it, ``count`` in all.
        """
        held = cuda.shared.array((GROUP, width), np.float64)
        low, high = (first + (1 << level) - 1) >> level, (first + count) >> level
        base = ((low >> GROUP_LEVELS) + cuda.blockIdx.x) << GROUP_LEVELS
        i = cuda.threadIdx.x
        while i < GROUP:
            if low <= base + i < high:
                for q in range(width):
                    held[i, q] = nodes[((base + i) << level) - first, q]
            i += TREE_THREADS
        cuda.syncthreads()
        step = 1
        while step < GROUP:
            i = cuda.threadIdx.x * 2 * step
            while i < GROUP:
                if base + i >= low and base + i + 2 * step <= high:
                    join(held[i : i + 1], held[i + step : i + step + 1], held[i : i + 1])
                i += TREE_THREADS * 2 * step
            cuda.syncthreads()
            step *= 2
        whole = base >= low and base + GROUP <= high
        i = cuda.threadIdx.x
        while i < GROUP:
            if low <= base + i < high and (i == 0 or not whole):
                for q in range(width):
                    nodes[((base + i) << level) - first, q] = held[i, q]
            i += TREE_THREADS

    return combine_groups


def collect_kernel(width: int) -> Any:
    """Make the kernel that collects what is left over."""

    @cuda_kernel
    def collect(nodes, first, count, values, tail, out):
        """Write the nodes that are left over, level by level, left before right; then the tail.

        No error check. ``values[tail:]`` are fewer than a block; ``out`` is of float64.
        """
        i = cuda.threadIdx.x
        if i < 2 * LEVELS:
            level = i >> 1
            node = leftover(first, count, level, i & 1)
            if node >= 0:
                for q in range(width):
                    out[i * width + q] = nodes[(node << level) - first, q]
        while i < values.size - tail:
            out[2 * LEVELS * width + i] = values[tail + i]
            i += cuda.blockDim.x

    return collect
