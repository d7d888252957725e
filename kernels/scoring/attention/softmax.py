"""The parts of softmax that both ways of multiplying share: caps, masks, running maxima."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.simd import LANES, keep_lanes, load_float32, splat, store_float32
from numbatch.kernels.simd_exp import exp

__all__ = ["LOWEST", "finish_row", "hide", "read_row", "scale_row", "soft_cap"]

LOWEST = np.float32(-3.4028235e38)
"""The running maximum before the first score: finite, so that less it a hidden score is -inf."""


@cpu_device(inline=True)
def soft_cap(x, cap):
    """``cap * tanh(x / cap)`` of a vector (Gemma 2, arXiv 2408.00118), within 2e-7 * cap."""
    return splat(cap) - splat(np.float32(2) * cap) / (
        exp(x * (np.float32(2) / cap)) + np.float32(1)
    )


@cpu_device(inline=True)
def hide(x, position, first, last):
    """Put -inf where the position of a lane is not in ``first`` to ``last``; lane 0's is given."""
    return keep_lanes(x, first - position, last + 1 - position, np.float32(-np.inf))


@cpu_device(inline=True)
def scale_row(array, at, width, factor):
    """Multiply ``width`` numbers in place."""
    for i in range(at, at + width, LANES):
        store_float32(array, i, load_float32(array, i) * factor)


@cpu_device(inline=True)
def finish_row(results, at, factor, head_size, out, token, column):
    """Write ``factor`` times a row of results to ``out[token, column:]``."""
    place = token * out.shape[1] + column
    whole = head_size // LANES * LANES
    for i in range(0, whole, LANES):
        store_float32(out, place + i, load_float32(results, at + i) * factor)
    for i in range(whole, head_size):
        out[token, column + i] = results[at + i] * factor


@cpu_device(inline=True)
def read_row(q, token, column, head_size, factor, scratch, at):
    """Write ``factor`` times a head of ``q`` to scratch."""
    place = token * q.shape[1] + column
    whole = head_size // LANES * LANES
    for i in range(0, whole, LANES):
        store_float32(scratch, at + i, load_float32(q, place + i) * factor)
    for i in range(whole, head_size):
        scratch[at + i] = q[token, column + i] * factor
