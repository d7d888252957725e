"""Count and sum of each block of 2,048 values, in the CPU's order of additions.

There a block is 32 running sums, four vectors of 8 lanes; here it is a warp's 32 threads. So the
bits are the same, and each step of a warp reads 128 or 256 bytes in a row.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel, warp_barrier
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.statistics.block_tree import BLOCK

__all__ = ["SUM_NODES", "THREADS", "WARP", "WARPS", "fold_lanes", "join_lanes", "reduce_sums"]

THREADS = threads_of(256, 64)
WARP = 32
WARPS = THREADS // WARP
SUM_NODES = THREADS // 8
"""Nodes of a launch's block: eight threads join the sums of one."""


@cuda_device
def _strided_sum(values, first):
    """Return the sum of 64 values, 32 apart; eight are read before the first is added."""
    total = 0.0
    i = first
    for _ in range(8):
        a, b = float(values[i]), float(values[i + WARP])
        c, d = float(values[i + 2 * WARP]), float(values[i + 3 * WARP])
        e, f = float(values[i + 4 * WARP]), float(values[i + 5 * WARP])
        g, h = float(values[i + 6 * WARP]), float(values[i + 7 * WARP])
        total = (((total + a) + b) + c) + d
        total = (((total + e) + f) + g) + h
        i += 8 * WARP
    return total


@cuda_device
def fold_lanes(lanes, node, lane, at, active):
    """Add up 8 lanes from ``at`` on, half on half, as ``sum_lanes64`` does; all threads call.

    The eight threads of a node are of one warp.
    """
    step = 4
    while step > 0:
        if active and lane < step:
            lanes[node, at + lane] += lanes[node, at + lane + step]
        warp_barrier()
        step //= 2


@cuda_device
def _sum_numbers(values, first, lane):
    """Return sum and count of every eighth value that is not NaN."""
    total, count = 0.0, 0.0
    for k in range(BLOCK // 8):
        x = float(values[first + 8 * k + lane])
        if x == x:
            total += x
            count += 1.0
    return total, count


@cuda_device
def join_lanes(values, first, blocks, held, lanes, totals):
    """Leave count and sum of ``held`` blocks from ``first`` on in ``totals``; all threads call.

    ``lanes`` (float64, shape (held, 32)) holds the threads' sums and is overwritten; ``totals`` has
    shape (held, 2).
    """
    cuda.syncthreads()
    thread = cuda.threadIdx.x
    node, lane = thread // 8, thread % 8
    active = node < held and first + node < blocks
    if active:
        low = lanes[node, lane] + lanes[node, lane + 8]
        high = lanes[node, lane + 16] + lanes[node, lane + 24]
        lanes[node, lane] = low + high
    cuda.syncthreads()
    fold_lanes(lanes, node, lane, 0, active)
    if active and lane == 0:
        totals[node, 0], totals[node, 1] = BLOCK, lanes[node, 0]
    cuda.syncthreads()
    strange = active and math.isnan(totals[node, 1])  # a NaN, or infinities of both signs
    if cuda.syncthreads_or(np.int32(strange)):
        if strange:
            summed, numbers = _sum_numbers(values, (first + node) * BLOCK, lane)
            lanes[node, lane], lanes[node, lane + 8] = summed, numbers
        cuda.syncthreads()
        fold_lanes(lanes, node, lane, 0, strange)
        fold_lanes(lanes, node, lane, 8, strange)
        if strange and lane == 0:
            totals[node, 0], totals[node, 1] = lanes[node, 8], lanes[node, 0]
        cuda.syncthreads()


@cuda_kernel
def reduce_sums(values, start, blocks, nodes):
    """Write count and sum of each block; no error check.

    Parameters
    ----------
    values : float32 or float64 array
        Block ``i`` begins at ``start + i * BLOCK``.
    nodes : float64 array, shape (blocks, 2)
        Modified in place.
    """
    lanes = cuda.shared.array((SUM_NODES, WARP), np.float64)
    totals = cuda.shared.array((SUM_NODES, 2), np.float64)
    first = cuda.blockIdx.x * SUM_NODES
    thread = cuda.threadIdx.x
    node = thread // WARP
    while node < SUM_NODES:
        if first + node < blocks:
            at = start + (first + node) * BLOCK + thread % WARP
            lanes[node, thread % WARP] = _strided_sum(values, at)
        node += WARPS
    join_lanes(values[start:], first, blocks, SUM_NODES, lanes, totals)
    node = thread
    if node < SUM_NODES and first + node < blocks:
        nodes[first + node, 0], nodes[first + node, 1] = totals[node, 0], totals[node, 1]
