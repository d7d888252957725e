"""Pairs on the device: correlation, and confidences against what was right."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu, cuda, cuda_kernel
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of, shared_body
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.calibration import UNIT, bin_of
from numbatch.kernels.statistics.cuda.sums import THREADS, WARP, WARPS

__all__ = ["bin_confidences", "interleaved", "reduce_pairs"]

FLOATS = ("float32", "float64")
TRUTHS = ("bool", "uint8", "int8", "int32", "int64", *FLOATS)
EACH = 8
"""Elements that a thread of the simple kernels works on."""

bin_on_device = shared_body(bin_of)


@cuda_kernel
def _interleave(x, y, out):
    """Write x and y in turn to ``out``; no error check."""
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    while i < x.size:
        out[2 * i], out[2 * i + 1] = x[i], y[i]
        i += cuda.gridDim.x * cuda.blockDim.x


@cuda_kernel
def reduce_pairs(values, start, blocks, nodes):
    """Write counts, sums and central products of each block, as the CPU's kernel does.

    No error check. A warp has a block; its even threads have the x, the odd ones the y.

    Parameters
    ----------
    values : float32 or float64 array
        x and y in turn. Block ``i`` begins at ``start + i * BLOCK``; ``start`` is even.
    nodes : float64 array, shape (blocks, 6)
        Modified in place.
    """
    part = cuda.shared.array((2, THREADS), np.float64)
    thread = cuda.threadIdx.x
    lane, base = thread % WARP, thread - thread % WARP
    block = cuda.blockIdx.x * WARPS + thread // WARP
    inside = block < blocks
    first = start + block * BLOCK + lane
    total, count = 0.0, 0.0
    if inside:
        for k in range(BLOCK // WARP):
            x, other = float(values[first + k * WARP]), float(values[(first + k * WARP) ^ 1])
            if x == x and other == other:
                total += x
                count += 1.0
    part[0, thread], part[1, thread] = total, count
    cuda.syncthreads()
    step = WARP // 2
    while step > 1:  # x stays with x
        if lane < step:
            part[0, thread] += part[0, thread + step]
            part[1, thread] += part[1, thread + step]
        cuda.syncthreads()
        step //= 2
    n, sum_x, sum_y = part[1, base], part[0, base], part[0, base + 1]
    cuda.syncthreads()
    mean_x = sum_x / n if n > 0 else 0.0
    mean_y = sum_y / n if n > 0 else 0.0
    mean, other_mean = (mean_y, mean_x) if lane % 2 else (mean_x, mean_y)
    square, product = 0.0, 0.0
    if inside:
        for k in range(BLOCK // WARP):
            x, other = float(values[first + k * WARP]), float(values[(first + k * WARP) ^ 1])
            if x == x and other == other:
                square += (x - mean) * (x - mean)
                product += (x - mean) * (other - other_mean)
    part[0, thread], part[1, thread] = square, product
    cuda.syncthreads()
    step = WARP // 2
    while step > 1:
        if lane < step:
            part[0, thread] += part[0, thread + step]
            part[1, thread] += part[1, thread + step]
        cuda.syncthreads()
        step //= 2
    if inside and lane == 0:
        node = nodes[block]
        node[0], node[1], node[2] = n, sum_x, sum_y
        node[3], node[4], node[5] = part[0, base], part[0, base + 1], part[1, base]


@cuda_kernel
def _count_confidences(confidences, correct, bins, table, wrong):
    """Add to the bins of the confidences, as the CPU's kernel does; no error check.

    Parameters
    ----------
    table : int64 array, shape (bins * 3,)
        Modified in place.
    wrong : int64 array, shape (3,)
        Modified in place: confidences outside [0, 1], ``correct`` that are not 0 or 1, NaN.
    """
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    while i < confidences.size:
        p, right = np.float64(confidences[i]), correct[i]
        if right != 0 and right != 1:
            cuda.atomic.add(wrong, 1, 1)
        elif p != p:
            cuda.atomic.add(wrong, 2, 1)
        elif p < 0 or p > 1:
            cuda.atomic.add(wrong, 0, 1)
        else:
            bin = bin_on_device(p, bins)
            cuda.atomic.add(table, 3 * bin, 1)
            cuda.atomic.add(table, 3 * bin + 1, np.int64(right))
            cuda.atomic.add(table, 3 * bin + 2, np.int64(p * UNIT + 0.5))
        i += cuda.gridDim.x * cuda.blockDim.x


def _grid(gpu: Gpu, size: int) -> int:
    return min(blocks_for(size, EACH * THREADS), 6 * gpu.multiprocessors)


def interleaved(x: Any, y: Any) -> Any:
    """Return x and y in turn as one array on the device.

    Raises
    ------
    InputError
        If one of them is not there, or neither float32 nor float64.
    """
    gpu = gpu_of(x, "x")
    first, second = device_vector(x, "x", gpu, FLOATS), device_vector(y, "y", gpu, FLOATS)
    out = gpu.empty(2 * first.size, np.result_type(first.dtype, second.dtype))
    gpu.launch(_interleave, _grid(gpu, first.size), THREADS, first, second, out)
    gpu.synchronize()
    return out


def bin_confidences(confidences: Any, correct: Any, bins: int) -> tuple[np.ndarray, int]:
    """Return the bins' counts, int64, shape (bins, 3), and how many confidences are NaN.

    Raises
    ------
    InputError
        If one of the arrays is not on the device, or holds what it should not.
    """
    gpu = gpu_of(confidences, "confidences")
    shares = device_vector(confidences, "confidences", gpu, FLOATS)
    right = device_vector(correct, "correct", gpu, TRUTHS)
    table, wrong = gpu.zeros(3 * bins, np.int64), gpu.zeros(3, np.int64)
    gpu.launch(
        _count_confidences, _grid(gpu, shares.size), THREADS, shares, right, bins, table, wrong
    )
    outside, untrue, nans = gpu.download(wrong).tolist()
    if outside:
        raise InputError(f"{outside} confidences are outside [0, 1]")
    if untrue:
        raise InputError(f"{untrue} of correct are neither 0 nor 1")
    return gpu.download(table).reshape(bins, 3), nans
