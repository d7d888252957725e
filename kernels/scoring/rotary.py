"""Rotary positions: Su et al. 2021, arXiv 2104.09864."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_kernel

__all__ = ["rotary_table", "rotate"]


@cpu_kernel
def rotary_table(start, stop, positions, inverse_frequencies, magnitude, cosine, sine):
    """Write cosine and sine of ``position * inverse frequency`` for a range of tokens.

    No error check. The angle is rounded to float32 as the reference implementations do; its cosine
    and sine are taken in float64.

    Parameters
    ----------
    positions : int64 array, shape (tokens,)
    inverse_frequencies : float32 array, shape (pairs,)
    magnitude : float64
        Factor on both.
    cosine, sine : float32 arrays, shape (tokens, at least pairs)
        Modified in place.
    """
    for token in range(start, stop):
        for pair in range(inverse_frequencies.size):
            angle = float(np.float32(positions[token]) * inverse_frequencies[pair])
            cosine[token, pair] = math.cos(angle) * magnitude
            sine[token, pair] = math.sin(angle) * magnitude


@cpu_kernel
def rotate(start, stop, x, heads, head_size, pairs, interleaved, cosine, sine):
    """Rotate the first ``2 * pairs`` values of every head in place, for a range of tokens.

    No error check.

    Parameters
    ----------
    x : float32 array, shape (tokens, at least heads * head_size)
    heads, head_size, pairs : int
    interleaved : bool
        True: pairs are (0, 1), (2, 3), ...; False: (0, pairs), (1, pairs + 1), ...
    cosine, sine : float32 arrays, shape (tokens, at least pairs)
    """
    step, apart = (2, 1) if interleaved else (1, pairs)
    for token in range(start, stop):
        for head in range(heads):
            base = head * head_size
            for pair in range(pairs):
                i = base + step * pair
                a, b = x[token, i], x[token, i + apart]
                x[token, i] = a * cosine[token, pair] - b * sine[token, pair]
                x[token, i + apart] = a * sine[token, pair] + b * cosine[token, pair]
