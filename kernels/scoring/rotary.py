"""Rotary positions: Su et al. 2021, arXiv 2104.09864."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd import LANES, fma, load_float32, store_float32

__all__ = ["fill_row", "rotary_table", "rotate", "rotate_row"]


@cpu_device
def fill_row(position, inverse_frequencies, magnitude, cosine, sine):
    """Write cosine and sine of ``position * inverse frequency`` for one token. No error check.

    The angle is rounded to float32 as the reference implementations do; its cosine and sine are
    taken in float64.

    Parameters
    ----------
    position : int64
    inverse_frequencies : float32 array, shape (pairs,)
    magnitude : float64
        Factor on both.
    cosine, sine : float32 arrays, shape (at least pairs,)
        Modified in place.
    """
    for pair in range(inverse_frequencies.size):
        angle = float(np.float32(position) * inverse_frequencies[pair])
        cosine[pair] = math.cos(angle) * magnitude
        sine[pair] = math.sin(angle) * magnitude


@cpu_device
def rotate_row(x, heads, head_size, pairs, interleaved, cosine, sine):
    """Rotate the first ``2 * pairs`` values of every head of one token. No error check.

    Parameters
    ----------
    x : float32 array, shape (at least heads * head_size,), C-contiguous
        Modified in place.
    heads, head_size, pairs : int
    interleaved : bool
        True: pairs are (0, 1), (2, 3), ...; False: (0, pairs), (1, pairs + 1), ...
    cosine, sine : float32 arrays, shape (at least pairs,), C-contiguous
    """
    step, apart = (2, 1) if interleaved else (1, pairs)
    whole = 0 if interleaved else pairs - pairs % LANES
    for head in range(heads):
        base = head * head_size
        for pair in range(0, whole, LANES):
            i = base + pair
            a, b = load_float32(x, i), load_float32(x, i + pairs)
            c, s = load_float32(cosine, pair), load_float32(sine, pair)
            store_float32(x, i, fma(a, c, np.float32(0) - b * s))
            store_float32(x, i + pairs, fma(a, s, b * c))
        for pair in range(whole, pairs):
            i = base + step * pair
            a, b = x[i], x[i + apart]
            x[i] = a * cosine[pair] - b * sine[pair]
            x[i + apart] = a * sine[pair] + b * cosine[pair]


@cpu_kernel
def rotary_table(start, stop, positions, inverse_frequencies, magnitude, cosine, sine):
    """Fill rows ``start`` to ``stop - 1`` of a table; see :func:`fill_row`. No error check."""
    for token in range(start, stop):
        fill_row(positions[token], inverse_frequencies, magnitude, cosine[token], sine[token])


@cpu_kernel
def rotate(start, stop, x, heads, head_size, pairs, interleaved, cosine, sine):
    """Rotate tokens ``start`` to ``stop - 1``; see :func:`rotate_row`. No error check."""
    for token in range(start, stop):
        rotate_row(x[token], heads, head_size, pairs, interleaved, cosine[token], sine[token])
