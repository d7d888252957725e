"""Resamples on the device: a block of threads has one, and draws what the CPU would.

The draws are those of the CPU; sums are added up in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import gpu_of, threads_of
from numbatch.kernels.random import draw_bits

__all__ = ["device_flipped_sums", "device_resample_means"]

THREADS = threads_of(128, 4)
WORD = 64
"""Signs of a hash."""

hash_bits = cuda_device(draw_bits)


@cuda_device
def _block_sum(total, held):
    """Return the sum of all threads' numbers, in a fixed order; all threads call."""
    thread = cuda.threadIdx.x
    held[thread] = total
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            held[thread] += held[thread + step]
        cuda.syncthreads()
        step //= 2
    return held[0]


@cuda_kernel
def _resample_means(values, seed, means):
    """Write the mean of a resample for each block; no error check.

    Parameters
    ----------
    values : float64 array, shape (n,)
    seed : uint64
    means : float64 array, shape (resamples,)
        Modified in place.
    """
    held = cuda.shared.array(THREADS, np.float64)
    r, n = cuda.blockIdx.x, values.size
    stream = hash_bits(np.uint64(seed), np.uint64(r))
    total = 0.0
    i = cuda.threadIdx.x
    while i < n:
        share = float(hash_bits(stream, np.uint64(i)) >> np.uint64(11)) * 2.0**-53
        total += values[np.int64(share * n)]
        i += THREADS
    total = _block_sum(total, held)
    if cuda.threadIdx.x == 0:
        means[r] = total / n


@cuda_kernel
def _flipped_sums(differences, seed, exact, sums):
    """Write the sum under random signs for each block; no error check.

    Parameters
    ----------
    differences : float64 array, shape (pairs,)
    seed : uint64
    exact : bool
        Whether permutation ``r`` takes its signs from the bits of ``r``.
    sums : float64 array, shape (permutations,)
        Modified in place.
    """
    held = cuda.shared.array(THREADS, np.float64)
    r, n = cuda.blockIdx.x, differences.size
    stream = hash_bits(np.uint64(seed), np.uint64(r))
    total = 0.0
    word = cuda.threadIdx.x
    while word * WORD < n:
        bits = np.uint64(0)
        if exact:
            bits = np.uint64(r) if word == 0 else np.uint64(0)
        else:
            bits = hash_bits(stream, np.uint64(word))
        for i in range(word * WORD, min(word * WORD + WORD, n)):
            d = differences[i]
            total += -d if bits & np.uint64(1) else d
            bits >>= np.uint64(1)
        word += THREADS
    total = _block_sum(total, held)
    if cuda.threadIdx.x == 0:
        sums[r] = total


def device_resample_means(owner: Any, values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the means of resamples of ``values`` (float64), drawn where ``owner`` lies."""
    gpu = gpu_of(owner, "values")
    means = gpu.empty(resamples, np.float64)
    gpu.launch(_resample_means, resamples, THREADS, gpu.upload(values), np.uint64(seed), means)
    return gpu.download(means)


def device_flipped_sums(
    owner: Any, differences: np.ndarray, seed: int, exact: bool, count: int
) -> np.ndarray:
    """Return the sums of ``differences`` (float64) under signs, drawn where ``owner`` lies."""
    gpu = gpu_of(owner, "a")
    sums = gpu.empty(count, np.float64)
    placed = gpu.upload(differences)
    gpu.launch(_flipped_sums, count, THREADS, placed, np.uint64(seed), exact, sums)
    return gpu.download(sums)
