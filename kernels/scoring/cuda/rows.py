"""What else happens to each row between two products: embedding, biases, scales.

The residual stream is float32, inputs of products are bfloat16.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import to_float

__all__ = ["add_bias", "biased", "embed", "scale_rows"]


@cuda_kernel
def embed(tokens, positions, table, table_scale, places, has_places, width, hidden):
    """Write the embeddings of tokens (block x) to ``hidden``. No error check.

    Parameters
    ----------
    tokens, positions : int32 arrays, shape (tokens,)
        Nothing is written where the position is negative.
    table, places : uint16 arrays, shape (rows, at least width)
        bfloat16; learned positions are added if ``has_places``.
    table_scale : float32
    width : int
    hidden : float32 array, shape (tokens, width)
        Modified in place.
    """
    row = np.intp(cuda.blockIdx.x)
    position = np.intp(positions[row])
    if position < 0:
        return
    token = np.intp(tokens[row])
    for i in range(cuda.threadIdx.x, width, cuda.blockDim.x):
        value = to_float(table[token, i]) * table_scale
        if has_places:
            value += to_float(places[position, i])
        hidden[row, i] = value


@cuda_kernel
def add_bias(bias, hidden):
    """Add a bias to each row (block x) of a float32 array. No error check."""
    row = np.intp(cuda.blockIdx.x)
    for i in range(cuda.threadIdx.x, bias.size, cuda.blockDim.x):
        hidden[row, i] += bias[i]


@cuda_device
def biased(qkv, row, at, bias):
    """Return an output of the three products, with its bias."""
    value = to_float(qkv[row, at])
    return value + bias[at] if bias.size else value


@cuda_kernel
def scale_rows(x, scale, cap):
    """Scale and softly cap each row (block x) of a float32 array in place. No error check."""
    row = np.intp(cuda.blockIdx.x)
    for i in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        value = x[row, i] * scale
        x[row, i] = value if cap == np.float32(0) else cap * np.float32(math.tanh(value / cap))
