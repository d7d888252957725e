"""Products of bfloat16 weights with one input, as fast as the weights can be read."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_kernel
from numbatch.kernels.scoring.cuda.activation import activated
from numbatch.kernels.scoring.cuda.matvec import UNIT, WARPS
from numbatch.kernels.scoring.cuda.results import ADD, GATED, STORE, finished
from numbatch.kernels.scoring.cuda.row_dots import add_row_dots
from numbatch.kernels.scoring.cuda.tiles import zero_tile
from numbatch.kernels.scoring.cuda.words import to_bfloat16, warp_sum

__all__ = ["multiply_one"]

STEPS = 4
"""Pieces of 256 columns of two rows whose loads are under way at once."""


@cuda_kernel(fast=True)
def multiply_one(
    weights, rows, x, mode, apart, code, scale, cap, at_column, out, out32
):  # fmt: skip
    """Multiply rows of bfloat16 weights with one input, a warp two rows. No error check.

    It is launched with ``ceil(rows / 16)`` blocks (``GATED``: of 8) of ``THREADS`` threads.

    Parameters as in :func:`matvec_kernel`.
    """
    thread = np.int32(cuda.threadIdx.x)
    lane, warp = np.intp(thread & 31), np.intp(thread >> 5)
    block = np.intp(cuda.blockIdx.x)
    row = block * WARPS + warp
    below = row + apart
    if mode != GATED:
        row = 2 * row
        below = min(row + 1, weights.shape[0] - 1)
    if row < rows:
        before, before_below = np.float32(0), np.float32(0)
        if mode == ADD and lane == 0:
            before = out32[0, at_column + row]
            if below < rows:
                before_below = out32[0, at_column + below]
        wide, units = weights.shape[1], x.shape[1] // UNIT
        at, at_below, x_at = row * wide + 8 * lane, below * wide + 8 * lane, 8 * lane
        total = zero_tile(4)
        unit = np.intp(0)
        while unit + STEPS <= units:
            total = add_row_dots(total, weights, (at, at_below), x, x_at, STEPS)
            at, at_below, x_at = at + STEPS * UNIT, at_below + STEPS * UNIT, x_at + STEPS * UNIT
            unit += STEPS
        while unit < units:
            total = add_row_dots(total, weights, (at, at_below), x, x_at, 1)
            at, at_below, x_at = at + UNIT, at_below + UNIT, x_at + UNIT
            unit += 1
        value, lower = warp_sum(total[0] + total[1]), warp_sum(total[2] + total[3])
        if lane == 0:
            if mode == GATED:
                out[0, at_column + row] = to_bfloat16(activated(code, value) * lower)
            else:
                has_below = row + 1 < rows
                value = finished(mode, value, lower, code, scale, cap)
                lower = finished(mode, lower, value, code, scale, cap)
                if mode == STORE:
                    out[0, at_column + row] = to_bfloat16(value)
                    if has_below:
                        out[0, at_column + row + 1] = to_bfloat16(lower)
                else:
                    out32[0, at_column + row] = before + value
                    if has_below:
                        out32[0, at_column + row + 1] = before_below + lower
