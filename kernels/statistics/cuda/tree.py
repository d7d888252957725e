"""The tree of :mod:`~numbatch.kernels.statistics.block_tree` on the device.

Nodes lie where their first block does. A block of threads combines the subtrees of 512 neighbours,
the last one what the others left, until the largest complete subtrees of the interval remain, at
most two a level.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body, threads_of
from numbatch.kernels.jit import cpu_device

__all__ = [
    "CLAIMS",
    "CLAIMS_APART",
    "FIRST_CLAIM",
    "GROUP",
    "GROUP_LEVELS",
    "LEVELS",
    "MARKS",
    "TREE_THREADS",
    "subtree_at",
    "tree_kernel",
]

GROUP_LEVELS = 9
GROUP = 1 << GROUP_LEVELS
TREE_THREADS = threads_of(256, 8)
LEVELS = 40
"""More than any array has."""
CLAIMS, CLAIMS_APART = 8, 32
"""Counters of blocks that were claimed by who reduces, and how far they are apart: of one counter
an H200 gives a number every 2.7 ns, while a block of 2,048 float32 takes it 2."""
DONE, FIRST_CLAIM = 0, CLAIMS_APART
MARKS = FIRST_CLAIM + CLAIMS * CLAIMS_APART
"""Places of what launches count, and how many: blocks of threads that are done here, and claims."""


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

    @cuda_device
    def combine_group(nodes, level, first, low, high, group, held):
        """Combine the nodes of a group from ``low`` to ``high`` of a level, in place; all call."""
        base = group << GROUP_LEVELS
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
        cuda.syncthreads()

    @cuda_device
    def collect(nodes, first, count, values, tail, out):
        """Write the nodes that are left over, level by level, left before right; then the tail."""
        i = cuda.threadIdx.x
        while i < 2 * LEVELS:
            level = i >> 1
            node = leftover(first, count, level, i & 1)
            if node >= 0:
                for q in range(width):
                    out[i * width + q] = nodes[(node << level) - first, q]
            i += TREE_THREADS
        i = cuda.threadIdx.x
        while i < values.size - tail:
            out[2 * LEVELS * width + i] = values[tail + i]
            i += TREE_THREADS

    @cuda_kernel
    def combine_nodes(nodes, first, count, values, tail, marks, out):
        """Combine nodes to the largest complete subtrees, and collect these; no error check.

        The block that is done last with its group goes on: launches of a block each for the next
        levels and for collecting took as long as all of the first one's.

        Parameters
        ----------
        nodes : float64 array, shape (count, width)
            ``nodes[i]`` is that of block ``first + i``. Modified in place.
        first, count : int
        values, tail
            ``values[tail:]`` are fewer than a block.
        marks : int32 array, shape (MARKS,)
            A 0 at ``DONE``, modified in place.
        out : float64 array
            Modified in place: the nodes that are left over, level by level, left before right; then
            the values behind ``tail``.
        """
        held = cuda.shared.array((GROUP, width), np.float64)
        last = cuda.shared.array(1, np.int32)
        group = (first >> GROUP_LEVELS) + cuda.blockIdx.x
        combine_group(nodes, 0, first, first, first + count, group, held)
        if cuda.threadIdx.x == 0:
            cuda.threadfence()  # what this block wrote comes before its count
            last[0] = cuda.atomic.add(marks, DONE, np.int32(1))
            cuda.threadfence()  # what the others wrote comes after it
        cuda.syncthreads()
        if last[0] != cuda.gridDim.x - 1:
            return
        level, low, high = GROUP_LEVELS, -(-first >> GROUP_LEVELS), (first + count) >> GROUP_LEVELS
        while high - low > 1:
            for group in range(low >> GROUP_LEVELS, ((high - 1) >> GROUP_LEVELS) + 1):
                combine_group(nodes, level, first, low, high, group, held)
            low, high = -(-low >> GROUP_LEVELS), high >> GROUP_LEVELS
            level += GROUP_LEVELS
        collect(nodes, first, count, values, tail, out)

    return combine_nodes
