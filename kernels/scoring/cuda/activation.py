"""Activations of the products that come before a layer's last."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.rows import biased
from numbatch.kernels.scoring.cuda.words import load_words, pack_pair, store_words, to_bfloat16

__all__ = ["activate", "activate_words", "activated"]


@cuda_device
def activated(code, x):
    """Apply the CPU's activation function of a code from ``ACTIVATIONS``."""
    if code == 0:
        return x / (np.float32(1) + np.float32(math.exp(-x)))
    if code == 1:
        return (
            np.float32(0.5) * x * (np.float32(1) + np.float32(math.erf(x * np.float32(0.5**0.5))))
        )
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (np.float32(1) + np.float32(math.tanh(inner)))


@cuda_kernel
def activate(code, gated, x, bias, inner, out):
    """Write ``act(gate) * up`` or ``act(up)`` of each row (block x) as bfloat16. No error check.

    Parameters
    ----------
    code : int
        From ``numbatch.kernels.scoring.activation.ACTIVATIONS``.
    gated : bool
    x : uint16 array, shape (rows, at least inner, or 2 * inner)
        bfloat16: the gate's outputs where there is one, then the up product's.
    bias : float32 array
        Of the same columns, or empty.
    inner : int
    out : uint16 array, shape (rows, at least inner)
        Modified in place.
    """
    row = np.intp(cuda.blockIdx.x)
    for i in range(cuda.threadIdx.x, inner, cuda.blockDim.x):
        value = activated(code, biased(x, row, i, bias))
        if gated:
            value *= biased(x, row, i + inner, bias)
        out[row, i] = to_bfloat16(value)


@cuda_device
def _active_pair(code, gate, up):
    """Activate the two bfloat16 numbers of a word and multiply by those of another."""
    low, high = gate << np.uint32(16), gate & np.uint32(0xFFFF0000)
    up_low, up_high = up << np.uint32(16), up & np.uint32(0xFFFF0000)
    a = activated(code, np.uint32(low).view(np.float32)) * np.uint32(up_low).view(np.float32)
    b = activated(code, np.uint32(high).view(np.float32)) * np.uint32(up_high).view(np.float32)
    return pack_pair(a, b)


@cuda_kernel(fast=True)
def activate_words(code, x, inner, out):
    """:func:`activate` with a gate and no bias, 16 bytes at a time, where rows are multiples of 8.

    Block x is the row, block y and the thread the piece of eight numbers.
    """
    row = np.intp(cuda.blockIdx.x)
    piece = np.intp(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    if piece * 8 >= inner:
        return
    at = row * x.shape[1] + piece * 8
    gate, up = load_words(x, at), load_words(x, at + inner)
    done = (
        _active_pair(code, gate[0], up[0]),
        _active_pair(code, gate[1], up[1]),
        _active_pair(code, gate[2], up[2]),
        _active_pair(code, gate[3], up[3]),
    )
    store_words(out, row * out.shape[1] + piece * 8, done)
