"""What turns a unit's scores into weights: sixteen queries, and 64 keys.

Scores are in units of log(2); weights are rounded to bfloat16, and their sums kept in float32.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.softmax import hide, scale_row, soft_cap
from numbatch.kernels.simd import LANES, load_float32, splat, store_float32
from numbatch.kernels.simd_bfloat16 import exp2_short, store_two_bfloat16
from numbatch.kernels.simd_masks import above, lowest_bit, where
from numbatch.kernels.simd_rows import largest_of_four, largest_of_rows

__all__ = ["prepare_rows", "raise_maxima", "scale_results", "weigh_row"]

FEW = 4
"""So few rows, as when one token is attended for, have their largest scores found alone."""

HEADROOM = np.float32(8)
"""A score may be above the running maximum by so much before that is raised: sums have room."""


@cpu_device(inline=True)
def prepare_rows(scratch, scores, row, some, group, position, begin, window, cap, narrow, factors):
    """Apply what not every score needs, in place: factors of int8, soft cap, hidden positions."""
    last, left = position + row // group, group - row % group
    for at in range(scores, scores + some * KEYS, KEYS):
        first = max(0, last - window + 1) if window > 0 else 0
        # Without factors, a cap and a window, what comes before the last position stays as it is.
        visible = last + 1 - begin if not narrow and cap == 0 and window <= 0 else 0
        for i in range(min(visible // LANES * LANES, KEYS), KEYS, LANES):
            x = load_float32(scratch, at + i)
            if narrow:
                x = x * load_float32(scratch, factors + i)
            if cap != 0:
                x = soft_cap(x, cap)
            store_float32(scratch, at + i, hide(x, begin + i, first, last))
        left -= 1
        if left == 0:
            last, left = last + 1, group


@cpu_device(inline=True)
def raise_maxima(scratch, scores, some, sums, largest, scales):
    """Raise the running maxima of rows whose largest score is far above; return if there are any.

    What was summed for them is scaled down, and ``scales`` keeps by how much.
    """
    if some <= FEW:
        now = largest_of_four(scratch, scores, KEYS)
    else:
        now = largest_of_rows(scratch, scores, KEYS)
    top = load_float32(scratch, largest)
    left = above(now, top + HEADROOM) & ((1 << some) - 1)
    if left == 0:
        return False
    now = where(left, now, top)
    store_float32(scratch, largest, now)
    store_float32(scratch, scales, exp2_short(top - now))
    while left:
        row = lowest_bit(left)
        left &= left - 1
        at = sums + row * LANES
        store_float32(scratch, at, load_float32(scratch, at) * splat(scratch[scales + row]))
    return True


@cpu_device(inline=True)
def weigh_row(scratch, row, weights, narrow, factors, sums, largest):
    """Write a row's weights as bfloat16 and add them to its sum."""
    top = splat(scratch[largest])
    a = exp2_short(load_float32(scratch, row) - top)
    b = exp2_short(load_float32(scratch, row + LANES) - top)
    c = exp2_short(load_float32(scratch, row + 2 * LANES) - top)
    d = exp2_short(load_float32(scratch, row + 3 * LANES) - top)
    store_float32(scratch, sums, load_float32(scratch, sums) + ((a + b) + (c + d)))
    if narrow:
        factors += KEYS
        a, b = a * load_float32(scratch, factors), b * load_float32(scratch, factors + LANES)
        c = c * load_float32(scratch, factors + 2 * LANES)
        d = d * load_float32(scratch, factors + 3 * LANES)
    store_two_bfloat16(scratch, weights, a, b)
    store_two_bfloat16(scratch, weights + LANES, c, d)


@cpu_device
def scale_results(scratch, scales, results, width, rows):
    """Scale the results of rows whose maximum was raised; forget the scales."""
    for row in range(rows):
        if scratch[scales + row] != 1:
            scale_row(scratch, results + row * width, width, splat(scratch[scales + row]))
            scratch[scales + row] = 1
