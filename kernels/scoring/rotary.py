"""Rotary positions: Su et al. 2021, arXiv 2104.09864."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd import LANES, fma, load_float32, store_float32
from numbatch.kernels.simd_masks import swap_neighbours

__all__ = ["fill_row", "rotary_table", "rotate", "rotate_row"]


@cpu_device
def fill_row(position, inverse_frequencies, magnitude, interleaved, cosine, sine):
    """Write cosine and sine of ``position * inverse frequency`` for one token. No error check.

    The angle is rounded to float32 as the reference implementations do; its cosine and sine are
    taken in float64.

    Parameters
    ----------
    position : int64
    inverse_frequencies : float32 array, shape (pairs,)
    magnitude : float64
        Factor on both.
    interleaved : bool
        See :func:`rotate_row`. True: each cosine stands twice, each sine once negative and once
        as it is, side by side like the two values that they turn.
    cosine, sine : float32 arrays, shape (at least pairs,), interleaved (at least 2 * pairs,)
        Modified in place.
    """
    for pair in range(inverse_frequencies.size):
        angle = float(np.float32(position) * inverse_frequencies[pair])
        c, s = np.float32(math.cos(angle) * magnitude), np.float32(math.sin(angle) * magnitude)
        if interleaved:
            cosine[2 * pair], cosine[2 * pair + 1] = c, c
            sine[2 * pair], sine[2 * pair + 1] = -s, s
        else:
            cosine[pair], sine[pair] = c, s


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
    cosine, sine : float32 arrays, C-contiguous
        From :func:`fill_row`.
    """
    for base in range(0, heads * head_size, head_size):
        if interleaved:
            _rotate_neighbours(x, base, 2 * pairs, cosine, sine)
        else:
            _rotate_halves(x, base, pairs, cosine, sine)


@cpu_device(inline=True)
def _rotate_neighbours(x, base, size, cosine, sine):
    """Rotate pairs of neighbours: a lane's partner is next to it."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        a = load_float32(x, base + i)
        turned = swap_neighbours(a) * load_float32(sine, i)
        store_float32(x, base + i, fma(a, load_float32(cosine, i), turned))
    for i in range(whole, size, 2):
        a, b = x[base + i], x[base + i + 1]
        x[base + i] = a * cosine[i] + b * sine[i]
        x[base + i + 1] = b * cosine[i] + a * sine[i + 1]


@cpu_device(inline=True)
def _rotate_halves(x, base, pairs, cosine, sine):
    """Rotate pairs of the first and the second half."""
    whole = pairs - pairs % LANES
    for pair in range(0, whole, LANES):
        i = base + pair
        a, b = load_float32(x, i), load_float32(x, i + pairs)
        c, s = load_float32(cosine, pair), load_float32(sine, pair)
        store_float32(x, i, fma(a, c, np.float32(0) - b * s))
        store_float32(x, i + pairs, fma(a, s, b * c))
    for pair in range(whole, pairs):
        i = base + pair
        a, b = x[i], x[i + pairs]
        x[i] = a * cosine[pair] - b * sine[pair]
        x[i + pairs] = a * sine[pair] + b * cosine[pair]


@cpu_kernel
def rotary_table(start, stop, positions, inverse_frequencies, magnitude, interleaved, cosine, sine):
    """Fill rows ``start`` to ``stop - 1`` of a table; see :func:`fill_row`. No error check."""
    for token in range(start, stop):
        fill_row(
            positions[token],
            inverse_frequencies,
            magnitude,
            interleaved,
            cosine[token],
            sine[token],
        )


@cpu_kernel
def rotate(start, stop, x, heads, head_size, pairs, interleaved, cosine, sine):
    """Rotate tokens ``start`` to ``stop - 1``; see :func:`rotate_row`. No error check."""
    for token in range(start, stop):
        rotate_row(x[token], heads, head_size, pairs, interleaved, cosine[token], sine[token])
