"""Norms of rows, on a GPU: of the float32 residual stream, as inputs of products in bfloat16.

Sums are float32, in an order that depends on the row's length alone.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.words import (
    block_sum,
    load_floats,
    pack_pair,
    store_words,
    to_bfloat16,
)

__all__ = ["add_norm", "layer_norm", "rms_norm"]


@cuda_device
def _inverse_root(x, row, width, epsilon, slots):
    """Return ``1 / sqrt(mean(x ** 2) + epsilon)`` of a row, to all threads of a block."""
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    total = np.float32(0)
    zero = np.float32(0)
    for i in range(thread, width, 4 * threads):
        # Four loads are under way at a time: one by one, a row of 4,096 took 10 us.
        i1, i2, i3 = i + threads, i + 2 * threads, i + 3 * threads
        a = x[row, i]
        b = x[row, i1] if i1 < width else zero
        c = x[row, i2] if i2 < width else zero
        d = x[row, i3] if i3 < width else zero
        total += (a * a + b * b) + (c * c + d * d)
    total = block_sum(total, slots, thread, threads, LANES)
    return np.float32(1) / np.float32(math.sqrt(total / np.float32(width) + epsilon))


@cuda_device
def _squares(four):
    return (four[0] * four[0] + four[1] * four[1]) + (four[2] * four[2] + four[3] * four[3])


@cuda_device
def _store_normed(out, at, four, weight, scale):
    """Write four numbers of a row as bfloat16."""
    low = pack_pair(four[0] * scale * weight[0], four[1] * scale * weight[1])
    high = pack_pair(four[2] * scale * weight[2], four[3] * scale * weight[3])
    store_words(out, at, (low, high))


@cuda_device
def _norm_held(x, at, weight, epsilon, out, out_at, slots):
    """:func:`rms_norm` of a row that the threads hold: 16 numbers each, all loads at once."""
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    width, zero = weight.size, np.float32(0)
    i0 = 4 * thread
    i1, i2, i3 = i0 + 4 * threads, i0 + 8 * threads, i0 + 12 * threads
    # What lies beyond the row is read from its beginning, and counts for nothing.
    j0, j1 = i0 if i0 < width else np.intp(0), i1 if i1 < width else np.intp(0)
    j2, j3 = i2 if i2 < width else np.intp(0), i3 if i3 < width else np.intp(0)
    wa, wb = load_floats(weight, j0), load_floats(weight, j1)
    wc, wd = load_floats(weight, j2), load_floats(weight, j3)
    await_previous()
    a, b = load_floats(x, at + j0), load_floats(x, at + j1)
    c, d = load_floats(x, at + j2), load_floats(x, at + j3)
    total = (_squares(a) if i0 < width else zero) + (_squares(b) if i1 < width else zero)
    total += (_squares(c) if i2 < width else zero) + (_squares(d) if i3 < width else zero)
    total = block_sum(total, slots, thread, threads, LANES)
    scale = np.float32(1) / np.float32(math.sqrt(total / np.float32(width) + epsilon))
    if i0 < width:
        _store_normed(out, out_at + i0, a, wa, scale)
    if i1 < width:
        _store_normed(out, out_at + i1, b, wb, scale)
    if i2 < width:
        _store_normed(out, out_at + i2, c, wc, scale)
    if i3 < width:
        _store_normed(out, out_at + i3, d, wd, scale)


@cuda_kernel(early=True)
def rms_norm(x, places, weight, epsilon, out):
    """Write ``x / sqrt(mean(x**2) + epsilon) * weight`` of each row (block x) as bfloat16.

    No error check. Source: Zhang and Sennrich 2019, arXiv 1910.07467.

    Parameters
    ----------
    x : float32 array, shape (rows, width)
    places : int32 array
        Which row of ``x`` becomes each row of ``out``; empty: the same.
    weight : float32 array, shape (width,)
    epsilon : float32
    out : uint16 array, shape (rows, at least width)
        Modified in place.
    """
    slots = cuda.shared.array(32, np.float32)
    begin_next()
    place = np.intp(cuda.blockIdx.x)
    row = np.intp(places[place]) if places.size else place
    aligned = weight.size % 4 == 0 and x.shape[1] % 4 == 0 and out.shape[1] % 4 == 0
    if aligned and weight.size <= 16 * cuda.blockDim.x:
        at, out_at = row * x.shape[1], place * out.shape[1]
        _norm_held(x, at, weight, epsilon, out, out_at, slots)
        return
    await_previous()
    scale = _inverse_root(x, row, weight.size, epsilon, slots)
    for i in range(cuda.threadIdx.x, weight.size, cuda.blockDim.x):
        out[place, i] = to_bfloat16(x[row, i] * scale * weight[i])


@cuda_kernel
def add_norm(x, weight, epsilon, hidden):
    """Add the RMS norm of each row of ``x`` (block x) to ``hidden``. No error check."""
    slots = cuda.shared.array(32, np.float32)
    row = np.intp(cuda.blockIdx.x)
    scale = _inverse_root(x, row, weight.size, epsilon, slots)
    for i in range(cuda.threadIdx.x, weight.size, cuda.blockDim.x):
        hidden[row, i] += x[row, i] * scale * weight[i]


@cuda_kernel
def layer_norm(x, places, weight, bias, epsilon, out):
    """Write ``(x - mean) / sqrt(variance + epsilon) * weight + bias`` of each row as bfloat16.

    No error check. Source: Ba et al. 2016, arXiv 1607.06450. Arguments as in :func:`rms_norm`.
    """
    slots = cuda.shared.array(32, np.float32)
    more = cuda.shared.array(32, np.float32)
    place, width = np.intp(cuda.blockIdx.x), weight.size
    row = np.intp(places[place]) if places.size else place
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    total = np.float32(0)
    for i in range(thread, width, threads):
        total += x[row, i]
    mean = block_sum(total, slots, thread, threads, LANES) / np.float32(width)
    total = np.float32(0)
    for i in range(thread, width, threads):
        total += (x[row, i] - mean) * (x[row, i] - mean)
    variance = block_sum(total, more, thread, threads, LANES) / np.float32(width)
    scale = np.float32(1) / np.float32(math.sqrt(variance + epsilon))
    for i in range(thread, width, threads):
        out[place, i] = to_bfloat16((x[row, i] - mean) * scale * weight[i] + bias[i])
